"""Migrations: forward, once, in whole steps; and what cannot be opened."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.postgresql import open as opening
from storage.metadata.postgresql.database import SESSION_SETTINGS
from storage.metadata.postgresql.open import (
    connect_postgres,
    migrate_postgres_metadata,
    open_postgres_metadata,
)
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.schema import MIGRATIONS, migrate, read_schema_version
from tests.postgres_server import shared_databases

RELEASED_SHA256 = (
    "7c89ff99593ee3170b8eb669831da34a994ed92630a6a92e9a84060b4a13a2ed",
    "986d5d89e8ea1e867132d318e22b2039150e29c4f4efb8899c6f13c1fde6eb68",
)
"""of the statements of each version that was released: a change to them needs a migration, not a new digest"""


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """A database in which nothing was ever made."""
    databases = shared_databases()
    given = await databases.take()
    connection = await asyncpg.connect(given)
    await connection.execute("DROP SCHEMA IF EXISTS frostbyte CASCADE")
    await connection.close()
    yield given
    await databases.give_back(given, is_spoiled=True)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """To it."""
    opened = await connect_postgres(dsn)
    yield opened
    await opened.close()


async def test_an_empty_database_gets_its_tables(dsn: str) -> None:
    """At the first opening; the command says from which version to which."""
    await (await open_postgres_metadata(dsn)).close()
    assert await migrate_postgres_metadata(dsn) == (len(MIGRATIONS), len(MIGRATIONS))


async def test_many_openings_at_once_migrate_once(dsn: str) -> None:
    """The others wait for the first."""
    opened = await asyncio.gather(*[open_postgres_metadata(dsn) for _ in range(8)])
    assert await asyncio.gather(*[metadata.configuration_sequence() for metadata in opened]) == [1] * 8
    for metadata in opened:
        await metadata.close()


async def test_a_step_that_fails_leaves_the_version_before(connection: Connection) -> None:
    """Nothing of the step is there, and the next attempt makes it whole."""
    await migrate(connection)
    broken = (*MIGRATIONS, ("CREATE TABLE half (a integer)", "CREATE TABLE half (a integer)"))
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(connection, broken)
    assert await read_schema_version(connection) == len(MIGRATIONS)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    mended = (*MIGRATIONS, ("CREATE TABLE half (a integer)",))
    assert await migrate(connection, mended) == len(MIGRATIONS) + 1
    assert await connection.fetchval("SELECT to_regclass('half')") is not None


def test_a_released_version_is_never_edited() -> None:
    """Databases of these versions exist; what they look like is fixed."""
    digests = [hashlib.sha256("\n".join(statements).encode()).hexdigest() for statements in MIGRATIONS]
    assert tuple(digests[: len(RELEASED_SHA256)]) == RELEASED_SHA256


async def test_a_newer_schema_is_refused(dsn: str, connection: Connection) -> None:
    """In one line that says what to do."""
    await migrate(connection, (*MIGRATIONS, ()))
    known = len(MIGRATIONS)
    with pytest.raises(FrostbyteError, match=f"schema version {known + 1}, this Frostbyte knows up to {known}"):
        await open_postgres_metadata(dsn)


async def test_an_older_schema_is_not_migrated_in_passing(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway of the new release must not change the tables under those of the old one."""
    await migrate(connection)
    monkeypatch.setattr(opening, "MIGRATIONS", (*MIGRATIONS, ()))
    with pytest.raises(FrostbyteError, match="frostbyte metadata migrate"):
        await open_postgres_metadata(dsn)


async def test_text_must_be_kept_as_utf8(dsn: str) -> None:
    """Any other encoding would refuse names that clients may choose."""
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE DATABASE in_ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    other = dsn.replace(dsn.partition("?")[0].rpartition("/")[2], "in_ascii")
    with pytest.raises(FrostbyteError, match="SQL_ASCII"):
        await open_postgres_metadata(other)
    await admin.execute("DROP DATABASE in_ascii WITH (FORCE)")
    await admin.close()


@pytest.mark.parametrize("dsn_text", ["nonsense://x", "postgresql://localhost:notaport/x"])
async def test_a_dsn_that_makes_no_sense_is_refused(dsn_text: str) -> None:
    """As a setting, not as a database that is away."""
    with pytest.raises(FrostbyteError) as refused:
        await open_postgres_metadata(dsn_text)
    assert not isinstance(refused.value, Unavailable)


async def test_a_server_that_only_reads_is_not_connected_to(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby is passed over, so that a dsn may name all servers."""
    monkeypatch.setitem(SESSION_SETTINGS, "default_transaction_read_only", "on")
    with pytest.raises(Unavailable):
        await open_postgres_metadata(dsn)


async def test_every_session_is_bounded(connection: Connection) -> None:
    """Statements, locks and idle transactions have an end."""
    settings: dict[str, Any] = {}
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        settings[name] = await connection.fetchval(f"SHOW {name}")
    assert settings == {
        "statement_timeout": "25s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "10s",
    }
