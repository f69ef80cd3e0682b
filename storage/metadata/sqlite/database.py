"""Connections to metadata.db and the two shapes of work on them: a command's transaction and a snapshot to read from.

The write-ahead log is checkpointed by its owner only (`wal_autocheckpoint=0`), and synced at every commit
(`synchronous=FULL`). Statements are compiled once per connection: the SQL texts are constants, and the connection's
cache is larger than their number.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from storage.base.errors import Corrupt, FrostbyteError, Unavailable

DATABASE_NAME = "metadata.db"

_STATEMENTS_CACHED = 512
_BUSY_TIMEOUT_S = 5.0
_READER_BUSY_TIMEOUT_S = 1.0

Execute = Callable[..., sqlite3.Cursor]
"""execute of one cursor: what it returned before is spent with the next call"""


class Transaction:
    """What a command works in. `now_ms` is the time that it is applied at, the same for its whole group."""

    __slots__ = ("execute", "executemany", "now_ms", "raises_configuration", "writable")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self.execute: Execute = cursor.execute
        self.executemany: Callable[[str, Iterable[Any]], sqlite3.Cursor] = cursor.executemany
        self.now_ms = 0
        self.raises_configuration = False
        """whether a command raised the configuration sequence, since whoever wants to know set it to False"""
        self.writable: dict[tuple[bytes, int], tuple[str, str]] = {}
        """(session id, bucket id) that a command of this transaction may write with, as one before it found: the
        bucket's versioning and owner. To be cleared before anything that changes sessions or buckets (apply_command
        does), and when something is rolled back"""

    def begin(self, now_ms: int) -> None:
        """Of every transaction, before its first command."""
        self.now_ms = now_ms
        self.writable.clear()


def connect_writer(path: Path) -> sqlite3.Connection:
    """The owner's connection; makes the file (0600) when there is none."""
    path.touch(mode=0o600, exist_ok=True)
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=_STATEMENTS_CACHED,
        check_same_thread=False,
    )
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "wal_autocheckpoint=0",
        "temp_store=MEMORY",
        "cache_size=-65536",
        "secure_delete=OFF",  # what is deleted was sealed; zeroing it would only write more
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection. Unavailable when the database is not there yet."""
    try:
        connection = sqlite3.connect(
            read_only_uri(path),
            uri=True,
            timeout=_READER_BUSY_TIMEOUT_S,
            isolation_level=None,
            cached_statements=_STATEMENTS_CACHED,
            check_same_thread=False,
        )
        connection.execute("PRAGMA cache_size=-16384").fetchall()
    except sqlite3.Error as error:
        raise translate(error) from error
    return connection


def read_only_uri(path: Path) -> str:
    """For sqlite3.connect(…, uri=True)."""
    return f"{path.resolve().as_uri()}?mode=ro"


class Snapshot:
    """Several statements on one committed state. Nothing waits for it and it waits for nothing."""

    __slots__ = ("_execute",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute: Execute = connection.cursor().execute

    def __enter__(self) -> Execute:
        self._execute("BEGIN")
        return self._execute

    def __exit__(self, *_: object) -> None:
        self._execute("COMMIT")


def translate(error: sqlite3.Error) -> FrostbyteError:
    """What a caller above this package sees of SQLite's errors."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(f"metadata.db: {error}")
    return Unavailable(f"metadata.db: {error}")
