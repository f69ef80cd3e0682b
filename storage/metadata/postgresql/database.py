"""The two shapes of work on the database: a statement to read, and a statement or transaction to write. What the
database or the network does wrong is sorted here into what a caller must know.

A write whose outcome is not known (the connection broke, the deadline passed) raises Unavailable with details
outcome=unknown: it may have been committed. Unavailable without that detail: it was not applied. Reads are tried again
on another connection when theirs breaks; writes only when the database said that nothing of them happened
(serialisation failures and deadlocks).

Waiting is bounded everywhere: for a connection, for a lock, for a statement, and in the number of those who wait; so a
slow database makes clients wait and then refuses them, and no process grows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from storage.base.clock import Clock
from storage.base.errors import REFUSALS, FrostbyteError, Refused, Unavailable
from storage.metadata.postgresql.pool import LOST, Connection, ConnectionPool
from storage.metadata.postgresql.tables import REFUSAL_STATE

POOL_CONNECTIONS_MAX = 16
"""of one process; a gateway's workers times this must stay below the server's max_connections"""

COMMAND_DEADLINE_S = 30.0
STATEMENT_TIMEOUT_MS = 25_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
ATTEMPTS_MAX = 6
BACK_OFF_FIRST_S = 0.005

BIGINT_MAX = 2**63 - 1

_READ_ONLY_STATE = "25006"
_RETRIED_STATES = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_BUSY_STATES = ("53", "55", "57")  # resources, locks, cancelled by a timeout or an operator

_log = logging.getLogger(__name__)

T = TypeVar("T")

SESSION_SETTINGS = {
    "application_name": "frostbyte",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "lock_timeout": str(LOCK_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
    "default_transaction_isolation": "read committed",
    "jit": "off",
    # Every statement is a few index seeks. Statistics that are behind, as after the first hundred thousand objects,
    # could only mislead the planner.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class Database:
    """Made by storage.metadata.postgresql.open. clock None: the database's own, which all its clients share."""

    def __init__(self, pool: ConnectionPool, clock: Clock | None = None) -> None:
        self._pool = pool
        self._clock = clock

    def now_ms(self) -> int | None:
        """For a command's last parameter. None: the database tells the time."""
        return None if self._clock is None else self._clock.now_ms()

    async def read(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """One statement, one snapshot. Unavailable."""
        for attempt in range(ATTEMPTS_MAX):
            connection = await self._pool.acquire()
            try:
                return await connection.fetch(statement, *arguments)
            except asyncpg.DataError as error:
                raise Unavailable(f"a number or text that the database cannot hold: {error}") from error
            except (*LOST, asyncpg.PostgresError) as error:
                if not self._is_worth_another_try(connection, error) or attempt + 1 == ATTEMPTS_MAX:
                    raise _explain(error) from error
            except asyncio.CancelledError:
                connection.terminate()
                raise
            finally:
                self._pool.release(connection)
            await _back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def write(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """One statement that is a transaction. Refusals; Unavailable, see the module on unknown outcomes."""
        return await self._try_to_write(lambda connection: connection.fetch(statement, *arguments))

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Several statements in a transaction; `work` may run again from the beginning. As `write`."""

        async def run(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._try_to_write(run)

    async def close(self) -> None:
        """Calls in flight are cut short."""
        self._pool.close()

    async def _try_to_write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        for attempt in range(ATTEMPTS_MAX):
            connection = await self._pool.acquire()
            try:
                return await work(connection)
            except asyncpg.DataError as error:
                raise Unavailable(f"a number or text that the database cannot hold: {error}") from error
            except asyncpg.PostgresError as error:
                if error.sqlstate == REFUSAL_STATE:
                    raise _refusal(error) from None
                if error.sqlstate not in _RETRIED_STATES or attempt + 1 == ATTEMPTS_MAX:
                    raise self._give_up(connection, error) from error
            except LOST as error:
                raise self._give_up(connection, error) from error
            except asyncio.CancelledError:
                connection.terminate()
                raise
            finally:
                self._pool.release(connection)
            await _back_off(attempt)
        raise AssertionError("the last attempt returns or raises")

    @staticmethod
    def _is_worth_another_try(connection: Connection, error: Exception) -> bool:
        """Of a read: the connection broke, or leads to a server that was set aside."""
        if isinstance(error, TimeoutError):
            connection.terminate()
            return False
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate and error.sqlstate.startswith("57P"):
            return True
        return isinstance(error, LOST)

    @staticmethod
    def _give_up(connection: Connection, error: Exception) -> FrostbyteError:
        """Of a write. A connection that may still be busy, or leads to a server that is no primary, is not kept."""
        state = getattr(error, "sqlstate", None)
        if isinstance(error, LOST) or _is_fatal(error):
            connection.terminate()
            return Unavailable(f"the database was lost: {error or type(error).__name__}", outcome="unknown")
        if state == _READ_ONLY_STATE:
            connection.terminate()
        return _explain(error)


def is_storable(text: str) -> bool:
    """Whether the database can hold this text at all; what it cannot hold is not in it."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


def without_unstorable(text: str) -> str:
    """A place in an order that the database can be asked for: what it cannot hold is left out."""
    return text.encode(errors="ignore").replace(b"\x00", b"").decode()


def _is_fatal(error: Exception) -> bool:
    """The server ended the connection, maybe while it committed."""
    return getattr(error, "severity_en", None) in ("FATAL", "PANIC")


def _refusal(error: asyncpg.PostgresError) -> Refused:
    details: dict[str, str] = json.loads(error.detail or "{}")
    return REFUSALS.get(error.message or "", Refused)(error.hint or "", **details)


def _explain(error: Exception) -> FrostbyteError:
    """The statement was undone, or never ran."""
    state = getattr(error, "sqlstate", None) or ""
    if not isinstance(error, LOST) and state[:2] not in _BUSY_STATES and state not in {_READ_ONLY_STATE}:
        _log.error("metadata: the database refused a statement: %s", error, exc_info=error)
    return Unavailable(f"the database: {error or type(error).__name__}")


async def _back_off(attempt: int) -> None:
    """With jitter, so that those who met do not meet again."""
    await asyncio.sleep(BACK_OFF_FIRST_S * 2**attempt * random.random())  # noqa: S311
