"""Kept connections to one internal server. The one that was used last is used next, so that what is not needed grows
old; the number of all is bounded, and whoever finds none free waits for its turn."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from storage.base.address import Address
from storage.base.internal_connection import InternalConnection

IDLE_TIMEOUT_S = 30.0
"""well below the server's, so that a connection is not reused while the server closes it"""


class ConnectionPool:
    """Made anywhere, used on one event loop."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, connect_s: float, connections_max: int) -> None:
        """connect_s: until a connection stands, waiting for a free one included."""
        self._address = address
        self._tls = tls
        self._connect_s = connect_s
        self._connections_max = connections_max
        self._idle: list[InternalConnection] = []
        self._used: set[InternalConnection] = set()
        self._connecting = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, fresh: bool = False) -> InternalConnection:
        """A connection for one exchange, to be released; fresh: none that was kept. OSError, TimeoutError."""
        if not fresh and not self._waiters and (kept := self._take_kept()) is not None:
            return kept
        async with asyncio.timeout(self._connect_s):
            while len(self._used) + self._connecting >= self._connections_max:
                await self._wait_for_turn()
            if not fresh and (kept := self._take_kept()) is not None:
                return kept
            return await self._connect()

    def release(self, connection: InternalConnection) -> None:
        """The exchange is over; a connection that cannot take another one is closed."""
        self._used.discard(connection)
        if connection.is_reusable:
            connection.idle_since_s = asyncio.get_running_loop().time()
            connection.expect(None)
            self._idle.append(connection)
        else:
            connection.abort()
        self._wake_one()

    def close(self) -> None:
        """End every connection, those in use as well."""
        for connection in (*self._idle, *self._used):
            connection.abort()
        self._idle.clear()

    def _take_kept(self) -> InternalConnection | None:
        if not self._idle or len(self._used) + self._connecting >= self._connections_max:
            return None
        too_old_s = asyncio.get_running_loop().time() - IDLE_TIMEOUT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.failure is None and connection.idle_since_s > too_old_s:
                self._used.add(connection)
                return connection
            connection.abort()
        return None

    async def _wait_for_turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._wake_one()  # the turn came in the moment of the cancellation
            raise

    def _wake_one(self) -> None:
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _connect(self) -> InternalConnection:
        loop = asyncio.get_running_loop()
        address = self._address
        self._connecting += 1
        try:
            if address.is_unix:
                _, connection = await loop.create_unix_connection(lambda: InternalConnection(loop), address.path)
            else:
                _, connection = await loop.create_connection(
                    lambda: InternalConnection(loop), address.host, address.port, ssl=self._tls
                )
        except BaseException:
            self._connecting -= 1
            self._wake_one()
            raise
        self._connecting -= 1
        self._used.add(connection)
        return connection
