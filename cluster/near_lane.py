"""Small chunks on their way into the directory of one near datanode: group commit, as on the datanode (small_puts.py).

What comes while a batch is being made durable waits, and is the next batch, up to a bound: one sync for as many as
there are (near_batches.py). Each has its place in a borrowed range before it waits, so that nothing waits for a range;
the next one is asked for when three quarters of one are used.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from cluster.near_batches import NearBatches, Outcome, Waiting
from cluster.near_ranges import RESTED_S, HeldRange, NearRanges
from storage.base.errors import FrostbyteError, NodeFull
from storage.base.ids import ChunkId
from storage.base.settling import settle
from storage.chunks.layout import group_name
from storage.chunks.near_drafts import NotLent
from storage.chunks.near_range import NewBody
from storage.chunks.segment_format import padded
from storage.chunks.store import Buffer
from storage.chunks.worker_pool import CLOSE_TIMEOUT_S
from storage.datanode.range_client import RangeClient
from storage.datanode.range_wire import FAILED_MAX

BATCH_ITEMS_MAX = FAILED_MAX
BATCH_BYTES_MAX = 8 << 20
"""of one batch, but for the chunk that reaches beyond"""
WAITING_BYTES_MAX = 32 << 20
"""of chunks that wait or are being written; what comes beyond is sent"""
SLOW_S = 1.0
"""what comes while a batch takes longer is sent: the datanode's threads may have more luck, and memory is bounded"""
ASKED_AFTER_PUTS = 6
"""within DEMAND_S: then a range is asked for"""
DEMAND_S = 1.0
REFUSED_FOR_S = 30.0
"""how long a node is left alone whose directory cannot be written into, or that lends nothing"""
FAILED_FOR_S = 1.0
"""and one where anything else went wrong"""

_log = logging.getLogger(__name__)


