"""The rows of a PostgreSQL store, for a copy between engines.

A source is read in one snapshot; the tables are locked against writers meanwhile, who find them unavailable. A target
is marked in its meta table until it is whole, and opening a marked one for use is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.base.errors import FrostbyteError
from storage.metadata.copy import TABLES, Counters, Row, Table
from storage.metadata.postgresql.database import SESSION_SETTINGS
from storage.metadata.postgresql.open import connect_postgres
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.schema import COPY_MARK, MIGRATIONS, SCHEMA, migrate, read_schema_version
from storage.metadata.records import decode_attributes

_UNBOUNDED = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0"
_NAMES = sorted({table.name for table in TABLES})
_LOCK = f"LOCK TABLE meta, {', '.join(_NAMES)} IN SHARE MODE"
_COUNT_PROCESSES = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()"
)
_SEQUENCES = {
    "bucket_id": "buckets_bucket_id_seq",
    "node_number": "nodes_number_seq",
    "version_row": "version_rows",
    "upload_row": "uploads_upload_row_seq",
}


class PostgresRows:
    """A Source; made by `open_postgres_source`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        """See the protocol."""
        conditions = _condition(table)
        if after is not None:
            places = ", ".join(f"${at}" for at in range(2, 2 + len(after)))
            conditions.append(f"({_names(table.key)}) > ({places})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        columns = ", ".join(f'"{name}"::integer' if name in table.flags else f'"{name}"' for name in table.columns)
        statement = f"SELECT {columns} FROM {table.name}{where} ORDER BY {_names(table.key)} LIMIT $1"
        return [tuple(row) for row in await self._connection.fetch(statement, limit, *(after or ()))]

    async def read_counters(self) -> Counters:
        """See the protocol."""
        meta = dict(map(tuple, await self._connection.fetch("SELECT name, value FROM meta")))
        used = {}
        for counter, sequence in _SEQUENCES.items():
            value, is_used = await self._connection.fetchrow(f"SELECT last_value, is_called FROM {sequence}") or (0, 0)
            used[counter] = value if is_used else 0
        numbers = {name: meta[name] for name in ("configuration_sequence", "epoch", "journal_sequence")}
        return Counters(**numbers, **used)

    async def close(self) -> None:
        self._connection.terminate()


class PostgresTarget(PostgresRows):
    """A Target; made by `open_postgres_target`."""

    async def begin(self, *, anew: bool) -> None:
        """See the protocol."""
        if not await self._connection.fetchval("SELECT value FROM meta WHERE name = $1", COPY_MARK):
            for table in TABLES:
                if await self._connection.fetchval(f"SELECT 1 FROM {table.name} LIMIT 1"):
                    raise FrostbyteError("the database holds a store already: a copy would mix the two")
            await self._connection.execute("INSERT INTO meta VALUES ($1, 1)", COPY_MARK)
        elif anew:
            await self._connection.execute(f"TRUNCATE {', '.join(_NAMES)}")

    async def clear(self, table: Table) -> None:
        """See the protocol."""
        await self._connection.execute(f"DELETE FROM {table.name}")

    async def last_key(self, table: Table) -> Row | None:
        """See the protocol."""
        conditions = _condition(table)
        where = f" WHERE {conditions[0]}" if conditions else ""
        order = ", ".join(f'"{column}" DESC' for column in table.key)
        statement = f"SELECT {_names(table.key)} FROM {table.name}{where} ORDER BY {order} LIMIT 1"
        row = await self._connection.fetchrow(statement)
        return None if row is None else tuple(row)

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        """See the protocol. A version's listing columns, which only this engine keeps, follow from its attributes."""
        flags = [at for at, name in enumerate(table.columns) if name in table.flags]
        records = [_with_flags(row, flags) for row in rows] if flags else rows
        columns = list(table.columns)
        if table.name == "versions":
            at = columns.index("attributes")
            records = [(*row, *_listed(row[at])) for row in records]
            columns += ["storage_class", "checksum_algorithm", "checksum_type"]
        await self._connection.copy_records_to_table(
            table.name, schema_name=SCHEMA, columns=columns, records=records, timeout=None
        )

    async def finish(self, counters: Counters) -> None:
        """Numbers, statistics for the planner, and away with the mark."""
        async with self._connection.transaction():
            for name in ("configuration_sequence", "epoch", "journal_sequence"):
                await self._connection.execute(
                    "UPDATE meta SET value = $2 WHERE name = $1", name, getattr(counters, name)
                )
            for counter, sequence in _SEQUENCES.items():
                value = getattr(counters, counter)
                if value:
                    await self._connection.execute("SELECT setval($1::text::regclass, $2)", sequence, value)
            await self._connection.execute("DELETE FROM meta WHERE name = $1", COPY_MARK)
        await self._connection.execute("ANALYZE", timeout=None)


async def open_postgres_source(dsn: str) -> PostgresRows:
    """Waits for writers that are at work and keeps others away until it is closed. FrostbyteError for no store."""
    connection = await connect_postgres(dsn)
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.meta") is None:
        connection.terminate()
        raise FrostbyteError("the database holds no store")
    if (version := await read_schema_version(connection)) != len(MIGRATIONS):
        connection.terminate()
        raise FrostbyteError(
            f"the database has schema version {version}, this Frostbyte copies {len(MIGRATIONS)}:"
            " run `frostbyte metadata migrate` first"
        )
    await connection.execute(_UNBOUNDED)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute(_LOCK)
    return PostgresRows(connection)


async def require_no_processes(dsn: str) -> None:
    """FrostbyteError while gateways, masters or commands are connected: they would go on writing to what was left."""
    connection = await connect_postgres(dsn)
    try:
        connected: int = await connection.fetchval(_COUNT_PROCESSES, SESSION_SETTINGS["application_name"])
    finally:
        connection.terminate()
    if connected:
        raise FrostbyteError(f"{connected} connections of running Frostbyte processes to the database: stop them first")


async def open_postgres_target(dsn: str) -> PostgresTarget:
    """An empty database gets its tables. Unavailable while another copy into it runs."""
    connection = await connect_postgres(dsn)
    await connection.execute(_UNBOUNDED)
    await migrate(connection)
    if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", COPY_MARK):
        connection.terminate()
        raise FrostbyteError("another copy into this database is running")
    return PostgresTarget(connection)


def _condition(table: Table) -> list[str]:
    if table.is_marker is None:
        return []
    return ["is_marker" if table.is_marker else "NOT is_marker"]


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _with_flags(row: Row, flags: list[int]) -> Row:
    changed = list(row)
    for at in flags:
        changed[at] = bool(changed[at])
    return tuple(changed)


def _listed(raw_attributes: bytes) -> Row:
    attributes = decode_attributes(raw_attributes)
    checksum = attributes.checksum
    listed = ("", "") if checksum is None else (checksum.algorithm.value, checksum.type.value)
    return (attributes.storage_class, *listed)
