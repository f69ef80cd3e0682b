"""The ChunkStore protocol: what a place for sealed chunks must do. The disk, its memory twin and the datanode client
all keep this contract, and one conformance suite holds them to it.

A chunk is immutable: its id is used once. A store never sees a plaintext byte or a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from storage.base.errors import ChunkError, Corrupt
from storage.base.ids import ChunkId

Buffer = bytes | bytearray | memoryview

DIGEST_BYTES = 8
SPAN_BYTES_MAX = (1 << 20) + 256
"""16 sealed frames: a range up to this size is one piece in memory on both sides, which spares the store a look at the
footer"""
BATCH_BYTES_MAX = 64 << 20
"""asked for in one get_many"""
INVENTORY_ENTRIES_MAX = 10_000
"""given by one inventory, whatever limit was asked"""


class ChunkReceipt(msgspec.Struct, frozen=True, array_like=True):
    """The store's own account of a chunk that is durable: computed from the bytes it wrote, never from the caller's."""

    length: int
    digest: bytes
    """CRC-64/NVME of the sealed bytes, 8 bytes big-endian"""


class InventoryEntry(msgspec.Struct, frozen=True, array_like=True):
    """One stored chunk; stored_ms is when it became durable."""

    chunk_id: bytes
    length: int
    stored_ms: int
    verified_ms: int = 0
    """when the chunk was last read whole from the medium and found right; 0: never since it was stored"""


class ChunkState(msgspec.Struct, frozen=True, array_like=True):
    """What a store knows of one chunk without reading it. verified_ms as in InventoryEntry."""

    length: int
    digest: bytes
    stored_ms: int
    verified_ms: int


Judged = tuple[ChunkId, ChunkState | None]
"""a chunk, and what was said of it when it was judged; None: that it cannot be read"""


def is_same_piece(one: ChunkState | None, other: ChunkState | None) -> bool:
    """Whether both were said of one and the same, whenever it was verified: what is stored anew under its id was so at
    another time. Also when both could not be read."""
    if one is None or other is None:
        return one is other
    return (one.length, one.digest, one.stored_ms) == (other.length, other.digest, other.stored_ms)


class Figures(NamedTuple):
    """Of all that a store holds, as counted by the last look through it and what changed since. Times as in
    InventoryEntry."""

    chunk_count: int = 0
    stored_bytes: int = 0
    """of sealed chunks"""
    unverified_count: int = 0
    """chunks that were never verified since they were stored"""
    oldest_verified_ms: int = 0
    """of the others: no later than when the one was verified whose turn was longest ago; 0 when there is none"""
    damaged_count: int = 0
    """set aside as damaged and not forgotten, which is known from the start; what was set aside twice counts twice"""


class Space(NamedTuple):
    """Of the medium beneath a store, in bytes."""

    capacity_bytes: int
    free_bytes: int
    reserve_bytes: int


class ChunkStore(Protocol):
    """Sealed chunks by id. Every method may raise NodeUnreachable when the store is remote."""

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        """Make one chunk durable, then return. Putting identical bytes again is answered alike.

        Errors: NodeFull (before the first byte is taken where that can be known), ChunkConflict, ChunkTruncated. If
        the body raises, nothing of the chunk stays. A plain ChunkError: the medium does not take it. Blocks of the body
        must not change until put has returned; the body is not closed here.
        """
        ...

    def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> Awaitable[ChunkReceipt]:
        """As `put`, of a chunk that is small enough for a segment (RECORD_BYTES_MAX) and in memory."""
        ...

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        """Make many small chunks durable in one call; one outcome per item, in order."""
        ...

    def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Stream sealed bytes [offset, offset+length) (to the end for None), cut to the chunk. ChunkNotFound at the
        first step; Corrupt when the stored file is shorter than it must be or its footer is damaged. A reader that
        stops early calls aclose()."""
        ...

    async def get_many(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError | Corrupt]:
        """Many small spans (chunk, offset, length) in one call; one outcome per span, in order. A span that reaches
        beyond its chunk is cut to it. What is beyond BATCH_BYTES_MAX in all is a ChunkError."""
        ...

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        """The receipt given when it was stored. ChunkNotFound."""
        ...

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        """Read the chunk whole from the medium (past the page cache where the system allows it), compare with its
        recorded digest, and remember when that was. ChunkNotFound, Corrupt."""
        ...

    async def inspect_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        """What is known of each chunk, in order, without reading it; None for one that is not there or has no readable
        footer."""
        ...

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Remove durably; True where the chunk had been there. Deleting what is not there is no error."""
        ...

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Set aside: not readable, not in the inventory, still on the medium until purged."""
        ...

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        """The same of each chunk that is still the very piece that was judged; True where it was set aside. So an order
        that comes late, or twice, leaves alone what was stored in its place meanwhile."""
        ...

    async def purge_quarantine(self, older_than_ms: int) -> int:
        """Delete what was set aside before this time, but for what is damaged and not forgotten yet; how many."""
        ...

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        """Up to `limit` stored chunks in the order of their ids, after the given one."""
        ...

    async def space(self) -> Space:
        """Of the medium, now."""
        ...


class WholePut(Protocol):
    """Of one small chunk whose bytes are still to come. Stored once at most, closed once it is over."""

    def store(self, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        """All of its bytes. What is to be raised may be raised at once. Errors as `put`."""
        ...

    def close(self) -> None:
        """Twice is no error."""
        ...


class OwnChunkStore(ChunkStore, Protocol):
    """A store on a medium of this process: what a datanode asks of its own, beside what others ask of it."""

    @property
    def figures(self) -> Figures:
        """As far as they are known; see `count`."""
        ...

    def begin_whole(self, chunk_id: ChunkId, length: int) -> WholePut:
        """A chunk as that of put_whole is going to come: its room, and the memory for it, are taken. NodeFull,
        ChunkError, Unavailable."""
        ...

    async def count(self) -> Figures:
        """Look through everything that is stored, in the background: as long again as it looks it pauses."""
        ...

    async def probe(self) -> None:
        """Write a little to the medium and read it back. ChunkError, Corrupt, Unavailable: what is wrong with it."""
        ...

    async def check(self, chunk_id: ChunkId) -> bool:
        """Verify a chunk and set it aside as damaged when it is not right: False then. A chunk that cannot be read, or
        is wrong, is read a second time before that is believed. ChunkNotFound; ChunkError when nothing can be said."""
        ...

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[tuple[ChunkId, int]]:
        """Chunks that were set aside as damaged and that nobody forgot, with the time (ms) of that, in the order of
        their ids after the given one. A chunk that was stored anew since is damaged no more."""
        ...

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """What is left of them goes with the next purge; True where there was something."""
        ...
