"""How a batch of small chunks becomes durable in a borrowed range: as a chain of the kernel's where there are such
(storage/chunks/chains.py), else by a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cluster.near_ranges import HeldRange, NearRanges
from storage.base.direct_file import BUFFER_BYTES
from storage.chunks.near_range import NearRange, NewBody
from storage.chunks.store import ChunkReceipt
from storage.chunks.worker_pool import WorkerPool


class Waiting:
    """A chunk that has its place in a range."""

    __slots__ = ("body", "held", "length", "settled")

    def __init__(self, held: HeldRange, body: NewBody, length: int) -> None:
        self.held = held
        self.body = body
        self.length = length
        self.settled: asyncio.Future[ChunkReceipt] = asyncio.get_running_loop().create_future()
        """the receipt of a durable chunk; NotLent where it is to be sent, and is not here; errors as ChunkStore.put"""


class NearBatches:
    """Of one lane, one after the other. Used from one event loop; closed once."""

    def __init__(self, near_ranges: NearRanges) -> None:
        self._near_ranges = near_ranges
        self._pool: WorkerPool | None = None

    async def store(self, held: HeldRange, batch: Sequence[Waiting]) -> list[ChunkReceipt]:
        """As NearRange.write. What nobody waits for any more is withdrawn. Unavailable at the end of this process."""
        near, bodies = held.near, [waiting.body for waiting in batch]
        receipts: list[ChunkReceipt] | None = None
        if sum(waiting.length for waiting in batch) < BUFFER_BYTES:
            receipts = await self._chain(near, bodies)
        if receipts is None:
            receipts = await self._threads().run(near.write, bodies)
        given_up = [waiting.body.chunk_id for waiting in batch if waiting.settled.cancelled()]
        if given_up:
            await self._threads().run(near.withdraw, given_up)
        return receipts

    async def close(self) -> None:
        """A thread that hangs is left behind."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _threads(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(1, "near-lane")
        return self._pool

    async def _chain(self, near: NearRange, bodies: Sequence[NewBody]) -> list[ChunkReceipt] | None:
        """None where it is for a thread to do."""
        chains, buffers = self._near_ranges.chains, self._near_ranges.buffers
        if chains.is_refused:
            return None
        memory = buffers.take()
        ended = None
        try:
            batch = near.begin(bodies)
            planned = near.plan_chain(batch, memory)
            ended = planned and chains.run(*planned)
        finally:
            if ended is None:
                buffers.give_back(memory)
        if ended is None:
            return None
        end = await ended
        buffers.give_back(memory)
        return await self._threads().run(near.mend, batch, end) if end.error else near.conclude(batch)
