"""Reads of one object: its version, and of its body only what the asked range touches. One call, one snapshot."""

from __future__ import annotations

from typing import Any

import asyncpg

from storage.base.errors import InvalidPart, NoSuchKey, NoSuchVersion
from storage.metadata.chunk_rows import chunk_of
from storage.metadata.interface import CHUNK_PAGE_ROWS, VersionRead
from storage.metadata.postgresql.database import BIGINT_MAX, Database
from storage.metadata.postgresql.versions import which_version
from storage.metadata.records import decode_attributes, overlay_attributes
from storage.model import Blob, ByteRange, Chunk, Extent, Version

FUNCTIONS_1 = (
    # up to p_left chunks that hold bytes of [p_start, p_end) of a blob. Its first one is found with two seeks where
    # all chunks but the last have the length of the first, which is how they are cut; by looking along otherwise.
    """CREATE FUNCTION span_chunks(p_blob_id bytea, p_start bigint, p_end bigint, p_left integer) RETURNS chunk_row[]
    LANGUAGE plpgsql STABLE AS $$
    DECLARE
        v_first bigint := 0;
    BEGIN
        IF p_start > 0 THEN
            SELECT c.chunk_index INTO v_first FROM chunks c WHERE c.blob_id = p_blob_id AND c.chunk_index =
                (SELECT p_start / f.length FROM chunks f WHERE f.blob_id = p_blob_id AND f.chunk_index = 0)
                AND c.offset <= p_start AND c.offset + c.length > p_start;
            IF NOT FOUND THEN
                SELECT c.chunk_index INTO v_first FROM chunks c
                WHERE c.blob_id = p_blob_id AND c.offset + c.length > p_start ORDER BY c.chunk_index LIMIT 1;
            END IF;
        END IF;
        RETURN ARRAY(
            SELECT ROW(c.*)::chunk_row FROM chunks c
            WHERE c.blob_id = p_blob_id AND c.chunk_index >= v_first AND c.offset < p_end
            ORDER BY c.chunk_index LIMIT p_left);
    END $$""",
)

FUNCTIONS_3 = (
    # p_which: current, null or version. r_row is NULL when there is no such version. p_first, p_last and p_suffix are
    # as in ByteRange; without p_chunks_max there is no body.
    """CREATE FUNCTION read_version_3(
        p_bucket_id bigint, p_object_key bytea, p_which text, p_sequence bigint, p_uid bytea,
        p_is_range boolean, p_first bigint, p_last bigint, p_suffix bigint, p_part_number integer,
        p_chunks_max integer,
        OUT r_configuration_sequence bigint, OUT r_head_row bigint, OUT r_version versions,
        OUT r_extents located_extent[], OUT r_chunks chunk_row[]) LANGUAGE plpgsql STABLE AS $$
    DECLARE
        v_start bigint := 0;
        v_end bigint;
        v_until bigint := 9223372036854775807;
        v_extent located_extent;
    BEGIN
        SELECT m.value, h.version_row,
            CASE p_which WHEN 'current' THEN h.version_row WHEN 'null' THEN h.null_row
            ELSE (SELECT v.row_id FROM versions v WHERE v.bucket_id = p_bucket_id AND v.object_key = p_object_key
                AND v.sequence = p_sequence AND v.uid = p_uid AND NOT v.is_null) END
        INTO r_configuration_sequence, r_head_row, v_end
        FROM meta m, heads h
        WHERE m.name = 'configuration_sequence' AND h.bucket_id = p_bucket_id AND h.object_key = p_object_key;
        SELECT v.* INTO r_version FROM versions v WHERE v.row_id = v_end;
        IF NOT FOUND OR (p_which = 'current' AND r_version.is_marker) THEN
            RETURN;
        END IF;
        v_end := r_version.size;
        IF p_is_range THEN
            v_start := CASE WHEN p_suffix IS NULL THEN coalesce(p_first, 0) ELSE greatest(0, v_end - p_suffix) END;
            v_end := CASE WHEN p_suffix IS NULL THEN least(v_end, coalesce(p_last, v_end) + 1) ELSE v_end END;
        END IF;
        IF p_part_number IS NULL AND (p_chunks_max IS NULL OR v_start >= r_version.size) THEN
            RETURN;
        END IF;
        IF p_part_number IS NULL THEN
            v_until := v_end;
        END IF;
        r_extents := ARRAY(
            SELECT ROW(e.blob_id, e.offset, e.length, e.part_number, b.size, b.bucket_key_id, b.bucket_key_version,
                b.redundancy, b.generation, i.wrapped_key, i.digest,
                CASE WHEN p_chunks_max > 0 THEN i.sealed END)::located_extent
            FROM extents e LEFT JOIN blobs b ON b.blob_id = e.blob_id
                LEFT JOIN inline_bodies i ON i.blob_id = e.blob_id
            WHERE e.version_row = r_version.row_id AND e.offset < v_until
                AND e.offset >= coalesce((SELECT s.offset FROM extents s WHERE s.version_row = r_version.row_id
                    AND s.offset <= v_start ORDER BY s.offset DESC LIMIT 1), 0)
                AND (p_part_number IS NULL OR r_version.part_count = 0 OR e.part_number = p_part_number)
            ORDER BY e.offset);
        IF p_chunks_max IS NULL THEN
            RETURN;
        END IF;
        r_chunks := '{}';
        FOREACH v_extent IN ARRAY r_extents LOOP
            EXIT WHEN cardinality(r_chunks) >= p_chunks_max;
            IF v_extent.blob_id IS NOT NULL AND v_extent.redundancy <> 'inline' THEN
                r_chunks := r_chunks || span_chunks(
                    v_extent.blob_id, greatest(0, v_start - v_extent.offset), v_end - v_extent.offset,
                    p_chunks_max - cardinality(r_chunks));
            END IF;
        END LOOP;
    END $$""",
)

