"""Accepts on a listening socket that several workers share, so that each gets its share of the connections.

An event loop's own server takes everything that waits in one go: of 16 connections made at once one worker got up to
15, and served them alone beside an idle processor. Here every worker shows the others how many connections it has, and
takes of those that wait what its share of all is; the next one it leaves to who has fewer, for as long as that other
worker is not given up on.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import Callable

REST_S = 0.001
"""for which a connection is left to the others"""
RESTS_MAX = 16
"""in a row; halved each time that none of the others took it, as one of them may hang or be gone"""
LONG_REST_S = 0.016
"""what one may last on the average where turns of the loop are long: hundreds of busy clients make it 100 ms each"""
ACCEPTS_MAX = 256
"""in one turn of the event loop: 15 ms. (Where hundreds of clients come at once each turn serves all those before; who
is taken some turns later waits for seconds.)"""
RETRY_S = 0.5
"""after the system had no room for another connection (files, memory)"""
AWAY = 0xFFFF_FFFF
"""in place of the connections of a worker that does not accept yet: nothing is left to it"""
NUMBER_BYTES = 4

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_TCP_INFO_BEGIN = struct.Struct("=B23xI")
"""the state, and what has no receipt yet: of a listening socket the connections that nobody has accepted (Linux)"""
_TCP_LISTEN = 10

_log = logging.getLogger(__name__)


def open_board(workers: int) -> int:
    """The descriptor of a board for that many workers, which whoever starts them makes and lets them inherit."""
    with tempfile.TemporaryFile() as unnamed:
        os.ftruncate(unnamed.fileno(), 2 * NUMBER_BYTES * workers)
        return os.dup(unnamed.fileno())


class Board:
    """The connections of every worker of one socket, and whether a write to it would have succeeded when it began to
    accept, in memory that they share: two numbers each, which only that worker writes. A worker that was started again
    is what its predecessor was until it says otherwise: it accepts nothing before."""

    def __init__(self, board_fd: int, worker: int) -> None:
        """worker: from 0. ValueError when the board is not made for it."""
        numbers = memoryview(mmap.mmap(board_fd, 0)).cast("I")
        workers = len(numbers) // 2
        if not 0 <= worker < workers:
            raise ValueError(f"a board for {workers} workers has no place for worker {worker}")
        self._counts, self._ready = numbers[:workers], numbers[workers:]
        self._worker = worker
        self.show(AWAY)

    def is_ahead(self, waiting: int = 1) -> bool:
        """Whether this worker has its share of all connections, those that wait among them, and another one has fewer,
        by more than an eighth."""
        counts = [count for count in self._counts.tolist() if count != AWAY]
        count = self._counts[self._worker]
        return count * len(counts) >= sum(counts) + waiting and count - min(counts) > count // 8

    def show(self, count: int) -> None:
        """How many connections this worker has now."""
        self._counts[self._worker] = count

    def show_ready(self, ready: bool) -> None:
        """Whether this worker takes writes, now that it is about to accept, or some time later for the first time."""
        self._ready[self._worker] = ready

    def is_everybody_ready(self) -> bool:
        """Whether all workers have begun to accept, and take writes."""
        return all(self._ready)


class Acceptor:
    """In place of asyncio's Server: `start`, then `close`. The socket stays the caller's to close."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        count_connections: Callable[[], int],
        tls: ssl.SSLContext | None,
        board: Board | None,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._count_connections = count_connections
        self._tls = tls
        self._board = board
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        """connections without a protocol yet: under TLS, until the handshake is over"""
        self._rest: asyncio.TimerHandle | None = None
        self._rests = 0
        self._rests_max = RESTS_MAX
        self._resting_since_s = 0.0

    def start(self, backlog: int) -> None:
        """OSError when the socket cannot listen."""
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self.show_count()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Accept nothing more; handshakes under way are given up."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._listener)
        for task in self._beginning:
            task.cancel()

    def show_count(self) -> None:
        """To be called when a connection has ended, too."""
        if self._board is not None:
            self._board.show(self._count_connections() + len(self._beginning))

    def _accept(self) -> None:
        waiting = 1 if self._board is None else count_waiting(self._listener)
        for taken in range(ACCEPTS_MAX):
            if self._leaves_it_to_others(max(1, waiting - taken)):
                self._pause(REST_S)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return  # another worker was first, or the client is gone
            except OSError as error:
                _log.warning("cannot accept connections for now: %s", error)
                self._pause(RETRY_S)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._end_beginning)
        self.show_count()

    def _end_beginning(self, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self.show_count()

    def _leaves_it_to_others(self, waiting: int) -> bool:
        if self._board is None or not self._board.is_ahead(waiting):
            self._rests, self._rests_max = 0, RESTS_MAX
            return False
        now_s = self._loop.time()
        if not self._rests:
            self._resting_since_s = now_s
        self._rests += 1
        if self._rests <= self._rests_max and now_s - self._resting_since_s <= self._rests_max * LONG_REST_S:
            return True
        self._rests, self._rests_max = 0, self._rests_max // 2
        return False

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._rest = self._loop.call_later(seconds, self._loop.add_reader, self._listener, self._accept)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError as error:  # ssl.SSLError and TimeoutError are among them
            _log.debug("a connection ended before its first request: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


def count_waiting(listener: socket.socket) -> int:
    """How many connections wait to be accepted; 1 where the system does not say."""
    if _TCP_INFO is None:
        return 1
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BEGIN.size)
        state, waiting = _TCP_INFO_BEGIN.unpack(told)
    except (OSError, struct.error):
        return 1
    return waiting if state == _TCP_LISTEN else 1
