"""One chunk on its way to the nodes that get a piece of it, a replica or a fragment: all at once, each at its own pace.

    refused, full or dead while the start of the piece is still held  → another node, from the first byte on
    dead or stalled later                                             → dropped, the others go on
    too few pieces for what must be survived when all bytes are sent  → missing ones are made from node to node
    still too few after that                                          → NotEnoughNodes
    fewer left than bring the chunk back                              → Unavailable, and the producer stops

A piece counts only when the datanode's own digest, of the bytes that it wrote, is the digest of the bytes made here.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from cluster.chunk_sealer import SealedLog
from cluster.deadlines import Deadlines
from cluster.frame_log import Cursor, FrameLog
from cluster.nodes import NodePool
from cluster.placer import Choice
from cluster.redundancy import Redundancy
from cluster.survival import SurviveMin
from storage.base.errors import (
    ChunkError,
    Corrupt,
    FrostbyteError,
    NodeUnreachable,
    NotEnoughNodes,
    Unavailable,
)
from storage.base.ids import ChunkId
from storage.chunks.erasure import Striping
from storage.chunks.store import ChunkReceipt
from storage.crypto.envelope import FRAME_BYTES, HEADER_BYTES, TAG_BYTES
from storage.model import Node

ONE_FRAME_BYTES_MAX = HEADER_BYTES + FRAME_BYTES + TAG_BYTES
"""of a chunk that is sealed in one go when all of it is there, and sent so: nothing of it is held for a slow client"""


class ChunkOrder(NamedTuple):
    """What is asked of one chunk."""

    chunk_id: ChunkId
    """as datanodes keep it"""
    sealed_length: int
    redundancy: Redundancy
    choice: Choice
    survive_min: SurviveMin

    @property
    def striping(self) -> Striping:
        """Where it gets fragments."""
        return Striping(self.redundancy.needed, self.redundancy.width, self.sealed_length)


class ChunkWrite(ABC):
    """Made with the nodes that get the pieces, and those that stand in for them. A *place* is that of one piece in the
    column: the number of the fragment, where there are fragments.

    `start`, then the producer fills `log` and closes it, then `finish`; `abort` at any time instead; `discard` at last.
    """

    log: SealedLog
    """where the sealed bytes of the chunk go in"""

    def __init__(
        self, order: ChunkOrder, logs: Sequence[FrameLog], lengths: Sequence[int], nodes: NodePool, deadlines: Deadlines
    ) -> None:
        """logs: what each place is sent. lengths: of the whole piece of each place, in bytes."""
        self.attempted: list[int] = []
        """every node that may hold bytes of the chunk"""
        self._order = order
        self._chunk_id = order.chunk_id
        self._logs = logs
        self._lengths = lengths
        self._nodes = nodes
        self._deadlines = deadlines
        self._stand_ins: list[Node] | None = None
        """ranked when first needed"""
        self._domains = {node.number: node.report.failure_domain for node in order.choice.column}
        self._running: dict[int, int] = {}
        """place → node"""
        self._durable: dict[int, int] = {}
        """place → node"""
        self._is_sent_whole = order.sealed_length <= ONE_FRAME_BYTES_MAX
        self._cursors: list[Cursor] = []
        """where each place begins"""
        self._tasks: list[asyncio.Task[None]] = []
        self._last_error: FrostbyteError | None = None
        self._is_lost = False

    # ------------------------------------------------------------------ what replicas and fragments differ in

    @property
    @abstractmethod
    def digest(self) -> bytes:
        """As chunk rows have it, of what was made so far."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[int, ...]:
        """As chunk rows have them: who holds a piece, verified."""

    @abstractmethod
    async def _make(self, place: int, target: int) -> ChunkReceipt:
        """A missing piece, made on `target` out of those that are durable."""

    @abstractmethod
    def discard(self) -> None:
        """Give the memory back."""

    # ------------------------------------------------------------------ what they share

    @property
    def is_whole(self) -> bool:
        """Whether every piece is durable."""
        return len(self._durable) == self._order.redundancy.width

    def start(self) -> None:
        """Begin to send to all places; a chunk that is sent whole waits for its end. NotEnoughNodes when that would not
        survive enough, whatever goes well."""
        column = self._order.choice.column
        self._require_survival([node.report.failure_domain for node in column])
        # All cursors are opened before a byte is appended: none may miss the start.
        for log in self._logs:
            cursor = log.open_cursor()
            assert cursor is not None, "a log is used for one chunk, from its start"
            self._cursors.append(cursor)
        self._running.update(enumerate(node.number for node in column))
        if not self._is_sent_whole:
            self._begin_sending()

    def _begin_sending(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(self._fill(place, cursor)) for place, cursor in enumerate(self._cursors)]

    async def finish(self) -> None:
        """After the log was closed: until enough is durable. NotEnoughNodes, Unavailable."""
        if self._is_sent_whole and len(self._cursors) == 1:
            await self._fill(0, self._cursors[0])
        elif self._is_sent_whole:
            self._begin_sending()
        for task in self._tasks:
            await task
        while not self._survives_enough and len(self._durable) >= self._order.redundancy.needed and not self.is_whole:
            target = self._take_stand_in()
            if target is None:
                break
            await self._make_missing(target)
        self._require_survival(self._held)

    async def abort(self) -> None:
        """Stop sending; what was stored is the caller's to delete (`attempted`)."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for cursor in self._cursors:
            cursor.close()

    @property
    def _held(self) -> list[str]:
        """The failure domain of every durable piece."""
        return [self._domains[number] for number in self._durable.values()]

    @property
    def _survives_enough(self) -> bool:
        return self._order.survive_min.is_met(self._order.redundancy, self._held)

    def _require_survival(self, held: list[str]) -> None:
        if not self._order.survive_min.is_met(self._order.redundancy, held):
            raise NotEnoughNodes(
                f"{len(held)} of {self._order.redundancy.width} pieces do not survive {self._order.survive_min}"
            ) from self._last_error

    def _expected(self, place: int) -> ChunkReceipt:
        log = self._logs[place]
        return ChunkReceipt(log.length, log.digest)

    async def _fill(self, place: int, cursor: Cursor) -> None:
        """Fill one place, with the node given or with one that stands in for it."""
        try:
            while not await self._try(place, cursor) and not self._is_lost:
                # The new cursor is opened before the old one closes, which may be all that holds the piece's start.
                again = self._logs[place].open_cursor()
                stand_in = self._take_stand_in() if again is not None else None
                cursor.close()
                if again is None:
                    break
                cursor = again
                if stand_in is None:
                    break
                self._running[place] = stand_in
        finally:
            cursor.close()
        if len(self._running) + len(self._durable) < self._order.redundancy.needed and not self._is_lost:
            self._is_lost = True
            for log in self._logs:
                log.fail(Unavailable(f"too few datanodes take the chunk: {self._last_error}"))

    async def _try(self, place: int, cursor: Cursor) -> bool:
        """Whether the place's node has its whole piece now, durable and verified."""
        number = self._running[place]
        try:
            await self._send(place, number, cursor)
        except (ChunkError, Corrupt, Unavailable) as error:
            del self._running[place]
            if not self._is_lost:  # else it was stopped, and is not to blame
                self._note_failure(number, error)
            return False
        del self._running[place]
        self._durable[place] = number
        self._nodes.note_success(number)
        return True

    async def _send(self, place: int, number: int, cursor: Cursor) -> None:
        self.attempted.append(number)
        whole, limits = self._is_sent_whole, self._deadlines
        try:
            async with asyncio.timeout(limits.durable_s if whole else limits.begin_s) as timeout:
                cursor.hurry(None if whole else timeout, limits)
                receipt = await self._nodes.put(number, self._chunk_id, self._lengths[place], cursor)
        except TimeoutError:
            raise NodeUnreachable(f"node {number} did not take the chunk in time") from None
        self._check(place, number, receipt)

    async def _make_missing(self, target: int) -> None:
        place = next(place for place in range(len(self._logs)) if place not in self._durable)
        self.attempted.append(target)
        try:
            async with asyncio.timeout(self._deadlines.pull_s):
                receipt = await self._make(place, target)
            self._check(place, target, receipt)
        except TimeoutError:
            self._note_failure(target, NodeUnreachable(f"node {target} did not make its piece in time"))
        except (ChunkError, Corrupt, Unavailable) as error:
            self._note_failure(target, error)
        else:
            self._durable[place] = target

    def _check(self, place: int, number: int, receipt: ChunkReceipt) -> None:
        if receipt != self._expected(place):
            raise Corrupt(f"node {number} stored other bytes than were sent", chunk_id=str(self._chunk_id))

    def _note_failure(self, number: int, error: FrostbyteError) -> None:
        self._last_error = error
        self._nodes.note_failure(number)

    def _take_stand_in(self) -> int | None:
        """The next node that was not tried, of a failure domain that holds no piece if there is one."""
        if self._stand_ins is None:
            self._stand_ins = self._order.choice.stand_ins()
        if not self._stand_ins:
            return None
        taken = {self._domains[number] for number in (*self._running.values(), *self._durable.values())}
        apart = (node for node in self._stand_ins if node.report.failure_domain not in taken)
        node = next(apart, self._stand_ins[0])
        self._stand_ins.remove(node)
        self._domains[node.number] = node.report.failure_domain
        return node.number
