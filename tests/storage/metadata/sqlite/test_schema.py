"""Migrations: forward only, whole or not at all, and never onto a database of a later Frostbyte."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from storage.base.errors import FrostbyteError, StalePlacement
from storage.metadata.commands import ChangeObject, ChunkLayout, ForgetBlobs, Relayout, SetNodeClosed
from storage.metadata.records import encode_nodes, encode_record
from storage.metadata.sqlite import (
    blobs,
    changes,
    deletes,
    heads,
    layouts,
    listing,
    objects,
    places,
    uploads,
    version_listing,
    versions,
)
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.schema import MIGRATIONS, migrate, read_schema_version
from storage.model import Attributes, Blob, ByteRange, Chunk, Node, NodeReport, NodeState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import check_database

RELEASED_SHA256 = (
    "228ef7cc07b7a2a693aa882f71bb858af9fa93c786d3faccdfc9b204d6931fa8",
    "60d786cffa2fe76a6fb85e9e8327f6332cc417b9c91decf31c007d7a72b19c40",
)
"""of the statements of each version that was released: a change to them needs a migration, not a new digest"""

FRAGMENTS = ("_HEADS", "_STACKED", "_UPLOADS", "_EXTENTS", "_VERSION", "_FIRST_KEY")
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


async def test_a_store_of_version_2_is_opened_and_goes_on(tmp_path: Path) -> None:
    """Its blobs are of the first generation and its nodes open; they are laid out anew, closed and listed."""
    old = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    migrate(old, MIGRATIONS[:2])
    old.execute("INSERT INTO buckets VALUES (1, 'b', 'o', 'r', 1, 'bk-1', '')")
    report = NodeReport("n1", "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1)
    old.execute("INSERT INTO nodes VALUES (1, 'n1', ?, 'up', 5)", (encode_record(report),))
    version = (1, 1, b"k", 1, bytes(8), 1, 0, 5, "e", 5, "o", encode_record(Attributes()), b"", 0, None, None, "", 0, 0)
    old.execute(f"INSERT INTO versions VALUES ({', '.join('?' * 19)})", version)
    old.execute("INSERT INTO heads VALUES (1, 0, X'6B', 1, 1, 1, 5, 'e', 5, 'STANDARD', 'o', '', '')")
    blob = Blob(bytes(16), 5, "bk-1", 1, "replica:2", (Chunk(0, 0, 5, b"w", b"d", (1, 2)),))
    nodes = encode_nodes((1, 2))
    old.execute("INSERT INTO extents VALUES (1, 0, 5, 0, ?)", (blob.blob_id,))
    old.execute("INSERT INTO blobs VALUES (?, 5, 'bk-1', 1, 'replica:2', NULL)", (blob.blob_id,))
    old.execute("INSERT INTO chunks VALUES (?, 0, 0, 5, X'77', X'64', ?)", (blob.blob_id, nodes))
    gone = msgspec.structs.replace(blob, blob_id=b"g" * 16)
    old.execute("INSERT INTO blobs VALUES (?, 5, 'bk-1', 1, 'replica:2', 7)", (gone.blob_id,))
    old.execute("INSERT INTO chunks VALUES (?, 0, 0, 5, X'77', X'64', ?)", (gone.blob_id, nodes))
    old.close()

    metadata = await open_owned_metadata(tmp_path)
    assert (await metadata.read_version(1, b"k")).blobs == (blob,)
    assert await metadata.list_released_blobs(8, 10) == [gone]
    assert (await metadata.cluster_map()).nodes == (Node(1, report, NodeState.UP, 5),)
    await metadata.apply(SetNodeClosed("n1", True))
    with pytest.raises(StalePlacement):
        await metadata.apply(Relayout(blob.blob_id, 0, "replica:1", (ChunkLayout(0, b"e", (1,)),)))
    assert await metadata.apply(Relayout(blob.blob_id, 0, "replica:1", (ChunkLayout(0, b"e", (2,)),))) is True
    places = await metadata.list_chunk_places(None, 10)
    assert [(place.blob_id, place.generation, place.nodes) for place in places] == [
        (blob.blob_id, 1, (2,)),
        (gone.blob_id, 0, (1, 2)),
    ]
    await metadata.apply(ForgetBlobs((gone.blob_id, blob.blob_id)))
    assert await metadata.list_released_blobs(2**62, 10) == []
    await metadata.close()
    assert check_database(tmp_path) == []


async def test_a_store_of_version_3_is_opened_and_goes_on(tmp_path: Path) -> None:
    """Its blobs are named by extents, with bodies in a table of their own: they read, are shared, replaced and deleted
    as if they were new."""
    old = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    migrate(old, MIGRATIONS[:3])
    old.execute("INSERT INTO buckets VALUES (1, 'b', 'o', 'r', 1, 'bk-1', '')")
    raw = encode_record(Attributes())
    inline = Blob(b"i" * 16, 5, "bk-1", 1, "inline", (Chunk(0, 0, 5, b"w", b"d"),), b"sealed")
    chunked = Blob(b"c" * 16, 5, "bk-1", 1, "replica:2", (Chunk(0, 0, 5, b"w", b"d", (1, 2)),))
    for row_id, object_key, blob in ((1, b"c", chunked), (2, b"i", inline)):
        version = (row_id, 1, object_key, 1, bytes(8), 1, 0, 5, "e", 5, "o", raw, b"", 0, None, None, "", 0, 0)
        old.execute(f"INSERT INTO versions VALUES ({', '.join('?' * 19)})", version)
        old.execute(
            "INSERT INTO heads VALUES (1, 0, ?1, ?2, ?2, 1, 5, 'e', 5, 'STANDARD', 'o', '', '')", (object_key, row_id)
        )
        old.execute("INSERT INTO extents VALUES (?, 0, 5, 0, ?)", (row_id, blob.blob_id))
        old.execute("INSERT INTO blobs VALUES (?, 5, 'bk-1', 1, ?, NULL, 0)", (blob.blob_id, blob.redundancy))
    old.execute("INSERT INTO chunks VALUES (?, 0, 0, 5, X'77', X'64', ?)", (chunked.blob_id, encode_nodes((1, 2))))
    old.execute("INSERT INTO inline_bodies VALUES (?, X'77', X'64', ?)", (inline.blob_id, inline.inline))
    old.close()

    metadata = await open_owned_metadata(tmp_path)
    bucket = await metadata.find_bucket("b")
    assert bucket is not None
    worker = await Worker.start(metadata, bucket)
    for object_key, blob in ((b"c", chunked), (b"i", inline)):
        read = await metadata.read_version(1, object_key)
        assert read.blobs == (blob,)
        await worker.share(read.extents, b"copy of " + object_key)
        assert (await metadata.read_version(1, b"copy of " + object_key, byte_range=ByteRange(1, 2))).blobs == (blob,)
        await worker.put(object_key, "new")
        await worker.delete(b"copy of " + object_key)
    assert await worker.released() == {chunked.blob_id}
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
    """Databases of these versions exist; what they look like is fixed."""
    digests = [hashlib.sha256("\n".join(statements).encode()).hexdigest() for statements in MIGRATIONS]
    assert tuple(digests[: len(RELEASED_SHA256)]) == RELEASED_SHA256


@pytest.mark.parametrize(
    "module",
    [versions, heads, changes, deletes, objects, listing, version_listing, blobs, layouts, uploads],
    ids=lambda module: module.__name__,
)
def test_no_statement_of_an_object_scans_a_table(connection: sqlite3.Connection, module: object) -> None:
    """SQLite's plans seek by a key or an index, and sort nothing, in everything that requests run."""
    migrate(connection)
    seen = 0
    for name, statement in vars(module).items():
        if not (name.startswith("_") and name.isupper() and isinstance(statement, str) and " WHERE " in statement):
            continue
        if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")) or name in FRAGMENTS:
            continue
        numbered = set(re.findall(r"\?\d", statement))
        parameters = [1] * (len(numbered) or statement.count("?"))
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        seen += 1
        steps = [row[3] for row in plan if row[3] not in ("SCAN run", "SCAN CONSTANT ROW")]  # a recursion's own rows
        assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], name
    assert seen >= 2


@pytest.mark.parametrize(
    "statement",
    [
        layouts.RELEASED_WITH_CHUNKS,
        places.CHUNK_PLACES,
        places.BUCKET_BLOBS,
        places.select_places(3),
        places.select_users(3),
        "SELECT number FROM nodes WHERE is_closed = 1",
    ],
)
def test_no_look_at_chunks_scans_a_table(connection: sqlite3.Connection, statement: str) -> None:
    """What is walked through as a whole is only what the statement itself has limited or was given."""
    migrate(connection)
    parameters = [1] * (len(set(re.findall(r"\?\d", statement))) or statement.count("?"))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    scanned = {step.split()[1] for step in plan if step.startswith("SCAN")}
    assert scanned <= {"a", "b", "l", "v", "3", "nodes"}, plan
    assert "nodes" not in scanned or any("nodes_closed" in step for step in plan)
