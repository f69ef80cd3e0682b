"""Heads: what a write finds under its key, and whether it may take its place."""

from __future__ import annotations

from typing import NamedTuple

from storage.base.errors import NoSuchBucket, NoSuchKey, ObjectLocked, PreconditionFailed, SessionFenced
from storage.metadata.commands import Conditions
from storage.metadata.records import lock_of
from storage.metadata.rules import is_locked
from storage.metadata.sqlite.database import Transaction
from storage.model import ObjectLock, SessionState, Versioning

_HEAD = "h.is_marker, h.version_row, h.null_row, h.last_sequence, h.etag, h.last_modified_ms, h.size"
_NULL_LOCK = "n.lock_mode, n.retain_until_ms, n.legal_hold"
_SELECT = f"SELECT {_HEAD}, {_NULL_LOCK} FROM heads h LEFT JOIN versions n ON n.row_id = h.null_row"
_SELECT_HEAD = f"{_SELECT} WHERE h.bucket_id = ? AND h.is_marker IN (0, 1) AND h.object_key = ? LIMIT 1"
_SELECT_LIVE_HEAD = f"{_SELECT} WHERE h.bucket_id = ? AND h.is_marker = 0 AND h.object_key = ?"
_SELECT_WRITABLE = (
    "SELECT b.versioning, b.owner_id, s.state FROM buckets b LEFT JOIN write_sessions s ON s.session_id = ?"
    " WHERE b.bucket_id = ?"
)


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


def find_place(tx: Transaction, session_id: bytes, bucket_id: int, object_key: bytes) -> Place:
    """What a session's write finds. SessionFenced, NoSuchBucket."""
    writable = tx.writable.get((session_id, bucket_id)) or _require_writable(tx, session_id, bucket_id)
    # markers need versioning, which a bucket keeps once it had it
    statement = _SELECT_LIVE_HEAD if writable[0] == Versioning.UNVERSIONED.value else _SELECT_HEAD
    row = tx.execute(statement, (bucket_id, object_key)).fetchone()
    return Place(bucket_id, object_key, *writable, None if row is None else Head._make(row))


def _require_writable(tx: Transaction, session_id: bytes, bucket_id: int) -> tuple[str, str]:
    row = tx.execute(_SELECT_WRITABLE, (session_id, bucket_id)).fetchone()
    if row is None:
        raise NoSuchBucket()
    versioning, owner_id, state = row
    if state != SessionState.OPEN.value:
        raise SessionFenced()
    tx.writable[session_id, bucket_id] = versioning, owner_id
    return versioning, owner_id


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
