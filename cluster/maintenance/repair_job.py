"""Works through the queue of repairs in the active master: several chunks at once, each node in few of them.

Nothing is remembered of a repair but the queue: what was under way when it stops is found again by the next walk.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.repair_queue import RepairItem, RepairQueue
from cluster.maintenance.repairer import Repairer
from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt, NotEnoughNodes, StalePlacement, Unavailable

REPAIRS_AT_ONCE = 8

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

    @property
    def counts(self) -> Mapping[str, int]:
        """done and total: chunks since the queue was empty."""
        done = self.totals["done"]
        return {**self.totals, "total": done + len(self._queue)}

    async def run(self) -> None:
        """Until nothing waits. NotActiveMaster after a takeover."""
        if self._queue.is_idle:
            self.totals["done"] = 0
        workers = [asyncio.create_task(self._work()) for _ in range(REPAIRS_AT_ONCE)]
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
                is_done = await self._repair(item)
            finally:
                if is_done:
                    self._queue.done(item)
                else:
                    self._queue.defer(item, self._clock.monotonic_s())

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
