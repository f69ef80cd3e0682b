"""The rows of a metadata.db, for a copy between engines. The owner's lock is held throughout, so nobody else writes.

A target is built as DIR/copying/metadata.db and moved to its place when it is whole, so that no server can take an
unfinished copy for a store. Calls block: a copy has its process to itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from storage.base.errors import FrostbyteError
from storage.metadata.copy import Counters, Row, Table
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.moved import clear_moved
from storage.metadata.sqlite.open import MetadataOwner

COPYING_NAME = "copying"

_RELATIONS = {"extents": "every_extent", "blobs": "every_blob", "inline_bodies": "every_inline_body"}
"""where the rows of these are read, which the row of a version may stand for; a target has them in the tables"""

_SEQUENCES = {"buckets": "bucket_id", "nodes": "node_number"}


class SqliteRows:
    """A Source; made by `open_sqlite_source`."""

    def __init__(self, owner: MetadataOwner) -> None:
        self._owner = owner
        self._connection = owner.writing

    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        """See the protocol."""
        key = _index_key(table)
        conditions = _condition(table)
        if after is not None:
            places = ", ".join("?" if column in table.key else str(int(bool(table.is_marker))) for column in key)
            conditions.append(f"({_names(key)}) > ({places})")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        relation = _RELATIONS.get(table.name, table.name)
        statement = f"SELECT {_names(table.columns)} FROM {relation}{where} ORDER BY {_names(key)} LIMIT ?"
        return self._connection.execute(statement, (*(after or ()), limit)).fetchall()

    async def read_counters(self) -> Counters:
        """See the protocol."""
        execute = self._connection.execute
        meta = dict(execute("SELECT name, value FROM meta").fetchall())
        used = dict(execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        (version_row,) = execute("SELECT coalesce(max(row_id), 0) FROM versions").fetchone()
        (upload_row,) = execute("SELECT coalesce(max(upload_row), 0) FROM uploads").fetchone()
        return Counters(
            meta["configuration_sequence"],
            meta["epoch"],
            used.get("buckets", 0),
            used.get("nodes", 0),
            version_row,
            upload_row,
            meta["journal_sequence"],
        )

    async def close(self) -> None:
        await self._owner.close()


class SqliteTarget(SqliteRows):
    """A Target; made by `open_sqlite_target`."""

    def __init__(self, owner: MetadataOwner, directory: Path) -> None:
        super().__init__(owner)
        self._directory = directory

    async def begin(self, *, anew: bool) -> None:
        """Whatever is there was left by a copy; `anew` was seen to at the opening."""

    async def clear(self, table: Table) -> None:
        """See the protocol."""
        self._connection.execute(f"DELETE FROM {table.name}")

    async def last_key(self, table: Table) -> Row | None:
        """See the protocol."""
        where = f" WHERE {conditions[0]}" if (conditions := _condition(table)) else ""
        order = ", ".join(f'"{column}" DESC' for column in _index_key(table))
        row: Row | None = self._connection.execute(
            f"SELECT {_names(table.key)} FROM {table.name}{where} ORDER BY {order} LIMIT 1"
        ).fetchone()
        return row

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        """See the protocol."""
        values = ", ".join("?" * len(table.columns))
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(f"INSERT INTO {table.name} ({_names(table.columns)}) VALUES ({values})", rows)
        self._connection.execute("COMMIT")

    async def finish(self, counters: Counters) -> None:
        """Everything into the one file, synced, and then into its place."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for name in ("configuration_sequence", "epoch", "journal_sequence"):
            execute("UPDATE meta SET value = ? WHERE name = ?", (getattr(counters, name), name))
        for table, counter in _SEQUENCES.items():
            execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, getattr(counters, counter)))
        execute("COMMIT")
        execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        await self.close()
        copied = self._directory / COPYING_NAME / DATABASE_NAME
        _sync(copied)
        clear_moved(self._directory)
        copied.rename(self._directory / DATABASE_NAME)
        _sync(self._directory)
        shutil.rmtree(self._directory / COPYING_NAME)


async def open_sqlite_source(directory: Path) -> SqliteRows:
    """Unavailable while a server runs on it; FrostbyteError when there is no store."""
    if not (directory / DATABASE_NAME).exists():
        raise FrostbyteError(f"there is no {DATABASE_NAME} in {directory}")
    return SqliteRows(await MetadataOwner.open(directory))


async def open_sqlite_target(directory: Path, *, anew: bool = False) -> SqliteTarget:
    """FrostbyteError when there is a store already; Unavailable while another copy runs."""
    if (directory / DATABASE_NAME).exists():
        raise FrostbyteError(f"there is a {DATABASE_NAME} in {directory} already: a copy would overwrite it")
    if anew and (directory / COPYING_NAME).exists():
        shutil.rmtree(directory / COPYING_NAME)
    return SqliteTarget(await MetadataOwner.open(directory / COPYING_NAME), directory)


def _condition(table: Table) -> list[str]:
    return [] if table.is_marker is None else [f"is_marker = {int(table.is_marker)}"]


def _index_key(table: Table) -> tuple[str, ...]:
    """The key as the primary index has it: with the flag of a head, which does not change the order of its rows."""
    if table.is_marker is None:
        return table.key
    return (table.key[0], "is_marker", *table.key[1:])


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
