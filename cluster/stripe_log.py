"""The sealed bytes of one erasure-coded chunk on their way to its fragments: gathered into stripes, parity added.

Every fragment has a FrameLog of its own, with a window and a kept start that are its share of a whole chunk's. A stripe
is gathered whole before its cells go to the logs, since parity needs all of its frames; it is computed on the event
loop (15 µs a frame).

Memory for all cells of a stripe, parity too, is taken before its first frame is sealed, so that whoever has begun a
stripe waits for nobody: neither for memory nor, as its readers' windows have room, for datanodes. What a client stops
in the middle of cannot leave before the rest comes. Such stripes may therefore hold a share of the memory only
(`shared`), and one that others wait for is given up after a while: then its client has been too slow.
"""

from __future__ import annotations

import asyncio

from cluster.byte_budget import ByteBudget
from cluster.frame_log import KEPT_BYTES_MAX, WINDOW_BYTES_MAX, FrameLog
from storage.base.errors import FrostbyteError, Unavailable
from storage.chunks.erasure import (
    CHUNK_HEADER_BYTES,
    FRAGMENT_HEADER_BYTES,
    SEALED_FRAME_BYTES,
    Striping,
    stripe_coder,
)
from storage.chunks.store import Buffer

WINDOW_CELLS_MIN = 2
"""so that a datanode always has a cell to take while the next stripe is made"""


class StripeLog:
    """Takes the blocks of a sealed chunk as a FrameLog does, frame by frame. `discard` at the end, as there."""

    run_frames_max = 1
    """each cell leaves at its own time, so that each is a buffer of its own"""

    def __init__(self, budget: ByteBudget, shared: ByteBudget, striping: Striping, patience_s: float) -> None:
        """shared: the part of the budget that unfinished stripes of all chunks may hold together. patience_s: how long
        a stripe may take once others wait for it."""
        window_bytes_max = max(WINDOW_BYTES_MAX // striping.needed, WINDOW_CELLS_MIN * SEALED_FRAME_BYTES)
        kept_bytes_max = KEPT_BYTES_MAX // striping.needed
        self.fragments = [
            FrameLog(budget, window_bytes_max=window_bytes_max, kept_bytes_max=kept_bytes_max)
            for _ in range(striping.width)
        ]
        self._budget = budget
        self._shared = shared
        self._striping = striping
        self._coder = stripe_coder(striping.needed, striping.width)
        self._patience_s = patience_s
        self._header = b""
        self._stripe = 0
        self._cells: list[Buffer] = []
        """frames of the stripe that is gathered"""
        self._reserved_bytes = 0
        """for that stripe"""
        self._failure: FrostbyteError | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def reserve(self, size_bytes: int) -> None:
        """Before the first frame of a stripe: wait until all of it may be made. Raises what `fail` was given, here or
        to all fragments; Unavailable."""
        if self._failure is not None:
            raise self._failure
        if self._reserved_bytes:
            return
        lengths = [self._striping.cell(number, self._stripe).length for number in range(self._striping.width)]
        if not self._header:
            lengths = [FRAGMENT_HEADER_BYTES + length for length in lengths]
        for log, length in zip(self.fragments, lengths, strict=True):
            await log.wait_for_room(length)
        await self._shared.acquire(sum(lengths))
        try:
            await self._budget.acquire(sum(lengths))
        except BaseException:
            self._shared.release(sum(lengths))
            raise
        self._reserved_bytes = sum(lengths)
        self._shared.lend(self, self._hurry)

    def append(self, block: Buffer) -> None:
        """Add a block that was reserved: the header, a frame, or the header and the only frame."""
        frame: Buffer = block
        if not self._header:
            self._header = bytes(block[:CHUNK_HEADER_BYTES])
            for number, log in enumerate(self.fragments):
                self._hand(log, self._striping.header(self._header, number))
            frame = memoryview(block)[CHUNK_HEADER_BYTES:]
        if frame:
            self._cells.append(frame)
            first = self._stripe * self._striping.needed
            if len(self._cells) == min(self._striping.needed, self._striping.frame_count - first):
                self._complete_stripe()

    def close(self) -> None:
        """No more blocks will come."""
        for log in self.fragments:
            log.close()

    def fail(self, failure: FrostbyteError) -> None:
        """It is of no use any more: the producer must stop, and what it gathered is let go."""
        self._failure = failure
        self._settle()

    def discard(self) -> None:
        """Give everything back to the budget."""
        self._settle()
        for log in self.fragments:
            log.discard()

    def _complete_stripe(self) -> None:
        parity = self._coder.encode(self._cells)
        for number, cell in [*enumerate(self._cells), *enumerate(parity, self._striping.needed)]:
            self._hand(self.fragments[number], cell)
        self._stripe += 1
        self._settle()

    def _hand(self, log: FrameLog, cell: Buffer) -> None:
        log.grant(len(cell))
        log.append(cell)
        self._reserved_bytes -= len(cell)
        self._shared.release(len(cell))

    def _settle(self) -> None:
        """Nothing is gathered now."""
        self._cells = []
        self._shared.settle(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        left, self._reserved_bytes = self._reserved_bytes, 0
        self._shared.release(left)
        self._budget.release(left)

    def _hurry(self) -> None:
        """Others wait for what the stripe holds."""
        self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if self._shared.waiting:
            self.fail(Unavailable("the body came too slowly while others waited for memory"))
        else:
            self._shared.lend(self, self._hurry)
