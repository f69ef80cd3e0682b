"""The shared listening socket: who takes the next connection, and what happens when the others do not."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator

import pytest

from s3gw.acceptor import RESTS_MAX, Acceptor, Board, count_waiting, open_board

WAIT_S = 50.0


class Holder(asyncio.Protocol):
    """Keeps what it is given."""

    def __init__(self, held: set[asyncio.BaseTransport]) -> None:
        self._held = held
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._held.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._held.discard(self._transport)


class Worker:
    """An acceptor with the connections that it took."""

    def __init__(self, listener: socket.socket, board: Board | None) -> None:
        self.held: set[asyncio.BaseTransport] = set()
        self._listener = listener.dup()  # an event loop watches a descriptor once
        self.acceptor = Acceptor(self._listener, lambda: Holder(self.held), lambda: len(self.held), None, board)
        self.acceptor.start(64)

    def end(self) -> None:
        """Accept nothing more and drop everything."""
        self.acceptor.close()
        self._listener.close()
        for transport in self.held:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A bound socket."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        yield bound


@pytest.fixture
def board_fd() -> Iterator[int]:
    """A board for two."""
    made = open_board(2)
    yield made
    os.close(made)


async def connect(listener: socket.socket, count: int, *workers: Worker) -> list[socket.socket]:
    """So many connections at once, until the workers hold them."""
    clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
    before = sum(len(worker.held) for worker in workers)
    async with asyncio.timeout(WAIT_S):
        while sum(len(worker.held) for worker in workers) < before + count:
            await asyncio.sleep(0.001)
    return clients


def boards(board_fd: int) -> tuple[Board, Board]:
    """Of two workers that accept and have no connection yet."""
    both = Board(board_fd, 0), Board(board_fd, 1)
    for board in both:
        board.show(0)
    return both


def test_a_board_shows_who_is_ahead(board_fd: int) -> None:
    """By more than an eighth of its own connections, so that many may differ by a few."""
    first, second = boards(board_fd)
    assert not first.is_ahead()
    first.show(1)
    assert (first.is_ahead(), second.is_ahead()) == (True, False)
    second.show(1)
    assert (first.is_ahead(), second.is_ahead()) == (False, False)
    first.show(17)
    second.show(15)
    assert not first.is_ahead()
    second.show(14)
    assert first.is_ahead()


def test_of_those_that_wait_a_worker_may_take_its_share(board_fd: int) -> None:
    """Without looking whether the others take theirs; the odd one is anybody's."""
    first, second = boards(board_fd)
    for taken in range(8):
        first.show(taken)
        assert not first.is_ahead(15 - taken)
        assert not first.is_ahead(16 - taken)
    first.show(8)
    assert first.is_ahead(16 - 8)
    assert not second.is_ahead(16 - 8)


def test_how_many_wait(listener: socket.socket) -> None:
    """Those that nobody has accepted; where nobody can tell it is taken for one."""
    assert count_waiting(listener) == 0
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    assert count_waiting(listener) == 3
    accepted, _ = listener.accept()
    assert count_waiting(listener) == 2
    assert count_waiting(accepted) == 1
    with socket.socket(socket.AF_UNIX) as other:
        assert count_waiting(other) == 1
    for connection in (accepted, *clients):
        connection.close()


def test_a_worker_that_starts_again_begins_with_none(board_fd: int) -> None:
    """What its dead predecessor had shown is gone, once it accepts; nothing is left to it before."""
    Board(board_fd, 1).show(9)
    first = Board(board_fd, 0)
    first.show(1)
    assert not first.is_ahead()
    again = Board(board_fd, 1)
    assert not first.is_ahead()
    again.show(0)
    assert first.is_ahead()


def test_everybody_is_ready_once_all_have_said_so(board_fd: int) -> None:
    """One that is started again is as ready as its predecessor until it says otherwise."""
    first, second = Board(board_fd, 0), Board(board_fd, 1)
    first.show_ready(True)
    assert not first.is_everybody_ready()
    second.show_ready(True)
    assert first.is_everybody_ready()
    again = Board(board_fd, 1)
    assert first.is_everybody_ready()
    again.show_ready(False)
    assert not first.is_everybody_ready()


