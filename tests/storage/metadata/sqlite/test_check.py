"""The integrity check finds each kind of damage; a check that never fails would prove nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.metadata.commands import ChunkLayout, CreateUser, Relayout
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import AccessKey, User, Versioning
from tests.storage.metadata.builders import Worker


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A writable connection to a database that holds something of everything, whole so far."""
    metadata = await open_owned_metadata(tmp_path)
    worker = await Worker.start(metadata)
    await worker.put(b"inline")
    await worker.put(b"chunked", blob=worker.chunked(30, 10))
    await worker.put(b"shared")
    await worker.share((await metadata.read_version(worker.bucket.bucket_id, b"shared")).extents, b"copy")
    await lay_out(worker, b"chunked")
    versioned = await worker.in_bucket("v", Versioning.ENABLED)
    for etag in ("one", "two"):
        await versioned.put(b"stack", etag, blob=versioned.chunked(20, 10))
    await versioned.delete(b"marker")
    upload = await worker.create_upload(b"open")
    await worker.put_part(upload, 1)
    done = await worker.create_upload(b"done")
    await worker.complete(done, [await worker.put_part(done, 1), await worker.put_part(done, 2)])
    await metadata.apply(CreateUser(User("i", "n", "", "", True), AccessKey("AK", "i", b"")))
    await metadata.close()
    connection = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    assert check_integrity(connection) == []
    yield connection
    connection.close()


async def lay_out(worker: Worker, object_key: bytes) -> None:
    """The object's only blob, anew."""
    (blob,) = (await worker.metadata.read_version(worker.bucket.bucket_id, object_key)).blobs
    chunks = tuple(ChunkLayout(chunk.index, b"", (1, 2, 3)) for chunk in blob.chunks)
    assert await worker.apply(Relayout(blob.blob_id, 0, "ec:2+1", chunks)) is True


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DELETE FROM heads WHERE object_key = X'6368756e6b6564'", "whose head is missing"),
        ("UPDATE heads SET etag = 'x' WHERE object_key = X'6368756e6b6564'", "not its version"),
        ("UPDATE heads SET last_sequence = 1 WHERE object_key = X'737461636b'", "behind in its sequence"),
        (
            "UPDATE heads SET (version_row, etag) = (SELECT row_id, etag FROM versions WHERE etag = 'one')"
            " WHERE etag = 'two'",
            "not the newest",
        ),
        ("UPDATE heads SET null_row = NULL", "does not lead to"),
        ("UPDATE heads SET null_row = version_row WHERE etag = 'two'", "leads to no null version"),
        (
            "INSERT INTO heads SELECT bucket_id, 1, object_key, 1, NULL, 9, 0, '', 0, '', '', '', '' FROM heads"
            " WHERE object_key = X'696e6c696e65'",
            "two heads",
        ),
        ("UPDATE versions SET is_null = 1, sequence = 1 WHERE etag = 'two'", "two versions of one sequence"),
        ("UPDATE versions SET size = size + 1 WHERE part_count = 2", "not its whole body"),
        ("UPDATE versions SET size = size + 1 WHERE etag = 'one'", "an own blob that is missing, released or of"),
        ("DELETE FROM blobs WHERE size = 20", "an own blob that is missing, released or of"),
        ("UPDATE blobs SET released_ms = 1 WHERE size = 20", "an own blob that is missing, released or of"),
        (
            "INSERT INTO extents SELECT row_id, 0, size, 0, blob_id FROM versions WHERE etag = 'one'",
            "an own blob that is recorded elsewhere",
        ),
        (
            "INSERT INTO blobs SELECT * FROM every_blob WHERE redundancy = 'inline' AND blob_id IN"
            " (SELECT blob_id FROM versions)",
            "an own blob that is recorded elsewhere",
        ),
        (
            "UPDATE parts SET blob_id = (SELECT blob_id FROM versions WHERE etag = 'one')",
            "an own blob that is recorded elsewhere",
        ),
        ("UPDATE versions SET sealed = NULL WHERE sealed IS NOT NULL", "a body in a version that is not whole"),
        ("UPDATE versions SET blob_id = NULL WHERE sealed IS NOT NULL", "a body in a version that is not whole"),
        ("UPDATE extents SET offset = 1 WHERE offset = 0 AND part_number = 0", "not its whole body"),
        ("UPDATE versions SET part_count = 3 WHERE part_count = 2", "extent for each part"),
        ("INSERT INTO extents VALUES (999, 0, 5, 0, NULL)", "an extent without a version"),
        ("DELETE FROM blobs WHERE redundancy = 'inline'", "an extent whose blob is missing"),
        ("UPDATE blobs SET released_ms = 1 WHERE redundancy = 'inline'", "an extent whose blob is missing, released"),
        ("UPDATE versions SET blob_id = NULL WHERE etag = 'one'", "an unreleased blob that nothing references"),
        ("UPDATE blobs SET released_ms = 1 WHERE blob_id IN (SELECT blob_id FROM parts)", "a part whose blob"),
        ("DELETE FROM uploads", "a part without an upload"),
        ("UPDATE parts SET blob_id = (SELECT blob_id FROM extents WHERE part_number = 2)", "in a part and a version"),
        ("DELETE FROM parts", "an unreleased blob that nothing references"),
        ("DELETE FROM chunks WHERE chunk_index = 0", "whose chunks are not its whole body"),
        ("UPDATE chunks SET chunk_index = 9 WHERE chunk_index = 1", "whose chunks are not its whole body"),
        ("UPDATE blobs SET generation = 0", "an old layout that is not older"),
        ("DELETE FROM retired_chunks WHERE chunk_index = 1", "without all its chunks"),
        ("DELETE FROM retired_layouts", "a chunk of an old layout that does not exist"),
        ("UPDATE blobs SET generation = 32768 WHERE size = 30", "a generation that no chunk id can hold"),
        ("UPDATE blobs SET generation = 1 WHERE redundancy = 'inline'", "a generation that no chunk id can hold"),
        ("DELETE FROM inline_bodies", "an inline blob without a body"),
        ("INSERT INTO chunks VALUES (X'00', 0, 0, 1, X'', X'', X'')", "a chunk without a blob"),
        ("INSERT INTO inline_bodies VALUES (X'00', X'', X'', X'')", "a body without an inline blob"),
        ("DELETE FROM buckets", "a bucket that does not exist"),
        ("DELETE FROM users", "an access key without a user"),
        ("UPDATE versions SET lock_mode = 'x' WHERE etag = 'one'", "a lock that is none"),
        ("UPDATE versions SET retain_until_ms = 5 WHERE etag = 'one'", "a lock that is none"),
        ("UPDATE versions SET legal_hold = 1 WHERE is_marker = 1", "a marker with tags"),
        ("INSERT INTO bucket_settings VALUES (1, 'object-lock', X'00')", "not versioned"),
        ("INSERT INTO users VALUES ('j', 'm', '', '', 1, 0)", "two root users"),
    ],
)
async def test_each_kind_of_damage_is_found(damaged: sqlite3.Connection, damage: str, problem: str) -> None:
    """Named by the rule that it breaks, with an example."""
    assert damaged.execute(damage).rowcount != 0
    assert [line for line in check_integrity(damaged) if problem in line]
