"""Whole small chunks on their way to the medium: group commit.

What comes for a segment while a batch of it is being made durable waits, and is the next batch, up to a bound. So one
hop to a thread and one sync serve as many writers as there are; whoever comes alone is a batch of one at once. Each
gateway's worker writes to a segment of its own, and BATCHES_AT_ONCE segments are written side by side.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from storage.base.errors import ChunkError, Unavailable
from storage.base.ids import ChunkId
from storage.base.settling import settle
from storage.chunks.chunk_directory import ChunkDirectory
from storage.chunks.layout import group_name
from storage.chunks.store import Buffer, ChunkReceipt
from storage.chunks.worker_pool import CALLS_WAITING_MAX, WorkerPool

SMALL_BYTES_MAX = 256 * 1024
"""of a chunk with a file of its own that is written in a batch; larger ones are written while they come"""
BATCHES_AT_ONCE = 2
"""each with a thread of its own: a batch that any of eight takes costs a third more, in switches and cold caches"""
BATCH_ITEMS_MAX = 32
"""chunks of one batch: those that need files have them open at once"""
KEPT_OPEN_S = 1.0
"""how long a segment may stay open for writing, more or less, when nothing comes for it"""
BATCH_BYTES_MAX = 8 << 20
"""of one batch, but for the chunk that reaches beyond"""

_Waiting = tuple[ChunkId, Sequence[Buffer], "asyncio.Future[ChunkReceipt]"]


class SmallPuts:
    """Used from one event loop. What waits is bounded in number here, and in bytes by whoever gathers it."""

    def __init__(self, directory: ChunkDirectory, pool: WorkerPool) -> None:
        self._directory = directory
        self._pool = pool
        self._waiting: dict[str, deque[_Waiting]] = {}
        """by group; the one whose turn was longest ago first"""
        self._count = 0
        self._running: set[str] = set()
        self._kept_open: set[str] = set()
        """groups whose segments may be open for writing"""
        self._timer: asyncio.TimerHandle | None = None

    def put(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        """The receipt of a durable chunk, to be awaited. Errors as ChunkStore.put; Unavailable when too many wait.
        What was cancelled before its batch began is not written."""
        if self._count >= CALLS_WAITING_MAX:
            raise Unavailable("the disk has too many chunks waiting")
        settled: asyncio.Future[ChunkReceipt] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(group_name(str(chunk_id)), deque()).append((chunk_id, blocks, settled))
        self._count += 1
        self._begin()
        return settled

    def _store_kept_open(self, items: Sequence[tuple[ChunkId, Sequence[Buffer]]]) -> list[ChunkReceipt | ChunkError]:
        return self._directory.store_many(items, keep_open=True)

    def _rest_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_OPEN_S, self._rest)

    def _rest(self) -> None:
        """Close what was not written to just now."""
        self._timer = None
        idle = self._kept_open - self._running - self._waiting.keys()
        self._kept_open -= idle
        if idle:
            with suppress(Unavailable):  # at the end of a process they are closed with all others
                self._pool.run(self._directory.rest, idle)
        if self._kept_open:
            self._rest_later()

    def _begin(self) -> None:
        while len(self._running) < BATCHES_AT_ONCE:
            group = next((group for group in self._waiting if group not in self._running), None)
            if group is None:
                return
            batch = self._take(group)
            if batch:
                self._store(group, batch)

    def _take(self, group: str) -> list[_Waiting]:
        waiting = self._waiting.pop(group)
        batch: list[_Waiting] = []
        size = 0
        while waiting and len(batch) < BATCH_ITEMS_MAX and size < BATCH_BYTES_MAX:
            entry = waiting.popleft()
            self._count -= 1
            if not entry[2].done():
                batch.append(entry)
                size += sum(map(len, entry[1]))
        if waiting:
            self._waiting[group] = waiting
        return batch

    def _store(self, group: str, batch: Sequence[_Waiting]) -> None:
        items = [(chunk_id, blocks) for chunk_id, blocks, _ in batch]
        try:
            stored = self._pool.run(self._store_kept_open, items)
        except Unavailable as error:
            for _, _, waiting in batch:
                settle(waiting, error)
            return
        self._running.add(group)
        self._kept_open.add(group)
        self._rest_later()
        stored.add_done_callback(lambda done: self._settle(group, batch, done))

    def _settle(
        self, group: str, batch: Sequence[_Waiting], stored: asyncio.Future[list[ChunkReceipt | ChunkError]]
    ) -> None:
        self._running.remove(group)
        error = stored.exception()
        outcomes = stored.result() if error is None else [error] * len(batch)
        for (_, _, waiting), outcome in zip(batch, outcomes, strict=True):
            settle(waiting, outcome)
        self._begin()
