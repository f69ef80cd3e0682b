"""A bounded set of connections, lent to one call at a time; those who come when all are out wait in line.

asyncpg has a pool of its own, but lending and taking back there costs 40 µs of the event loop's time (measured on a
2-core machine), more than all the rest of a point read; this one costs less than a microsecond. The newest returned is
lent first, so that a light load keeps few connections warm. A connection that may still be busy (its call was cancelled
or timed out) is closed by whoever borrowed it, and never lent again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncpg

from storage.base.errors import Unavailable

WAITING_MAX = 1000
ACQUIRE_DEADLINE_S = 10.0

LOST = (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""what asyncpg raises when a connection cannot be made or breaks"""

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # the library's classes take parameters in its stubs only

Connect = Callable[[], Awaitable[Connection]]


class ConnectionPool:
    """`acquire` and `release` on the event loop."""

    def __init__(self, connect: Connect, connections_max: int) -> None:
        self._connect = connect
        self._connections_max = connections_max
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()
        self._places_taken = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False

    async def acquire(self) -> Connection:
        """An open connection, for the caller alone until `release`. Unavailable when there is none within the deadline,
        or too many wait already; nothing was sent then."""
        if self._closed:
            raise Unavailable("the metadata is being closed")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._lent.add(connection)
                return connection
            self._places_taken -= 1
        if self._places_taken < self._connections_max:
            self._places_taken += 1
            return await self._open()
        return await self._wait()

    def release(self, connection: Connection) -> None:
        """Give it to the one who waits longest. A closed connection makes room for a new one."""
        self._lent.discard(connection)
        if connection.is_closed():
            if not self._hand_on(None):
                self._places_taken -= 1
        elif self._closed:
            connection.terminate()
        elif not self._hand_on(connection):
            self._idle.append(connection)

    def close(self) -> None:
        """Calls in flight are cut short."""
        self._closed = True
        for connection in (*self._idle, *self._lent):
            connection.terminate()
        self._idle.clear()
        while self._waiters:
            self._waiters.popleft().cancel()

    async def _open(self) -> Connection:
        """In a place that is taken already."""
        try:
            async with asyncio.timeout(ACQUIRE_DEADLINE_S):
                connection = await self._connect()
        except BaseException as error:
            if not self._hand_on(None):
                self._places_taken -= 1
            if isinstance(error, (*LOST, asyncpg.PostgresError)):
                raise Unavailable(f"the database does not answer: {error or type(error).__name__}") from error
            raise
        self._lent.add(connection)
        return connection

    async def _wait(self) -> Connection:
        if len(self._waiters) >= WAITING_MAX:
            raise Unavailable("too many requests are waiting for the database")
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(ACQUIRE_DEADLINE_S):
                connection = await waiter
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError) or self._closed:
                raise Unavailable("no connection to the database became free in time") from None
            raise
        return await self._open() if connection is None else connection

    def _leave(self, waiter: asyncio.Future[Connection | None]) -> None:
        """The line, or with what was handed over at the last moment: that goes on to the next."""
        if not waiter.done() or waiter.cancelled():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return
        connection = waiter.result()
        if connection is not None:
            self.release(connection)
        elif not self._hand_on(None):
            self._places_taken -= 1

    def _hand_on(self, connection: Connection | None) -> bool:
        """A connection, or (None) the place for one, to the first who still waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                if connection is not None:
                    self._lent.add(connection)
                waiter.set_result(connection)
                return True
        return False
