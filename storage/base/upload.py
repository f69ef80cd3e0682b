"""The body of a request that is streamed: taken from its source block by block, as fast as the other side takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from storage.base.errors import ChunkTruncated
from storage.base.internal_connection import Buffer, InternalConnection


class UploadLimits(Protocol):
    """Seconds, as internal_client.Deadlines."""

    @property
    def progress_s(self) -> float: ...

    @property
    def answer_s(self) -> float: ...


class Upload:
    """`start` at most once, `end` always: the source is left alone from then on.

    It runs beside whoever waits for the answer, who learns at once that the connection is over or that the answer came
    before the end of the body. Time spent waiting for the source is not the other side's fault and counts against no
    deadline.
    """

    def __init__(
        self, connection: InternalConnection, source: AsyncIterator[Buffer], length: int, limits: UploadLimits
    ) -> None:
        self._connection = connection
        self._source = source
        self._length = length
        self._limits = limits
        self._task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        """what the source raised, or ChunkTruncated"""

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self) -> None:
        """Stop where it is, unless it has ended."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        connection = self._connection
        connection.expect(None)
        try:
            if not await self._send():
                return
        except Exception as error:  # noqa: BLE001 - handed over whole to whoever waits for the answer
            self.failure = error
            connection.abort()
            return
        connection.end_body()
        connection.expect(self._limits.answer_s)

    async def _send(self) -> bool:
        """Whether all of it was written; False when the connection ended before. ChunkTruncated; what the source
        raises."""
        connection, progress_s = self._connection, self._limits.progress_s
        left = self._length
        async for block in self._source:
            left -= len(block)
            if left < 0:
                raise ChunkTruncated("the body is longer than announced")
            connection.write(block)
            if not await connection.drain(progress_s):
                return False
        if left:
            raise ChunkTruncated("the body is shorter than announced")
        return True
