"""Multipart uploads: open ones with their parts, and a record of each finished one so that a retry answers the same.

Parts are referenced data for as long as the upload is open. Completing moves their blobs to a version: one row a part,
no byte. A part holds the upload's row shared, completing and aborting hold it for update: they wait for the parts that
are being recorded, and parts that come after them find no upload.
"""

from __future__ import annotations

from storage.base.errors import NoSuchUpload
from storage.metadata.commands import AbortUpload, CompleteUpload, CreateUpload, PutPart, VersionCommitted
from storage.metadata.interface import CompletedUpload, PartPage
from storage.metadata.postgresql.blobs import blob_rows
from storage.metadata.postgresql.database import Database, is_storable
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.postgresql.versions import version_row
from storage.metadata.records import decode_checksum, encode_record, upload_of
from storage.metadata.rules import (
    COMPLETED_FORGOTTEN_PER_COMMAND,
    COMPLETED_UPLOAD_TTL_MS,
    PART_SIZE_MIN_BYTES,
    require_covered,
)
from storage.model import Blob, PartInfo, Upload, Versioning

FUNCTIONS_1 = (
    f"""CREATE FUNCTION create_upload(
        p_upload_id text, p_bucket_id bigint, p_object_key bytea, p_owner_id text, p_attributes bytea,
        p_algorithm text, p_type text, p_now_ms bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        v_now_ms bigint := coalesce(p_now_ms, now_ms());
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({BUCKET_LOCKS}, bucket_lock(p_bucket_id));
        PERFORM 1 FROM buckets b WHERE b.bucket_id = p_bucket_id;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchBucket');
        END IF;
        INSERT INTO uploads (bucket_id, object_key, upload_id, owner_id, initiated_ms, attributes, checksum_algorithm,
            checksum_type)
        VALUES (p_bucket_id, p_object_key, p_upload_id, p_owner_id, v_now_ms, p_attributes, p_algorithm, p_type)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            PERFORM refuse('Refused', 'this upload id was used before');
        END IF;
        RETURN v_now_ms;
    END $$""",
    """CREATE FUNCTION put_part(
        p_session_id bytea, p_bucket_id bigint, p_object_key bytea, p_upload_id text, p_part_number integer,
        p_size bigint, p_etag text, p_blobs new_blob[], p_chunks chunk_row[], p_checksum bytea, p_now_ms bigint)
    RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        v_now_ms bigint := coalesce(p_now_ms, now_ms());
        v_blob_id bytea := p_blobs[1].blob_id;
        v_upload_row bigint;
        v_replaced bytea;
    BEGIN
        PERFORM enter_bucket(p_session_id, p_bucket_id);
        SELECT u.upload_row INTO v_upload_row FROM uploads u WHERE u.bucket_id = p_bucket_id
            AND u.object_key = p_object_key AND u.upload_id = p_upload_id FOR SHARE;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchUpload');
        END IF;
        IF cardinality(p_blobs) > 0 THEN
            PERFORM insert_blobs(p_blobs, p_chunks);
        END IF;
        INSERT INTO parts VALUES (v_upload_row, p_part_number, p_size, p_etag, v_now_ms, v_blob_id, p_checksum)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            -- no part is ever deleted while its upload's row is held
            SELECT p.blob_id INTO v_replaced FROM parts p
            WHERE p.upload_row = v_upload_row AND p.part_number = p_part_number FOR UPDATE;
            UPDATE parts SET size = p_size, etag = p_etag, last_modified_ms = v_now_ms, blob_id = v_blob_id,
                checksum = p_checksum WHERE upload_row = v_upload_row AND part_number = p_part_number;
            IF v_replaced IS NOT NULL THEN
                PERFORM release_unreferenced(ARRAY[v_replaced], v_now_ms);
            END IF;
        END IF;
        RETURN v_now_ms;
    END $$""",
    # order, existence, sizes: in this order, as a client is told the first thing that is wrong
    f"""CREATE FUNCTION check_parts(p_upload_row bigint, p_parts listed_part[]) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_bad record;
    BEGIN
        IF cardinality(p_parts) = 0 THEN
            PERFORM refuse('InvalidPart', 'an empty part list', '{{"part_number": "0"}}');
        END IF;
        PERFORM 1 FROM (
            SELECT x.part_number, lag(x.part_number, 1, 0) OVER (ORDER BY x.ordinal) AS before
            FROM unnest(p_parts) WITH ORDINALITY AS x(part_number, size, etag, blob_id, ordinal)) l
        WHERE l.part_number <= l.before LIMIT 1;
        IF FOUND THEN
            PERFORM refuse('InvalidPartOrder');
        END IF;
        SELECT x.part_number INTO v_bad
        FROM unnest(p_parts) x LEFT JOIN parts p ON p.upload_row = p_upload_row AND p.part_number = x.part_number
        WHERE p.part_number IS NULL OR (p.size, p.etag, p.blob_id) IS DISTINCT FROM (x.size, x.etag, x.blob_id)
        ORDER BY x.part_number LIMIT 1;
        IF FOUND THEN
            PERFORM refuse('InvalidPart', '', jsonb_build_object('part_number', v_bad.part_number::text));
        END IF;
        SELECT x.part_number, x.size INTO v_bad FROM unnest(p_parts[:cardinality(p_parts) - 1]) x
        WHERE x.size < {PART_SIZE_MIN_BYTES} ORDER BY x.part_number LIMIT 1;
        IF FOUND THEN
            PERFORM refuse('EntityTooSmall', '', jsonb_build_object(
                'part_number', v_bad.part_number::text, 'size', v_bad.size::text));
        END IF;
    END $$""",
    # the rows of an upload and its parts, and the blobs that nothing else references
    """CREATE FUNCTION end_upload(p_upload_row bigint, p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_blob_ids bytea[];
    BEGIN
        WITH gone AS (DELETE FROM parts WHERE upload_row = p_upload_row RETURNING blob_id)
        SELECT array_agg(blob_id) INTO v_blob_ids FROM gone WHERE blob_id IS NOT NULL;
        DELETE FROM uploads WHERE upload_row = p_upload_row;
        IF v_blob_ids IS NOT NULL THEN
            PERFORM release_unreferenced(v_blob_ids, p_now_ms);
        END IF;
    END $$""",
    """CREATE FUNCTION abort_upload(p_bucket_id bigint, p_object_key bytea, p_upload_id text, p_now_ms bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_upload_row bigint;
    BEGIN
        SELECT u.upload_row INTO v_upload_row FROM uploads u WHERE u.bucket_id = p_bucket_id
            AND u.object_key = p_object_key AND u.upload_id = p_upload_id FOR UPDATE;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchUpload');
        END IF;
        PERFORM end_upload(v_upload_row, p_now_ms);
    END $$""",
    # → true when none is left
    """CREATE FUNCTION abort_some_uploads(p_bucket_id bigint, p_count_max integer, p_now_ms bigint) RETURNS boolean
    LANGUAGE plpgsql AS $$
    DECLARE
        v_rows bigint[];
    BEGIN
        SELECT array_agg(s.upload_row) INTO v_rows FROM (
            SELECT u.upload_row FROM uploads u WHERE u.bucket_id = p_bucket_id LIMIT p_count_max FOR UPDATE) s;
        PERFORM end_upload(r.upload_row, p_now_ms) FROM unnest(v_rows) r(upload_row);
        RETURN coalesce(cardinality(v_rows), 0) < p_count_max;
    END $$""",
)

