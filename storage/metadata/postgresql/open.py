"""How the PostgreSQL metadata is opened: a bounded pool, the schema as this Frostbyte knows it, durability looked at.

A DSN names one or several hosts (`postgresql://u@a:5432,b:5432/db`); unless it says otherwise with
target_session_attrs, connections go to the one that takes writes, so that a promoted standby is found by itself. Every
connection begins with settings of its own and keeps its prepared statements, which no pooler between would carry on.
"""

from __future__ import annotations

import logging
import os
from urllib.parse import parse_qs, urlsplit

import asyncpg

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.postgresql.check import check_integrity
from storage.metadata.postgresql.database import (
    COMMAND_DEADLINE_S,
    POOL_CONNECTIONS_MAX,
    SESSION_SETTINGS,
    Database,
)
from storage.metadata.postgresql.durability import Durability
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.metadata.postgresql.pool import ACQUIRE_DEADLINE_S, LOST, Connection, ConnectionPool
from storage.metadata.postgresql.schema import (
    MIGRATIONS,
    MOVED_MARK,
    SCHEMA,
    migrate,
    read_schema_version,
    require_known_version,
    require_no_unfinished_copy,
)
from storage.metadata.postgresql.transport import is_protected

SERVER_VERSION_MIN = 14

_STATEMENTS_CACHED = 256
_CONNECT_ERRORS = (*LOST, asyncpg.PostgresError)
_SELECT_DURABILITY = (
    "SELECT current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean,"
    " current_setting('synchronous_commit'), current_setting('synchronous_standby_names'),"
    " CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN"
    " (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) END"
)

_log = logging.getLogger(__name__)


async def open_postgres_metadata(
    dsn: str, *, clock: Clock | None = None, connections_max: int = POOL_CONNECTIONS_MAX
) -> PostgresMetadata:
    """For every process alike. An empty database gets its tables; FrostbyteError for one of another schema version, for
    a server that is too old or keeps its text in another encoding; Unavailable when it does not answer."""
    connection = await connect_postgres(dsn)
    try:
        await _require_server(connection)
        if not await read_schema_version(connection):
            await migrate(connection)
        await _require_schema(connection)
        durability = Durability(*(await connection.fetchrow(_SELECT_DURABILITY) or ()))
    except _CONNECT_ERRORS as error:
        raise Unavailable(f"the database cannot be opened: {error or type(error).__name__}") from error
    finally:
        connection.terminate()
    for problem in durability.problems:
        _log.warning("metadata: %s", problem)
    pool = ConnectionPool(lambda: _connect(dsn), connections_max)
    return PostgresMetadata(Database(pool, clock), durability)


async def migrate_postgres_metadata(dsn: str) -> tuple[int, int]:
    """Bring the schema forward. → (version before, version now). As open_postgres_metadata."""
    connection = await connect_postgres(dsn)
    try:
        await _require_server(connection)
        before = await read_schema_version(connection)
        return before, await migrate(connection)
    except asyncpg.PostgresError as error:
        raise FrostbyteError(f"the database cannot be migrated: {error}") from error
    finally:
        connection.terminate()


async def mark_postgres_moved(dsn: str) -> None:
    """Another engine has the records now: what is left here is refused from then on."""
    connection = await connect_postgres(dsn)
    try:
        await connection.execute(f"INSERT INTO {SCHEMA}.meta VALUES ($1, 1) ON CONFLICT DO NOTHING", MOVED_MARK)
    finally:
        connection.terminate()


async def check_postgres_metadata(dsn: str) -> list[str]:
    """What is not whole in the database; empty when all is well. As open_postgres_metadata, but an empty database is
    left as it is."""
    connection = await connect_postgres(dsn)
    try:
        await _require_schema(connection)
        return await check_integrity(connection)
    except _CONNECT_ERRORS as error:
        raise Unavailable(f"the database cannot be checked: {error or type(error).__name__}") from error
    finally:
        connection.terminate()


async def connect_postgres(dsn: str) -> Connection:
    """One connection with the usual settings. Unavailable; FrostbyteError for a dsn that makes no sense, or leads to
    another machine without TLS."""
    try:
        if not is_protected(dsn, os.environ):
            raise FrostbyteError(
                "the metadata's dsn leads to another machine in the clear: add sslmode=verify-full (or require)"
            )
        return await _connect(dsn)
    except asyncpg.ClientConfigurationError as error:
        raise FrostbyteError(f"the metadata's dsn: {error}") from None
    except ValueError:  # whose text shows a piece of the dsn, maybe of the password
        raise FrostbyteError(
            "the metadata's dsn is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE with special characters in %XX"
        ) from None
    except _CONNECT_ERRORS as error:
        raise Unavailable(f"the database does not answer: {error or type(error).__name__}") from error


async def _connect(dsn: str) -> Connection:
    return await asyncpg.connect(
        _with_defaults(dsn),
        timeout=ACQUIRE_DEADLINE_S,
        command_timeout=COMMAND_DEADLINE_S,
        statement_cache_size=_STATEMENTS_CACHED,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=0,
        server_settings={**SESSION_SETTINGS, "search_path": SCHEMA},
    )


def _with_defaults(dsn: str) -> str:
    """To the server that takes writes, unless the dsn says otherwise."""
    query = urlsplit(dsn).query
    if "target_session_attrs" in parse_qs(query):
        return dsn
    return f"{dsn}{'&' if query else '?'}target_session_attrs=read-write"


async def _require_server(connection: Connection) -> None:
    version = connection.get_server_version()
    if version.major < SERVER_VERSION_MIN:
        raise FrostbyteError(f"PostgreSQL {SERVER_VERSION_MIN} or later is needed, this is {version.major}")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise FrostbyteError(f"the database keeps its text in {encoding}; it must be UTF8")


async def _require_schema(connection: Connection) -> None:
    version = await read_schema_version(connection)
    require_known_version(version)
    if version < len(MIGRATIONS):
        raise FrostbyteError(
            f"the database has schema version {version}, this Frostbyte needs {len(MIGRATIONS)}: "
            "run `frostbyte metadata migrate` first"
        )
    await require_no_unfinished_copy(connection)
