"""The integrity check finds what was broken by hand."""

from __future__ import annotations

import pytest

from storage.metadata.commands import ChunkLayout, Relayout
from storage.metadata.postgresql.check import check_integrity
from storage.metadata.postgresql.open import connect_postgres
from storage.model import Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine

BROKEN = {
    "UPDATE heads SET etag = 'other'": "a head that is not its version",
    "DELETE FROM heads": "head is missing",
    "UPDATE heads SET null_row = NULL": "its head does not lead to",
    "UPDATE heads SET null_row = 999": "leads to no null version",
    "UPDATE extents SET length = length + 1": "not its whole body",
    "DELETE FROM versions WHERE is_null": "an extent without a version",
    "DELETE FROM blobs": "an extent whose blob is missing",
    "DELETE FROM extents": "nothing references",
    "UPDATE blobs SET released_ms = 1": "released",
    "DELETE FROM chunks WHERE chunk_index = 1": "whose chunks are not its whole body",
    "UPDATE blobs SET generation = 0": "an old layout that is not older",
    "DELETE FROM retired_chunks WHERE chunk_index = 1": "without all its chunks",
    "DELETE FROM retired_layouts": "a chunk of an old layout that does not exist",
    "UPDATE blobs SET generation = 32768 WHERE size = 30": "a generation that no chunk id can hold",
    "UPDATE blobs SET generation = 1 WHERE redundancy = 'inline'": "a generation that no chunk id can hold",
    "DELETE FROM inline_bodies": "an inline blob without a body",
    "DELETE FROM buckets": "a bucket that does not exist",
    "DELETE FROM uploads": "a part without an upload",
    "UPDATE versions SET lock_mode = 'x'": "a lock that is none",
    "UPDATE versions SET retain_until_ms = 5": "a lock that is none",
    "UPDATE versions SET tags = ''::bytea WHERE is_marker": "a marker with tags",
    "INSERT INTO bucket_settings VALUES (1, 'object-lock', '')": "not versioned",
    "UPDATE parts SET size = size + 1": "a part whose blob is missing",
}


@pytest.fixture
async def filled(postgres: PostgresEngine) -> PostgresEngine:
    """One of everything."""
    worker = await Worker.start(await postgres.connect())
    await worker.put(b"inline")
    blob = worker.chunked(30, 10)
    await worker.put(b"chunked", blob=blob)
    chunks = tuple(ChunkLayout(index, b"", (1, 2, 3)) for index in range(3))
    assert await worker.apply(Relayout(blob.blob_id, 0, "ec:2+1", chunks)) is True
    await worker.put_part(await worker.create_upload(b"m"), 1)
    versioned = await worker.in_bucket("versioned", Versioning.ENABLED)
    for _ in range(2):
        await versioned.put(b"k")
    await versioned.delete(b"k")
    return postgres


async def test_a_whole_store_has_no_problems(filled: PostgresEngine) -> None:
    """Of any kind of row."""
    assert await filled.check() == []


@pytest.mark.parametrize("statement", BROKEN)
async def test_what_is_broken_is_found(filled: PostgresEngine, statement: str) -> None:
    """By a rule that says what it is, with examples."""
    filled.is_spoiled = True
    connection = await connect_postgres(filled.dsn)
    assert await connection.execute(statement) not in ("UPDATE 0", "DELETE 0")
    problems = await check_integrity(connection)
    await connection.close()
    assert any(BROKEN[statement] in problem for problem in problems), problems
