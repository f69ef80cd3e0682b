"""PURE. A segment: the small chunks of one group of blobs (layout.group_name) in one file.

        0   64  header, the rest of its block zero
     4096  64 each  4096 slots, by blob counter % 4096: a chunk is found by reading its slot, and nothing else
    266240  …  bodies: sealed bytes, each from a block of 4096 bytes on, in the order in which they came

Header (integers big-endian):
     0   4  magic "FBSG"
     4   4  format version, 1
     8   8  mark: what lies before this offset was durable when the header was written
    16   4  CRC-32 of the group's name and the 16 bytes before

Slot; all zero when it is free:
     0   4  magic "FBSL"
     4   4  the chunk's index as it is stored (ids.stored_chunk_id)
     8   4  first block of the body, counted from the file's begin
    12   4  length of the sealed bytes
    16   8  CRC-64/NVME of the sealed bytes
    24   8  stored_ms
    32   4  CRC-32 of the blob's id and the 32 bytes before
    36   8  verified_ms, 0 for never: the only bytes of a slot that change
    44   4  CRC-32 of bytes 32 to 44; wrong: never verified
    48  16  zero

A slot lies within one sector, so a power cut leaves the old or the new one. Both CRCs bind the place, so that a file
under a wrong name, and the verified time of an earlier chunk, say nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from storage.base.ids import ChunkId
from storage.chunks.footer import Footer
from storage.chunks.store import Buffer

BLOCK_BYTES = 4096
SLOTS = 4096
SLOT_BYTES = 64
TABLE_OFFSET = BLOCK_BYTES
TABLE_BYTES = SLOTS * SLOT_BYTES
BODIES_OFFSET = TABLE_OFFSET + TABLE_BYTES
HEADER_BYTES = 64
IDENTITY_BYTES = 36
"""of a slot: what stays the same for as long as the chunk is there"""
VERIFIED_OFFSET = IDENTITY_BYTES
FORMAT_VERSION = 1
RECORD_BYTES_MAX = (1 << 20) + BLOCK_BYTES
"""sealed bytes of a chunk that lies in a segment: a MiB of plaintext with its header and tags, or a fragment of more"""

EMPTY_SLOT = bytes(SLOT_BYTES)

_HEADER = struct.Struct(">4sIQ")
_SLOT = struct.Struct(">4sIII8sQ")
_SLOT_TABLE = struct.Struct(f"{_SLOT.format}{SLOT_BYTES - _SLOT.size}x")
_CHECK = struct.Struct(">I")
_VERIFIED = struct.Struct(">4sQ")
_TIME = struct.Struct(">Q")
_HEADER_MAGIC = b"FBSG"
_SLOT_MAGIC = b"FBSL"
_NO_IDENTITY = bytes(IDENTITY_BYTES)


class UnknownFormat(ValueError):
    """A whole header of a version that this program does not know."""


class Slot(NamedTuple):
    """What a slot says. A damaged one says what its bytes seem to say, which may be anything."""

    chunk_id: ChunkId
    offset: int
    """of the body in the file, in bytes"""
    footer: Footer
    verified_ms: int
    is_damaged: bool
    identity: bytes
    """as it is stored: two slots with the same are of the same body"""

    @property
    def end(self) -> int:
        """Where the next body may begin."""
        return self.offset + padded(self.footer.length)


def slot_number(chunk_id: ChunkId) -> int:
    """Of a chunk in its group's segment; chunks of one blob share one."""
    return int.from_bytes(chunk_id.blob_id[-2:], "big") % SLOTS


def slot_offset(number: int) -> int:
    """Where it is in the file."""
    return TABLE_OFFSET + number * SLOT_BYTES


def group_blob_id(group: str, number: int) -> bytes:
    """The blob that a slot of a group is for. ValueError for what is no group's name."""
    return bytes.fromhex(f"{group}{number:03x}")


