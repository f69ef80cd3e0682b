"""What blobs there are, told from the headers of chunks alone: for when the records and even their journal are gone.

A header says which blob a chunk is of and which of its chunks; the length of the file says how many bytes. What no
header says: the object's name, whether a blob was ever committed or is long deleted, and which chunk is the last. A
blob whose last chunk that is there is shorter than the others is whole; where all are of one length more may have
followed. The data keys are in the records alone, so nothing here can be opened without them.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from storage.base.errors import Corrupt
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId, chunk_id_from_bytes, split_stored_index
from storage.chunks.erasure import FRAGMENT_HEADER_BYTES, FragmentHeader, parse_fragment_header
from storage.chunks.inventory import read_inventory
from storage.chunks.layout import CHUNKS, group_name, segment_name
from storage.chunks.segment_format import SLOT_BYTES, parse_slot, slot_number, slot_offset
from storage.chunks.store import INVENTORY_ENTRIES_MAX
from storage.crypto.envelope import HEADER_BYTES, SEALED_FRAME_BYTES, TAG_BYTES, parse_header

WHOLE = "whole"
OPEN_ENDED = "open-ended"
"""nothing is missing, and more may have followed"""
INCOMPLETE = "incomplete"

_FILES = DiskFiles()


class FoundChunk(NamedTuple):
    """A chunk, or a fragment of one, on one datanode. needed: fragments that bring the chunk back; 1 for a replica."""

    blob_id: bytes
    generation: int
    chunk_index: int
    sealed_length: int
    needed: int
    number: int
    stored_ms: int


class SalvagedBlob(NamedTuple):
    """One layout of a blob. bytes: of plaintext, in the chunks that can be read. copies: of whichever chunk has the
    fewest pieces beyond those that it needs, counted from 1. stored_ms: of its newest chunk."""

    blob_id: bytes
    generation: int
    chunks: int
    size_bytes: int
    state: str
    layout: str
    copies: int
    stored_ms: int


class Salvage(NamedTuple):
    """damaged: chunks whose header is none, or of another cluster than most; counted while `blobs` is iterated."""

    blobs: Iterator[SalvagedBlob]
    damaged: list[str]


def salvage_blobs(directories: Sequence[Path]) -> Salvage:
    """Blobs of these datanodes in the order of their ids, one at a time. OSError."""
    damaged: list[str] = []
    found = heapq.merge(*(_list_chunks(directory, damaged) for directory in directories))
    grouped = itertools.groupby(found, key=lambda chunk: (chunk.blob_id, chunk.generation))
    return Salvage(
        (_summarize(blob_id, generation, list(chunks)) for (blob_id, generation), chunks in grouped), damaged
    )


def _summarize(blob_id: bytes, generation: int, found: list[FoundChunk]) -> SalvagedBlob:
    by_index = {index: list(chunks) for index, chunks in itertools.groupby(found, key=lambda chunk: chunk.chunk_index)}
    spare = {index: _count_pieces(chunks) for index, chunks in by_index.items()}
    readable = {index: chunks[0] for index, chunks in by_index.items() if spare[index] >= chunks[0].needed}
    lengths = [plain_length(readable[index].sealed_length) for index in sorted(readable)]
    if list(readable) != list(range(len(readable))) or len(readable) < len(by_index):
        state = INCOMPLETE
    else:
        state = OPEN_ENDED if len(lengths) > 1 and lengths[-1] == lengths[0] else WHOLE
    first = found[0]
    return SalvagedBlob(
        blob_id,
        generation,
        len(by_index),
        sum(lengths),
        state,
        f"{first.needed} fragments" if first.needed > 1 else "replicas",
        min(count - by_index[index][0].needed + 1 for index, count in spare.items()),
        max(chunk.stored_ms for chunk in found),
    )


def _count_pieces(chunks: Sequence[FoundChunk]) -> int:
    """Copies of a chunk, or different fragments of it."""
    return len(chunks) if chunks[0].needed == 1 else len({chunk.number for chunk in chunks})


def plain_length(sealed_length: int) -> int:
    """Of a sealed chunk."""
    framed = sealed_length - HEADER_BYTES
    return framed - TAG_BYTES * -(-framed // SEALED_FRAME_BYTES)


def _list_chunks(directory: Path, damaged: list[str]) -> Iterator[FoundChunk]:
    """In the order of ids."""
    chunks = directory / CHUNKS
    for chunk_id, length, stored_ms in _list_entries(chunks):
        try:
            yield _describe(chunk_id, length, stored_ms, _read_head(chunks, chunk_id))
        except FileNotFoundError:
            continue
        except Corrupt as error:
            damaged.append(f"{directory}, chunk {chunk_id}: {error}")


def _read_head(chunks: Path, chunk_id: ChunkId) -> bytes:
    group = group_name(str(chunk_id))
    with suppress(FileNotFoundError), _FILES.open(chunks / segment_name(group)) as file:
        slot = parse_slot(file.pread(SLOT_BYTES, slot_offset(slot_number(chunk_id))), chunk_id.blob_id)
        if slot is not None and slot.chunk_id == chunk_id:
            return file.pread(min(FRAGMENT_HEADER_BYTES, slot.footer.length), slot.offset)
    with _FILES.open(chunks / group / str(chunk_id)) as file:
        return file.pread(FRAGMENT_HEADER_BYTES, 0)


def _describe(chunk_id: ChunkId, length: int, stored_ms: int, head: bytes) -> FoundChunk:
    generation, index = split_stored_index(chunk_id.chunk_index)
    header = parse_header(head)
    if header.chunk_id != ChunkId(chunk_id.blob_id, index):
        raise Corrupt("its header names another chunk")
    fragment = _find_fragment(head)
    if fragment is None:
        return FoundChunk(chunk_id.blob_id, generation, index, length, 1, 0, stored_ms)
    return FoundChunk(
        chunk_id.blob_id, generation, index, fragment.sealed_length, fragment.needed, fragment.number, stored_ms
    )


def _find_fragment(head: bytes) -> FragmentHeader | None:
    try:
        return parse_fragment_header(head)
    except Corrupt:
        return None


def _list_entries(chunks: Path) -> Iterable[tuple[ChunkId, int, int]]:
    after: ChunkId | None = None
    while True:
        page = read_inventory(_FILES, str(chunks), after, INVENTORY_ENTRIES_MAX)
        for entry in page:
            after = chunk_id_from_bytes(entry.chunk_id)
            yield after, entry.length, entry.stored_ms
        if len(page) < INVENTORY_ENTRIES_MAX:
            return
