"""When a worker begins to accept: once a write to it would succeed.

At a start a worker is up before it has heard of the datanodes, and connections that it accepted then got 503 while the
one beside it had the map already. So they wait in the kernel's queue, where a worker that is ready takes them. Not for
ever: reads need neither all of the datanodes nor the master, so that past ACCEPT_WAIT_S it accepts all the same, shows
the other workers that it is not ready, and they say so at /-/ready until it is.
"""

from __future__ import annotations

import asyncio
import logging

from s3gw.acceptor import Board
from s3gw.call import Operations

ACCEPT_WAIT_S = 5.0
POLL_S = 0.02
LATE_POLL_S = 0.2

_log = logging.getLogger(__name__)


class Readiness:
    """Of one worker, and by the board of those beside it. Used on one event loop, closed at its end."""

    def __init__(self, operations: Operations, board: Board | None) -> None:
        self._operations = operations
        self._board = board
        self._late: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Until this worker is ready, or ACCEPT_WAIT_S have passed."""
        try:
            async with asyncio.timeout(ACCEPT_WAIT_S):
                await self._until_ready(POLL_S)
        except TimeoutError:
            _log.warning("accepting connections although writes would fail now")
            if self._board is not None:
                self._board.show_ready(False)
                self._late = asyncio.create_task(self._until_ready(LATE_POLL_S))

    async def all_ready(self) -> bool:
        """Whether a write would succeed now, whichever worker takes it."""
        return (self._board is None or self._board.is_everybody_ready()) and await self._operations.ready()

    async def close(self) -> None:
        """Nothing is shown any more."""
        if self._late is not None:
            self._late.cancel()
            await asyncio.gather(self._late, return_exceptions=True)

    async def _until_ready(self, pause_s: float) -> None:
        while not await self._operations.ready():  # noqa: ASYNC110 - other processes
            await asyncio.sleep(pause_s)
        if self._board is not None:
            self._board.show_ready(True)
