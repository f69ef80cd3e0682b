"""SANS-IO. The bytes of a segment of the journal: a header, then one sealed record for each group of commands.

    header   112 bytes, not secret, authenticated
      0   4  magic "FBJ1"
      4   1  format version = 1
      5   3  zero
      8  16  cluster id
     24  16  segment id: incarnation (u64, rises with every segment) ++ 8 random bytes
     40   8  history: which journal the sequences count in
     48   8  first sequence: from there on this segment counts, whatever an earlier one holds
     56   8  opened_ms
     64   4  schema version of the database
     68   4  version of the keyring's system key
     72   4  copies: on how many datanodes each record is before it is acknowledged
     76  20  zero
     96  16  tag: AES-256-GCM over nothing, nonce 4 × 0xff ++ 8 × 0, associated data = label ++ the 96 bytes before
    record
      0   4  n, the length of what is sealed
      4   8  sequence: one more than the record before
     12   n  AES-256-GCM of the group's msgpack, nonce 4 × 0 ++ sequence, associated data = label ++ cluster id ++
             format version (1) ++ segment id ++ sequence
   12+n   4  CRC-32 of the record so far

All numbers are big-endian. The key is HKDF-Expand(system key, label ++ cluster id ++ segment id). A segment
holds at most one record of a sequence, ever, so nonces do not repeat: after anything went wrong with an append the next
record goes to another segment. All replicas of a segment are the same bytes as far as they go, so a record that is
damaged in one is taken from another. Reading ends where no replica has a whole record: that is the end of the segment,
or of what is left of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.base.errors import Corrupt, SealBroken
from storage.crypto.keys import derive_key

HEADER_BYTES = 112
SEGMENT_ID_BYTES = 16
FORMAT = 1
PAYLOAD_BYTES_MAX = 24 << 20
"""of one group: the writer takes no more into one, but for a single command above"""
RECORD_OVERHEAD_BYTES = 32
SEQUENCE_MAX = 2**63 - 1

_LABEL = b"frostbyte journal 1"
_MAGIC = b"FBJ1"
_HEADER = struct.Struct(">4sB3x16s16sQQQIII20x")
_HEAD = struct.Struct(">IQ")
_CHECK = struct.Struct(">I")
_HEADER_NONCE = b"\xff" * 4 + bytes(8)
_TAG_BYTES = 16

Buffer = bytes | bytearray | memoryview


class SegmentHeader(NamedTuple):
    """See the module."""

    cluster_id: bytes
    segment_id: bytes
    history: int
    first_sequence: int
    opened_ms: int
    schema_version: int
    key_version: int
    copies: int

    @property
    def incarnation(self) -> int:
        """The part of the id that rises."""
        return parse_incarnation(self.segment_id)


class Record(NamedTuple):
    """One group of commands; payload as storage.metadata.journal encodes it."""

    sequence: int
    payload: bytes


def make_segment_id(incarnation: int, random: bytes) -> bytes:
    """random: 8 bytes, so that two owners that know nothing of each other do not make the same."""
    return incarnation.to_bytes(8, "big") + random


def parse_incarnation(segment_id: bytes) -> int:
    """The part that rises."""
    return int.from_bytes(segment_id[:8], "big")


def parse_header(data: Buffer) -> SegmentHeader:
    """What the first HEADER_BYTES of a segment say, not verified yet. Corrupt."""
    if len(data) < HEADER_BYTES:
        raise Corrupt("a segment is shorter than its header")
    magic, version, *fields = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != FORMAT:
        raise Corrupt("not a segment of this format")
    return SegmentHeader(*fields)


class SegmentSeal:
    """Seals and opens what belongs to one segment."""

    def __init__(self, system_key: bytes, header: SegmentHeader) -> None:
        """system_key: of the version that the header names."""
        place = header.cluster_id + header.segment_id
        self.header = header
        self._aead = AESGCM(derive_key(system_key, _LABEL, place))
        self._place = _LABEL + header.cluster_id + bytes([FORMAT]) + header.segment_id

    def seal_header(self) -> bytes:
        """HEADER_BYTES bytes."""
        described = _HEADER.pack(_MAGIC, FORMAT, *self.header)
        return described + self._aead.encrypt(_HEADER_NONCE, b"", _LABEL + described)

    def verify_header(self, data: Buffer) -> None:
        """SealBroken unless a segment that begins with these bytes is this one."""
        described = bytes(data[: _HEADER.size])
        try:
            self._aead.decrypt(_HEADER_NONCE, bytes(data[_HEADER.size : HEADER_BYTES]), _LABEL + described)
        except (InvalidTag, ValueError):
            raise SealBroken("the header of a segment does not open") from None

    def seal_record(self, record: Record) -> bytes:
        """ValueError for a group that is larger than a record may be."""
        if len(record.payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a record holds at most {PAYLOAD_BYTES_MAX} bytes")
        sealed = self._aead.encrypt(*self._bound(record.sequence, record.payload))
        head = _HEAD.pack(len(sealed), record.sequence)
        return head + sealed + _CHECK.pack(zlib.crc32(sealed, zlib.crc32(head)))

    def open_record(self, data: Buffer, offset: int, sequence: int) -> tuple[Record, int] | None:
        """The record of this sequence at an offset of a replica, and where the next one begins; None where there is no
        whole one."""
        start = offset + _HEAD.size
        if len(data) < start:
            return None
        length, found = _HEAD.unpack_from(data, offset)
        end = start + length
        if found != sequence or not _TAG_BYTES <= length <= PAYLOAD_BYTES_MAX + _TAG_BYTES:
            return None
        if len(data) < end + _CHECK.size or _CHECK.unpack_from(data, end)[0] != zlib.crc32(data[offset:end]):
            return None
        try:
            payload = self._aead.decrypt(*self._bound(sequence, bytes(data[start:end])))
        except InvalidTag:
            return None
        return Record(sequence, payload), end + _CHECK.size

    def _bound(self, sequence: int, data: bytes) -> tuple[bytes, bytes, bytes]:
        number = sequence.to_bytes(8, "big")
        return bytes(4) + number, data, self._place + number


def read_records(seal: SegmentSeal, replicas: Sequence[Buffer]) -> Iterator[Record]:
    """The records of a segment in order, each from the first replica that has it whole at its place. The replicas are
    the whole files, headers included."""
    views = [memoryview(replica) for replica in replicas]
    offset, sequence = HEADER_BYTES, seal.header.first_sequence
    while True:
        for view in views:
            found = seal.open_record(view, offset, sequence)
            if found is not None:
                break
        else:
            return
        yield found[0]
        offset, sequence = found[1], sequence + 1
