"""Turns a metadata read into plaintext blocks, at the pace of whoever takes them, a little ahead of them.

Spans grow while a client keeps up and shrink to one frame when it does not, so that a slow client holds next to
nothing. A span is in the byte budget while it is fetched; the one fetched ahead is a loan, dropped when others need the
bytes. What is at hand in memory is neither fetched ahead nor in the budget: it is opened when it is asked for. What was
handed to the sender is out of the budget (no client can starve the others by not reading) but counted: above
SENDING_BYTES_MAX in all hands together, everybody gets single frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import NamedTuple

from cluster.byte_budget import ByteBudget
from cluster.chunk_read import ChunkReader
from cluster.chunk_rows import page_chunks
from cluster.chunk_slice import ChunkSlice
from storage.base.clock import Clock
from storage.base.errors import Corrupt
from storage.crypto.customer import CustomerKey
from storage.crypto.envelope import FRAME_LOG2, Buffer, Opener
from storage.metadata.interface import Metadata, VersionRead
from storage.model import Blob, Chunk

SPAN_FRAMES_FIRST = 4
SPAN_FRAMES_MAX = 16
"""1 MiB: what a datanode answers in one piece. A read that is no longer begins with all of it"""
ROOM_BYTES = (SPAN_FRAMES_MAX + 1) << FRAME_LOG2
"""for the frames of as many bytes, wherever they begin"""
SLOW_AFTER_S = 0.25
"""a client that takes longer for a block gets smaller ones and no read-ahead"""
SENDING_BYTES_MAX = 32 << 20


class ReadRuns:
    """What all reads of a worker share."""

    def __init__(
        self,
        metadata: Metadata,
        chunks: ChunkReader,
        budget: ByteBudget,
        clock: Clock,
        sending_bytes_max: int = SENDING_BYTES_MAX,
    ) -> None:
        self.chunks = chunks
        self.budget = budget
        self.sending_bytes = 0
        """handed out and not known to have left, over all reads"""
        self._metadata = metadata
        self._clock = clock
        self._sending_bytes_max = sending_bytes_max
        self._room: memoryview | None = None
        """for what is opened at once, and sent before the next is"""

    async def blocks(
        self, read: VersionRead, start: int, end: int, customer_key: CustomerKey | None = None
    ) -> AsyncGenerator[Buffer, None]:
        """The plaintext [start, end) of a version, in order. Corrupt when the rows do not add up to it."""
        if len(read.blobs) == 1 and read.blobs[0].inline is not None:
            offset = read.extents[0].offset
            yield self.chunks.open_inline(read.blobs[0], start - offset, end - offset, customer_key)
            return
        left = end - start
        frames_first = SPAN_FRAMES_MAX if left <= SPAN_FRAMES_MAX << FRAME_LOG2 else SPAN_FRAMES_FIRST
        if not self._has_room:
            frames_first = 1
        run = _Run(self, self._slices(read, start, end), left, frames_first, customer_key)
        size = size_before = 0
        try:
            while run.left and (block := await run.next_block()) is not None:
                # A sender hands a block to its transport and waits for that to empty when it has the next one: the one
                # that was asked to be followed may still be there, the one before it has left.
                self.sending_bytes += len(block) - size_before
                size, size_before = len(block), size
                handed_s = self._clock.monotonic_s()
                yield block
                run.adapt(keeps_up=self._clock.monotonic_s() - handed_s < SLOW_AFTER_S and self._has_room)
        finally:
            self.sending_bytes -= size + size_before
            run.close()
        if run.left:
            raise Corrupt(f"the rows of a version are {run.left} bytes short of what it says")

    def open_at_once(self, blob: Blob, start: int, end: int) -> Buffer | None:
        """The plaintext [start, end) of a blob that is inline, or one chunk at hand in memory; of a chunk no more than
        a span. None: `blocks` has it. Corrupt, SealBroken, UnknownKeyId.

        A memoryview is of a room that the next call uses again, and that belongs to who holds it after `keep`."""
        if blob.inline is not None:
            return self.chunks.open_inline(blob, start, end)
        if end - start > SPAN_FRAMES_MAX << FRAME_LOG2 or self.sending_bytes + ROOM_BYTES > self._sending_bytes_max:
            return None
        room = self._room
        if room is None:
            room = self._room = memoryview(bytearray(ROOM_BYTES))
        return self.chunks.open_at_once(blob, blob.chunks[0], start, end, room)

    def keep(self) -> Callable[[], None]:
        """The room that open_at_once gave out last has not left yet. To be called, once, when it has."""
        assert self._room is not None, "nothing was opened"
        size, self._room = len(self._room), None
        self.sending_bytes += size

        def let_go() -> None:
            self.sending_bytes -= size

        return let_go

    @property
    def _has_room(self) -> bool:
        return self.sending_bytes < self._sending_bytes_max

    async def _slices(self, read: VersionRead, start: int, end: int) -> AsyncIterator[ChunkSlice]:
        """The chunks that [start, end) of the version touches, and what of each."""
        blobs = {blob.blob_id: blob for blob in read.blobs}
        for extent in read.extents:
            first, last = max(start - extent.offset, 0), min(end - extent.offset, extent.length)
            blob = blobs.get(extent.blob_id)
            if blob is None or first >= last:
                continue
            async for placed, chunk in self._chunks_of(blob, last):
                begin, stop = max(first - chunk.offset, 0), min(last - chunk.offset, chunk.length)
                if begin < stop:
                    yield ChunkSlice(placed, chunk, begin, stop)

    async def _chunks_of(self, blob: Blob, end: int) -> AsyncIterator[tuple[Blob, Chunk]]:
        """The rows that the read brought, then further pages, up to plaintext offset `end`; each with its blob as it is
        laid out in that page."""
        async for placed, rows in page_chunks(self._metadata, blob):
            for chunk in rows:
                if chunk.offset >= end:
                    return
                yield placed, chunk
                if chunk.offset + chunk.length >= end:
                    return


class _Ahead(NamedTuple):
    """A span on its way before it is asked for."""

    task: asyncio.Task[Buffer]
    size_bytes: int


class _Run:
    """One read under way."""

    def __init__(
        self,
        shared: ReadRuns,
        slices: AsyncIterator[ChunkSlice],
        left: int,
        frames_first: int,
        customer_key: CustomerKey | None,
    ) -> None:
        self.left = left
        """bytes that no block brought yet"""
        self._shared = shared
        self._customer_key = customer_key
        self._slices = slices
        self._frames = frames_first
        self._keeps_up = True
        self._rest: ChunkSlice | None = None
        """of the chunk that was begun"""
        self._next: ChunkSlice | None = None
        """cut already; fetched ahead, perhaps"""
        self._ahead: _Ahead | None = None
        self._is_at_hand = False
        """the last span needed no wait: the next one is opened when it is asked for, as nothing is gained by a task"""
        self._opener: tuple[ChunkSlice, Opener] | None = None

    async def next_block(self) -> Buffer | None:
        """The next span, opened; None at the end."""
        piece, self._next = self._next or await self._cut(), None
        if piece is None:
            return None
        block = await self._take(piece)
        self.left -= len(block)
        if self._keeps_up and self.left and not self._is_at_hand:
            self._next = await self._cut()
            if self._next is not None:
                self._begin_ahead(self._next)
        return block

    def adapt(self, *, keeps_up: bool) -> None:
        """After the taker came back for more."""
        self._keeps_up = keeps_up
        self._frames = min(self._frames * 2, SPAN_FRAMES_MAX) if keeps_up else 1

    def close(self) -> None:
        """Give back what was fetched ahead."""
        self._shared.budget.settle(self)
        self._drop_ahead()

    async def _cut(self) -> ChunkSlice | None:
        piece, self._rest = self._rest or await anext(self._slices, None), None
        if piece is not None and piece.blob.inline is None:
            piece, self._rest = piece.cut(self._frames)
        return piece

    async def _take(self, piece: ChunkSlice) -> Buffer:
        if piece.blob.inline is not None:
            return self._shared.chunks.open_inline(piece.blob, piece.start, piece.end, self._customer_key)
        budget, ahead = self._shared.budget, self._ahead
        if ahead is not None:
            budget.settle(self)
            self._ahead = None
            try:
                return await ahead.task
            finally:
                ahead.task.cancel()
                budget.release(ahead.size_bytes)
        if self._is_at_hand:
            await asyncio.sleep(0)  # a client that takes everything at once does not keep the others waiting
        if (block := self._open_at_hand(piece)) is not None:
            return block
        size_bytes = piece.held_bytes
        await budget.acquire(size_bytes)
        try:
            return await self._shared.chunks.fetch(self._opener_of(piece), piece)
        finally:
            budget.release(size_bytes)

    def _open_at_hand(self, piece: ChunkSlice) -> Buffer | None:
        """Without a wait, and so without bytes of the budget."""
        block = self._shared.chunks.open_at_hand(self._opener_of(piece), piece)
        self._is_at_hand = block is not None
        return block

    def _begin_ahead(self, piece: ChunkSlice) -> None:
        if piece.blob.inline is not None:
            return
        size_bytes = piece.held_bytes
        if not self._shared.budget.try_acquire(size_bytes):
            return
        self._ahead = _Ahead(asyncio.get_running_loop().create_task(self._fetch_ahead(piece)), size_bytes)
        self._shared.budget.lend(self, self._drop_ahead)

    async def _fetch_ahead(self, piece: ChunkSlice) -> Buffer:
        block = self._open_at_hand(piece)
        return await self._shared.chunks.fetch(self._opener_of(piece), piece) if block is None else block

    def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.task.cancel()
            # A failure that nobody will ask about is not a failure.
            ahead.task.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._shared.budget.release(ahead.size_bytes)

    def _opener_of(self, piece: ChunkSlice) -> Opener:
        """One per chunk: its key is unwrapped once, not once a span."""
        cached = self._opener
        if cached is not None and cached[0].chunk is piece.chunk:
            return cached[1]
        opener = self._shared.chunks.opener(piece.blob, piece.chunk, self._customer_key)
        self._opener = (piece, opener)
        return opener
