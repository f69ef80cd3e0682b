"""One chunk on its way to its replicas, all at once, each at its own pace.

    refused, full or dead while the start of the chunk is still held  → another node, from the first byte on
    dead or stalled later                                             → dropped, the chunk goes on to the others
    a copy is missing when all bytes are sent                         → another node pulls it from one that has it
    fewer copies than the minimum after that                          → NotEnoughNodes
    no replica left                                                   → Unavailable, and the producer stops

A replica counts only when the datanode's own digest, of the bytes that it wrote, is the digest of the bytes made here.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from cluster.deadlines import Deadlines
from cluster.frame_log import Cursor, FrameLog
from cluster.nodes import NodePool
from cluster.placer import Choice
from storage.base.errors import (
    ChunkError,
    Corrupt,
    FrostbyteError,
    NodeFull,
    NodeUnreachable,
    NotEnoughNodes,
    Unavailable,
)
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt
from storage.model import Node


class CopyCount(NamedTuple):
    """How many replicas a chunk gets, and how many must be durable before a write is acknowledged."""

    wanted: int
    minimum: int


class ChunkWrite:
    """Made with the nodes that get the chunk, and those that stand in for them.

    `start`, then the producer fills the log and closes it, then `finish`; `abort` at any time instead.
    """

    def __init__(
        self,
        chunk_id: ChunkId,
        sealed_length: int,
        choice: Choice,
        copies: CopyCount,
        log: FrameLog,
        nodes: NodePool,
        deadlines: Deadlines,
    ) -> None:
        self.attempted: list[int] = []
        """every node that may hold bytes of the chunk"""
        self.strays: list[int] = []
        """nodes that had the whole chunk and do not count: they may have kept it all the same"""
        self._chunk_id = chunk_id
        self._sealed_length = sealed_length
        self.copies = copies
        self._log = log
        self._nodes = nodes
        self._deadlines = deadlines
        self._choice = choice
        self._stand_ins: list[Node] | None = None
        """ranked when first needed"""
        self._domains = {node.number: node.report.failure_domain for node in choice.column}
        self._running: set[int] = set()
        self._durable: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._last_error: FrostbyteError | None = None

    def start(self) -> None:
        """Begin to send to all replicas."""
        loop = asyncio.get_running_loop()
        # All cursors are opened before a byte is appended: none may miss the start.
        starts = [(node.number, self._log.open_cursor()) for node in self._choice.column]
        self._running.update(number for number, _ in starts)
        for number, cursor in starts:
            assert cursor is not None, "the log is used for one chunk, from its start"
            self._tasks.append(loop.create_task(self._fill(number, cursor)))

    async def finish(self) -> tuple[int, ...]:
        """After the log was closed: the nodes that hold the chunk, verified. NotEnoughNodes, Unavailable."""
        for task in self._tasks:
            await task
        while self._durable and len(self._durable) < self.copies.wanted:
            target = self._take_stand_in()
            if target is None:
                break
            await self._copy_to(target)
        if len(self._durable) < self.copies.minimum:
            raise NotEnoughNodes(
                f"{len(self._durable)} of at least {self.copies.minimum} copies could be made durable"
            ) from self._last_error
        return tuple(self._durable)

    @property
    def _expected(self) -> ChunkReceipt:
        return ChunkReceipt(self._log.length, self._log.digest)

    async def abort(self) -> None:
        """Stop sending; what was stored is the caller's to delete (`attempted`)."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fill(self, number: int, cursor: Cursor) -> None:
        """Fill one replica's place, with the node given or with one that stands in for it."""
        try:
            while not await self._try(number, cursor):
                # The new cursor is opened before the old one closes, which may be all that holds the chunk's start.
                again = self._log.open_cursor()
                stand_in = self._take_stand_in() if again is not None else None
                cursor.close()
                if again is None:
                    break
                cursor = again
                if stand_in is None:
                    break
                number = stand_in
                self._running.add(number)
        finally:
            cursor.close()
        if not self._running and not self._durable:
            self._log.fail(Unavailable(f"no datanode takes the chunk: {self._last_error}"))

    async def _try(self, number: int, cursor: Cursor) -> bool:
        """Whether the node has the whole chunk now, durable and verified."""
        try:
            await self._send(number, cursor)
        except (ChunkError, Corrupt, Unavailable) as error:
            self._fail(number, error)
            if cursor.has_taken_all and not isinstance(error, NodeFull):
                self.strays.append(number)
            return False
        self._running.discard(number)
        self._durable.append(number)
        self._nodes.note_success(number)
        return True

    async def _send(self, number: int, cursor: Cursor) -> None:
        self.attempted.append(number)
        try:
            async with asyncio.timeout(self._deadlines.begin_s) as timeout:
                cursor.hurry(timeout, self._deadlines)
                receipt = await self._nodes.store(number).put(self._chunk_id, self._sealed_length, cursor)
        except TimeoutError:
            raise NodeUnreachable(f"node {number} did not take the chunk in time") from None
        self._check(number, receipt)

    async def _copy_to(self, target: int) -> None:
        """A missing copy, made from datanode to datanode."""
        source = self._durable[0]
        self.attempted.append(target)
        try:
            async with asyncio.timeout(self._deadlines.pull_s):
                receipt = await self._nodes.pull(target, source, self._chunk_id, self._expected)
            self._check(target, receipt)
        except TimeoutError:
            self._fail(target, NodeUnreachable(f"node {target} did not pull the chunk in time"))
            self.strays.append(target)
        except (ChunkError, Corrupt, Unavailable) as error:
            self._fail(target, error)
            self.strays.append(target)
        else:
            self._durable.append(target)

    def _check(self, number: int, receipt: ChunkReceipt) -> None:
        if receipt != self._expected:
            raise Corrupt(f"node {number} stored other bytes than were sent", chunk_id=str(self._chunk_id))

    def _fail(self, number: int, error: FrostbyteError) -> None:
        self._running.discard(number)
        self._last_error = error
        self._nodes.note_failure(number)

    def _take_stand_in(self) -> int | None:
        """The next node that was not tried, of a failure domain that holds no copy if there is one."""
        if self._stand_ins is None:
            self._stand_ins = self._choice.stand_ins()
        if not self._stand_ins:
            return None
        taken = {self._domains[number] for number in (*self._running, *self._durable)}
        apart = (node for node in self._stand_ins if node.report.failure_domain not in taken)
        node = next(apart, self._stand_ins[0])
        self._stand_ins.remove(node)
        self._domains[node.number] = node.report.failure_domain
        return node.number