FUNCTIONS_2 = (
    f"""CREATE FUNCTION complete_upload_2(
        p_session_id bytea, p_bucket_id bigint, p_object_key bytea, p_upload_id text, p_version locked_version,
        p_parts listed_part[], p_extents new_extent[], p_uid_text text, p_if_match text, p_if_none_match text,
        p_now_ms bigint, OUT r_version_id text, OUT r_last_modified_ms bigint, OUT r_etag text)
    LANGUAGE plpgsql AS $$
    DECLARE
        v_now_ms bigint := coalesce(p_now_ms, now_ms());
        v_versioning text;
        v_upload_row bigint;
        v_put record;
    BEGIN
        SELECT e.r_versioning INTO v_versioning FROM enter_bucket(p_session_id, p_bucket_id) e;
        SELECT u.upload_row INTO v_upload_row FROM uploads u WHERE u.bucket_id = p_bucket_id
            AND u.object_key = p_object_key AND u.upload_id = p_upload_id FOR UPDATE;
        IF NOT FOUND THEN
            SELECT c.version_id, c.last_modified_ms, c.etag INTO r_version_id, r_last_modified_ms, r_etag
            FROM completed_uploads c WHERE c.bucket_id = p_bucket_id AND c.object_key = p_object_key
                AND c.upload_id = p_upload_id;
            IF NOT FOUND THEN
                PERFORM refuse('NoSuchUpload');
            END IF;
            RETURN;
        END IF;
        PERFORM check_parts(v_upload_row, p_parts);
        SELECT p.* INTO v_put FROM put_on_top_2(
            p_bucket_id, p_object_key, v_versioning, p_version, false, cardinality(p_parts), p_if_match,
            p_if_none_match, false, p_now_ms) p;
        IF v_put.r_failed IS NOT NULL THEN
            PERFORM refuse_condition(v_put.r_failed);
        END IF;
        INSERT INTO extents SELECT v_put.r_row, x.* FROM unnest(p_extents) x;
        PERFORM end_upload(v_upload_row, v_now_ms);
        IF v_put.r_replaced_row IS NOT NULL THEN
            PERFORM drop_version_2(v_put.r_replaced_row, false, p_now_ms);
        END IF;
        r_version_id := CASE v_versioning
            WHEN '{Versioning.ENABLED.value}' THEN lpad(to_hex(v_put.r_sequence), 16, '0') || p_uid_text
            WHEN '{Versioning.SUSPENDED.value}' THEN 'null' END;
        r_last_modified_ms := v_put.r_last_modified_ms;
        r_etag := p_version.etag;
        INSERT INTO completed_uploads VALUES (
            p_bucket_id, p_object_key, p_upload_id, r_version_id, r_etag, r_last_modified_ms, v_now_ms);
        DELETE FROM completed_uploads WHERE ctid = ANY (ARRAY(
            SELECT c.ctid FROM completed_uploads c WHERE c.completed_ms < v_now_ms - {COMPLETED_UPLOAD_TTL_MS}
            ORDER BY c.completed_ms LIMIT {COMPLETED_FORGOTTEN_PER_COMMAND} FOR UPDATE SKIP LOCKED));
    END $$""",
)

