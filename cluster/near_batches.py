"""How a batch of small chunks becomes durable in a borrowed range: as a chain of the kernel's where there are such
(storage/chunks/chains.py), else by a thread.

By callbacks: whoever waits for a chunk hears of it in the turn of the event loop in which the kernel tells of the
chain, and not two turns later, with whatever else comes in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cluster.near_ranges import HeldRange, NearRanges
from storage.base.direct_file import BUFFER_BYTES
from storage.base.errors import FrostbyteError
from storage.base.uring import ChainEnd
from storage.chunks.near_range import Batch, NearRange, NewBody
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


Outcome = list[ChunkReceipt] | BaseException
"""as NearRange.write gives and raises it; Unavailable at the end of this process"""
OnStored = Callable[[HeldRange, Sequence[Waiting], Outcome], None]
"""is told it, later or at once, once; must not raise"""


class NearBatches:
    """Of one lane, one after the other. Used from one event loop; closed once."""

    def __init__(self, near_ranges: NearRanges, on_stored: OnStored) -> None:
        self._near_ranges = near_ranges
        self._on_stored = on_stored
        self._pool: WorkerPool | None = None

    def store(self, held: HeldRange, batch: Sequence[Waiting]) -> None:
        """What nobody waits for any more in the end is withdrawn."""
        bodies = [waiting.body for waiting in batch]
        try:
            if sum(waiting.length for waiting in batch) < BUFFER_BYTES and self._begin_chain(held, batch, bodies):
                return
        except FrostbyteError as error:
            self._on_stored(held, batch, error)
        else:
            self._run(held, batch, held.near.write, bodies)

    async def close(self) -> None:
        """A thread that hangs is left behind."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _begin_chain(self, held: HeldRange, batch: Sequence[Waiting], bodies: Sequence[NewBody]) -> bool:
        """False: it is for a thread to do."""
        chains, buffers = self._near_ranges.chains, self._near_ranges.buffers
        if chains.is_refused:
            return False
        memory = buffers.take()
        try:
            begun = held.near.begin(bodies)
            planned = held.near.plan_chain(begun, memory)
        except FrostbyteError:
            buffers.give_back(memory)
            raise
        if planned is not None and chains.run(*planned, partial(self._note_end, held, batch, begun, memory)):
            return True
        if chains.is_broken:  # and nobody knows how far it came: neither the memory nor the file's number is ours now
            held.near.leave_open()
        else:
            buffers.give_back(memory)
        return False

    def _note_end(
        self, held: HeldRange, batch: Sequence[Waiting], begun: Batch, memory: memoryview, end: ChainEnd
    ) -> None:
        self._near_ranges.buffers.give_back(memory)
        if end.error:
            self._run(held, batch, held.near.mend, begun, end)
        elif any(waiting.settled.cancelled() for waiting in batch):
            self._run(held, batch, held.near.conclude, begun)
        else:
            self._on_stored(held, batch, _conclude(held.near, begun))

    def _run(
        self, held: HeldRange, batch: Sequence[Waiting], step: Callable[..., list[ChunkReceipt]], *arguments: object
    ) -> None:
        if self._pool is None:
            self._pool = WorkerPool(1, "near-lane")
        try:
            stored = self._pool.run(_store, held, batch, step, arguments)
        except FrostbyteError as error:
            self._on_stored(held, batch, error)
        else:
            stored.add_done_callback(partial(self._note_stored, held, batch))

    def _note_stored(
        self, held: HeldRange, batch: Sequence[Waiting], stored: asyncio.Future[list[ChunkReceipt]]
    ) -> None:
        self._on_stored(held, batch, stored.exception() or stored.result())


def _conclude(near: NearRange, begun: Batch) -> Outcome:
    try:
        return near.conclude(begun)
    except FrostbyteError as error:
        return error


def _store(
    held: HeldRange,
    batch: Sequence[Waiting],
    step: Callable[..., list[ChunkReceipt]],
    arguments: Sequence[object],
) -> list[ChunkReceipt]:
    """In the lane's thread."""
    receipts = step(*arguments)
    given_up = [waiting.body.chunk_id for waiting in batch if waiting.settled.cancelled()]
    if given_up:
        held.near.withdraw(given_up)
    return receipts
