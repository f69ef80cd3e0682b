"""Works through the queue of repairs in the active master: few large chunks or many small ones at once, each node in
some of them. What many of them ask a node or the records at the same time goes in one call (call_groups.py).

Nothing is remembered of a repair but the queue: what was under way when it stops is found again by the next walk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from cluster.byte_budget import ByteBudget
from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.repair_queue import RepairItem, RepairQueue
from cluster.maintenance.repairer import Repairer
from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt, NotEnoughNodes, StalePlacement, Unavailable

REPAIRS_AT_ONCE_MAX = 64
BYTES_AT_ONCE_MAX = 64 << 20
"""of the pieces that are being made: eight whole chunks of the usual size"""
REPAIR_BYTES_MIN = BYTES_AT_ONCE_MAX // REPAIRS_AT_ONCE_MAX
"""what the smallest repair counts for"""

_log = logging.getLogger(__name__)


class RepairJob:
    """`run` is called by a background loop."""

    def __init__(self, repairer: Repairer, queue: RepairQueue, claims: BlobClaims, clock: Clock) -> None:
        self.totals: Counter[str] = Counter()
        """pieces and bytes repaired, and repairs failed, by this process"""
        self.left: Counter[int] = Counter()
        """by node: pieces that were named there and are named elsewhere now, since this was cleared"""
        self._repairer = repairer
        self._queue = queue
        self._claims = claims
        self._clock = clock
        self._room = ByteBudget(BYTES_AT_ONCE_MAX)

    @property
    def counts(self) -> Mapping[str, int]:
        """done and total: chunks since the queue was empty."""
        done = self.totals["done"]
        return {**self.totals, "total": done + len(self._queue)}

    async def run(self) -> None:
        """Until nothing waits. NotActiveMaster after a takeover."""
        if self._queue.is_idle:
            self.totals["done"] = 0
        workers = [asyncio.create_task(self._work()) for _ in range(REPAIRS_AT_ONCE_MAX)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while (item := self._queue.take(self._clock.monotonic_s())) is not None:
            is_done = False
            try:
                async with self._room_for(item):
                    is_done = await self._repair(item)
            finally:
                if is_done:
                    self._queue.done(item)
                else:
                    self._queue.defer(item, self._clock.monotonic_s())

    @asynccontextmanager
    async def _room_for(self, item: RepairItem) -> AsyncIterator[None]:
        size_bytes = min(max(item.piece_bytes, REPAIR_BYTES_MIN), BYTES_AT_ONCE_MAX)
        await self._room.acquire(size_bytes)
        try:
            yield
        finally:
            self._room.release(size_bytes)

    async def _repair(self, item: RepairItem) -> bool:
        """Whether the chunk needs no further attempt."""
        with self._claims.claim(item.blob_id, self) as is_mine:
            if not is_mine:
                return False
            try:
                repaired = await self._repairer.repair(item.blob_id, item.chunk_index, strays=item.strays)
            except (ChunkError, Corrupt, NotEnoughNodes, StalePlacement, Unavailable) as error:
                self.totals["failed"] += 1
                _log.info("chunk %d of blob %s is not repaired: %s", item.chunk_index, item.blob_id.hex(), error)
                return False
        self.totals.update(pieces=repaired.pieces, bytes=repaired.bytes, done=1)
        self.left.update(repaired.left)
        return repaired.is_settled
