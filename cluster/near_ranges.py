"""Ranges of segments of near datanodes while this worker has them: borrowed, written into, given back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from storage.base.clock import Clock
from storage.base.direct_file import AlignedBuffers
from storage.base.errors import Unavailable
from storage.base.files import DiskFiles
from storage.chunks.chains import Chains
from storage.chunks.lent_range import RANGE_BYTES, Ending
from storage.chunks.near_range import NearRange
from storage.chunks.worker_pool import WorkerPool
from storage.datanode.range_client import RangeClient, RangeLoan

RANGES_MAX = 32
"""of one worker, those that are just being asked for or given back among them"""
RESTED_S = 1.0
"""a range that nothing is written into for so long is given back: the disk may be about to be made read-only"""
KEPT_S_MAX = 5.0
"""and every one after so long: a datanode that ends waits for it, and one that drains shall not for long"""
THREADS = 2


class HeldRange:
    """One. Places are given on the event loop."""

    def __init__(self, group: str, loan: RangeLoan, near: NearRange, now_s: float) -> None:
        self.group = group
        self.near = near
        """its calls that block come from one thread at a time"""
        self.open = 0
        """chunks that have a place and are not settled"""
        self.is_retired = False
        """nothing more gets a place"""
        self._loan = loan
        self._position = loan.grant.begin
        """where the next body goes"""
        self._begun_s = self._used_s = now_s

    def take(self, size: int, now_s: float) -> int | None:
        """The place of a body of whole blocks; None when it does not fit."""
        offset = self._position
        if self.is_retired or offset + size > self._loan.grant.end:
            return None
        self._position += size
        self._used_s = now_s
        self.open += 1
        return offset

    @property
    def is_nearly_used(self) -> bool:
        """The time to ask for another one."""
        begin, end, _ = self._loan.grant
        return end - self._position < (end - begin) // 4

    def is_used(self, now_s: float) -> bool:
        """Whether something is being written into it, or was just now."""
        return bool(self.open) or now_s - self._used_s < RESTED_S

    def is_over(self, now_s: float) -> bool:
        """Whether it is to be given back, though there is room in it."""
        return not self.is_used(now_s) or now_s - self._begun_s >= KEPT_S_MAX

    def give_back(self) -> None:
        """To the datanode, which is told how it went. Blocking."""
        self.near.close()
        self._loan.end(Ending(self.near.failed))

    def drop(self) -> None:
        """The datanode is told nothing of what is durable: a thread or the kernel may still be writing. Does not
        block."""
        self.near.leave_open()
        self.near.close()
        self._loan.hang_up()


class NearRanges:
    """All of one worker. Used from one event loop; closed once."""

    def __init__(self, clock: Clock) -> None:
        self.count = 0
        """asked for, or not given back yet"""
        self.chains = Chains()
        """of all lanes"""
        self.buffers = AlignedBuffers()
        """as many as lanes have batches, while there is a range"""
        self._clock = clock
        self._files = DiskFiles()
        self._pool: WorkerPool | None = None
        self._is_closed = False

    def ask(self, directory: Path, ranges: RangeClient, group: str) -> asyncio.Future[HeldRange] | None:
        """A range of a group, to be given back: what is told of it raises as RangeClient.borrow and NearRange; None
        when there are too many."""
        if self._is_closed or self.count >= RANGES_MAX:
            return None
        self.count += 1
        asking = self._threads().run(self._borrow, directory, ranges, group, asyncio.get_running_loop().time())
        asking.add_done_callback(self._note_asked)
        return asking

    def give_back(self, held: HeldRange) -> None:
        """It is over, and nobody waits for that."""
        try:
            ending = self._threads().run(held.give_back)
        except Unavailable:  # at the end of this process
            held.drop()
            self._uncount()
        else:
            ending.add_done_callback(self._note_over)

    async def close(self) -> None:
        """Wait until what was given back is."""
        self._is_closed = True
        await self.chains.close()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _threads(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(THREADS, "near-ranges")
        return self._pool

    def _borrow(self, directory: Path, ranges: RangeClient, group: str, now_s: float) -> HeldRange:
        loan = ranges.borrow(group, RANGE_BYTES)
        try:
            near = NearRange(self._files, directory, group, loan.grant.inode, loan.is_lent, self._clock, self.buffers)
        except BaseException:
            loan.end(Ending())
            raise
        return HeldRange(group, loan, near, now_s)

    def _note_asked(self, asking: asyncio.Future[HeldRange]) -> None:
        if asking.exception() is not None:
            self._uncount()

    def _note_over(self, _: asyncio.Future[None]) -> None:
        self._uncount()

    def _uncount(self) -> None:
        self.count -= 1
        if not self.count:
            self.buffers.shed()
