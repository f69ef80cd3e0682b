"""Buckets and their sub-resource documents. Each change raises the configuration sequence in the same transaction."""

from __future__ import annotations

from typing import Any

from storage.base.errors import BucketAlreadyExists, BucketNotEmpty, LimitExceeded, NoSuchBucket
from storage.metadata.commands import OBJECT_LOCK_SETTING, CreateBucket, DeleteBucket, PutBucketSetting, SetVersioning
from storage.metadata.rules import require_lockable
from storage.metadata.sqlite.configuration import raise_configuration_sequence
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.uploads import abort_some_uploads
from storage.model import Bucket, Versioning

ABORTED_UPLOADS_PER_STEP = 16

_BUCKET = "bucket_id, name, owner_id, region, created_ms, bucket_key_id, versioning"
_INSERT = (
    "INSERT INTO buckets (name, owner_id, region, created_ms, bucket_key_id, versioning) VALUES (?, ?, ?, ?, ?, ?)"
)
_SELECT_BY_NAME = f"SELECT {_BUCKET} FROM buckets WHERE name = ?"
_SELECT_PAGE = f"SELECT {_BUCKET} FROM buckets WHERE name > ? ORDER BY name LIMIT ?"
_SELECT_PAGE_OF_OWNER = f"SELECT {_BUCKET} FROM buckets WHERE owner_id = ? AND name > ? ORDER BY name LIMIT ?"
_SELECT_VERSIONING = "SELECT versioning FROM buckets WHERE bucket_id = ?"
_COUNT_OF_OWNER = "SELECT count(*) FROM buckets WHERE owner_id = ?"
_SELECT_HEAD = "SELECT 1 FROM heads WHERE bucket_id = ? LIMIT 1"
_DELETE = "DELETE FROM buckets WHERE bucket_id = ?"
_SET_VERSIONING = "UPDATE buckets SET versioning = ? WHERE bucket_id = ?"
_PUT_SETTING = (
    "INSERT INTO bucket_settings VALUES (?, ?, ?)"
    " ON CONFLICT (bucket_id, name) DO UPDATE SET document = excluded.document"
)
_SELECT_SETTING = "SELECT 1 FROM bucket_settings WHERE bucket_id = ? AND name = ?"
_DELETE_SETTING = "DELETE FROM bucket_settings WHERE bucket_id = ? AND name = ?"
_DELETE_SETTINGS = "DELETE FROM bucket_settings WHERE bucket_id = ?"
_SELECT_SETTINGS = "SELECT name, document FROM bucket_settings WHERE bucket_id = ? ORDER BY name"


def create_bucket(tx: Transaction, command: CreateBucket) -> Bucket:
    require_lockable(command.versioning, command.settings)
    taken = tx.execute(_SELECT_BY_NAME, (command.name,)).fetchone()
    if taken is not None:
        raise BucketAlreadyExists(owner_id=taken[2])
    if tx.execute(_COUNT_OF_OWNER, (command.owner_id,)).fetchone()[0] >= command.bucket_count_max:
        raise LimitExceeded(f"an owner has at most {command.bucket_count_max} buckets")
    row = (command.name, command.owner_id, command.region, tx.now_ms, command.bucket_key_id, command.versioning.value)
    bucket_id = tx.execute(_INSERT, row).lastrowid
    assert bucket_id is not None
    tx.executemany(_PUT_SETTING, [(bucket_id, name, document) for name, document in command.settings.items()])
    raise_configuration_sequence(tx)
    return Bucket(
        bucket_id,
        command.name,
        command.owner_id,
        command.region,
        tx.now_ms,
        command.bucket_key_id,
        command.versioning,
        dict(command.settings),
    )


def delete_bucket(tx: Transaction, command: DeleteBucket) -> bool:
    """One step: False while there are uploads left to abort, each step looking again whether the bucket is empty.

    Steps keep a bucket of many open uploads from holding up every other write.
    """
    _require_bucket(tx, command.bucket_id)
    if tx.execute(_SELECT_HEAD, (command.bucket_id,)).fetchone():
        raise BucketNotEmpty()
    if not abort_some_uploads(tx, command.bucket_id, ABORTED_UPLOADS_PER_STEP):
        return False
    tx.execute(_DELETE_SETTINGS, (command.bucket_id,))
    tx.execute(_DELETE, (command.bucket_id,))
    raise_configuration_sequence(tx)
    return True


def put_bucket_setting(tx: Transaction, command: PutBucketSetting) -> None:
    versioning = _require_bucket(tx, command.bucket_id)
    if command.document is None:
        tx.execute(_DELETE_SETTING, (command.bucket_id, command.name))
    else:
        require_lockable(versioning, [command.name])
        tx.execute(_PUT_SETTING, (command.bucket_id, command.name, command.document))
    raise_configuration_sequence(tx)


def set_versioning(tx: Transaction, command: SetVersioning) -> None:
    """A bucket that was ever versioned can be suspended, never unversioned again (AWS: PutBucketVersioning)."""
    current = _require_bucket(tx, command.bucket_id)
    if command.versioning == Versioning.UNVERSIONED != current:
        raise LimitExceeded("versioning can be suspended, not removed")
    if tx.execute(_SELECT_SETTING, (command.bucket_id, OBJECT_LOCK_SETTING)).fetchone():
        require_lockable(command.versioning, [OBJECT_LOCK_SETTING])
    tx.execute(_SET_VERSIONING, (command.versioning.value, command.bucket_id))
    raise_configuration_sequence(tx)


def find_bucket(execute: Execute, name: str) -> Bucket | None:
    row = execute(_SELECT_BY_NAME, (name,)).fetchone()
    return None if row is None else _bucket(execute, row)


def list_buckets(execute: Execute, owner_id: str | None, after: str, limit: int) -> list[Bucket]:
    if owner_id is None:
        rows = execute(_SELECT_PAGE, (after, limit)).fetchall()
    else:
        rows = execute(_SELECT_PAGE_OF_OWNER, (owner_id, after, limit)).fetchall()
    return [_bucket(execute, row) for row in rows]


def _require_bucket(tx: Transaction, bucket_id: int) -> Versioning:
    row = tx.execute(_SELECT_VERSIONING, (bucket_id,)).fetchone()
    if row is None:
        raise NoSuchBucket()
    return Versioning(row[0])


def _bucket(execute: Execute, row: tuple[Any, ...]) -> Bucket:
    bucket_id, name, owner_id, region, created_ms, bucket_key_id, versioning = row
    settings = dict(execute(_SELECT_SETTINGS, (bucket_id,)).fetchall())
    return Bucket(bucket_id, name, owner_id, region, created_ms, bucket_key_id, Versioning(versioning), settings)
