"""Deletes, by the rules of the bucket's versioning state (AWS: Deleting object versions)."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from storage.base.errors import NoSuchBucket, ObjectLocked, PreconditionFailed, Refused
from storage.base.ids import NULL_VERSION_ID, VERSION_UID_BYTES, parse_version_id
from storage.metadata.commands import Deleted, DeleteTarget, DeleteVersions, NewVersion
from storage.metadata.records import lock_of
from storage.metadata.rules import NO_CONDITIONS, failed_delete_condition, is_locked
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.heads import Head, Place, find_head, require_replaceable
from storage.metadata.sqlite.versions import append_version, drop_replaced, remove_version
from storage.model import Attributes, Versioning

_SELECT_BUCKET = "SELECT versioning, owner_id FROM buckets WHERE bucket_id = ?"
_VERSION = (
    "SELECT row_id, is_marker, etag, size, last_modified_ms, lock_mode, retain_until_ms, legal_hold FROM versions"
)
_SELECT_VERSION = f"{_VERSION} WHERE bucket_id = ? AND object_key = ? AND sequence = ? AND uid = ? AND is_null = 0"
_SELECT_ROW = f"{_VERSION} WHERE row_id = ?"
_NO_ATTRIBUTES = Attributes()


class _Found(NamedTuple):
    """A version that a target names."""

    row_id: int
    is_marker: int
    etag: str
    size: int
    last_modified_ms: int
    lock_mode: str
    retain_until_ms: int
    legal_hold: int


def delete_versions(tx: Transaction, command: DeleteVersions) -> list[Deleted]:
    """One outcome per target. A refusal is decided before the target's first change, so it leaves nothing behind."""
    bucket = tx.execute(_SELECT_BUCKET, (command.bucket_id,)).fetchone()
    if bucket is None:
        raise NoSuchBucket()
    versioning, owner_id = bucket
    bypass_governance = command.bypass_governance
    outcomes = []
    for target in command.targets:
        head = find_head(tx, command.bucket_id, target.object_key)
        place = Place(command.bucket_id, target.object_key, versioning, owner_id, head)
        try:
            if target.version_id is None:
                outcome = _delete_current(tx, place, target, bypass_governance)
            else:
                outcome = _delete_one(tx, place, target, bypass_governance)
        except Refused as refusal:
            outcome = Deleted(target.version_id, refusal=type(refusal).__name__)
        outcomes.append(outcome)
    return outcomes


def _delete_current(tx: Transaction, place: Place, target: DeleteTarget, bypass_governance: bool) -> Deleted:
    head = place.head
    if target.conditions != NO_CONDITIONS or target.noncurrent_only:
        if head is None:
            return Deleted()
        _check(target, head, is_newest=True)
    require_replaceable(tx, place, bypass_governance=bypass_governance)
    if place.versioning == Versioning.UNVERSIONED.value:
        if head is not None:
            remove_version(tx, place.bucket_id, place.object_key, head, head.version_row)
        return Deleted()
    marker = NewVersion(_marker_uid(tx, place), 0, "", place.bucket_owner_id, _NO_ATTRIBUTES)
    appended = append_version(tx, place, marker, is_marker=True)
    drop_replaced(tx, place)
    return Deleted(appended.version_id, is_marker=True)


def _delete_one(tx: Transaction, place: Place, target: DeleteTarget, bypass_governance: bool) -> Deleted:
    head = place.head
    found = None if head is None else _find_version(tx, place, head, target.version_id or "")
    if head is None or found is None:
        return Deleted(target.version_id)
    _check(target, found, is_newest=found.row_id == head.version_row)
    lock = lock_of(found.lock_mode, found.retain_until_ms, found.legal_hold)
    if is_locked(lock, tx.now_ms, bypass_governance=bypass_governance):
        raise ObjectLocked()
    remove_version(tx, place.bucket_id, place.object_key, head, found.row_id)
    return Deleted(target.version_id, is_marker=bool(found.is_marker))


def _check(target: DeleteTarget, found: Head | _Found, *, is_newest: bool) -> None:
    if target.noncurrent_only and is_newest:
        raise PreconditionFailed()
    failed = failed_delete_condition(
        target.conditions,
        etag=found.etag,
        is_marker=bool(found.is_marker),
        size=found.size,
        last_modified_ms=found.last_modified_ms,
    )
    if failed:
        raise PreconditionFailed(condition=failed)


def _find_version(tx: Transaction, place: Place, head: Head, version_id: str) -> _Found | None:
    if version_id == NULL_VERSION_ID:
        row = tx.execute(_SELECT_ROW, (head.null_row,)).fetchone()
    else:
        parsed = parse_version_id(version_id)
        if parsed is None or parsed[0] > head.last_sequence:
            return None
        row = tx.execute(_SELECT_VERSION, (place.bucket_id, place.object_key, *parsed)).fetchone()
    return None if row is None else _Found._make(row)


def _marker_uid(tx: Transaction, place: Place) -> bytes:
    """A marker's uid follows from what the command is applied to, so that a journal replays to the same version ids."""
    sequence = 0 if place.head is None else place.head.last_sequence
    digest = hashlib.sha256(b"%d %d %d " % (place.bucket_id, tx.now_ms, sequence) + place.object_key)
    return digest.digest()[:VERSION_UID_BYTES]
