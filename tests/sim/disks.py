"""A datanode's medium in memory, with what a page cache does: what is not synced may be lost by a power cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from storage.base.clock import Clock
from storage.base.errors import ChunkError
from storage.base.ids import ChunkId
from storage.chunks.footer import Footer
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import Buffer, ChunkReceipt, InventoryEntry, Judged
from tests.sim.loop import require_process

T = TypeVar("T")

RESERVE_BYTES = 1 << 20
CAPACITY_BYTES = 1 << 30

_Entry = tuple[bytes, Footer] | None
"""None: not there"""


class SimDisk(MemoryChunkStore):
    """Survives its process. Everything takes a while; what changes something is answered once it is durable."""

    def __init__(self, clock: Clock, generator: random.Random) -> None:
        super().__init__(capacity_bytes=CAPACITY_BYTES, reserve_bytes=RESERVE_BYTES, clock=clock)
        self.reserve_bytes = RESERVE_BYTES
        self.sync_s = 0.004
        """the mean of what making something durable takes"""
        self.rotten: set[ChunkId] = set()
        self.before_removal: Callable[[Sequence[ChunkId], str], None] = lambda *_: None
        """told of what is about to be deleted or set aside by order"""
        self._random = generator
        self._durable: dict[ChunkId, _Entry] = {}
        """of chunks with changes that are not synced: what was there before"""

    def is_good(self, chunk_id: ChunkId, digest: bytes) -> bool:
        """Whether it has these very bytes."""
        footer = self._footers.get(chunk_id)
        return footer is not None and footer.digest == digest and chunk_id not in self.rotten

    def is_durable(self, chunk_id: ChunkId, digest: bytes) -> bool:
        """Whether it would have these very bytes after a power cut."""
        if chunk_id not in self._durable:
            return self.is_good(chunk_id, digest)
        before = self._durable[chunk_id]
        return before is not None and before[1].digest == digest

    def write_back(self) -> None:
        """What the machine's cache does by itself after a while: everything is durable."""
        self._durable.clear()

    def rot(self, chunk_id: ChunkId) -> None:
        """A bit flips, or the end is gone."""
        data = bytearray(self.chunks[chunk_id])
        if self._random.random() < 0.2:
            data = data[: self._random.randrange(len(data))]
        else:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        self.chunks[chunk_id] = bytes(data)
        self.rotten.add(chunk_id)

    def cut_power(self) -> int:
        """What was not synced is there or not, each chunk by itself. How many changes were undone."""
        undone = 0
        for chunk_id, entry in self._durable.items():
            if self._random.random() < 0.7:
                undone += 1
                self._restore(chunk_id, entry)
        self.write_back()
        return undone

    # ------------------------------------------------------------------ the store

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        receipt = await super().put(chunk_id, length, body)
        await self._sync([chunk_id])
        return receipt

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        outcomes = await super().put_many(items)
        await self._sync([chunk_id for chunk_id, _ in items])
        return outcomes

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        await self._wait()
        async for block in super().get(chunk_id, offset, length):
            yield block

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        await self._wait()
        return await super().verify(chunk_id)

    async def check(self, chunk_id: ChunkId) -> bool:
        await self._wait()
        return await super().check(chunk_id)

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self.before_removal(chunk_ids, "deleted")
        flags = await super().delete_many(chunk_ids)
        await self._sync(chunk_ids)
        return flags

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self.before_removal(chunk_ids, "set aside")
        flags = await super().quarantine_many(chunk_ids)
        await self._sync(chunk_ids)
        return flags

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        self.before_removal([chunk_id for chunk_id, state in judged if self._is_still(chunk_id, state)], "set aside")
        flags = await super().quarantine_judged(judged)
        await self._sync([chunk_id for chunk_id, _ in judged])
        return flags

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        await self._wait()
        return await super().inventory(after, limit)

    async def sync(self) -> None:
        """Whatever is made durable takes so long."""
        await asyncio.sleep(self._random.expovariate(1 / self.sync_s))

    # ------------------------------------------------------------------ within

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.expovariate(1 / self.sync_s) / 4)

    async def _sync(self, chunk_ids: Sequence[ChunkId]) -> None:
        """A power cut before its end may undo what was done."""
        await self.sync()
        for chunk_id in chunk_ids:
            self._durable.pop(chunk_id, None)

    def _store(self, chunk_id: ChunkId, data: bytes) -> ChunkReceipt:
        self._remember(chunk_id)
        receipt = super()._store(chunk_id, data)
        self.rotten.discard(chunk_id)  # had it been there, and rotten, it would have been set aside
        return receipt

    def _remove(self, chunk_id: ChunkId) -> bytes | None:
        self._remember(chunk_id)
        self.rotten.discard(chunk_id)
        return super()._remove(chunk_id)

    def _remember(self, chunk_id: ChunkId) -> None:
        if chunk_id not in self._durable:
            data = self.chunks.get(chunk_id)
            self._durable[chunk_id] = None if data is None else (data, self._footers[chunk_id])

    def _restore(self, chunk_id: ChunkId, entry: _Entry) -> None:
        if entry is None:
            super()._remove(chunk_id)
        else:
            self.chunks[chunk_id], self._footers[chunk_id] = entry


class SimPool:
    """In place of the threads that work on a datanode's journal files: what they do takes as long as a sync."""

    def __init__(self, threads: int, name: str) -> None:
        self._disk: SimDisk = require_process().place.disk

    def run(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        return asyncio.ensure_future(self._run(work, arguments))

    async def _run(self, work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        await self._disk.sync()
        return work(*arguments)

    def close(self) -> None:
        """Nothing is waited for."""
