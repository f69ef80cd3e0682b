"""Spans of pieces (replicas or fragments of a chunk), asked of datanodes side by side: deadlines, who is late, what
failed, and what was read. Which pieces to ask for is decided by cluster.replica_fetch and cluster.fragment_fetch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from cluster.chunk_slice import ChunkSlice, Layout
from cluster.deadlines import Deadlines
from cluster.hedging import Hedging
from cluster.nodes import NodePool
from cluster.read_counts import ReadCounts
from cluster.repair_hints import RepairHints
from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, FrostbyteError, NodeUnreachable, Unavailable
from storage.base.ids import ChunkId
from storage.crypto.envelope import Buffer, Opener

PIECE_FAILURES = (ChunkError, Corrupt, Unavailable)
"""of one piece or its node: another one may do"""
ERRORS_TOLD_MAX = 4

Take = Callable[[Buffer], None]


class ReadServices(NamedTuple):
    """What all fetches of a worker share."""

    nodes: NodePool
    hints: RepairHints
    hedging: Hedging
    counts: ReadCounts
    deadlines: Deadlines

    def is_doubtful(self, chunk_id: ChunkId, node: int) -> bool:
        """Whether a piece is better asked for last: its node just failed, or the piece was found lost."""
        return self.nodes.is_doubtful(node) or self.hints.is_lost(chunk_id, node)


class Attempt:
    """What one fetch of a slice has learnt, over all layouts that it tried."""

    def __init__(self, services: ReadServices) -> None:
        self.services = services
        self.is_degraded = False
        """something was asked for in place of something else"""
        self.stored_bytes = 0
        self._errors: dict[tuple[ChunkId, int], FrostbyteError] = {}

    def has_failed(self, chunk_id: ChunkId, node: int) -> bool:
        """Whether this piece cannot be had."""
        return (chunk_id, node) in self._errors

    def fail(self, chunk_id: ChunkId, node: int, error: FrostbyteError) -> None:
        """A piece could not be used. Only for a way that leads nowhere is its node asked last from now on: one lost
        piece says little about the others."""
        self.is_degraded = True
        self._errors[chunk_id, node] = error
        if not is_lost(error):
            self.services.nodes.note_failure(node)

    @property
    def all_lost(self) -> bool:
        """Whether everything that failed is missing or bad, and nothing only unreachable."""
        return all(map(is_lost, self._errors.values()))

    def told(self) -> str:
        """What was wrong, for people."""
        errors = list(self._errors.values())
        return "; ".join(str(error) for error in errors[:ERRORS_TOLD_MAX]) or "none is recorded"

    def close(self, chunk_id: ChunkId, served_bytes: int) -> None:
        """The fetch is over. chunk_id: of the newest layout; what failed of older ones may be gone by right."""
        for (found, node), error in self._errors.items():
            if found == chunk_id:
                self.services.hints.note(found, node, error)
        self.services.counts.add(self.stored_bytes, served_bytes, is_degraded=self.is_degraded)


class Fetcher(Protocol):
    """Brings slices of chunks of one kind of layout."""

    async def fetch(self, layout: Layout, opener: Opener, piece: ChunkSlice, attempt: Attempt) -> Buffer:
        """The plaintext of a slice. Corrupt when the pieces of this layout cannot give it, for certain; Unavailable
        when those that cannot be reached may still have it."""
        ...


class PieceRead:
    """A span of one piece, on its way from one node. Moments are by the event loop's clock."""

    def __init__(self, services: ReadServices, node: int, chunk_id: ChunkId, offset: int, length: int) -> None:
        self.node = node
        self.has_begun = False
        """sent its first byte"""
        self.is_late = False
        """others were asked in its place; welcome all the same"""
        self.received_bytes = 0
        self._services = services
        self._chunk_id = chunk_id
        self._offset = offset
        self._length = length
        self._now_s = asyncio.get_running_loop().time
        self._asked_s = self._now_s()
        self._hedge_s = self._asked_s + services.hedging.delay_s(node)
        self.deadline_s = self._asked_s + services.deadlines.first_byte_s
        """when it is given up, unless another block comes before"""

    async def run(self, take: Take) -> None:
        """Hands every block to `take`. What the node or `take` raises; Corrupt for fewer bytes than were asked for."""
        sealed = self._services.nodes.store(self.node).get(self._chunk_id, self._offset, self._length)
        try:
            async for block in sealed:
                now_s = self._now_s()
                self.deadline_s = now_s + self._services.deadlines.read_stall_s
                if not self.has_begun:
                    self.has_begun = True
                    self._services.hedging.note_first_byte(self.node, now_s - self._asked_s)
                self.received_bytes += len(block)
                take(block)
        finally:
            if isinstance(sealed, AsyncGenerator):
                await sealed.aclose()
        if self.received_bytes < self._length:
            raise Corrupt(f"{self._length - self.received_bytes} bytes are missing at the end")

    @property
    def next_look_s(self) -> float:
        """When it has to be looked at again, if nothing happens before."""
        if self.has_begun or self.is_late:
            return self.deadline_s
        return min(self._hedge_s, self.deadline_s)

    def is_overdue(self, now_s: float) -> bool:
        """It sent nothing for longer than it should, and nobody else was asked for it yet."""
        return not (self.has_begun or self.is_late) and self._hedge_s <= now_s

    def wait_longer(self) -> None:
        """Nobody else can be asked now. Be overdue again later, and less and less often."""
        now_s = self._now_s()
        self._hedge_s = now_s + 2 * (now_s - self._asked_s)