_VERSION = (
    "(v).row_id, (v).object_key, (v).sequence, (v).uid, (v).is_null, (v).is_marker, (v).size, (v).etag,"
    " (v).last_modified_ms, (v).owner_id, (v).mac, (v).part_count, (v).attributes, (v).tags, (v).acl, (v).lock_mode,"
    " (v).retain_until_ms, (v).legal_hold"
).replace("(v)", "(r.r_version)")
_READ = (
    f"SELECT r.r_configuration_sequence, r.r_head_row, r.r_extents, r.r_chunks, {_VERSION}"
    " FROM read_version_3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) r"
)
_NO_RANGE = (False, None, None, None)


async def read_version(
    database: Database,
    bucket_id: int,
    object_key: bytes,
    version_id: str | None,
    byte_range: ByteRange | None,
    part_number: int | None,
    with_body: bool,
) -> VersionRead:
    """See the interface.

    With part_number the part's extent is there even without a body, as the part's span, and even when the part has no
    bytes (its blob id is empty then). Otherwise there is one blob per extent, in the same order.
    """
    span = _NO_RANGE if byte_range is None or part_number is not None else (True, *map(_bounded, byte_range))
    chunks_max = CHUNK_PAGE_ROWS if with_body else None
    which = which_version(version_id)
    if which[0] == "unknown":
        raise NoSuchVersion()
    (row,) = await database.read(_READ, bucket_id, object_key, *which, *span, part_number, chunks_max)
    sequence, head_row, extents, chunks, *columns = row
    if columns[0] is None:
        raise NoSuchKey() if version_id is None else NoSuchVersion()
    version = _version_of(columns)
    if version_id is None and version.is_marker:
        raise NoSuchKey(delete_marker_version_id=version.version_id, last_modified_ms=str(version.last_modified_ms))
    read = VersionRead(sequence, version, version.row_id == head_row)
    if part_number is not None:
        if part_number != 1 if version.part_count == 0 else not extents:
            raise InvalidPart(part_number=str(part_number))
        if not with_body or not extents or extents[0][0] is None:
            return read._replace(extents=tuple(Extent(row[0] or b"", *row[1:4]) for row in map(tuple, extents or ())))
    return _with_body(read, extents, chunks) if extents and with_body else read


def _bounded(number: int | None) -> int | None:
    return number if number is None else min(number, BIGINT_MAX - 1)


def _version_of(columns: list[Any]) -> Version:
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
        is_null,
        is_marker,
        size,
        etag,
        modified_ms,
        owner_id,
        attributes,
        mac,
        parts,
    )


def _with_body(read: VersionRead, rows: list[asyncpg.Record], chunk_rows: list[asyncpg.Record]) -> VersionRead:
    extents: list[Extent] = []
    blobs: list[Blob] = []
    at = 0
    for row in rows:
        blob_id, offset, length, part, size, key_id, key_version, redundancy, generation, *body = row
        if blob_id is None:
            continue
        extents.append(Extent(blob_id, offset, length, part))
        chunks: tuple[Chunk, ...] = ()
        wrapped_key, digest, sealed = body
        if sealed is not None:
            chunks = (Chunk(0, 0, size, wrapped_key, digest),)
        elif at < len(chunk_rows):
            first = at
            while at < len(chunk_rows) and chunk_rows[at][0] == blob_id:
                at += 1
            chunks = tuple([chunk_of(tuple(row)[1:]) for row in chunk_rows[first:at]])
        blobs.append(Blob(blob_id, size, key_id, key_version, redundancy, chunks, sealed, generation))
    return read._replace(extents=tuple(extents), blobs=tuple(blobs))