def padded(length: int) -> int:
    """What a body takes: whole blocks."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def format_header(group: str, mark: int) -> bytes:
    """HEADER_BYTES bytes."""
    body = _HEADER.pack(_HEADER_MAGIC, FORMAT_VERSION, mark)
    return (body + _CHECK.pack(zlib.crc32(group.encode() + body))).ljust(HEADER_BYTES, b"\0")


def parse_header(raw: Buffer, group: str) -> int | None:
    """The mark; None for a header that is damaged or was never written: it vouches for nothing. UnknownFormat."""
    if len(raw) < _HEADER.size + _CHECK.size:
        return None
    magic, version, mark = _HEADER.unpack_from(raw)
    (check,) = _CHECK.unpack_from(raw, _HEADER.size)
    if magic != _HEADER_MAGIC or check != zlib.crc32(group.encode() + bytes(raw[: _HEADER.size])):
        return None
    if version != FORMAT_VERSION:
        raise UnknownFormat(f"a segment of format {version}; this program reads format {FORMAT_VERSION}")
    return int(mark)


def format_slot(chunk_id: ChunkId, offset: int, footer: Footer) -> bytes:
    """SLOT_BYTES bytes, of a chunk that was never verified."""
    place = chunk_id.chunk_index, offset // BLOCK_BYTES
    body = _SLOT.pack(_SLOT_MAGIC, *place, footer.length, footer.digest, footer.stored_ms)
    return (body + _CHECK.pack(zlib.crc32(chunk_id.blob_id + body))).ljust(SLOT_BYTES, b"\0")


def format_verified(identity: bytes, verified_ms: int) -> bytes:
    """What belongs at VERIFIED_OFFSET of the slot of this identity."""
    checked = identity[_SLOT.size :] + _TIME.pack(verified_ms)
    return checked[_CHECK.size :] + _CHECK.pack(zlib.crc32(checked))


def parse_slot(raw: Buffer, blob_id: bytes) -> Slot | None:
    """None for a free one, or one that is not there (the file ends before)."""
    if len(raw) < SLOT_BYTES or raw[:IDENTITY_BYTES] == _NO_IDENTITY:
        return None
    magic, index, block, length, digest, stored_ms = _SLOT.unpack_from(raw)
    (check,) = _CHECK.unpack_from(raw, _SLOT.size)
    is_damaged = magic != _SLOT_MAGIC or check != zlib.crc32(blob_id + bytes(raw[: _SLOT.size]))
    _, verified_ms = _VERIFIED.unpack_from(raw, _SLOT.size)
    (verified_check,) = _CHECK.unpack_from(raw, _SLOT.size + _VERIFIED.size)
    if is_damaged or verified_check != zlib.crc32(raw[_SLOT.size : _SLOT.size + _VERIFIED.size]):
        verified_ms = 0
    footer = Footer(length, digest, stored_ms)
    identity = bytes(raw[:IDENTITY_BYTES])
    return Slot(ChunkId(blob_id, index), block * BLOCK_BYTES, footer, verified_ms, is_damaged, identity)


def parse_table(raw: bytes, group: str) -> Iterator[tuple[int, Slot]]:
    """Every slot of a table that is not free, with its number, in order; what is cut off is free."""
    for number in range(len(raw) // SLOT_BYTES):
        start = number * SLOT_BYTES
        if raw.startswith(_NO_IDENTITY, start):
            continue
        slot = parse_slot(raw[start : start + SLOT_BYTES], group_blob_id(group, number))
        if slot is not None:
            yield number, slot


def find_within(raw: bytes, group: str, begin: int, end: int) -> list[Slot]:
    """Of a table, the slots that are whole and whose bodies lie from `begin` on and before `end`, in order. All others
    cost next to nothing."""
    first, last = begin // BLOCK_BYTES, end // BLOCK_BYTES
    found: list[Slot] = []
    for number, (magic, _, block, *_) in enumerate(_SLOT_TABLE.iter_unpack(raw[: len(raw) - len(raw) % SLOT_BYTES])):
        if first <= block < last and magic == _SLOT_MAGIC:
            start = number * SLOT_BYTES
            slot = parse_slot(raw[start : start + SLOT_BYTES], group_blob_id(group, number))
            if slot is not None and not slot.is_damaged:
                found.append(slot)
    return found


def find_gaps(extents: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what none of the bodies (begin, end) takes, from BODIES_OFFSET up to the end."""
    position = BODIES_OFFSET
    for begin, until in sorted(extents):
        if begin > position:
            yield position, min(begin, end) - position
        position = max(position, until)
        if position >= end:
            return
    if end > position:
        yield position, end - position
