"""Buckets and their sub-resource documents. Each change raises the configuration sequence in the same transaction.

A change that object writes go by (the versioning state, the end of a bucket) takes the bucket's advisory lock: it waits
for the writes that went by the old state, and the writes after it find the new one.
"""

from __future__ import annotations

from typing import Any

from storage.base.errors import BucketAlreadyExists, BucketNotEmpty, LimitExceeded, NoSuchBucket
from storage.metadata.commands import OBJECT_LOCK_SETTING, CreateBucket, DeleteBucket, PutBucketSetting, SetVersioning
from storage.metadata.postgresql.configuration import raise_configuration_sequence
from storage.metadata.postgresql.database import Database, is_storable, without_unstorable
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.rules import require_lockable
from storage.model import Bucket, Versioning

ABORTED_UPLOADS_PER_STEP = 16

_INSERT = (
    "INSERT INTO buckets (name, owner_id, region, created_ms, bucket_key_id, versioning)"
    " VALUES ($1, $2, $3, coalesce($4::bigint, now_ms()), $5, $6) RETURNING bucket_id, created_ms"
)
_SELECT = (
    "SELECT b.bucket_id, b.name, b.owner_id, b.region, b.created_ms, b.bucket_key_id, b.versioning, s.names,"
    " s.documents FROM buckets b, LATERAL (SELECT array_agg(t.name ORDER BY t.name) AS names,"
    " array_agg(t.document ORDER BY t.name) AS documents FROM bucket_settings t WHERE t.bucket_id = b.bucket_id) s"
)
_SELECT_BY_NAME = f"{_SELECT} WHERE b.name = $1"
_SELECT_PAGE = f"{_SELECT} WHERE b.name > $1 ORDER BY b.name LIMIT $2"
_SELECT_PAGE_OF_OWNER = f"{_SELECT} WHERE b.owner_id = $3 AND b.name > $1 ORDER BY b.name LIMIT $2"
_SELECT_OWNER = "SELECT owner_id FROM buckets WHERE name = $1"
_SELECT_VERSIONING = "SELECT versioning FROM buckets WHERE bucket_id = $1"
_COUNT_OF_OWNER = "SELECT count(*) FROM buckets WHERE owner_id = $1"
_LOCK = f"SELECT pg_advisory_xact_lock({BUCKET_LOCKS}, bucket_lock($1))"
_SELECT_HEAD = "SELECT 1 FROM heads WHERE bucket_id = $1 LIMIT 1"
_ABORT_SOME = "SELECT abort_some_uploads($1, $2, $3)"
_DELETE = "DELETE FROM buckets WHERE bucket_id = $1"
_SET_VERSIONING = "UPDATE buckets SET versioning = $2 WHERE bucket_id = $1"
_PUT_SETTING = (
    "INSERT INTO bucket_settings VALUES ($1, $2, $3)"
    " ON CONFLICT (bucket_id, name) DO UPDATE SET document = excluded.document"
)
_SELECT_SETTING = "SELECT 1 FROM bucket_settings WHERE bucket_id = $1 AND name = $2"
_DELETE_SETTING = "DELETE FROM bucket_settings WHERE bucket_id = $1 AND name = $2"
_DELETE_SETTINGS = "DELETE FROM bucket_settings WHERE bucket_id = $1"


async def create_bucket(database: Database, command: CreateBucket) -> Bucket:
    """See the command."""
    now_ms = database.now_ms()
    require_lockable(command.versioning, command.settings)

    async def create(connection: Connection) -> Bucket:
        await raise_configuration_sequence(connection)
        owner_id = await connection.fetchval(_SELECT_OWNER, command.name)
        if owner_id is not None:
            raise BucketAlreadyExists(owner_id=owner_id)
        if await connection.fetchval(_COUNT_OF_OWNER, command.owner_id) >= command.bucket_count_max:
            raise LimitExceeded(f"an owner has at most {command.bucket_count_max} buckets")
        described = (command.name, command.owner_id, command.region)
        made = await connection.fetchrow(_INSERT, *described, now_ms, command.bucket_key_id, command.versioning.value)
        assert made is not None
        bucket_id, created_ms = made
        for name, document in command.settings.items():
            await connection.execute(_PUT_SETTING, bucket_id, name, document)
        settings = dict(command.settings)
        return Bucket(bucket_id, *described, created_ms, command.bucket_key_id, command.versioning, settings)

    return await database.transact(create)


