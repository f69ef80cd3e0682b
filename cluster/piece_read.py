"""Spans of pieces (replicas or fragments of a chunk), asked of datanodes side by side: deadlines, and who is late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from cluster.fetching import Attempt, ReadServices
from storage.base.errors import ChunkError, Corrupt, FrostbyteError, NodeUnreachable, Unavailable
from storage.base.ids import ChunkId
from storage.crypto.envelope import Buffer

PIECE_FAILURES = (ChunkError, Corrupt, Unavailable)
"""of one piece or its node: another one may do"""

Take = Callable[[Buffer], None]


class PieceRead:
    """A span of one piece, on its way from one node. Moments are by the event loop's clock."""

    def __init__(self, services: ReadServices, node: int, chunk_id: ChunkId, offset: int, length: int) -> None:
        self.node = node
        self.has_begun = False
        """sent its first byte"""
        self.is_late = False
        """others were asked in its place; welcome all the same"""
        self.is_near = False
        """read from the node's directory: its process had no part in it"""
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
        if self.node in self._services.near and await self._read_near(take):
            return
        sealed = self._services.nodes.store(self.node).get(self._chunk_id, self._offset, self._length)
        try:
            async for block in sealed:
                self._receive(block, take)
        finally:
            if isinstance(sealed, AsyncGenerator):
                await sealed.aclose()
        if self.received_bytes < self._length:
            raise Corrupt(f"{self._length - self.received_bytes} bytes are missing at the end")

    async def _read_near(self, take: Take) -> bool:
        """From the node's directory; False when the node is to be asked."""
        near = self._services.near
        block = await near.read(self.node, self._chunk_id, self._offset, self._length)
        if block is None:
            return False
        self.is_near = True
        try:
            self._receive(block, take)
        except Corrupt:
            near.forget(self.node, self._chunk_id)
            raise
        return True

    def _receive(self, block: Buffer, take: Take) -> None:
        now_s = self._now_s()
        self.deadline_s = now_s + self._services.deadlines.read_stall_s
        if not self.has_begun:
            self.has_begun = True
            self._services.hedging.note_first_byte(self.node, now_s - self._asked_s)
        self.received_bytes += len(block)
        take(block)

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
            if not read.is_near:
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