async def test_a_worker_that_accepts_says_so(listener: socket.socket, board_fd: int) -> None:
    """With its first number of connections, none, so that some are left to it."""
    other = Board(board_fd, 1)
    other.show(1)
    board = Board(board_fd, 0)
    assert not other.is_ahead()
    worker = Worker(listener, board)
    assert other.is_ahead()
    worker.end()


def test_a_board_has_places_for_its_workers_only(board_fd: int) -> None:
    """ValueError otherwise."""
    for worker in (-1, 2):
        with pytest.raises(ValueError, match="no place for worker"):
            Board(board_fd, worker)


async def test_connections_are_shared_evenly(listener: socket.socket, board_fd: int) -> None:
    """However they come."""
    workers = [Worker(listener, Board(board_fd, number)) for number in range(2)]
    clients = await connect(listener, 2, *workers)
    assert [len(worker.held) for worker in workers] == [1, 1]
    clients += await connect(listener, 30, *workers)
    assert all(14 <= len(worker.held) <= 18 for worker in workers)
    for client in clients:
        client.close()
    for worker in workers:
        worker.end()


async def test_many_that_come_at_once_are_taken_in_a_few_turns(listener: socket.socket) -> None:
    """A turn of a busy loop is long: with one connection in each the last of a crowd would wait for seconds."""
    worker = Worker(listener, None)
    clients = [socket.create_connection(listener.getsockname()) for _ in range(40)]
    for _ in range(12):
        await asyncio.sleep(0)
    assert len(worker.held) == 40
    for client in clients:
        client.close()
    worker.end()


async def test_a_crowd_is_shared_in_a_few_turns(listener: socket.socket, board_fd: int) -> None:
    """Nobody rests before it has its share."""
    clients = [socket.create_connection(listener.getsockname()) for _ in range(40)]
    workers = [Worker(listener, Board(board_fd, number)) for number in range(2)]
    for _ in range(12):
        await asyncio.sleep(0)
    assert [len(worker.held) for worker in workers] == [20, 20]
    for client in clients:
        client.close()
    for worker in workers:
        worker.end()


async def test_in_a_busy_loop_a_worker_that_hangs_is_given_up_sooner(listener: socket.socket, board_fd: int) -> None:
    """A rest lasts a turn there."""
    Board(board_fd, 1).show(0)
    worker, turns = Worker(listener, Board(board_fd, 0)), 0
    clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
    async with asyncio.timeout(WAIT_S):
        while len(worker.held) < 20:
            time.sleep(0.05)
            await asyncio.sleep(0)
            turns += 1
    assert turns < 2 * RESTS_MAX - 6
    for client in clients:
        client.close()
    worker.end()


async def test_a_worker_that_hangs_holds_nobody_up(listener: socket.socket, board_fd: int) -> None:
    """Its connections are left to it for a while and then taken; each time the wait is shorter."""
    Board(board_fd, 1).show(0)
    worker = Worker(listener, Board(board_fd, 0))
    clients = await connect(listener, 3 * RESTS_MAX, worker)
    assert len(worker.held) == 3 * RESTS_MAX
    for client in clients:
        client.close()
    worker.end()


async def test_a_connection_that_ends_is_taken_off_the_board(listener: socket.socket, board_fd: int) -> None:
    """By whoever calls show_count then."""
    other = Board(board_fd, 1)
    worker = Worker(listener, Board(board_fd, 0))
    other.show(1)
    (client,) = await connect(listener, 1, worker)
    before = other.is_ahead()
    client.close()
    async with asyncio.timeout(WAIT_S):
        while worker.held:
            await asyncio.sleep(0.001)
    worker.acceptor.show_count()
    assert (before, other.is_ahead()) == (False, True)
    worker.end()


async def test_a_lone_worker_needs_no_board(listener: socket.socket) -> None:
    """And takes nothing once it is closed."""
    worker = Worker(listener, None)
    clients = await connect(listener, 5, worker)
    worker.acceptor.close()
    clients.append(socket.create_connection(listener.getsockname()))
    await asyncio.sleep(0)
    assert len(worker.held) == 5
    for client in clients:
        client.close()
    worker.end()
