"""What changes of a version that stays the same version: tags, ACL, retention, legal hold."""

from __future__ import annotations

from typing import Any

from storage.base.errors import NoSuchBucket, NoSuchKey, NoSuchVersion
from storage.base.ids import NULL_VERSION_ID, format_version_id, parse_version_id
from storage.metadata.commands import ChangeObject, ObjectChanged
from storage.metadata.records import encode_record, lock_of
from storage.metadata.rules import choose_lock
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.heads import find_head

_SELECT_BUCKET = "SELECT 1 FROM buckets WHERE bucket_id = ?"
_VERSION = (
    "SELECT row_id, is_marker, is_null, sequence, uid, last_modified_ms, lock_mode, retain_until_ms, legal_hold"
    " FROM versions"
)
_SELECT_ROW = f"{_VERSION} WHERE row_id = ?"
_SELECT_VERSION = f"{_VERSION} WHERE bucket_id = ? AND object_key = ? AND sequence = ? AND uid = ? AND is_null = 0"
_CHANGE = (
    "UPDATE versions SET tags = coalesce(?, tags), acl = coalesce(?, acl), lock_mode = ?, retain_until_ms = ?,"
    " legal_hold = ? WHERE row_id = ?"
)


def change_object(tx: Transaction, command: ChangeObject) -> ObjectChanged:
    """See the command."""
    if tx.execute(_SELECT_BUCKET, (command.bucket_id,)).fetchone() is None:
        raise NoSuchBucket()
    row = _find_version(tx, command)
    if row is None:
        raise NoSuchKey() if command.version_id is None else NoSuchVersion()
    row_id, is_marker, is_null, sequence, uid, last_modified_ms, *lock = row
    version_id = NULL_VERSION_ID if is_null else format_version_id(sequence, uid)
    if is_marker and command.version_id is None:
        raise NoSuchKey(delete_marker_version_id=version_id, last_modified_ms=str(last_modified_ms))
    if is_marker:
        raise NoSuchVersion(is_marker="true")
    chosen = choose_lock(lock_of(*lock), command, tx.now_ms)
    tags = None if command.tags is None else encode_record(command.tags)
    acl = None if command.acl is None else encode_record(command.acl)
    tx.execute(_CHANGE, (tags, acl, chosen.mode.value, chosen.retain_until_ms, int(chosen.legal_hold), row_id))
    return ObjectChanged(version_id)


def _find_version(tx: Transaction, command: ChangeObject) -> tuple[Any, ...] | None:
    head = find_head(tx, command.bucket_id, command.object_key)
    if head is None:
        return None
    row: tuple[Any, ...] | None
    if command.version_id is None:
        row = tx.execute(_SELECT_ROW, (head.version_row,)).fetchone()
        return row
    if command.version_id == NULL_VERSION_ID:
        row = tx.execute(_SELECT_ROW, (head.null_row,)).fetchone()
        return row
    parsed = parse_version_id(command.version_id)
    if parsed is None or parsed[0] > head.last_sequence:
        return None
    row = tx.execute(_SELECT_VERSION, (command.bucket_id, command.object_key, *parsed)).fetchone()
    return row