class NearLane:
    """To one directory. Used from one event loop; closed once."""

    def __init__(self, near_ranges: NearRanges, directory: Path) -> None:
        """directory: a datanode's. Touches nothing yet."""
        self._near_ranges = near_ranges
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._ranges: deque[HeldRange] = deque()
        """that have room, the one in use first"""
        self._waiting: deque[Waiting] = deque()
        self._waiting_bytes = 0
        """those of the batch that is being written among them"""
        self._batches = NearBatches(near_ranges, self._settle)
        self._running: Sequence[Waiting] = ()
        """the batch that is being written"""
        self._running_since_s: float | None = None
        self._is_beginning = False
        """a batch begins with the next turn of the loop"""
        self._is_asking = self._is_closed = False
        self._asked_after_s = 0.0
        """no range is asked for before then"""
        self._demand, self._demand_s = 0, 0.0
        """puts since then, which is within DEMAND_S"""
        self._timer: asyncio.TimerHandle | None = None

    def place(self, ranges: RangeClient, chunk_id: ChunkId, blocks: Sequence[Buffer], length: int) -> Waiting | None:
        """The only chunk of a blob, to be written; None: it is to be sent. length: of all blocks, in bytes. ranges: of
        the datanode."""
        now_s = self._loop.time()
        self._count_demand(now_s)
        since_s = self._running_since_s
        is_slow = since_s is not None and now_s - since_s > SLOW_S
        if is_slow or self._is_closed or self._waiting_bytes + length > WAITING_BYTES_MAX:
            return None
        group = group_name(str(chunk_id))
        while self._ranges:
            held = self._ranges[0]
            if held.group == group:
                offset = held.take(padded(length), now_s)
                if offset is not None:
                    if len(self._ranges) == 1 and held.is_nearly_used:
                        self._ask(ranges, group, now_s)
                    return self._enqueue(Waiting(held, NewBody(chunk_id, offset, blocks), length))
            elif group < held.group and held.is_used(now_s):  # a straggler, of the group before
                return None
            self._retire(held)
        if self._demand >= ASKED_AFTER_PUTS:
            self._ask(ranges, group, now_s)
        return None

    async def close(self) -> None:
        """What waits is written, and all ranges are given back."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        under_way = [waiting.settled for waiting in (*self._running, *self._waiting)]
        if under_way:
            await asyncio.wait(under_way, timeout=CLOSE_TIMEOUT_S)
        await self._batches.close()
        while self._ranges:
            held = self._ranges[0]
            self._retire(held)
            if held.open:  # the medium hangs
                held.drop()

    def _count_demand(self, now_s: float) -> None:
        if now_s - self._demand_s >= DEMAND_S:
            self._demand, self._demand_s = 0, now_s
        self._demand += 1

    # --- ranges

    def _ask(self, ranges: RangeClient, group: str, now_s: float) -> None:
        if self._is_asking or now_s < self._asked_after_s:
            return
        asking = self._near_ranges.ask(self._directory, ranges, group)
        if asking is not None:
            self._is_asking = True
            asking.add_done_callback(self._adopt)

    def _adopt(self, asking: asyncio.Future[HeldRange]) -> None:
        self._is_asking = False
        error = asking.exception()
        if error is not None:
            self._asked_after_s = self._loop.time() + (REFUSED_FOR_S if isinstance(error, NotLent) else FAILED_FOR_S)
            if not isinstance(error, NodeFull):
                defect = None if isinstance(error, FrostbyteError) else error
                _log.warning("%s: small chunks are sent: %s", self._directory, error, exc_info=defect)
            return
        self._ranges.append(asking.result())
        if self._is_closed:
            self._retire(self._ranges[-1])
        elif self._timer is None:
            self._timer = self._loop.call_later(RESTED_S, self._look)

    def _look(self) -> None:
        """Give back what rests."""
        self._timer = None
        now_s = self._loop.time()
        for held in [held for held in self._ranges if held.is_over(now_s)]:
            self._retire(held)
        if self._ranges:
            self._timer = self._loop.call_later(RESTED_S, self._look)

    def _retire(self, held: HeldRange) -> None:
        """Nothing more gets a place in it; what has one is still written."""
        if not held.is_retired:
            held.is_retired = True
            self._ranges.remove(held)
            self._end_unused(held)

    def _end_unused(self, held: HeldRange) -> None:
        if held.is_retired and not held.open:
            self._near_ranges.give_back(held)

    # --- batches

    def _enqueue(self, waiting: Waiting) -> Waiting:
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.length
        if self._running_since_s is None and not self._is_beginning:
            self._is_beginning = True
            self._loop.call_soon(self._begin)  # what comes in the same turn of the loop is of the same batch
        return waiting

    def _begin(self) -> None:
        self._is_beginning = False
        while self._waiting and self._running_since_s is None:
            held, batch = self._take()
            if batch:
                self._running, self._running_since_s = batch, self._loop.time()
                self._batches.store(held, batch)
            else:
                self._end_unused(held)

    def _take(self) -> tuple[HeldRange, list[Waiting]]:
        """The next batch, which is of one range; what nobody waits for any more is left out."""
        held = self._waiting[0].held
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < BATCH_ITEMS_MAX and size < BATCH_BYTES_MAX:
            waiting = self._waiting[0]
            if waiting.held is not held:
                break
            self._waiting.popleft()
            if waiting.settled.done():
                self._leave(waiting)
            else:
                batch.append(waiting)
                size += waiting.length
        return held, batch

    def _settle(self, held: HeldRange, batch: Sequence[Waiting], outcome: Outcome) -> None:
        self._running, self._running_since_s = (), None
        for waiting in batch:
            self._leave(waiting)
        if isinstance(outcome, BaseException):
            self._give_up(held, outcome)
            for waiting in batch:
                settle(waiting.settled, outcome)
        else:
            for waiting, receipt in zip(batch, outcome, strict=True):
                settle(waiting.settled, receipt)
        self._end_unused(held)
        self._begin()

    def _leave(self, waiting: Waiting) -> None:
        waiting.held.open -= 1
        self._waiting_bytes -= waiting.length

    def _give_up(self, held: HeldRange, error: BaseException) -> None:
        """A range that was taken back, or that could not be written into: what waits for it is sent."""
        _log.warning("%s: a range is given up: %s", self._directory, error)
        self._asked_after_s = self._loop.time() + FAILED_FOR_S
        others = [waiting for waiting in self._waiting if waiting.held is not held]
        for waiting in self._waiting:
            if waiting.held is held:
                self._leave(waiting)
                settle(waiting.settled, NotLent("the range is given up"))
        self._waiting = deque(others)
        if not held.is_retired:
            held.is_retired = True
            self._ranges.remove(held)
