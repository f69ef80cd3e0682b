"""Versions: how one is put on top of its key, and how one is taken away.

A bucket that was never versioned, or is suspended, gives null versions and replaces the null version of the key; an
enabled one stacks. The sequence is the head's last one plus one, and LastModified is never before the head's.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.base.ids import NULL_VERSION_ID, format_version_id
from storage.metadata.commands import NewVersion
from storage.metadata.records import decode_attributes, encode_version_attributes, lock_columns
from storage.metadata.sqlite.blobs import recorded_before, release_own, release_unreferenced
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.heads import Head, Place
from storage.model import Attributes, Blob, Versioning

_INSERT_VERSION = (
    "INSERT INTO versions (bucket_id, object_key, sequence, uid, is_null, is_marker, size, etag, last_modified_ms,"
    " owner_id, attributes, mac, part_count, lock_mode, retain_until_ms, legal_hold, blob_id, bucket_key_id,"
    " bucket_key_version, wrapped_key, digest, sealed)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (blob_id) WHERE blob_id IS NOT NULL DO NOTHING"
)
_INSERT_HEAD = (
    "INSERT INTO heads (version_row, null_row, last_sequence, size, etag, last_modified_ms, storage_class, owner_id,"
    " checksum_algorithm, checksum_type, bucket_id, is_marker, object_key)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_HEAD = (
    "UPDATE heads SET version_row = ?, null_row = ?, last_sequence = ?, size = ?, etag = ?, last_modified_ms = ?,"
    " storage_class = ?, owner_id = ?, checksum_algorithm = ?, checksum_type = ?"
    " WHERE bucket_id = ? AND is_marker = ? AND object_key = ?"
)
_DELETE_HEAD = "DELETE FROM heads WHERE bucket_id = ? AND is_marker = ? AND object_key = ?"
_CLEAR_NULL_ROW = "UPDATE heads SET null_row = NULL WHERE bucket_id = ? AND is_marker = ? AND object_key = ?"
_NEWEST = "SELECT row_id, is_marker, size, etag, last_modified_ms, owner_id, attributes, sequence FROM versions"
_SELECT_NEWEST = (
    f"{_NEWEST} WHERE bucket_id = ? AND object_key = ? AND is_null = 0 UNION ALL {_NEWEST} WHERE row_id = ?"
    " ORDER BY sequence DESC LIMIT 1"
)
_SELECT_BLOB = "SELECT blob_id, bucket_key_version FROM versions WHERE row_id = ?"
_DELETE_VERSION = "DELETE FROM versions WHERE row_id = ?"
_SELECT_BLOBS = "SELECT blob_id FROM extents WHERE version_row = ? AND blob_id IS NOT NULL"
_DELETE_EXTENTS = "DELETE FROM extents WHERE version_row = ?"

_NO_BLOB = (None, None, None, None, None, None)


class Appended(NamedTuple):
    """A version put on top. version_id None: the bucket was never versioned."""

    row_id: int
    version_id: str | None
    last_modified_ms: int


def append_version(
    tx: Transaction,
    place: Place,
    version: NewVersion,
    *,
    is_marker: bool = False,
    part_count: int = 0,
    blob: Blob | None = None,
) -> Appended:
    """Put a version on top of its key. What it replaces stays until drop_replaced, so that a copy of a key onto itself
    never sees its own blobs unreferenced. blob: a new one that is the whole version; an inline one is recorded with
    this, another must have its rows before. SessionFenced for one that was recorded before."""
    head = place.head
    sequence, last_modified_ms, null_row = 1, tx.now_ms, None
    if head is not None:
        sequence, null_row = head.last_sequence + 1, head.null_row
        last_modified_ms = max(last_modified_ms, head.last_modified_ms)
    is_null = place.versioning != Versioning.ENABLED.value
    attributes = version.attributes
    inserted = tx.execute(
        _INSERT_VERSION,
        (
            place.bucket_id,
            place.object_key,
            sequence,
            version.uid,
            int(is_null),
            int(is_marker),
            version.size,
            version.etag,
            last_modified_ms,
            version.owner_id,
            encode_version_attributes(attributes),
            version.mac,
            part_count,
            *lock_columns(attributes.lock),
            *_blob_columns(blob),
        ),
    )
    if inserted.rowcount != 1:
        raise recorded_before()
    row_id = inserted.lastrowid
    assert row_id is not None
    columns = (
        row_id,
        row_id if is_null else null_row,
        sequence,
        *_listing_columns(version.size, version.etag, last_modified_ms, version.owner_id, attributes),
    )
    _set_head(tx, place.bucket_id, place.object_key, head, is_marker, columns)
    if is_null:
        version_id = NULL_VERSION_ID if place.versioning else None
    else:
        version_id = format_version_id(sequence, version.uid)
    return Appended(row_id, version_id, last_modified_ms)


def drop_replaced(tx: Transaction, place: Place) -> None:
    """After append_version: the null version that a null version takes the place of."""
    head = place.head
    if head is not None and head.null_row is not None and place.versioning != Versioning.ENABLED.value:
        drop_version(tx, head.null_row)


def drop_version(tx: Transaction, row_id: int) -> None:
    """The row, its extents, and the blobs that nothing references any more. The head is the caller's to set."""
    blob_id, inline_key_version = tx.execute(_SELECT_BLOB, (row_id,)).fetchone()
    if blob_id is not None:
        tx.execute(_DELETE_VERSION, (row_id,))
        if inline_key_version is None:
            release_own(tx, blob_id)
        return
    blob_ids = tx.execute(_SELECT_BLOBS, (row_id,)).fetchall()
    tx.execute(_DELETE_EXTENTS, (row_id,))
    tx.execute(_DELETE_VERSION, (row_id,))
    for (blob_id,) in blob_ids:
        release_unreferenced(tx, blob_id)


