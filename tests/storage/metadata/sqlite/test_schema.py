"""Migrations: forward only, whole or not at all, and never onto a database of a later Frostbyte."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base.errors import FrostbyteError
from storage.metadata.commands import ChangeObject
from storage.metadata.records import encode_record
from storage.metadata.sqlite import blobs, changes, deletes, listing, objects, uploads, version_listing, versions
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.schema import MIGRATIONS, migrate, read_schema_version
from storage.model import Attributes
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import check_database

VERSION_1_SHA256 = "228ef7cc07b7a2a693aa882f71bb858af9fa93c786d3faccdfc9b204d6931fa8"
"""of the statements of version 1, which was released: a change to them needs a migration, not a new digest"""

FRAGMENTS = ("_HEADS", "_STACKED", "_UPLOADS", "_EXTENTS", "_VERSION")
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


async def test_a_store_of_version_1_is_opened_and_goes_on(tmp_path: Path) -> None:
    """What is in it reads, lists, changes and is replaced as if it were new."""
    old = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    migrate(old, MIGRATIONS[:1])
    raw = encode_record(Attributes("text/plain", tags={"t": "1"}))
    old.execute("INSERT INTO buckets VALUES (1, 'b', 'o', 'r', 1, 'bk-1', 'Enabled')")
    old.execute("INSERT INTO users VALUES ('i', 'name', 'd', 'i@example.com', 0, 1)")
    for row_id, object_key, sequence, is_null in ((1, b"k", 1, 1), (2, b"k", 2, 0), (3, b"k", 3, 0), (4, b"l", 1, 0)):
        row = (row_id, 1, object_key, sequence, bytes(8), is_null, 0, 0, f"e{row_id}", 5, "o", raw, b"", 0)
        old.execute(f"INSERT INTO versions VALUES ({', '.join('?' * 14)})", row)
    for object_key, version_row, null_row in ((b"k", 3, 1), (b"l", 4, None)):
        listed = (3, 0, f"e{version_row}", 5, "STANDARD", "o", "", "")
        old.execute(
            f"INSERT INTO heads VALUES ({', '.join('?' * 13)})", (1, 0, object_key, version_row, null_row, *listed)
        )
    assert read_schema_version(old) == 1
    old.close()

    metadata = await open_owned_metadata(tmp_path)
    bucket = await metadata.find_bucket("b")
    assert bucket is not None
    worker = await Worker.start(metadata, bucket)
    page = await metadata.list_versions(1)
    assert [(entry.etag, entry.is_latest) for entry in page.entries] == [
        ("e3", True),
        ("e2", False),
        ("e1", False),
        ("e4", True),
    ]
    version = (await metadata.read_version(1, b"k", "null")).version
    assert version.attributes == Attributes("text/plain", tags={"t": "1"})
    await worker.apply(ChangeObject(1, b"k", "null", tags={}, legal_hold=True))
    assert (await worker.delete(b"k", "null")).refusal == "ObjectLocked"
    await worker.put(b"k", "new")
    await worker.delete(b"l", page.entries[3].version_id)
    assert [entry.etag for entry in (await metadata.list_versions(1)).entries] == ["new", "e3", "e2", "e1"]
    assert await metadata.find_user_by_email("i@example.com") is not None
    await metadata.close()
    assert check_database(tmp_path) == []


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


@pytest.mark.parametrize(
    "module",
    [versions, changes, deletes, objects, listing, version_listing, blobs, uploads],
    ids=lambda module: module.__name__,
)
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
    assert seen >= 2
