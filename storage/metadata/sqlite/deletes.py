"""Deletes, by the rules of the bucket's versioning state (AWS: Deleting object versions)."""

from __future__ import annotations

import hashlib

from storage.base.errors import NoSuchBucket, Refused
from storage.base.ids import NULL_VERSION_ID, VERSION_UID_BYTES, parse_version_id
from storage.metadata.commands import Deleted, DeleteTarget, DeleteVersions, NewVersion
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.versions import (
    Head,
    Place,
    append_version,
    check_conditions,
    current_etag,
    drop_replaced,
    find_head,
    remove_version,
)
from storage.model import Attributes, Versioning

_SELECT_BUCKET = "SELECT versioning, owner_id FROM buckets WHERE bucket_id = ?"
_SELECT_VERSION = (
    "SELECT row_id, is_marker, etag FROM versions"
    " WHERE bucket_id = ? AND object_key = ? AND sequence = ? AND uid = ? AND is_null = 0"
)
_SELECT_ROW = "SELECT row_id, is_marker, etag FROM versions WHERE row_id = ?"
_NO_ATTRIBUTES = Attributes()


def delete_versions(tx: Transaction, command: DeleteVersions) -> list[Deleted]:
    """One outcome per target. A refusal is decided before the target's first change, so it leaves nothing behind."""
    bucket = tx.execute(_SELECT_BUCKET, (command.bucket_id,)).fetchone()
    if bucket is None:
        raise NoSuchBucket()
    versioning, owner_id = bucket
    outcomes = []
    for target in command.targets:
        head = find_head(tx, command.bucket_id, target.object_key)
        place = Place(command.bucket_id, target.object_key, versioning, owner_id, head)
        try:
            outcome = (
                _delete_current(tx, place, target) if target.version_id is None else _delete_one(tx, place, target)
            )
        except Refused as refusal:
            outcome = Deleted(target.version_id, refusal=type(refusal).__name__)
        outcomes.append(outcome)
    return outcomes


def _delete_current(tx: Transaction, place: Place, target: DeleteTarget) -> Deleted:
    check_conditions(target.conditions, current_etag(place.head))
    if place.versioning == Versioning.UNVERSIONED.value:
        if place.head is not None:
            remove_version(tx, place.bucket_id, place.object_key, place.head, place.head.version_row)
        return Deleted()
    marker = NewVersion(_marker_uid(tx, place), 0, "", place.bucket_owner_id, _NO_ATTRIBUTES)
    appended = append_version(tx, place, marker, is_marker=True)
    drop_replaced(tx, place)
    return Deleted(appended.version_id, is_marker=True)


def _delete_one(tx: Transaction, place: Place, target: DeleteTarget) -> Deleted:
    head = place.head
    row = None if head is None else _find_version(tx, place, head, target.version_id or "")
    if head is None or row is None:
        check_conditions(target.conditions, None)
        return Deleted(target.version_id)
    row_id, is_marker, etag = row
    check_conditions(target.conditions, None if is_marker else etag)
    remove_version(tx, place.bucket_id, place.object_key, head, row_id)
    return Deleted(target.version_id, is_marker=bool(is_marker))


def _find_version(tx: Transaction, place: Place, head: Head, version_id: str) -> tuple[int, int, str] | None:
    row: tuple[int, int, str] | None
    if version_id == NULL_VERSION_ID:
        row = None if head.null_row is None else tx.execute(_SELECT_ROW, (head.null_row,)).fetchone()
        return row
    parsed = parse_version_id(version_id)
    if parsed is None or parsed[0] > head.last_sequence:
        return None
    row = tx.execute(_SELECT_VERSION, (place.bucket_id, place.object_key, *parsed)).fetchone()
    return row


def _marker_uid(tx: Transaction, place: Place) -> bytes:
    """A marker's uid follows from what the command is applied to, so that a journal replays to the same version ids."""
    sequence = 0 if place.head is None else place.head.last_sequence
    digest = hashlib.sha256(b"%d %d %d " % (place.bucket_id, tx.now_ms, sequence) + place.object_key)
    return digest.digest()[:VERSION_UID_BYTES]
