"""Multipart uploads: open ones with their parts, and a record of each finished one so that a retry answers the same.

Parts are referenced data for as long as the upload is open. Completing moves their blobs to a version: one row a part,
no byte.
"""

from __future__ import annotations

from typing import Any

from storage.base.errors import EntityTooSmall, InvalidPart, InvalidPartOrder, NoSuchBucket, NoSuchUpload, Refused
from storage.metadata.commands import (
    AbortUpload,
    CompleteUpload,
    CreateUpload,
    PutPart,
    VersionCommitted,
)
from storage.metadata.interface import CompletedUpload, PartPage
from storage.metadata.records import decode_checksum, encode_record, upload_of
from storage.metadata.rules import (
    COMPLETED_FORGOTTEN_PER_COMMAND,
    COMPLETED_UPLOAD_TTL_MS,
    PART_SIZE_MIN_BYTES,
    require_covered,
)
from storage.metadata.sqlite.blobs import insert_blob, release_unreferenced, require_placeable
from storage.metadata.sqlite.commits import INSERT_EXTENT
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.heads import check_conditions, current_etag, find_place, require_replaceable
from storage.metadata.sqlite.versions import append_version, drop_replaced
from storage.model import PartInfo, Upload

UPLOAD = "upload_id, bucket_id, object_key, owner_id, initiated_ms, attributes, checksum_algorithm, checksum_type"
_PART = "part_number, size, etag, last_modified_ms, blob_id, checksum"
_SELECT_BUCKET = "SELECT 1 FROM buckets WHERE bucket_id = ?"
_INSERT_UPLOAD = f"INSERT INTO uploads ({UPLOAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_SELECT_UPLOAD = f"SELECT upload_row, {UPLOAD} FROM uploads WHERE bucket_id = ? AND object_key = ? AND upload_id = ?"
_SELECT_UPLOAD_ROW = "SELECT upload_row FROM uploads WHERE bucket_id = ? AND object_key = ? AND upload_id = ?"
_SELECT_SOME = "SELECT upload_row FROM uploads WHERE bucket_id = ? LIMIT ?"
_DELETE_UPLOAD = "DELETE FROM uploads WHERE upload_row = ?"
_PUT_PART = (
    f"INSERT INTO parts (upload_row, {_PART}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (upload_row, part_number)"
    " DO UPDATE SET size = excluded.size, etag = excluded.etag, last_modified_ms = excluded.last_modified_ms,"
    " blob_id = excluded.blob_id, checksum = excluded.checksum"
)
_SELECT_PART_BLOB = "SELECT blob_id FROM parts WHERE upload_row = ? AND part_number = ?"
_SELECT_PARTS = "SELECT part_number, size, etag, blob_id FROM parts WHERE upload_row = ? ORDER BY part_number"
_SELECT_PART_PAGE = f"SELECT {_PART} FROM parts WHERE upload_row = ? AND part_number > ? ORDER BY part_number LIMIT ?"
_DELETE_PARTS = "DELETE FROM parts WHERE upload_row = ?"
_INSERT_COMPLETED = "INSERT INTO completed_uploads VALUES (?, ?, ?, ?, ?, ?, ?)"
_SELECT_COMPLETED = (
    "SELECT bucket_id, object_key, version_id, etag, last_modified_ms FROM completed_uploads"
    " WHERE bucket_id = ? AND object_key = ? AND upload_id = ?"
)
_SELECT_OLD_COMPLETED = (
    "SELECT bucket_id, object_key, upload_id FROM completed_uploads"
    " WHERE completed_ms < ? ORDER BY completed_ms LIMIT ?"
)
_DELETE_COMPLETED = "DELETE FROM completed_uploads WHERE bucket_id = ? AND object_key = ? AND upload_id = ?"


