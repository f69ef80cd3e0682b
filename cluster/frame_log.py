"""The sealed bytes of one chunk, or of one fragment, between the process that makes them and the datanodes that take
them.

One producer appends blocks (a header or some sealed frames); every replica reads them through a cursor of its own, at
its own pace. What the slowest reader has not taken yet is bounded by a window, so a slow datanode holds the producer
back (until it is dropped) and a slow client holds nothing. Without a reader blocks pass through: their digest is known.

The start of a chunk is kept, as a loan of the byte budget, until more than KEPT_BYTES_MAX were appended: a datanode
that refuses, is full or dies that early is replaced by another one that gets identical bytes from the first on. A chunk
of up to that size is thus held whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from awscrt.checksums import crc64nvme

from cluster.byte_budget import ByteBudget
from cluster.deadlines import Deadlines
from storage.base.errors import FrostbyteError
from storage.chunks.store import DIGEST_BYTES, Buffer
from storage.crypto.envelope import FRAME_BYTES

WINDOW_BYTES_MAX = 1 << 20
RUN_FRAMES_MAX = WINDOW_BYTES_MAX // FRAME_BYTES
KEPT_BYTES_MAX = 1 << 20
"""not above the window, so that a reader that begins anew never holds the producer back for longer than any other"""


class FrameLog:
    """Pieces in, cursors out. `discard` must be called at the end, whatever happened: it gives the budget its bytes."""

    run_frames_max = RUN_FRAMES_MAX

    def __init__(
        self,
        budget: ByteBudget,
        *,
        window_bytes_max: int = WINDOW_BYTES_MAX,
        kept_bytes_max: int = KEPT_BYTES_MAX,
    ) -> None:
        self._budget = budget
        self._window_bytes_max = min(window_bytes_max, budget.capacity_bytes)
        self._kept_bytes_max = min(kept_bytes_max, self._window_bytes_max)
        self._blocks: deque[Buffer] = deque()
        self._first = 0
        """number of the oldest block that is still held"""
        self._taken = 0
        """number of the oldest block that some cursor has not taken"""
        self._end = 0
        self._keeps_start = True
        self._reserved_bytes = 0
        self._untaken_bytes = 0
        self._crc = 0
        self._cursors: set[Cursor] = set()
        self._closed = False
        self._failure: FrostbyteError | None = None
        self._news: asyncio.Event = asyncio.Event()
        self._room: asyncio.Event = asyncio.Event()
        self.length = 0
        """sealed bytes appended so far"""

    @property
    def digest(self) -> bytes:
        """CRC-64/NVME of everything appended so far, as a datanode gives it."""
        return self._crc.to_bytes(DIGEST_BYTES, "big")

    @property
    def is_whole(self) -> bool:
        """Whether a new cursor could still read from the first byte."""
        return self._first == 0

    async def reserve(self, size_bytes: int) -> None:
        """Wait until a block of this size may be made and appended. Raises what `fail` was given; Unavailable."""
        await self.wait_for_room(size_bytes)
        await self._budget.acquire(size_bytes)
        self.grant(size_bytes)

    async def wait_for_room(self, size_bytes: int) -> None:
        """Until the slowest reader is near enough for a block of this size. Raises what `fail` was given."""
        while self._untaken_bytes and self._untaken_bytes + size_bytes > self._window_bytes_max:
            if self._failure is not None:
                raise self._failure
            self._room.clear()
            await self._room.wait()
        if self._failure is not None:
            raise self._failure

    def grant(self, size_bytes: int) -> None:
        """Let a block of this size be appended; somebody took it out of the budget, which gets it back from here."""
        self._reserved_bytes += size_bytes

    def append(self, block: Buffer) -> None:
        """Add a block that was reserved, or granted."""
        size_bytes = len(block)
        self._reserved_bytes -= size_bytes
        self._crc = crc64nvme(block, self._crc)
        self.length += size_bytes
        self._untaken_bytes += size_bytes
        self._blocks.append(block)
        self._end += 1
        if self._keeps_start:
            if self.length > self._kept_bytes_max:
                self._forget_start()
            elif self._end == 1:
                self._budget.lend(self, self._forget_start)
        if not self._cursors:
            self._advance()
        self._news.set()

    def close(self) -> None:
        """No more blocks will come."""
        self._closed = True
        self._news.set()

    def fail(self, failure: FrostbyteError) -> None:
        """Nobody reads any more: the producer must stop."""
        self._failure = failure
        self._news.set()
        self._room.set()

    def discard(self) -> None:
        """Give everything back to the budget."""
        self._budget.settle(self)
        held_bytes = self._reserved_bytes + sum(map(len, self._blocks))
        self._blocks.clear()
        self._first = self._taken = self._end
        self._reserved_bytes = self._untaken_bytes = 0
        self._budget.release(held_bytes)

    def open_cursor(self) -> Cursor | None:
        """A reader from the first byte on; None when the start is gone."""
        if self._first:
            return None
        cursor = Cursor(self)
        self._cursors.add(cursor)
        self._taken, self._untaken_bytes = 0, self.length
        return cursor

    def _forget_start(self) -> None:
        self._keeps_start = False
        self._budget.settle(self)
        self._trim()

    def _advance(self) -> None:
        """A cursor moved or left: count anew what is untaken, drop what nobody needs, let the producer on."""
        lowest = min((cursor.position for cursor in self._cursors), default=self._end)
        if lowest > self._taken:
            passed = islice(self._blocks, self._taken - self._first, lowest - self._first)
            self._untaken_bytes -= sum(map(len, passed))
            self._taken = lowest
            if not self._keeps_start:
                self._trim()
            self._room.set()

    def _trim(self) -> None:
        released_bytes = 0
        while self._first < self._taken:
            released_bytes += len(self._blocks.popleft())
            self._first += 1
        self._budget.release(released_bytes)


class Cursor:
    """One replica's place in the log: an async iterator of blocks."""

    def __init__(self, log: FrameLog) -> None:
        self.position = 0
        """number of the block that was handed out last and counts as untaken, or that comes next"""
        self._log = log
        self._handed = False
        self._timeout: asyncio.Timeout | None = None
        self._deadlines = Deadlines()

    def hurry(self, timeout: asyncio.Timeout | None, deadlines: Deadlines) -> None:
        """From now on (until None) `timeout` runs while the reader works and rests while it waits for the producer."""
        self._timeout = timeout
        self._deadlines = deadlines

    def __aiter__(self) -> Cursor:
        return self

    async def __anext__(self) -> Buffer:
        """The next block; the one before counts as taken. Raises what the log was failed with."""
        log = self._log
        if self._handed:
            self._handed = False
            self.position += 1
            log._advance()
        while self.position == log._end:
            if log._failure is not None:
                raise log._failure
            if log._closed:
                self._expect(self._deadlines.durable_s)
                raise StopAsyncIteration
            self._expect(None)
            log._news.clear()
            await log._news.wait()
        self._expect(self._deadlines.stall_s)
        self._handed = True
        return log._blocks[self.position - log._first]

    def close(self) -> None:
        """Leave: nothing is held for this reader any more."""
        self._timeout = None
        self._log._cursors.discard(self)
        self._log._advance()

    def _expect(self, within_s: float | None) -> None:
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(None if within_s is None else asyncio.get_running_loop().time() + within_s)
