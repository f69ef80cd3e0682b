"""The pool: bounded, in line, and never lending what is broken."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import Unavailable
from storage.metadata.postgresql import pool as pool_module
from storage.metadata.postgresql.open import connect_postgres
from storage.metadata.postgresql.pool import Connection, ConnectionPool
from tests.storage.metadata.postgresql.engine import PostgresEngine


class Connecting:
    """Counts the connections that the pool makes, and refuses when told to."""

    def __init__(self, engine: PostgresEngine) -> None:
        self.engine = engine
        self.made = 0
        self.refuses = False

    async def __call__(self) -> Connection:
        if self.refuses:
            raise ConnectionRefusedError
        self.made += 1
        return await connect_postgres(self.engine.dsn)


@pytest.fixture
def connecting(postgres: PostgresEngine) -> Connecting:
    """To the test's database."""
    return Connecting(postgres)


@pytest.fixture
def pool(connecting: Connecting) -> ConnectionPool:
    """Of two connections."""
    return ConnectionPool(connecting, 2)


async def until_waiting(pool: ConnectionPool, count: int) -> None:
    """Until so many stand in line."""
    while len(pool._waiters) < count:
        await asyncio.sleep(0)


async def test_a_connection_is_used_again(pool: ConnectionPool, connecting: Connecting) -> None:
    """The one returned last is lent first."""
    first, second = await pool.acquire(), await pool.acquire()
    pool.release(first)
    pool.release(second)
    assert await pool.acquire() is second
    assert connecting.made == 2
    pool.close()


async def test_those_who_wait_are_served_in_their_order(pool: ConnectionPool, connecting: Connecting) -> None:
    """No more connections are made than allowed."""
    lent = [await pool.acquire(), await pool.acquire()]
    served: list[int] = []

    async def borrow(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        pool.release(connection)

    waiting = []
    for number in range(5):
        waiting.append(asyncio.create_task(borrow(number)))
        await until_waiting(pool, number + 1)
    pool.release(lent[0])
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 3, 4]
    assert connecting.made == 2
    pool.close()


async def test_a_closed_connection_makes_room(pool: ConnectionPool, connecting: Connecting) -> None:
    """Idle or lent, for the next or for the one who waits."""
    first, second = await pool.acquire(), await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await until_waiting(pool, 1)
    first.terminate()
    pool.release(first)
    third = await waiting
    pool.release(second)
    second.terminate()
    fourth = await pool.acquire()
    assert not third.is_closed()
    assert not fourth.is_closed()
    assert connecting.made == 4
    pool.close()


async def test_a_database_that_refuses_takes_no_place(pool: ConnectionPool, connecting: Connecting) -> None:
    """Unavailable for each who asks, and all places are there when it comes back."""
    connecting.refuses = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            await pool.acquire()
    connecting.refuses = False
    await pool.acquire()
    await pool.acquire()
    pool.close()


async def test_one_who_cannot_connect_lets_the_next_try(connecting: Connecting) -> None:
    """A waiter that was handed a place and failed hands it on."""
    pool = ConnectionPool(connecting, 1)
    only = await pool.acquire()
    waiting = [asyncio.create_task(pool.acquire()) for _ in range(3)]
    await until_waiting(pool, 3)
    connecting.refuses = True
    only.terminate()
    pool.release(only)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    connecting.refuses = False
    await pool.acquire()
    pool.close()


async def test_one_who_gives_up_leaves_the_line(connecting: Connecting) -> None:
    """Also at the moment when a connection was handed over: it goes to the next."""
    pool = ConnectionPool(connecting, 1)
    only = await pool.acquire()
    gone, leaving, last = [asyncio.create_task(pool.acquire()) for _ in range(3)]
    await until_waiting(pool, 3)
    gone.cancel()
    await asyncio.wait([gone])
    pool.release(only)
    leaving.cancel()
    assert await last is only
    pool.release(only)
    assert await pool.acquire() is only
    pool.close()


async def test_waiting_is_bounded(connecting: Connecting, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, and in the number of those who wait."""
    monkeypatch.setattr(pool_module, "WAITING_MAX", 1)
    monkeypatch.setattr(pool_module, "ACQUIRE_DEADLINE_S", 0.05)
    pool = ConnectionPool(connecting, 1)
    only = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await until_waiting(pool, 1)
    with pytest.raises(Unavailable, match="too many"):
        await pool.acquire()
    with pytest.raises(Unavailable, match="in time"):
        await waiting
    pool.release(only)
    assert await pool.acquire() is only
    pool.close()


async def test_closing_ends_everything(pool: ConnectionPool) -> None:
    """What is idle, what is lent, and who waits."""
    idle, lent = await pool.acquire(), await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await until_waiting(pool, 1)
    pool.close()
    assert idle.is_closed()
    assert lent.is_closed()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await pool.acquire()
    pool.release(lent)