async def delete_bucket(database: Database, command: DeleteBucket) -> None:
    """In steps while there are uploads to abort, each looking again whether the bucket is empty, so that a bucket of
    many open uploads does not hold up every other change."""
    bucket_id, now_ms = command.bucket_id, database.now_ms()

    async def take_a_step(connection: Connection) -> bool:
        await raise_configuration_sequence(connection)
        await connection.execute(_LOCK, bucket_id)
        await _require_bucket(connection, bucket_id)
        if await connection.fetchrow(_SELECT_HEAD, bucket_id):
            raise BucketNotEmpty()
        if not await connection.fetchval(_ABORT_SOME, bucket_id, ABORTED_UPLOADS_PER_STEP, now_ms):
            return False
        await connection.execute(_DELETE_SETTINGS, bucket_id)
        await connection.execute(_DELETE, bucket_id)
        return True

    while not await database.transact(take_a_step):
        pass  # as many steps as there are uploads, a few at a time


async def put_bucket_setting(database: Database, command: PutBucketSetting) -> None:
    """See the command."""

    async def put(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        versioning = await _require_bucket(connection, command.bucket_id)
        if command.document is None:
            await connection.execute(_DELETE_SETTING, command.bucket_id, command.name)
        else:
            require_lockable(versioning, [command.name])
            await connection.execute(_PUT_SETTING, command.bucket_id, command.name, command.document)

    await database.transact(put)


async def set_versioning(database: Database, command: SetVersioning) -> None:
    """A bucket that was ever versioned can be suspended, never unversioned again (AWS: PutBucketVersioning)."""

    async def put(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        await connection.execute(_LOCK, command.bucket_id)
        current = await _require_bucket(connection, command.bucket_id)
        if command.versioning == Versioning.UNVERSIONED != current:
            raise LimitExceeded("versioning can be suspended, not removed")
        if await connection.fetchrow(_SELECT_SETTING, command.bucket_id, OBJECT_LOCK_SETTING):
            require_lockable(command.versioning, [OBJECT_LOCK_SETTING])
        await connection.execute(_SET_VERSIONING, command.bucket_id, command.versioning.value)

    await database.transact(put)


async def find_bucket(database: Database, name: str) -> Bucket | None:
    """The bucket and its settings, in one statement."""
    rows = await database.read(_SELECT_BY_NAME, name) if is_storable(name) else []
    return _bucket(rows[0]) if rows else None


async def list_buckets(database: Database, owner_id: str | None, after: str, limit: int) -> list[Bucket]:
    """See the interface."""
    after = without_unstorable(after)
    if owner_id is not None and not is_storable(owner_id):
        return []
    if owner_id is None:
        rows = await database.read(_SELECT_PAGE, after, limit)
    else:
        rows = await database.read(_SELECT_PAGE_OF_OWNER, after, limit, owner_id)
    return [_bucket(row) for row in rows]


async def _require_bucket(connection: Connection, bucket_id: int) -> Versioning:
    versioning = await connection.fetchval(_SELECT_VERSIONING, bucket_id)
    if versioning is None:
        raise NoSuchBucket()
    return Versioning(versioning)


def _bucket(row: Any) -> Bucket:
    bucket_id, name, owner_id, region, created_ms, bucket_key_id, versioning, names, documents = row
    settings = dict(zip(names or (), documents or (), strict=True))
    return Bucket(bucket_id, name, owner_id, region, created_ms, bucket_key_id, Versioning(versioning), settings)
