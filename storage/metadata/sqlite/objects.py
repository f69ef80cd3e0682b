"""Reads of one object: its version, and of its body only what the asked range touches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storage.base.errors import InvalidPart, NoSuchKey, NoSuchVersion
from storage.base.ids import NULL_VERSION_ID, parse_version_id
from storage.metadata.chunk_rows import chunk_of
from storage.metadata.interface import CHUNK_PAGE_ROWS, VersionRead
from storage.metadata.records import decode_attributes, overlay_attributes
from storage.metadata.sqlite.blobs import read_span_chunks
from storage.metadata.sqlite.database import Execute
from storage.model import Blob, ByteRange, Chunk, Extent, Version

_VERSION = (
    "SELECT (SELECT value FROM meta WHERE name = 'configuration_sequence'), h.version_row, v.row_id, v.object_key,"
    " v.sequence, v.uid, v.is_null, v.is_marker, v.size, v.etag, v.last_modified_ms, v.owner_id, v.mac,"
    " v.part_count, v.attributes, v.tags, v.acl, v.lock_mode, v.retain_until_ms, v.legal_hold, v.blob_id"
)
_AT = "h.bucket_id = ? AND h.is_marker IN (0, 1) AND h.object_key = ?"
_SELECT_CURRENT = (
    f"{_VERSION} FROM heads h JOIN versions v ON v.row_id = h.version_row"
    " WHERE h.bucket_id = ? AND h.is_marker = ? AND h.object_key = ?"
)
_SELECT_NULL = f"{_VERSION} FROM heads h JOIN versions v ON v.row_id = h.null_row WHERE {_AT}"
_SELECT_VERSION = (
    f"{_VERSION} FROM heads h JOIN versions v ON v.bucket_id = h.bucket_id AND v.object_key = h.object_key"
    f" WHERE {_AT} AND v.sequence = ? AND v.uid = ? AND v.is_null = 0"
)
_SELECT_SINGLE = (
    f"{_VERSION}, v.bucket_key_id, v.bucket_key_version, v.wrapped_key, v.digest, v.sealed,"
    " b.bucket_key_id, b.bucket_key_version, b.redundancy, b.generation, c.wrapped_key, c.digest, c.nodes"
    " FROM heads h JOIN versions v ON v.row_id = h.version_row"
    " LEFT JOIN blobs b ON b.blob_id = CASE WHEN v.bucket_key_version IS NULL THEN v.blob_id END"
    " LEFT JOIN chunks c ON c.blob_id = b.blob_id AND c.chunk_index = 0 AND c.length = v.size"
    " WHERE h.bucket_id = ? AND h.is_marker = 0 AND h.object_key = ?"
)
"""an own blob: its inline body, or the one chunk that is all of it"""
_SELECT_OWN_BLOB = (
    "SELECT v.blob_id, 0, v.size, 0, v.size, coalesce(b.bucket_key_id, v.bucket_key_id),"
    " coalesce(b.bucket_key_version, v.bucket_key_version), coalesce(b.redundancy, 'inline'),"
    " coalesce(b.generation, 0), v.wrapped_key, v.digest, v.sealed FROM versions v"
    " LEFT JOIN blobs b ON b.blob_id = CASE WHEN v.bucket_key_version IS NULL THEN v.blob_id END WHERE v.row_id = ?"
)
"""as _EXTENTS"""
_EXTENTS = (
    "SELECT e.blob_id, e.offset, e.length, e.part_number, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy,"
    " b.generation, i.wrapped_key, i.digest, i.sealed FROM extents e LEFT JOIN blobs b ON b.blob_id = e.blob_id"
    " LEFT JOIN inline_bodies i ON i.blob_id = e.blob_id WHERE e.version_row = ?1"
)
_SELECT_EXTENTS = f"{_EXTENTS} ORDER BY e.offset"
_SELECT_EXTENTS_OF_RANGE = (
    f"{_EXTENTS} AND e.offset < ?3 AND e.offset >="
    " (SELECT max(offset) FROM extents WHERE version_row = ?1 AND offset <= ?2) ORDER BY e.offset"
)
_SELECT_EXTENTS_OF_PART = f"{_EXTENTS} AND e.part_number = ?2 ORDER BY e.offset"

_SQLITE_INTEGER_MAX = 2**63 - 1
_VERSION_COLUMNS = 21
"""the last is the version's own blob"""


def read_single(execute: Execute, bucket_id: int, object_key: bytes) -> VersionRead | None:
    """The current version with its body when one inline blob or one chunk is all of it, by a single statement: what
    most GETs want costs two thirds of the general way, or less. None: take that way."""
    row = execute(_SELECT_SINGLE, (bucket_id, object_key)).fetchone()
    if row is None:
        return None
    blob_id, key_id, key_version, wrapped_key, digest, sealed, *kept = row[_VERSION_COLUMNS - 1 :]
    version = _version_of(row[2 : _VERSION_COLUMNS - 1])
    size = version.size
    if sealed is not None:
        blob = Blob(blob_id, size, key_id, key_version, "inline", (Chunk(0, 0, size, wrapped_key, digest),), sealed)
    elif kept[-1] is not None:
        key_id, key_version, redundancy, generation, wrapped_key, digest, nodes = kept
        chunk = chunk_of((0, 0, size, wrapped_key, digest, nodes))
        blob = Blob(blob_id, size, key_id, key_version, redundancy, (chunk,), None, generation)
    else:
        return None
    return VersionRead(row[0], version, True, (Extent(blob_id, 0, size, 0),), (blob,))


