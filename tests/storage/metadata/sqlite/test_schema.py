"""Migrations: forward only, whole or not at all, and never onto a database of a later Frostbyte."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base.errors import FrostbyteError
from storage.metadata.sqlite import blobs, listing, objects, uploads, versions
from storage.metadata.sqlite.schema import MIGRATIONS, migrate, read_schema_version

VERSION_1_SHA256 = "228ef7cc07b7a2a693aa882f71bb858af9fa93c786d3faccdfc9b204d6931fa8"
"""of the statements of version 1, which was released: a change to them needs a migration, not a new digest"""

FRAGMENTS = ("_HEADS", "_UPLOADS", "_EXTENTS", "_VERSION")
"""texts that statements are made of"""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database file."""
    opened = sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)
    yield opened
    opened.close()


def test_an_empty_database_becomes_the_newest(connection: sqlite3.Connection) -> None:
    """And stays as it is the second time."""
    assert read_schema_version(connection) == 0
    assert migrate(connection) == len(MIGRATIONS)
    before = list(connection.iterdump())
    assert migrate(connection) == read_schema_version(connection) == len(MIGRATIONS)
    assert list(connection.iterdump()) == before


def test_a_version_1_database_is_brought_forward_with_its_rows(connection: sqlite3.Connection) -> None:
    """Through two steps that do not exist yet, keeping what is there."""
    migrate(connection, MIGRATIONS[:1])
    connection.execute("INSERT INTO users VALUES ('i', 'name', 'd', '', 0, 1)")
    later = (
        *MIGRATIONS[:1],
        ("ALTER TABLE users ADD COLUMN quota INTEGER NOT NULL DEFAULT 0",),
        ("UPDATE users SET quota = 7", "CREATE TABLE more (x)"),
    )
    assert migrate(connection, later) == 3
    assert read_schema_version(connection) == 3
    assert connection.execute("SELECT * FROM users").fetchall() == [("i", "name", "d", "", 0, 1, 7)]


def test_a_failing_step_leaves_the_version_before_it(connection: sqlite3.Connection) -> None:
    """A step is one transaction, as a crash in it would be."""
    broken = (*MIGRATIONS[:1], ("CREATE TABLE half (x)", "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, broken)
    assert read_schema_version(connection) == 1
    assert connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone() is None
    assert migrate(connection, (*MIGRATIONS[:1], ("CREATE TABLE half (x)",))) == 2


def test_a_newer_database_is_refused_in_one_line(connection: sqlite3.Connection) -> None:
    """Nothing is touched."""
    migrate(connection)
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema_version'")
    before = list(connection.iterdump())
    with pytest.raises(FrostbyteError, match=r"\Ametadata.db has schema version 99, [^\n]*\Z"):
        migrate(connection)
    assert list(connection.iterdump()) == before


def test_a_released_version_is_never_edited() -> None:
    """Databases of version 1 exist; what they look like is fixed."""
    assert hashlib.sha256("\n".join(MIGRATIONS[0]).encode()).hexdigest() == VERSION_1_SHA256


@pytest.mark.parametrize("module", [versions, objects, listing, blobs, uploads], ids=lambda module: module.__name__)
def test_no_statement_of_an_object_scans_a_table(connection: sqlite3.Connection, module: object) -> None:
    """SQLite's plans seek by a key or an index, and sort nothing, in everything that requests run."""
    migrate(connection)
    seen = 0
    for name, statement in vars(module).items():
        if not (name.startswith("_") and name.isupper() and isinstance(statement, str) and " WHERE " in statement):
            continue
        if not statement.startswith(("SELECT", "UPDATE", "DELETE")) or name in FRAGMENTS:
            continue
        numbered = set(re.findall(r"\?\d", statement))
        parameters = [1] * (len(numbered) or statement.count("?"))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        seen += 1
        assert not [row[3] for row in plan if row[3].startswith("SCAN") or "TEMP B-TREE" in row[3]], name
    assert seen >= 3
