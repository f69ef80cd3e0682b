"""Versions and heads: what a write finds under its key, how a version is put on top, and how one is taken away.

A bucket that was never versioned, or is suspended, gives null versions and replaces the null version of the key; an
enabled one stacks. The sequence is the head's last one plus one, and LastModified is never before the head's.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.base.errors import NoSuchBucket, NoSuchKey, ObjectLocked, PreconditionFailed, SessionFenced
from storage.base.ids import NULL_VERSION_ID, format_version_id
from storage.metadata.commands import Conditions, NewVersion
from storage.metadata.records import decode_attributes, encode_version_attributes, lock_columns, lock_of
from storage.metadata.rules import is_locked
from storage.metadata.sqlite.blobs import release_unreferenced
from storage.metadata.sqlite.database import Transaction
from storage.model import Attributes, ObjectLock, SessionState, Versioning

_HEAD = "h.is_marker, h.version_row, h.null_row, h.last_sequence, h.etag, h.last_modified_ms, h.size"
_NULL_LOCK = "n.lock_mode, n.retain_until_ms, n.legal_hold"
_SELECT_HEAD = (
    f"SELECT {_HEAD}, {_NULL_LOCK} FROM heads h LEFT JOIN versions n ON n.row_id = h.null_row"
    " WHERE h.bucket_id = ?1 AND h.is_marker = 0 AND h.object_key = ?2"
    f" UNION ALL SELECT {_HEAD}, {_NULL_LOCK} FROM heads h LEFT JOIN versions n ON n.row_id = h.null_row"
    " WHERE h.bucket_id = ?1 AND h.is_marker = 1 AND h.object_key = ?2 LIMIT 1"
)
# one seek per row, in one statement: every commit begins with it
_SELECT_PLACE = (
    f"SELECT b.versioning, b.owner_id, s.state, {_HEAD}, {_NULL_LOCK}, {_HEAD.replace('h.', 'm.')} FROM buckets b"
    " LEFT JOIN write_sessions s ON s.session_id = ?2"
    " LEFT JOIN heads h ON h.bucket_id = ?1 AND h.is_marker = 0 AND h.object_key = ?3"
    " LEFT JOIN heads m ON m.bucket_id = ?1 AND m.is_marker = 1 AND m.object_key = ?3"
    " LEFT JOIN versions n ON n.row_id = coalesce(h.null_row, m.null_row) WHERE b.bucket_id = ?1"
)
_INSERT_VERSION = (
    "INSERT INTO versions (bucket_id, object_key, sequence, uid, is_null, is_marker, size, etag, last_modified_ms,"
    " owner_id, attributes, mac, part_count, lock_mode, retain_until_ms, legal_hold)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
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
_DELETE_VERSION = "DELETE FROM versions WHERE row_id = ?"
_SELECT_BLOBS = "SELECT blob_id FROM extents WHERE version_row = ? AND blob_id IS NOT NULL"
_DELETE_EXTENTS = "DELETE FROM extents WHERE version_row = ?"


class Head(NamedTuple):
    """The newest version of a key, with what a write decides by. null_row: the row of the key's null version."""

    is_marker: int
    version_row: int
    null_row: int | None
    last_sequence: int
    etag: str
    last_modified_ms: int
    size: int
    null_lock_mode: str | None
    """of the null version, as the two that follow; None when there is none"""
    null_retain_until_ms: int | None
    null_legal_hold: int | None


class Place(NamedTuple):
    """Where a write goes. versioning: of the bucket, in this transaction."""

    bucket_id: int
    object_key: bytes
    versioning: str
    bucket_owner_id: str
    head: Head | None


class Appended(NamedTuple):
    """A version put on top. version_id None: the bucket was never versioned."""

    row_id: int
    version_id: str | None
    last_modified_ms: int


def find_place(tx: Transaction, session_id: bytes, bucket_id: int, object_key: bytes) -> Place:
    """What a session's write finds. SessionFenced, NoSuchBucket."""
    row = tx.execute(_SELECT_PLACE, (bucket_id, session_id, object_key)).fetchone()
    if row is None:
        raise NoSuchBucket()
    if row[2] != SessionState.OPEN.value:
        raise SessionFenced()
    head = None
    if row[3] is not None:
        head = Head._make(row[3:13])
    elif row[13] is not None:
        head = Head._make(row[13:] + row[10:13])
    return Place(bucket_id, object_key, row[0], row[1], head)


def find_head(tx: Transaction, bucket_id: int, object_key: bytes) -> Head | None:
    row = tx.execute(_SELECT_HEAD, (bucket_id, object_key)).fetchone()
    return None if row is None else Head._make(row)


def check_conditions(conditions: Conditions, etag: str | None) -> None:
    """Of a conditional write (RFC 9110 §13.1; AWS: conditional writes). etag: of the current version, None when there
    is none or a marker is current. PreconditionFailed; NoSuchKey for If-Match on nothing."""
    if conditions.if_match is not None:
        if etag is None:
            raise NoSuchKey()
        if conditions.if_match not in ("*", etag):
            raise PreconditionFailed(condition="If-Match")
    if conditions.if_none_match is not None and etag is not None and conditions.if_none_match in ("*", etag):
        raise PreconditionFailed(condition="If-None-Match")


def require_replaceable(tx: Transaction, place: Place, *, bypass_governance: bool = False) -> None:
    """ObjectLocked when a null version that the write would take the place of must stay."""
    head = place.head
    if head is None or not (head.null_lock_mode or head.null_legal_hold):
        return
    if place.versioning != Versioning.ENABLED.value and is_locked(
        null_lock(head), tx.now_ms, bypass_governance=bypass_governance
    ):
        raise ObjectLocked()


def null_lock(head: Head) -> ObjectLock:
    """Of the key's null version."""
    return lock_of(head.null_lock_mode or "", head.null_retain_until_ms or 0, head.null_legal_hold or 0)


def current_etag(head: Head | None) -> str | None:
    """For check_conditions."""
    return None if head is None or head.is_marker else head.etag


def append_version(
    tx: Transaction, place: Place, version: NewVersion, *, is_marker: bool = False, part_count: int = 0
) -> Appended:
    """Put a version on top of its key. What it replaces stays until drop_replaced, so that a copy of a key onto itself
    never sees its own blobs unreferenced."""
    head = place.head
    sequence, last_modified_ms, null_row = 1, tx.now_ms, None
    if head is not None:
        sequence, null_row = head.last_sequence + 1, head.null_row
        last_modified_ms = max(last_modified_ms, head.last_modified_ms)
    is_null = place.versioning != Versioning.ENABLED.value
    attributes = version.attributes
    row_id = tx.execute(
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
        ),
    ).lastrowid
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


def _listing_columns(
    size: int, etag: str, last_modified_ms: int, owner_id: str, attributes: Attributes
) -> tuple[int | str, ...]:
    checksum = attributes.checksum
    algorithm, kind = ("", "") if checksum is None else (checksum.algorithm.value, checksum.type.value)
    return size, etag, last_modified_ms, attributes.storage_class, owner_id, algorithm, kind