def read_version(
    execute: Execute,
    bucket_id: int,
    object_key: bytes,
    version_id: str | None,
    byte_range: ByteRange | None,
    part_number: int | None,
    with_body: bool,
) -> VersionRead:
    """See the interface; `execute` is on one snapshot.

    With part_number the part's extent is there even without a body, as the part's span, and even when the part has no
    bytes (its blob id is empty then). Otherwise there is one blob per extent, in the same order.
    """
    sequence, head_row, *columns, own_blob = _find_version(execute, bucket_id, object_key, version_id)
    version = _version_of(columns)
    if version_id is None and version.is_marker:
        raise NoSuchKey(delete_marker_version_id=version.version_id, last_modified_ms=str(version.last_modified_ms))
    read = VersionRead(sequence, version, version.row_id == head_row)
    if part_number is not None:
        return _with_part(execute, read, part_number, with_body, is_own=own_blob is not None)
    span = (0, version.size) if byte_range is None else byte_range.resolve(version.size)
    if not with_body or span is None or version.size == 0:
        return read
    if own_blob is not None:
        rows = execute(_SELECT_OWN_BLOB, (version.row_id,)).fetchall()
    elif byte_range is None:
        rows = execute(_SELECT_EXTENTS, (version.row_id,)).fetchall()
    else:
        rows = execute(_SELECT_EXTENTS_OF_RANGE, (version.row_id, *span)).fetchall()
    return _with_body(execute, read, rows, span)


def _find_version(execute: Execute, bucket_id: int, object_key: bytes, version_id: str | None) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None
    if version_id is None:
        row = execute(_SELECT_CURRENT, (bucket_id, 0, object_key)).fetchone()
        row = row or execute(_SELECT_CURRENT, (bucket_id, 1, object_key)).fetchone()
        if row is None:
            raise NoSuchKey()
        return row
    if version_id == NULL_VERSION_ID:
        row = execute(_SELECT_NULL, (bucket_id, object_key)).fetchone()
    else:
        parsed = parse_version_id(version_id)
        known = parsed is not None and parsed[0] <= _SQLITE_INTEGER_MAX
        row = execute(_SELECT_VERSION, (bucket_id, object_key, *parsed)).fetchone() if parsed and known else None
    if row is None:
        raise NoSuchVersion()
    return row


def _version_of(columns: Sequence[Any]) -> Version:
    row_id, object_key, sequence, uid, is_null, is_marker, size, etag, modified_ms, owner_id, mac, parts = columns[:12]
    raw, tags, acl, lock_mode, retain_until_ms, legal_hold = columns[12:]
    attributes = decode_attributes(raw)
    if lock_mode or legal_hold or tags is not None or acl is not None:
        attributes = overlay_attributes(attributes, tags, acl, lock_mode, retain_until_ms, legal_hold)
    return Version(
        row_id,
        object_key,
        sequence,
        uid,
        bool(is_null),
        bool(is_marker),
        size,
        etag,
        modified_ms,
        owner_id,
        attributes,
        mac,
        parts,
    )


def _with_part(execute: Execute, read: VersionRead, part_number: int, with_body: bool, *, is_own: bool) -> VersionRead:
    version = read.version
    if version.part_count == 0:
        if part_number != 1:
            raise InvalidPart(part_number=str(part_number))
        rows = execute(_SELECT_OWN_BLOB if is_own else _SELECT_EXTENTS, (version.row_id,)).fetchall()
    else:
        rows = execute(_SELECT_EXTENTS_OF_PART, (version.row_id, part_number)).fetchall()
        if not rows:
            raise InvalidPart(part_number=str(part_number))
    if with_body and rows and rows[0][0] is not None:
        return _with_body(execute, read, rows, (0, version.size))
    return read._replace(extents=tuple(Extent(row[0] or b"", *row[1:4]) for row in rows))


def _with_body(execute: Execute, read: VersionRead, rows: list[Any], span: tuple[int, int]) -> VersionRead:
    extents: list[Extent] = []
    blobs: list[Blob] = []
    chunk_rows_left = CHUNK_PAGE_ROWS
    for row in rows:
        blob_id, offset, length, part, size, key_id, key_version, redundancy, generation, *body = row
        if blob_id is None:
            continue
        extents.append(Extent(blob_id, offset, length, part))
        chunks: tuple[Chunk, ...] = ()
        wrapped_key, digest, sealed = body
        if sealed is not None:
            chunks = (Chunk(0, 0, size, wrapped_key, digest),)
        elif chunk_rows_left:
            start, end = max(0, span[0] - offset), span[1] - offset
            chunks = read_span_chunks(execute, blob_id, start, end, chunk_rows_left)
            chunk_rows_left -= len(chunks)
        blobs.append(Blob(blob_id, size, key_id, key_version, redundancy, chunks, sealed, generation))
    return read._replace(extents=tuple(extents), blobs=tuple(blobs))
