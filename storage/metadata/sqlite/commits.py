"""The commit of a PUT or a copy: the one transaction that makes a version visible."""

from __future__ import annotations

from storage.metadata.commands import CommitVersion, VersionCommitted
from storage.metadata.rules import commit_spans, require_covered
from storage.metadata.sqlite.blobs import insert_blob, require_placeable, require_shareable
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.versions import (
    append_version,
    check_conditions,
    current_etag,
    drop_replaced,
    find_place,
    require_replaceable,
)

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
    if command.shared or len(command.blobs) != 1 or command.blobs[0].size != command.version.size:
        require_covered(command.version.size, commit_spans(command))
    for blob in command.blobs:
        require_placeable(tx, blob)
    appended = append_version(tx, place, command.version)
    offset = 0
    for blob in command.blobs:
        insert_blob(tx, command.session_id, blob)
        tx.execute(INSERT_EXTENT, (appended.row_id, offset, blob.size, 0, blob.blob_id))
        offset += blob.size
    for extent in command.shared:
        row = (appended.row_id, extent.offset, extent.length, extent.part_number, extent.blob_id)
        tx.execute(INSERT_EXTENT, row)
    drop_replaced(tx, place)
    return VersionCommitted(appended.version_id, appended.last_modified_ms, command.version.etag)
