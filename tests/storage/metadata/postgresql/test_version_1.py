"""Databases and gateways of the first release: brought forward, and served until the last gateway is replaced."""

from __future__ import annotations

import os
from typing import Any

import asyncpg
import pytest

from storage.metadata.commands import ChangeObject
from storage.metadata.postgresql.open import connect_postgres, open_postgres_metadata
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.schema import MIGRATIONS, migrate
from storage.metadata.postgresql.tables import REFUSAL_STATE
from storage.metadata.records import encode_record
from storage.model import Attributes, Bucket
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine

SESSION = b"12345678"
BUCKET_ID = 1
SAID = Attributes("text/plain", tags={"t": "1"})
BUCKET = Bucket(BUCKET_ID, "b", "o", "r", 1, "bk-1")


class FirstRelease:
    """A gateway that calls the functions of version 1."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def put(self, object_key: bytes, etag: str) -> bytes:
        """An object without bytes. → its uid"""
        uid = os.urandom(8)
        version = (uid, 0, etag, "o", encode_record(SAID), b"", "STANDARD", "", "")
        arguments: tuple[Any, ...] = (SESSION, BUCKET_ID, object_key, version, [], [], [], [], None, None, None)
        await self.connection.fetch(
            "SELECT * FROM commit_version($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", *arguments
        )
        return uid

    async def delete(self, object_key: bytes, which: str = "current", sequence: int = 0, uid: bytes = b"") -> None:
        """One target."""
        target = (object_key, which, sequence, uid, None, None)
        arguments = (BUCKET_ID, [target], encode_record(Attributes()), None)
        await self.connection.fetch("SELECT * FROM delete_versions($1, $2, $3, $4)", *arguments)

    async def set_versioning(self, versioning: str) -> None:
        await self.connection.execute("UPDATE buckets SET versioning = $1", versioning)


async def begin(postgres: PostgresEngine) -> FirstRelease:
    """On a database of version 1, with a session and a bucket."""
    postgres.is_spoiled = True
    connection = await connect_postgres(postgres.dsn)
    await connection.execute("DROP SCHEMA IF EXISTS frostbyte CASCADE")
    await migrate(connection, MIGRATIONS[:1])
    await connection.execute("INSERT INTO write_sessions VALUES ($1, 'x', 'open', 1, 1, 1)", SESSION)
    await connection.execute("INSERT INTO buckets VALUES ($1, 'b', 'o', 'r', 1, 'bk-1', '')", BUCKET_ID)
    return FirstRelease(connection)


async def test_a_store_of_version_1_is_brought_forward_and_goes_on(postgres: PostgresEngine) -> None:
    """What is in it reads, lists, changes and is replaced as if it were new."""
    old = await begin(postgres)
    await old.put(b"k", "null")
    await old.set_versioning("Enabled")
    await old.put(b"k", "second")
    await old.delete(b"l")
    await migrate(old.connection)
    await old.connection.close()

    metadata = await open_postgres_metadata(postgres.dsn)
    worker = await Worker.start(metadata, BUCKET)
    assert [entry.etag for entry in (await metadata.list_versions(BUCKET_ID)).entries] == ["second", "null", ""]
    assert (await metadata.read_version(BUCKET_ID, b"k", "null")).version.attributes == SAID
    await worker.apply(ChangeObject(BUCKET_ID, b"k", "null", tags={}, legal_hold=True))
    assert (await worker.delete(b"k", "null")).refusal == "ObjectLocked"
    await worker.put(b"k", "third")
    assert [entry.etag for entry in (await metadata.list_versions(BUCKET_ID)).entries] == [
        "third",
        "second",
        "null",
        "",
    ]
    await metadata.close()
    assert await postgres.check() == []


async def test_gateways_of_the_first_release_go_on_and_delete_nothing_that_is_locked(postgres: PostgresEngine) -> None:
    """While a rolling upgrade runs they know no locks, but the functions that they call do."""
    old = await begin(postgres)
    await old.put(b"before", "e")
    await migrate(old.connection)
    metadata = await open_postgres_metadata(postgres.dsn)
    worker = await Worker.start(metadata, BUCKET)
    await old.put(b"before", "replaced")
    await old.put(b"k", "null")
    assert await worker.etag(b"before") == "replaced"
    await worker.apply(ChangeObject(BUCKET_ID, b"k", legal_hold=True))
    for attempt in (old.put(b"k", "other"), old.delete(b"k"), old.delete(b"k", "null")):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await attempt
        assert (refused.value.sqlstate, refused.value.args[0]) == (REFUSAL_STATE, "ObjectLocked")
    assert await worker.etag(b"k") == "null"
    await worker.apply(ChangeObject(BUCKET_ID, b"k", legal_hold=False))
    await old.delete(b"k")
    await old.delete(b"before")
    assert (await metadata.list_versions(BUCKET_ID)).entries == ()
    await old.connection.close()
    await metadata.close()
    assert await postgres.check() == []
