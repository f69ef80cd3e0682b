"""Databases and gateways of the second release: brought forward, and served until the last gateway is replaced."""

from __future__ import annotations

import os
from typing import Any

import asyncpg
import pytest

from storage.metadata.commands import ChunkLayout, ForgetBlobs, Relayout, SetNodeClosed
from storage.metadata.postgresql.open import connect_postgres, open_postgres_metadata
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.schema import MIGRATIONS, migrate
from storage.metadata.postgresql.tables import REFUSAL_STATE
from storage.metadata.records import encode_nodes, encode_record
from storage.model import Attributes, Blob, Bucket, Chunk, Node, NodeReport, NodeState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine

SESSION = b"12345678"
BUCKET_ID = 1
BUCKET = Bucket(BUCKET_ID, "b", "o", "r", 1, "bk-1")
REPORT = NodeReport("n1", "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1)


class SecondRelease:
    """A gateway that calls the functions of version 2, and its statements."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.count = 0

    def chunked(self, nodes: tuple[int, ...]) -> tuple[Blob, list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """A blob of one chunk, and what a function is given of it."""
        self.count += 1
        blob_id = SESSION + self.count.to_bytes(8, "big")
        blob = Blob(blob_id, 5, "bk-1", 1, f"replica:{len(nodes)}", (Chunk(0, 0, 5, b"w", b"d", nodes),))
        described = (blob_id, 5, "bk-1", 1, blob.redundancy, None, None, None)
        return blob, [described], [(blob_id, 0, 0, 5, b"w", b"d", encode_nodes(nodes))]

    async def put(self, object_key: bytes, nodes: tuple[int, ...] = (1, 2)) -> Blob:
        """An object of one chunk. → its blob"""
        blob, rows, chunks = self.chunked(nodes)
        version = (os.urandom(8), 5, "e", "o", encode_record(Attributes()), b"", "STANDARD", "", "", "", 0, False)
        extents = [(0, 5, 0, blob.blob_id)]
        arguments = (SESSION, BUCKET_ID, object_key, version, rows, chunks, extents, [], None, None, None)
        await self.connection.fetch(
            "SELECT * FROM commit_version_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", *arguments
        )
        return blob

    async def put_part(self, upload_id: str, nodes: tuple[int, ...]) -> None:
        """Of an upload of the key `m`."""
        _, rows, chunks = self.chunked(nodes)
        arguments = (SESSION, BUCKET_ID, b"m", upload_id, self.count, 5, "p", rows, chunks, None, None)
        await self.connection.fetch("SELECT put_part($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", *arguments)

    async def read(self, object_key: bytes) -> list[tuple[Any, ...]]:
        """The chunk rows of the current version."""
        (row,) = await self.connection.fetch(
            "SELECT r_chunks FROM read_version($1, $2, 'current', NULL, NULL, false, NULL, NULL, NULL, NULL, 64)",
            BUCKET_ID,
            object_key,
        )
        return [tuple(chunk) for chunk in row[0]]

    async def set_nodes(self, blob: Blob, nodes: tuple[int, ...]) -> bool:
        """Of its only chunk, from what it was written with."""
        return bool(
            await self.connection.fetch(
                "UPDATE chunks SET nodes = $4 WHERE blob_id = $1 AND chunk_index = $2 AND nodes = $3 RETURNING 1",
                blob.blob_id,
                0,
                encode_nodes(blob.chunks[0].nodes),
                encode_nodes(nodes),
            )
        )


async def begin(postgres: PostgresEngine) -> SecondRelease:
    """On a database of version 2, with a session, a bucket and a node."""
    postgres.is_spoiled = True
    connection = await connect_postgres(postgres.dsn)
    await connection.execute("DROP SCHEMA IF EXISTS frostbyte CASCADE")
    await migrate(connection, MIGRATIONS[:2])
    await connection.execute("INSERT INTO write_sessions VALUES ($1, 'x', 'open', 1, 1, 1)", SESSION)
    await connection.execute("INSERT INTO buckets VALUES ($1, 'b', 'o', 'r', 1, 'bk-1', '')", BUCKET_ID)
    await connection.execute("INSERT INTO nodes VALUES (1, 'n1', $1, 'draining', 5)", encode_record(REPORT))
    return SecondRelease(connection)


async def test_a_store_of_version_2_is_brought_forward_and_goes_on(postgres: PostgresEngine) -> None:
    """Its blobs are of the first generation and its nodes open; they are laid out anew, closed and listed."""
    old = await begin(postgres)
    blob, gone = await old.put(b"k"), await old.put(b"gone")
    await old.connection.execute("DELETE FROM extents WHERE blob_id = $1", gone.blob_id)
    await old.connection.execute("DELETE FROM versions WHERE object_key = 'gone'")
    await old.connection.execute("DELETE FROM heads WHERE object_key = 'gone'")
    await old.connection.execute("UPDATE blobs SET released_ms = 7 WHERE blob_id = $1", gone.blob_id)
    await migrate(old.connection)
    await old.connection.close()

    metadata = await open_postgres_metadata(postgres.dsn)
    assert (await metadata.read_version(BUCKET_ID, b"k")).blobs == (blob,)
    assert await metadata.list_released_blobs(8, 10) == [gone]
    assert (await metadata.cluster_map()).nodes == (Node(1, REPORT, NodeState.DRAINING, 5),)
    assert await metadata.apply(Relayout(blob.blob_id, 0, "replica:1", (ChunkLayout(0, b"e", (2,)),))) is True
    places = await metadata.list_chunk_places(None, 10)
    assert [(place.generation, place.nodes) for place in places] == [(1, (2,)), (0, (1, 2))]
    await metadata.apply(ForgetBlobs((gone.blob_id, blob.blob_id)))
    assert await metadata.list_released_blobs(2**62, 10) == []
    worker = await Worker.start(metadata, BUCKET)
    await worker.put(b"k", blob=worker.chunked(20, 10))
    await metadata.close()
    assert await postgres.check() == []


async def test_gateways_of_the_second_release_go_on(postgres: PostgresEngine) -> None:
    """Their sessions, commits, reads and copies, beside newer ones; a new layout is nothing that they overwrite."""
    old = await begin(postgres)
    await migrate(old.connection)
    metadata = await open_postgres_metadata(postgres.dsn)
    blob, other = await old.put(b"k"), await old.put(b"other")
    assert (await metadata.read_version(BUCKET_ID, b"k")).blobs == (blob,)
    assert await old.read(b"k") == [(blob.blob_id, 0, 0, 5, b"w", b"d", encode_nodes((1, 2)))]
    assert await old.set_nodes(other, (3, 2)) is True
    assert await metadata.apply(Relayout(blob.blob_id, 0, "ec:2+1", (ChunkLayout(0, b"e", (4, 5, 6)),))) is True
    assert await old.set_nodes(blob, (3, 2)) is False
    places = await metadata.list_chunk_places(None, 10)
    assert [place.nodes for place in places] == [(4, 5, 6), (3, 2)]
    assert await old.connection.fetch("SELECT fence_sessions(60000, 2)") == []
    await old.connection.execute("SELECT forget_sessions($1)", [b"nobody!!"])
    await old.connection.close()
    await metadata.close()
    assert await postgres.check() == []


async def test_gateways_of_the_second_release_name_no_closed_node(postgres: PostgresEngine) -> None:
    """They never heard of it, but the function that they insert blobs by did."""
    old = await begin(postgres)
    await migrate(old.connection)
    metadata = await open_postgres_metadata(postgres.dsn)
    upload = await (await Worker.start(metadata, BUCKET)).create_upload(b"m")
    await metadata.apply(SetNodeClosed("n1", True))
    for attempt in (old.put(b"k", (1, 2)), old.put_part(upload.upload_id, (2, 1))):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await attempt
        assert (refused.value.sqlstate, refused.value.args[0]) == (REFUSAL_STATE, "StalePlacement")
    await old.put(b"k", (256, 2))
    await old.put_part(upload.upload_id, (2, 65536))
    await old.connection.close()
    await metadata.close()
    assert await postgres.check() == []
