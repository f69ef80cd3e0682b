"""Slices of replicated chunks: from one replica, from the next when that fails, and from two when the first is late.
What a directory on this machine has in memory (near_pieces) is opened on the spot, without a task or a thread.

A late replica's successor doubles what the slice holds in memory; there are no more such than hedges are allowed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cluster.chunk_slice import ChunkSlice, Layout
from cluster.fetching import Attempt, ReadServices
from cluster.piece_read import PieceRead, Race
from storage.base.blocks import BLOCKS
from storage.base.errors import Corrupt, Unavailable
from storage.base.untouched import untouched_memory
from storage.chunks.near_chunks import FAILURES
from storage.crypto.envelope import (
    FRAME_LOG2,
    SEALED_FRAME_BYTES,
    TAG_BYTES,
    Buffer,
    Opener,
    open_span_into,
    sealed_span,
)
from storage.crypto.frame_reader import FrameReader
from storage.model import Chunk

NEAR_HELD_BYTES_MAX = 17 * SEALED_FRAME_BYTES
"""a slice that holds more is not opened on the spot"""


class ReplicaFetcher:
    """See Fetcher. One per worker."""

    def __init__(self, services: ReadServices) -> None:
        self._services = services
        self._room = untouched_memory(NEAR_HELD_BYTES_MAX)
        """for sealed bytes on their way from a file to what they are opened into; nobody waits while they are in it"""

    async def fetch(self, layout: Layout, opener: Opener, piece: ChunkSlice, attempt: Attempt) -> Buffer:
        """One replica after the other, in an order that spreads readers and puts doubtful ones last."""
        left = self._order(layout, attempt)
        if self._services.near and piece.held_bytes <= NEAR_HELD_BYTES_MAX:
            block = self._open_cached(left, layout, opener, piece, attempt)
            if block is not None:
                return block
        opened: dict[PieceRead, list[Buffer]] = {}
        with Race(attempt) as race:
            while True:
                if left and all(read.is_late for read in race.running):
                    self._ask(race, left.popleft(), layout, opener, piece, opened)
                if not opened:
                    raise _failure(layout, attempt)
                for read, error in await race.next_done():
                    blocks = opened.pop(read)
                    if error is None:
                        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
                    attempt.fail(layout.chunk_id, read.node, error)
                for read in race.overdue:
                    read.is_late = bool(left) and race.may_hedge(read.node, [left[0]])
                    if read.is_late:
                        attempt.is_degraded = True
                    else:
                        read.wait_longer()

    def open_at_hand(self, layout: Layout, opener: Opener, piece: ChunkSlice) -> memoryview | None:
        """As open_at_once, in memory that is the caller's."""
        start, end, length = piece.start, piece.end, piece.chunk.length
        span = sealed_span(start, end, length)
        size_bytes = span.length - (span.last_frame - span.first_frame + 1) * TAG_BYTES
        return self.open_at_once(layout, opener, piece.chunk, start, end, BLOCKS.take_filling(size_bytes))

    def open_at_once(
        self, layout: Layout, opener: Opener, chunk: Chunk, start: int, end: int, room: memoryview
    ) -> memoryview | None:
        """The plaintext [start, end) of a chunk in a room that has its frames opened, if the next replica is at hand in
        memory and right. None, with nothing noted: `fetch` says more."""
        services, span = self._services, sealed_span(start, end, chunk.length)
        if span.length > len(self._room):
            return None
        number = self._order(layout, None)[0]
        sealed = self._room[: span.length]
        try:
            if not services.near.read_cached(number, layout.chunk_id, span.offset, sealed):
                return None
            opened = open_span_into(opener, span, sealed, chunk.length, room)
        except FAILURES:
            return None
        services.counts.add(span.length, end - start, is_degraded=False)
        begin = start - (span.first_frame << FRAME_LOG2)
        return opened[begin : begin + end - start]

    def _order(self, layout: Layout, attempt: Attempt | None) -> deque[int]:
        chunk_id, hints = layout.chunk_id, self._services.hints
        numbers: Sequence[int] = layout.nodes
        if attempt is not None:
            numbers = [number for number in numbers if not attempt.has_failed(chunk_id, number)]
        ordered = self._services.nodes.order_for_read(numbers)
        near = self._services.near
        if len(hints) or (near and len(ordered) > 1):
            is_doubtful = self._services.nodes.is_doubtful
            ordered = sorted(ordered, key=lambda it: (hints.is_lost(chunk_id, it), is_doubtful(it), it not in near))
        return deque(ordered)

    def _open_cached(
        self, left: deque[int], layout: Layout, opener: Opener, piece: ChunkSlice, attempt: Attempt
    ) -> Buffer | None:
        """From the replica that is next, if it is at hand in memory. One that is not right is not tried again. (Another
        one that is at hand does not count: that this one is missing would be noticed by nobody.)"""
        near, chunk_id = self._services.near, layout.chunk_id
        while left:
            reader = FrameReader(opener, piece.start, piece.end, piece.chunk.length)
            sealed = self._room[: reader.span.length]
            try:
                if not near.read_cached(left[0], chunk_id, reader.span.offset, sealed):
                    return None
            except FAILURES:
                return None
            attempt.stored_bytes += len(sealed)
            try:
                return reader.feed(sealed)
            except Corrupt as error:
                near.forget(left[0], chunk_id)
                attempt.fail(chunk_id, left.popleft(), error)
        return None

    def _ask(
        self,
        race: Race,
        number: int,
        layout: Layout,
        opener: Opener,
        piece: ChunkSlice,
        opened: dict[PieceRead, list[Buffer]],
    ) -> None:
        reader = FrameReader(opener, piece.start, piece.end, piece.chunk.length)
        blocks: list[Buffer] = []

        def take(block: Buffer) -> None:
            if plaintext := reader.feed(block):
                blocks.append(plaintext)

        opened[race.ask(number, layout.chunk_id, reader.span.offset, reader.span.length, take)] = blocks


def _failure(layout: Layout, attempt: Attempt) -> Corrupt | Unavailable:
    chunk_id = str(layout.chunk_id)
    if attempt.all_lost:
        return Corrupt(f"no good replica of a chunk is left: {attempt.told()}", chunk_id=chunk_id)
    return Unavailable(f"no replica of a chunk can be read now: {attempt.told()}", chunk_id=chunk_id)
