"""The commit of a PUT or a copy: the one transaction that makes a version visible."""

from __future__ import annotations

from storage.metadata.commands import CommitVersion, VersionCommitted
from storage.metadata.rules import commit_spans, require_covered
from storage.metadata.sqlite.blobs import (
    insert_blob,
    require_new,
    require_placeable,
    require_shareable,
    spread_blob,
)
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.heads import check_conditions, current_etag, find_place, require_replaceable
from storage.metadata.sqlite.versions import append_version, drop_replaced

INSERT_EXTENT = "INSERT INTO extents VALUES (?, ?, ?, ?, ?)"
"""version_row, offset, length, part_number, blob_id"""


def commit_version(tx: Transaction, command: CommitVersion) -> VersionCommitted:
    """In this order: what may refuse, the new rows, and only then what they replace."""
    place = find_place(tx, command.session_id, command.bucket_id, command.object_key)
    if command.conditions.if_match is not None or command.conditions.if_none_match is not None:
        check_conditions(command.conditions, current_etag(place.head))
    require_replaceable(tx, place)
    for extent in command.shared:
        require_shareable(tx, extent)
    own = command.blobs[0] if len(command.blobs) == 1 and not command.shared else None
    if own is None or own.size != command.version.size:
        require_covered(command.version.size, commit_spans(command))
    for blob in command.blobs:
        require_placeable(tx, blob)
    if own is not None:
        if own.inline is None:
            insert_blob(tx, command.session_id, own)
        else:
            require_new(tx, command.session_id, own)
        appended = append_version(tx, place, command.version, blob=own)
    else:
        appended = append_version(tx, place, command.version)
        _insert_extents(tx, command, appended.row_id)
    drop_replaced(tx, place)
    return VersionCommitted(appended.version_id, appended.last_modified_ms, command.version.etag)


def _insert_extents(tx: Transaction, command: CommitVersion, version_row: int) -> None:
    offset = 0
    for blob in command.blobs:
        insert_blob(tx, command.session_id, blob)
        tx.execute(INSERT_EXTENT, (version_row, offset, blob.size, 0, blob.blob_id))
        offset += blob.size
    for extent in command.shared:
        spread_blob(tx, extent.blob_id)
        row = (version_row, extent.offset, extent.length, extent.part_number, extent.blob_id)
        tx.execute(INSERT_EXTENT, row)