class Race:
    """The reads of one fetch that run side by side. Leaving the context ends those that are still under way.

    One timer serves all of them: by asyncio.wait and a timeout for each, waiting took as long as the rest of a fetch.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._services = attempt.services
        self._running: dict[asyncio.Task[None], PieceRead] = {}
        self._done: list[asyncio.Task[None]] = []
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Race:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for task, read in self._running.items():
            self._attempt.stored_bytes += read.received_bytes
            task.cancel()
            has_lost = kind is None and read.is_late and not read.has_begun
            if has_lost and self._services.hedging.note_late(read.node):
                self._services.nodes.note_failure(read.node)

    @property
    def running(self) -> Iterable[PieceRead]:
        """Asked, and not done."""
        return self._running.values()

    @property
    def overdue(self) -> list[PieceRead]:
        """See PieceRead. Each is to be marked late, or told to wait longer."""
        now_s = asyncio.get_running_loop().time()
        return [read for read in self._running.values() if read.is_overdue(now_s)]

    def ask(self, node: int, chunk_id: ChunkId, offset: int, length: int, take: Take) -> PieceRead:
        """Begin to read [offset, offset + length) of a piece."""
        read = PieceRead(self._services, node, chunk_id, offset, length)
        self._services.hedging.earn()
        task = asyncio.get_running_loop().create_task(read.run(take))
        task.add_done_callback(self._note_done)
        self._running[task] = read
        return read

    async def next_done(self) -> list[tuple[PieceRead, FrostbyteError | None]]:
        """Wait until reads are over, or one is overdue. → those that are over, each with what was wrong with it."""
        if not self._done:
            await self._wait_until(min(read.next_look_s for read in self._running.values()))
        done, self._done = self._done, []
        return [self._end(task) for task in done] or list(self._give_up())

    def may_hedge(self, late: int, others: Iterable[int]) -> bool:
        """Whether these nodes may be asked for what `late` should have sent: none that is in doubt itself. For a node
        that has just been found stalled nothing need be saved."""
        asked = list(others)
        if any(map(self._services.nodes.is_doubtful, asked)):
            return False
        return self._services.nodes.is_doubtful(late) or self._services.hedging.take(len(asked))

    async def _wait_until(self, moment_s: float) -> None:
        """Or until a read is over."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_at(moment_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _note_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # one that nobody will ask about is no failure
            if task in self._running:
                self._done.append(task)
                self._wake()

    def _end(self, task: asyncio.Task[None]) -> tuple[PieceRead, FrostbyteError | None]:
        read = self._running.pop(task)
        self._attempt.stored_bytes += read.received_bytes
        error = task.exception()
        if error is None:
            self._services.nodes.note_success(read.node)
        elif not isinstance(error, PIECE_FAILURES):
            raise error
        return read, error

    def _give_up(self) -> Iterator[tuple[PieceRead, FrostbyteError | None]]:
        """Those that are past their deadlines."""
        now_s = asyncio.get_running_loop().time()
        for task, read in list(self._running.items()):
            if read.deadline_s <= now_s and not task.done():
                del self._running[task]
                self._attempt.stored_bytes += read.received_bytes
                task.cancel()
                yield read, NodeUnreachable(f"node {read.node} sent nothing in time")


def is_lost(error: FrostbyteError) -> bool:
    """Whether it says that the piece is not there or not right, rather than that it cannot be asked for."""
    return isinstance(error, Corrupt | ChunkNotFound)