def create_upload(tx: Transaction, command: CreateUpload) -> Upload:
    if tx.execute(_SELECT_BUCKET, (command.bucket_id,)).fetchone() is None:
        raise NoSuchBucket()
    upload = Upload(
        command.upload_id,
        command.bucket_id,
        command.object_key,
        command.owner_id,
        tx.now_ms,
        command.attributes,
        command.checksum_algorithm,
        command.checksum_type,
    )
    row = (
        upload.upload_id,
        upload.bucket_id,
        upload.object_key,
        upload.owner_id,
        upload.initiated_ms,
        encode_record(upload.attributes),
        None if upload.checksum_algorithm is None else upload.checksum_algorithm.value,
        None if upload.checksum_type is None else upload.checksum_type.value,
    )
    if tx.execute(_INSERT_UPLOAD, row).rowcount != 1:
        raise Refused("this upload id was used before")
    return upload


def put_part(tx: Transaction, command: PutPart) -> PartInfo:
    find_place(tx, command.session_id, command.bucket_id, command.object_key)
    upload_row = _find_upload_row(tx, command)
    if upload_row is None:
        raise NoSuchUpload()
    require_covered(command.size, [(0, 0 if command.blob is None else command.blob.size)])
    replaced = tx.execute(_SELECT_PART_BLOB, (upload_row, command.part_number)).fetchone()
    blob_id = None
    if command.blob is not None:
        require_placeable(tx, command.blob)
        blob_id = command.blob.blob_id
        insert_blob(tx, command.session_id, command.blob)
    checksum = None if command.checksum is None else encode_record(command.checksum)
    tx.execute(
        _PUT_PART,
        (upload_row, command.part_number, command.size, command.etag, tx.now_ms, blob_id, checksum),
    )
    if replaced is not None and replaced[0] is not None:
        release_unreferenced(tx, replaced[0])
    return PartInfo(command.part_number, command.size, command.etag, tx.now_ms, blob_id or b"", command.checksum)


def complete_upload(tx: Transaction, command: CompleteUpload) -> VersionCommitted:
    place = find_place(tx, command.session_id, command.bucket_id, command.object_key)
    at = (command.bucket_id, command.object_key, command.upload_id)
    upload_row = _find_upload_row(tx, command)
    if upload_row is None:
        completed = find_completed_upload(tx.execute, *at)
        if completed is None:
            raise NoSuchUpload()
        return VersionCommitted(completed.version_id, completed.last_modified_ms, completed.etag)
    left_out = _check_parts(tx, upload_row, command.parts)
    check_conditions(command.conditions, current_etag(place.head))
    require_replaceable(tx, place)
    appended = append_version(tx, place, command.version, part_count=len(command.parts))
    extents = _extents(command.parts)
    require_covered(command.version.size, [(offset, part.size) for offset, part in extents])
    tx.executemany(
        INSERT_EXTENT,
        [(appended.row_id, offset, part.size, part.part_number, part.blob_id or None) for offset, part in extents],
    )
    _delete_upload(tx, upload_row)
    for blob_id in left_out:
        release_unreferenced(tx, blob_id)
    drop_replaced(tx, place)
    answer = VersionCommitted(appended.version_id, appended.last_modified_ms, command.version.etag)
    tx.execute(_INSERT_COMPLETED, (*at, answer.version_id, answer.etag, answer.last_modified_ms, tx.now_ms))
    _forget_old_completed(tx)
    return answer


def abort_upload(tx: Transaction, command: AbortUpload) -> None:
    upload_row = _find_upload_row(tx, command)
    if upload_row is None:
        raise NoSuchUpload()
    _abort(tx, upload_row)


def abort_some_uploads(tx: Transaction, bucket_id: int, count_max: int) -> bool:
    """Abort up to count_max uploads of a bucket. → True when none is left."""
    rows = tx.execute(_SELECT_SOME, (bucket_id, count_max)).fetchall()
    for (upload_row,) in rows:
        _abort(tx, upload_row)
    return len(rows) < count_max


