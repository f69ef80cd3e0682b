"""Where DiskChunkStore keeps its chunks, for tests that look at them or damage them by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from storage.base.files import DiskFiles, FileSystem
from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks.footer import FOOTER_BYTES
from storage.chunks.inventory import read_inventory
from storage.chunks.layout import group_name, segment_name
from storage.chunks.segment_format import EMPTY_SLOT, SLOT_BYTES, parse_slot, slot_number, slot_offset
from storage.chunks.store import INVENTORY_ENTRIES_MAX

FILES_ONLY = 0
"""record_bytes_max of a store that has no segments"""


class Stored(NamedTuple):
    """Where sealed bytes are. slot_at: of their slot in that file; None for a file of their own."""

    path: Path
    offset: int
    length: int
    slot_at: int | None


def path_of(root: Path, of: ChunkId) -> Path:
    """Where the own file of a chunk must be, if it has one."""
    return root / "chunks" / str(of)[:29] / str(of)


def segment_of(root: Path, of: ChunkId) -> Path:
    """The segment that a small chunk must be in."""
    return root / "chunks" / segment_name(group_name(str(of)))


def find_chunk(root: Path, of: ChunkId, files: FileSystem | None = None) -> Stored:
    """FileNotFoundError."""
    files = files or DiskFiles()
    path, at = segment_of(root, of), slot_offset(slot_number(of))
    try:
        with files.open(path) as file:
            slot = parse_slot(file.pread(SLOT_BYTES, at), of.blob_id)
    except FileNotFoundError:
        slot = None
    if slot is not None and slot.chunk_id == of:
        return Stored(path, slot.offset, slot.footer.length, at)
    return Stored(path_of(root, of), 0, files.stat(path_of(root, of)).size - FOOTER_BYTES, None)


def list_chunks(root: Path) -> list[ChunkId]:
    """All of a datanode's directory, in order, as long as they are few."""
    page = read_inventory(DiskFiles(), str(root / "chunks"), None, INVENTORY_ENTRIES_MAX)
    assert len(page) < INVENTORY_ENTRIES_MAX
    return [chunk_id_from_bytes(entry.chunk_id) for entry in page]


def list_all_chunks(roots: Iterable[Path]) -> list[tuple[Path, ChunkId]]:
    """Of several directories."""
    return [(root, of) for root in roots for of in list_chunks(root)]


def read_chunk(root: Path, of: ChunkId) -> bytes:
    """Its sealed bytes."""
    found = find_chunk(root, of)
    return found.path.read_bytes()[found.offset : found.offset + found.length]


def write_over(root: Path, of: ChunkId, data: bytes, at: int = 0, files: FileSystem | None = None) -> None:
    """Put other bytes into the sealed ones."""
    files = files or DiskFiles()
    found = find_chunk(root, of, files)
    assert at + len(data) <= found.length
    with files.open(found.path, writable=True) as file:
        file.pwrite(data, found.offset + at)


def damage_chunk(root: Path, of: ChunkId, at: int = 0, files: FileSystem | None = None) -> None:
    """Flip a bit of its sealed bytes."""
    files = files or DiskFiles()
    found = find_chunk(root, of, files)
    with files.open(found.path, writable=True) as file:
        [byte] = file.pread(1, found.offset + at)
        file.pwrite(bytes([byte ^ 1]), found.offset + at)


def shorten_chunk(root: Path, of: ChunkId, files: FileSystem | None = None) -> None:
    """Let it be shorter than it was: the end of its own file goes, or its slot says so."""
    files = files or DiskFiles()
    found = find_chunk(root, of, files)
    with files.open(found.path, writable=True) as file:
        if found.slot_at is None:
            file.truncate(file.size() - 40)
        else:
            file.pwrite(max(0, found.length - 40).to_bytes(4, "big"), found.slot_at + 12)


def remove_chunk(root: Path, of: ChunkId) -> None:
    """Take it away as a datanode does, without its knowledge."""
    found = find_chunk(root, of)
    if found.slot_at is None:
        found.path.unlink()
    else:
        with DiskFiles().open(found.path, writable=True) as file:
            file.pwrite(EMPTY_SLOT, found.slot_at)
            file.pwrite(bytes(found.length), found.offset)