_UPLOAD = "upload_id, bucket_id, object_key, owner_id, initiated_ms, attributes, checksum_algorithm, checksum_type"
_CREATE = "SELECT create_upload($1, $2, $3, $4, $5, $6, $7, $8)"
_PUT_PART = "SELECT put_part($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_COMPLETE = "SELECT * FROM complete_upload_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_ABORT = "SELECT abort_upload($1, $2, $3, $4)"
_AT = "bucket_id = $1 AND object_key = $2 AND upload_id = $3"
_SELECT_UPLOAD = f"SELECT {_UPLOAD} FROM uploads WHERE {_AT}"
_SELECT_COMPLETED = (
    f"SELECT bucket_id, object_key, version_id, etag, last_modified_ms FROM completed_uploads WHERE {_AT}"
)
_SELECT_PARTS = (
    f"SELECT {_UPLOAD}, p.* FROM uploads u, LATERAL (SELECT array_agg(q.part_number ORDER BY q.part_number),"
    " array_agg(q.size ORDER BY q.part_number), array_agg(q.etag ORDER BY q.part_number),"
    " array_agg(q.last_modified_ms ORDER BY q.part_number), array_agg(q.blob_id ORDER BY q.part_number),"
    " array_agg(q.checksum ORDER BY q.part_number)"
    " FROM (SELECT * FROM parts WHERE upload_row = u.upload_row AND part_number > $4"
    f" ORDER BY part_number LIMIT $5) q) p WHERE {_AT}"
)
_UPLOAD_COLUMNS = 8


async def create_upload(database: Database, command: CreateUpload) -> Upload:
    """See the command."""
    algorithm, kind = command.checksum_algorithm, command.checksum_type
    ((initiated_ms,),) = await database.write(
        _CREATE,
        command.upload_id,
        command.bucket_id,
        command.object_key,
        command.owner_id,
        encode_record(command.attributes),
        None if algorithm is None else algorithm.value,
        None if kind is None else kind.value,
        database.now_ms(),
    )
    return Upload(
        command.upload_id,
        command.bucket_id,
        command.object_key,
        command.owner_id,
        initiated_ms,
        command.attributes,
        algorithm,
        kind,
    )


