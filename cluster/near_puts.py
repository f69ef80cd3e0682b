"""Sealed pieces on their way to datanodes: the large ones of a node on this machine are written straight into its
directory, everything else is sent.

The datanode stays the owner. It is asked first (whether it takes the chunk at all, and has room), makes the draft, and
makes it durable and gives it its name when it is told that the bytes are there; this process only writes them, past the
page cache (storage/chunks/near_drafts.py). The request lasts as long as the writing, so what ends one ends the other:
a draft of a gateway that died is removed by its datanode at once, and a datanode that died, or was started anew, ends
the write like one that is sent. A piece fails, is dropped or replaced as on the other way; whoever gives the bytes sees
no difference. Where the draft cannot even be opened, nothing of the piece was taken yet, and it is sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from cluster.near_pieces import NearPieces
from cluster.write_counts import WriteCounts
from storage.base.clock import Clock
from storage.base.direct_file import AlignedBuffers
from storage.base.ids import ChunkId
from storage.chunks.near_drafts import NearDrafts, NotLent
from storage.chunks.store import Buffer, ChunkReceipt
from storage.datanode import near_wire

NEAR_BYTES_MIN = (1 << 20) + (64 << 10)
"""of a sealed piece: smaller ones share their syncs with others on the datanode, which saves more than sending costs"""
NEAR_PUTS_MAX = 32
"""of one worker at a time: each may hold about a MiB beside what the byte budget counts. What comes beyond is sent"""
REFUSED_FOR_S = 30.0
"""how long a directory that could not be written into is left alone"""
MEMORY_KEPT_S = 5.0
"""for the next write"""

_log = logging.getLogger(__name__)


class Destination(Protocol):
    """What a piece is sent to, of a datanode."""

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt: ...

    async def lend(self, chunk_id: ChunkId, loan: near_wire.Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt: ...


class NearPuts:
    """Of one worker; closed once."""

    def __init__(
        self, near: NearPieces, clock: Clock, counts: WriteCounts | None = None, *, is_on: bool = True
    ) -> None:
        """near: which nodes are on this machine. is_on: else everything is sent."""
        self.counts = counts or WriteCounts()
        self._near = near
        self._clock = clock
        self._is_on = is_on
        self._drafts: dict[Path, NearDrafts] = {}
        self._buffers = AlignedBuffers()
        self._refused_until_s: dict[int, float] = {}
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def put(
        self, number: int, node: Destination, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]
    ) -> ChunkReceipt:
        """As ChunkStore.put, to a node."""
        drafts = self._find(number, length)
        if drafts is not None:
            try:
                return await self._put_near(drafts, node, chunk_id, length, body)
            except NotLent as error:
                _log.warning("node %d is sent its pieces: %s", number, error)
                self._refused_until_s[number] = self._clock.monotonic_s() + REFUSED_FOR_S
        return await node.put(chunk_id, length, body)

    async def close(self) -> None:
        """Let go of all threads and memory."""
        if self._timer is not None:
            self._timer.cancel()
        for drafts in self._drafts.values():
            await asyncio.to_thread(drafts.close)
        self._buffers.shed()

    def _find(self, number: int, length: int) -> NearDrafts | None:
        """Where to write a piece of this size; None when it is to be sent."""
        if not self._is_on or length < NEAR_BYTES_MIN or self._running >= NEAR_PUTS_MAX:
            return None
        directory = self._near.directory(number)
        if directory is None or self._is_refused(number):
            return None
        drafts = self._drafts.get(directory)
        if drafts is None:
            drafts = self._drafts[directory] = NearDrafts(directory, self._buffers)
        return drafts

    def _is_refused(self, number: int) -> bool:
        until_s = self._refused_until_s.get(number)
        if until_s is None:
            return False
        if self._clock.monotonic_s() < until_s:
            return True
        del self._refused_until_s[number]
        return False

    async def _put_near(
        self, drafts: NearDrafts, node: Destination, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]
    ) -> ChunkReceipt:
        writing = _Writing(drafts, chunk_id, near_wire.Loan(secrets.token_hex(near_wire.TOKEN_BYTES), length), body)
        self._running += 1
        try:
            receipt = await node.lend(chunk_id, writing.loan, writing.account())
        finally:
            self._running -= 1
            if not self._running:
                self._shed_later()
            await writing.end()
        self.counts.add(length)
        return receipt

    def _shed_later(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(MEMORY_KEPT_S, self._shed)

    def _shed(self) -> None:
        self._timer = None
        if not self._running:
            self._buffers.shed()


class _Writing:
    """Of one piece. It begins when the datanode asks for the account, that is, when the draft is there."""

    def __init__(
        self, drafts: NearDrafts, chunk_id: ChunkId, loan: near_wire.Loan, body: AsyncIterator[Buffer]
    ) -> None:
        self.loan = loan
        self._drafts = drafts
        self._chunk_id = chunk_id
        self._body = body
        self._task: asyncio.Task[ChunkReceipt] | None = None

    async def account(self) -> AsyncIterator[Buffer]:
        """The body of the request: a sign of life now and then, and the account when all is written. NotLent, and
        whatever else the writing ends with."""
        token, length = self.loan
        task = asyncio.get_running_loop().create_task(self._drafts.fill(self._chunk_id, token, length, self._body))
        self._task = task
        padding = near_wire.padding_bytes(length)
        while not (await asyncio.wait((task,), timeout=near_wire.SIGN_INTERVAL_S))[0]:
            if padding:
                padding -= 1
                yield near_wire.SIGN_OF_LIFE
        yield bytes(padding) + near_wire.format_account(task.result())

    async def end(self) -> None:
        """The body is left alone from here on. What a thread is writing goes into a file that nobody will name."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.exception()
