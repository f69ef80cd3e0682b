"""PURE. The 32 bytes behind a stored chunk: how long it must be, what its bytes must sum to, and when it was stored.

     0   4  magic "FBF1"
     4   8  length of the sealed bytes, u64 big-endian
    12   8  CRC-64/NVME of the sealed bytes, big-endian
    20   8  stored_ms, u64 big-endian
    28   4  CRC-32 of the 28 bytes before, u32 big-endian

It is written last and read first: a file whose footer is right was written whole.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from awscrt import checksums

from storage.base.errors import Corrupt
from storage.chunks.store import DIGEST_BYTES, Buffer, ChunkReceipt

FOOTER_BYTES = 32
CHUNK_LENGTH_MAX = (1 << 30) + (1 << 20)
"""sealed bytes of one chunk: a GiB of plaintext with its header and tags, far above any chunk size in use"""

_BODY = struct.Struct(">4sQ8sQ")
_CHECK = struct.Struct(">I")
_MAGIC = b"FBF1"


class Footer(NamedTuple):
    """length and stored_ms as in InventoryEntry, digest as in ChunkReceipt."""

    length: int
    digest: bytes
    stored_ms: int

    @property
    def receipt(self) -> ChunkReceipt:
        """What the store answered when it stored the chunk."""
        return ChunkReceipt(self.length, self.digest)


def format_footer(footer: Footer) -> bytes:
    """FOOTER_BYTES bytes."""
    body = _BODY.pack(_MAGIC, *footer)
    return body + _CHECK.pack(zlib.crc32(body))


def parse_footer(raw: Buffer, file_size: int) -> Footer:
    """The footer at the end of a file of `file_size` bytes. Corrupt when it is damaged or tells of another length."""
    if len(raw) != FOOTER_BYTES:
        raise Corrupt("the file is too short for a footer")
    magic, length, digest, stored_ms = _BODY.unpack_from(raw)
    (check,) = _CHECK.unpack_from(raw, _BODY.size)
    if magic != _MAGIC or check != zlib.crc32(memoryview(raw)[: _BODY.size]):
        raise Corrupt("the footer is damaged")
    if length != file_size - FOOTER_BYTES:
        raise Corrupt(f"the file holds {file_size - FOOTER_BYTES} bytes of a chunk of {length}")
    return Footer(length, digest, stored_ms)


class RunningDigest:
    """The digest of a chunk's bytes as they come, and their number."""

    __slots__ = ("_sum", "length")

    def __init__(self) -> None:
        self._sum = 0
        self.length = 0

    def update(self, data: Buffer) -> None:
        """The next bytes."""
        self._sum = checksums.crc64nvme(data, self._sum)
        self.length += len(data)

    def receipt(self) -> ChunkReceipt:
        """Of all bytes so far."""
        return ChunkReceipt(self.length, self._sum.to_bytes(DIGEST_BYTES, "big"))


def digest_of(data: Buffer) -> ChunkReceipt:
    """The receipt of a chunk that is in memory whole."""
    running = RunningDigest()
    running.update(data)
    return running.receipt()