async def put_part(database: Database, command: PutPart) -> PartInfo:
    """See the command."""
    blobs: tuple[Blob, ...] = () if command.blob is None else (command.blob,)
    _require_known(command.upload_id)
    require_covered(command.size, [(0, 0 if command.blob is None else command.blob.size)])
    rows, chunks = blob_rows(command.session_id, blobs)
    ((last_modified_ms,),) = await database.write(
        _PUT_PART,
        command.session_id,
        command.bucket_id,
        command.object_key,
        command.upload_id,
        command.part_number,
        command.size,
        command.etag,
        rows,
        chunks,
        None if command.checksum is None else encode_record(command.checksum),
        database.now_ms(),
    )
    blob_id = command.blob.blob_id if command.blob is not None else b""
    return PartInfo(command.part_number, command.size, command.etag, last_modified_ms, blob_id, command.checksum)


async def complete_upload(database: Database, command: CompleteUpload) -> VersionCommitted:
    """See the command."""
    version, conditions = command.version, command.conditions
    _require_known(command.upload_id)
    extents: list[tuple[int, int, int, bytes | None]] = []
    offset = 0
    for part in command.parts:
        extents.append((offset, part.size, part.part_number, part.blob_id or None))
        offset += part.size
    if command.parts:
        require_covered(version.size, [extent[:2] for extent in extents])
    ((version_id, last_modified_ms, etag),) = await database.write(
        _COMPLETE,
        command.session_id,
        command.bucket_id,
        command.object_key,
        command.upload_id,
        version_row(version),
        [(part.part_number, part.size, part.etag, part.blob_id or None) for part in command.parts],
        extents,
        version.uid.hex(),
        conditions.if_match,
        conditions.if_none_match,
        database.now_ms(),
    )
    return VersionCommitted(version_id, last_modified_ms, etag)


async def abort_upload(database: Database, command: AbortUpload) -> None:
    """See the command."""
    _require_known(command.upload_id)
    await database.write(_ABORT, command.bucket_id, command.object_key, command.upload_id, database.now_ms())


async def read_upload(database: Database, bucket_id: int, object_key: bytes, upload_id: str) -> Upload:
    """See the interface."""
    _require_known(upload_id)
    rows = await database.read(_SELECT_UPLOAD, bucket_id, object_key, upload_id)
    if not rows:
        raise NoSuchUpload()
    return upload_of(rows[0])


async def find_completed_upload(
    database: Database, bucket_id: int, object_key: bytes, upload_id: str
) -> CompletedUpload | None:
    """See the interface."""
    if not is_storable(upload_id):
        return None
    rows = await database.read(_SELECT_COMPLETED, bucket_id, object_key, upload_id)
    return CompletedUpload._make(rows[0]) if rows else None


async def list_parts(
    database: Database, bucket_id: int, object_key: bytes, upload_id: str, after: int, limit: int
) -> PartPage:
    """The upload and the page in one statement."""
    _require_known(upload_id)
    rows = await database.read(_SELECT_PARTS, bucket_id, object_key, upload_id, after, limit + 1)
    if not rows:
        raise NoSuchUpload()
    row = tuple(rows[0])
    columns = row[_UPLOAD_COLUMNS:]
    found = [] if columns[0] is None else [_part_of(*part) for part in zip(*columns, strict=True)]
    parts = tuple(found[:limit])
    more = parts and len(found) > limit
    return PartPage(upload_of(row[:_UPLOAD_COLUMNS]), parts, parts[-1].part_number if more else None)


def _part_of(
    part_number: int, size: int, etag: str, last_modified_ms: int, blob_id: bytes | None, checksum: bytes | None
) -> PartInfo:
    decoded = None if checksum is None else decode_checksum(checksum)
    return PartInfo(part_number, size, etag, last_modified_ms, blob_id or b"", decoded)


def _require_known(upload_id: str) -> None:
    """What no upload can be called is asked of no database."""
    if not is_storable(upload_id):
        raise NoSuchUpload()