def remove_version(tx: Transaction, bucket_id: int, object_key: bytes, head: Head, row_id: int) -> None:
    """Delete one version for good; the next newest becomes current when it was the head."""
    drop_version(tx, row_id)
    place = (bucket_id, head.is_marker, object_key)
    null_row = None if row_id == head.null_row else head.null_row
    if row_id != head.version_row:
        if null_row is None and head.null_row is not None:
            tx.execute(_CLEAR_NULL_ROW, place)
        return
    newest = tx.execute(_SELECT_NEWEST, (bucket_id, object_key, null_row)).fetchone()
    if newest is None:
        tx.execute(_DELETE_HEAD, place)
        return
    newest_row, is_marker, size, etag, last_modified_ms, owner_id, attributes, _ = newest
    listed = _listing_columns(size, etag, last_modified_ms, owner_id, decode_attributes(attributes))
    _set_head(tx, bucket_id, object_key, head, is_marker, (newest_row, null_row, head.last_sequence, *listed))


def _set_head(
    tx: Transaction,
    bucket_id: int,
    object_key: bytes,
    head: Head | None,
    is_marker: int,
    columns: tuple[int | str | None, ...],
) -> None:
    statement = _INSERT_HEAD if head is None or head.is_marker != is_marker else _UPDATE_HEAD
    if head is not None and statement is _INSERT_HEAD:
        tx.execute(_DELETE_HEAD, (bucket_id, head.is_marker, object_key))
    tx.execute(statement, (*columns, bucket_id, is_marker, object_key))


def _blob_columns(blob: Blob | None) -> tuple[bytes | str | int | None, ...]:
    if blob is None:
        return _NO_BLOB
    if blob.inline is None:
        return blob.blob_id, None, None, None, None, None
    chunk = blob.chunks[0]
    return blob.blob_id, blob.bucket_key_id, blob.bucket_key_version, chunk.wrapped_key, chunk.digest, blob.inline


def _listing_columns(
    size: int, etag: str, last_modified_ms: int, owner_id: str, attributes: Attributes
) -> tuple[int | str, ...]:
    checksum = attributes.checksum
    algorithm, kind = ("", "") if checksum is None else (checksum.algorithm.value, checksum.type.value)
    return size, etag, last_modified_ms, attributes.storage_class, owner_id, algorithm, kind