def read_upload(execute: Execute, bucket_id: int, object_key: bytes, upload_id: str) -> Upload:
    row = execute(_SELECT_UPLOAD, (bucket_id, object_key, upload_id)).fetchone()
    if row is None:
        raise NoSuchUpload()
    return upload_of(row[1:])


def find_completed_upload(
    execute: Execute, bucket_id: int, object_key: bytes, upload_id: str
) -> CompletedUpload | None:
    row = execute(_SELECT_COMPLETED, (bucket_id, object_key, upload_id)).fetchone()
    return None if row is None else CompletedUpload._make(row)


def list_parts(execute: Execute, bucket_id: int, object_key: bytes, upload_id: str, after: int, limit: int) -> PartPage:
    """One snapshot of the upload and the page."""
    found = execute(_SELECT_UPLOAD, (bucket_id, object_key, upload_id)).fetchone()
    if found is None:
        raise NoSuchUpload()
    upload_row, *described = found
    rows = execute(_SELECT_PART_PAGE, (upload_row, after, limit + 1)).fetchall()
    parts = tuple(_part_of(row) for row in rows[:limit])
    return PartPage(upload_of(described), parts, parts[-1].part_number if parts and len(rows) > limit else None)


def _find_upload_row(tx: Transaction, command: PutPart | CompleteUpload | AbortUpload) -> int | None:
    row = tx.execute(_SELECT_UPLOAD_ROW, (command.bucket_id, command.object_key, command.upload_id)).fetchone()
    return None if row is None else int(row[0])


def _check_parts(tx: Transaction, upload_row: int, parts: tuple[PartInfo, ...]) -> list[bytes]:
    """Order, existence, sizes. → the blobs of the parts that the list leaves out."""
    stored = {row[0]: row[1:] for row in tx.execute(_SELECT_PARTS, (upload_row,)).fetchall()}
    if not parts:
        raise InvalidPart("an empty part list", part_number="0")
    previous = 0
    for part in parts:
        if part.part_number <= previous:
            raise InvalidPartOrder()
        previous = part.part_number
    for part in parts:
        if stored.pop(part.part_number, None) != (part.size, part.etag, part.blob_id or None):
            raise InvalidPart(part_number=str(part.part_number))
    for part in parts[:-1]:
        if part.size < PART_SIZE_MIN_BYTES:
            raise EntityTooSmall(part_number=str(part.part_number), size=str(part.size))
    return [blob_id for _, _, blob_id in stored.values() if blob_id is not None]


def _extents(parts: tuple[PartInfo, ...]) -> list[tuple[int, PartInfo]]:
    extents = []
    offset = 0
    for part in parts:
        extents.append((offset, part))
        offset += part.size
    return extents


def _abort(tx: Transaction, upload_row: int) -> None:
    blob_ids = [row[3] for row in tx.execute(_SELECT_PARTS, (upload_row,)).fetchall() if row[3] is not None]
    _delete_upload(tx, upload_row)
    for blob_id in blob_ids:
        release_unreferenced(tx, blob_id)


def _delete_upload(tx: Transaction, upload_row: int) -> None:
    tx.execute(_DELETE_PARTS, (upload_row,))
    tx.execute(_DELETE_UPLOAD, (upload_row,))


def _forget_old_completed(tx: Transaction) -> None:
    """A few with every completion, so that the records of a week are all there ever are."""
    bound = (tx.now_ms - COMPLETED_UPLOAD_TTL_MS, COMPLETED_FORGOTTEN_PER_COMMAND)
    tx.executemany(_DELETE_COMPLETED, tx.execute(_SELECT_OLD_COMPLETED, bound).fetchall())


def _part_of(row: tuple[Any, ...]) -> PartInfo:
    part_number, size, etag, last_modified_ms, blob_id, checksum = row
    return PartInfo(
        part_number,
        size,
        etag,
        last_modified_ms,
        blob_id or b"",
        None if checksum is None else decode_checksum(checksum),
    )
