"""MemoryChunkStore: the ChunkStore without a medium, for tests and simulations of what stands above."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from storage.base.clock import Clock, SystemClock
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, ChunkTruncated, Corrupt, NodeFull
from storage.base.ids import ChunkId
from storage.chunks.footer import CHUNK_LENGTH_MAX, Footer, digest_of
from storage.chunks.store import (
    BATCH_BYTES_MAX,
    INVENTORY_ENTRIES_MAX,
    Buffer,
    ChunkReceipt,
    ChunkState,
    Figures,
    InventoryEntry,
    Judged,
    Space,
    is_same_piece,
)

BLOCK_BYTES = 1 << 20


class MemoryChunkStore:
    """See ChunkStore. `failure`, when set, is raised by every method: a node that is down or refuses."""

    def __init__(self, *, capacity_bytes: int = 1 << 40, reserve_bytes: int = 0, clock: Clock | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.failure: ChunkError | None = None
        self.chunks: dict[ChunkId, bytes] = {}
        """the sealed bytes, open to tests that damage or count them"""
        self._reserve_bytes = reserve_bytes
        self._clock = clock or SystemClock()
        self._footers: dict[ChunkId, Footer] = {}
        self._verified_ms: dict[ChunkId, int] = {}
        self._quarantine: list[tuple[int, ChunkId, bytes]] = []
        self._damaged: list[tuple[int, ChunkId, bytes]] = []

    # --- put

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        self._admit(length)
        data = bytearray()
        async for block in body:
            self._check()
            data += block
            if len(data) > length:
                raise ChunkTruncated(f"more than the {length} bytes announced")
        if len(data) < length:
            raise ChunkTruncated(f"{len(data)} of the {length} bytes announced")
        self._check()
        return self._store(chunk_id, bytes(data))

    async def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> ChunkReceipt:
        return await self.put(chunk_id, sum(map(len, blocks)), _each(blocks))

    def begin_whole(self, chunk_id: ChunkId, length: int) -> MemoryPut:
        self._admit(length)
        return MemoryPut(self, chunk_id)

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        self._check()
        outcomes: list[ChunkReceipt | ChunkError] = []
        for chunk_id, data in items:
            try:
                self._admit(len(data))
                outcomes.append(self._store(chunk_id, bytes(data)))
            except ChunkError as error:
                outcomes.append(error)
        return outcomes

    def _admit(self, length: int) -> None:
        self._check()
        if not 0 < length <= CHUNK_LENGTH_MAX:
            raise ChunkError(f"a chunk has 1 to {CHUNK_LENGTH_MAX} bytes, not {length}")
        if self._free_bytes() - length < self._reserve_bytes:
            raise NodeFull(f"{self._free_bytes()} bytes free, {self._reserve_bytes} in reserve")

    def _store(self, chunk_id: ChunkId, data: bytes) -> ChunkReceipt:
        receipt = digest_of(data)
        if chunk_id in self.chunks:
            try:
                if self._verify(chunk_id) != receipt:
                    raise ChunkConflict(f"chunk {chunk_id} is stored with other bytes")
                return receipt
            except Corrupt:
                self._set_aside(chunk_id)
        self.chunks[chunk_id] = data
        self._footers[chunk_id] = Footer(receipt.length, receipt.digest, self._clock.now_ms())
        return receipt

    # --- get

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        data = self._span(chunk_id, offset, length)
        for start in range(0, len(data), BLOCK_BYTES):
            self._check()
            yield data[start : start + BLOCK_BYTES]

    async def get_many(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError | Corrupt]:
        self._check()
        outcomes: list[bytes | ChunkError | Corrupt] = []
        room = BATCH_BYTES_MAX
        for chunk_id, offset, length in spans:
            room -= length
            try:
                if room < 0:
                    raise ChunkError("too many bytes in one call")
                outcomes.append(self._span(chunk_id, offset, length))
            except (ChunkError, Corrupt) as error:
                outcomes.append(error)
        return outcomes

    def _span(self, chunk_id: ChunkId, offset: int, length: int | None) -> bytes:
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no span of {length} bytes at {offset}")
        stored = self._footer(chunk_id).length
        data = self.chunks[chunk_id]
        if len(data) != stored:
            raise Corrupt(f"the file holds {len(data)} bytes of a chunk of {stored}")
        return data[offset:] if length is None else data[offset : offset + length]

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        self._span(chunk_id, 0, 0)
        return self._footers[chunk_id].receipt

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        self._check()
        return self._verify(chunk_id)

    async def inspect_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        self._check()
        return [self._state(chunk_id) for chunk_id in chunk_ids]

    def _state(self, chunk_id: ChunkId) -> ChunkState | None:
        footer = self._footers.get(chunk_id)
        if footer is None or len(self.chunks[chunk_id]) != footer.length:
            return None
        return ChunkState(footer.length, footer.digest, footer.stored_ms, self._verified_ms.get(chunk_id, 0))

    def _verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        receipt = self._footer(chunk_id).receipt
        if digest_of(self.chunks[chunk_id]) != receipt:
            raise Corrupt("the bytes are not those that were stored")
        self._verified_ms[chunk_id] = self._clock.now_ms()
        return receipt

    def _footer(self, chunk_id: ChunkId) -> Footer:
        self._check()
        try:
            return self._footers[chunk_id]
        except KeyError:
            raise ChunkNotFound(f"no chunk {chunk_id}") from None

    # --- what a datanode asks of its own store

    @property
    def figures(self) -> Figures:
        verified = [self._verified_ms[chunk_id] for chunk_id in self.chunks if chunk_id in self._verified_ms]
        unverified = len(self.chunks) - len(verified)
        stored_bytes = sum(map(len, self.chunks.values()))
        return Figures(len(self.chunks), stored_bytes, unverified, min(verified, default=0), len(self._damaged))

    async def count(self) -> Figures:
        self._check()
        return self.figures

    async def probe(self) -> None:
        self._check()

    async def check(self, chunk_id: ChunkId) -> bool:
        self._check()
        try:
            self._verify(chunk_id)
        except Corrupt:
            data = self._remove(chunk_id)
            assert data is not None
            self._damaged.append((self._clock.now_ms(), chunk_id, data))
            return False
        return True

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[tuple[ChunkId, int]]:
        self._check()
        await self.forget_damaged([chunk_id for _, chunk_id, _ in self._damaged if chunk_id in self.chunks])
        found = {of: found_ms for found_ms, of, _ in self._damaged if after is None or of > after}
        return sorted(found.items())[: min(limit, INVENTORY_ENTRIES_MAX)]

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check()
        marked = {chunk_id for _, chunk_id, _ in self._damaged}
        self._quarantine += [item for item in self._damaged if item[1] in chunk_ids]
        self._damaged = [item for item in self._damaged if item[1] not in chunk_ids]
        return [chunk_id in marked for chunk_id in chunk_ids]

    # --- the rest

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check()
        return [self._remove(chunk_id) is not None for chunk_id in chunk_ids]

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check()
        return [self._set_aside(chunk_id) for chunk_id in chunk_ids]

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        self._check()
        return [self._is_still(chunk_id, state) and self._set_aside(chunk_id) for chunk_id, state in judged]

    def _is_still(self, chunk_id: ChunkId, judged: ChunkState | None) -> bool:
        return chunk_id in self.chunks and is_same_piece(self._state(chunk_id), judged)

    async def purge_quarantine(self, older_than_ms: int) -> int:
        self._check()
        kept = [item for item in self._quarantine if item[0] >= older_than_ms]
        purged = len(self._quarantine) - len(kept)
        self._quarantine = kept
        return purged

    def _set_aside(self, chunk_id: ChunkId) -> bool:
        data = self._remove(chunk_id)
        if data is None:
            return False
        self._quarantine.append((self._clock.now_ms(), chunk_id, data))
        return True

    def _remove(self, chunk_id: ChunkId) -> bytes | None:
        self._footers.pop(chunk_id, None)
        self._verified_ms.pop(chunk_id, None)
        return self.chunks.pop(chunk_id, None)

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        self._check()
        ids = sorted(chunk_id for chunk_id in self.chunks if after is None or chunk_id > after)
        return [self._entry(chunk_id) for chunk_id in ids[: min(limit, INVENTORY_ENTRIES_MAX)]]

    def _entry(self, chunk_id: ChunkId) -> InventoryEntry:
        stored_ms, verified_ms = self._footers[chunk_id].stored_ms, self._verified_ms.get(chunk_id, 0)
        return InventoryEntry(chunk_id.to_bytes(), len(self.chunks[chunk_id]), stored_ms, verified_ms)

    async def space(self) -> Space:
        self._check()
        return Space(self.capacity_bytes, self._free_bytes(), self._reserve_bytes)

    def _free_bytes(self) -> int:
        aside = [data for _, _, data in (*self._quarantine, *self._damaged)]
        used = sum(map(len, self.chunks.values())) + sum(map(len, aside))
        return max(0, self.capacity_bytes - used)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class MemoryPut:
    """WholePut of a memory."""

    def __init__(self, store: MemoryChunkStore, chunk_id: ChunkId) -> None:
        self._store = store
        self._chunk_id = chunk_id

    def store(self, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        return asyncio.ensure_future(self._store.put_whole(self._chunk_id, blocks))

    def close(self) -> None:
        """Nothing is held."""


async def _each(blocks: Sequence[Buffer]) -> AsyncIterator[Buffer]:
    for block in blocks:
        yield block
