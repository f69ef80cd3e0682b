"""What version 1 of the schema had and later ones replace: text of a released migration, which is never edited.

Gateways of the first release call these functions until the last of them is gone, so they stay in the database as well.
"""

from __future__ import annotations

from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.rules import COMPLETED_FORGOTTEN_PER_COMMAND, COMPLETED_UPLOAD_TTL_MS
from storage.model import Versioning

_ATTEMPTS_MAX = 100

INSERT_BLOBS = (
    """CREATE FUNCTION insert_blobs(p_blobs new_blob[], p_chunks chunk_row[]) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_count bigint;
    BEGIN
        INSERT INTO blobs SELECT b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, NULL
        FROM unnest(p_blobs) b ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count <> cardinality(p_blobs) THEN
            -- a blob that was given up while its commit was still under way must not come back
            PERFORM refuse('SessionFenced', 'the blob was recorded before');
        END IF;
        INSERT INTO inline_bodies SELECT b.blob_id, b.wrapped_key, b.digest, b.sealed
        FROM unnest(p_blobs) b WHERE b.sealed IS NOT NULL;
        IF cardinality(p_chunks) > 0 THEN
            INSERT INTO chunks SELECT c.* FROM unnest(p_chunks) c;
        END IF;
    END $$""",
)
RELEASE_UNREFERENCED = (
    """CREATE FUNCTION release_unreferenced(p_blob_ids bytea[], p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_free bytea[];
    BEGIN
        PERFORM 1 FROM blobs WHERE blob_id = ANY (p_blob_ids) ORDER BY blob_id FOR UPDATE;
        SELECT array_agg(u.blob_id) INTO v_free FROM unnest(p_blob_ids) u(blob_id)
        WHERE NOT EXISTS (SELECT FROM extents e WHERE e.blob_id = u.blob_id);
        IF v_free IS NULL THEN
            RETURN;
        END IF;
        WITH gone AS (
            DELETE FROM blobs WHERE blob_id = ANY (v_free) AND redundancy = 'inline' RETURNING blob_id)
        DELETE FROM inline_bodies i USING gone g WHERE i.blob_id = g.blob_id;
        UPDATE blobs SET released_ms = coalesce(p_now_ms, now_ms())
        WHERE blob_id = ANY (v_free) AND redundancy <> 'inline' AND released_ms IS NULL;
    END $$""",
)
RELEASE_BLOBS = (
    """CREATE FUNCTION release_blobs(p_blobs new_blob[], p_chunks chunk_row[], p_now_ms bigint) RETURNS void
    LANGUAGE sql AS $$
        WITH recorded AS (
            INSERT INTO blobs
            SELECT b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, coalesce(p_now_ms, now_ms())
            FROM unnest(p_blobs) b ORDER BY b.blob_id ON CONFLICT DO NOTHING RETURNING blob_id)
        INSERT INTO chunks SELECT c.* FROM unnest(p_chunks) c JOIN recorded r ON r.blob_id = c.blob_id $$""",
)
PUT_ON_TOP = (
    f"""CREATE FUNCTION put_on_top(
        p_bucket_id bigint, p_object_key bytea, p_versioning text, p_version new_version, p_is_marker boolean,
        p_part_count integer, p_if_match text, p_if_none_match text, p_now_ms bigint,
        OUT r_failed text, OUT r_row bigint, OUT r_sequence bigint, OUT r_last_modified_ms bigint,
        OUT r_replaced_row bigint) LANGUAGE plpgsql AS $$
    DECLARE
        v_head heads;
        v_is_null boolean := p_versioning <> '{Versioning.ENABLED.value}';
        v_is_done boolean := false;
    BEGIN
        r_row := nextval('version_rows');
        FOR v_attempt IN 1..{_ATTEMPTS_MAX} LOOP
            SELECT h.* INTO v_head FROM heads h
            WHERE h.bucket_id = p_bucket_id AND h.object_key = p_object_key FOR UPDATE;
            IF p_if_match IS NOT NULL OR p_if_none_match IS NOT NULL THEN
                r_failed := failed_condition(
                    CASE WHEN NOT v_head.is_marker THEN v_head.etag END, p_if_match, p_if_none_match);
                IF r_failed IS NOT NULL THEN
                    RETURN;
                END IF;
            END IF;
            r_last_modified_ms := coalesce(p_now_ms, now_ms());
            IF v_head.version_row IS NULL THEN
                r_sequence := 1;
                INSERT INTO heads VALUES (
                    p_bucket_id, p_object_key, p_is_marker, r_row, CASE WHEN v_is_null THEN r_row END, r_sequence,
                    p_version.size, p_version.etag, r_last_modified_ms, p_version.storage_class, p_version.owner_id,
                    p_version.checksum_algorithm, p_version.checksum_type) ON CONFLICT DO NOTHING;
                v_is_done := FOUND;
            ELSE
                r_sequence := v_head.last_sequence + 1;
                r_last_modified_ms := greatest(r_last_modified_ms, v_head.last_modified_ms);
                r_replaced_row := CASE WHEN v_is_null THEN v_head.null_row END;
                UPDATE heads SET is_marker = p_is_marker, version_row = r_row,
                    null_row = CASE WHEN v_is_null THEN r_row ELSE v_head.null_row END, last_sequence = r_sequence,
                    size = p_version.size, etag = p_version.etag, last_modified_ms = r_last_modified_ms,
                    storage_class = p_version.storage_class, owner_id = p_version.owner_id,
                    checksum_algorithm = p_version.checksum_algorithm, checksum_type = p_version.checksum_type
                WHERE bucket_id = p_bucket_id AND object_key = p_object_key;
                v_is_done := true;
            END IF;
            EXIT WHEN v_is_done;
        END LOOP;
        IF NOT v_is_done THEN
            RAISE EXCEPTION USING ERRCODE = 'serialization_failure', MESSAGE = 'a head that comes and goes';
        END IF;
        INSERT INTO versions VALUES (
            r_row, p_bucket_id, p_object_key, r_sequence, p_version.uid, v_is_null, p_is_marker, p_version.size,
            p_version.etag, r_last_modified_ms, p_version.owner_id, p_version.attributes, p_version.mac, p_part_count,
            p_version.storage_class, p_version.checksum_algorithm, p_version.checksum_type);
    END $$""",
)
DROP_VERSION = (
    """CREATE FUNCTION drop_version(p_row bigint, p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_blob_ids bytea[];
    BEGIN
        WITH gone AS (DELETE FROM extents WHERE version_row = p_row RETURNING blob_id)
        SELECT array_agg(DISTINCT blob_id) INTO v_blob_ids FROM gone WHERE blob_id IS NOT NULL;
        DELETE FROM versions WHERE row_id = p_row;
        IF v_blob_ids IS NOT NULL THEN
            PERFORM release_unreferenced(v_blob_ids, p_now_ms);
        END IF;
    END $$""",
)
REMOVE_VERSION = (
    """CREATE FUNCTION remove_version(p_head heads, p_row bigint, p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_null_row bigint := nullif(p_head.null_row, p_row);
        v_newest versions;
    BEGIN
        PERFORM drop_version(p_row, p_now_ms);
        IF p_row <> p_head.version_row THEN
            UPDATE heads SET null_row = v_null_row WHERE bucket_id = p_head.bucket_id
                AND object_key = p_head.object_key AND null_row IS DISTINCT FROM v_null_row;
            RETURN;
        END IF;
        SELECT c.* INTO v_newest FROM (
            (SELECT v.* FROM versions v WHERE v.bucket_id = p_head.bucket_id AND v.object_key = p_head.object_key
                AND NOT v.is_null ORDER BY v.sequence DESC LIMIT 1)
            UNION ALL SELECT v.* FROM versions v WHERE v.row_id = v_null_row) c ORDER BY c.sequence DESC LIMIT 1;
        IF NOT FOUND THEN
            DELETE FROM heads WHERE bucket_id = p_head.bucket_id AND object_key = p_head.object_key;
            RETURN;
        END IF;
        UPDATE heads SET is_marker = v_newest.is_marker, version_row = v_newest.row_id, null_row = v_null_row,
            size = v_newest.size, etag = v_newest.etag, last_modified_ms = v_newest.last_modified_ms,
            storage_class = v_newest.storage_class, owner_id = v_newest.owner_id,
            checksum_algorithm = v_newest.checksum_algorithm, checksum_type = v_newest.checksum_type
        WHERE bucket_id = p_head.bucket_id AND object_key = p_head.object_key;
    END $$""",
)
COMMIT_VERSION = (
    """CREATE FUNCTION commit_version(
        p_session_id bytea, p_bucket_id bigint, p_object_key bytea, p_version new_version, p_blobs new_blob[],
        p_chunks chunk_row[], p_extents new_extent[], p_shared bytea[], p_if_match text, p_if_none_match text,
        p_now_ms bigint, OUT r_versioning text, OUT r_sequence bigint, OUT r_last_modified_ms bigint)
    LANGUAGE plpgsql AS $$
    DECLARE
        v_put record;
    BEGIN
        SELECT e.r_versioning INTO r_versioning FROM enter_bucket(p_session_id, p_bucket_id) e;
        SELECT p.* INTO v_put FROM put_on_top(
            p_bucket_id, p_object_key, r_versioning, p_version, false, 0, p_if_match, p_if_none_match, p_now_ms) p;
        IF v_put.r_failed IS NOT NULL THEN
            PERFORM refuse_condition(v_put.r_failed);
        END IF;
        IF cardinality(p_shared) > 0 THEN
            PERFORM require_shareable(p_shared, p_extents);
        END IF;
        IF cardinality(p_blobs) > 0 THEN
            PERFORM insert_blobs(p_blobs, p_chunks);
        END IF;
        INSERT INTO extents SELECT v_put.r_row, x.* FROM unnest(p_extents) x;
        IF v_put.r_replaced_row IS NOT NULL THEN
            PERFORM drop_version(v_put.r_replaced_row, p_now_ms);
        END IF;
        r_sequence := v_put.r_sequence;
        r_last_modified_ms := v_put.r_last_modified_ms;
    END $$""",
)
DELETE_VERSIONS = (
    f"""CREATE FUNCTION delete_versions(
        p_bucket_id bigint, p_targets delete_target[], p_no_attributes bytea, p_now_ms bigint)
    RETURNS TABLE (r_ordinal bigint, r_failed text, r_is_marker boolean, r_sequence bigint, r_uid bytea)
    LANGUAGE plpgsql AS $$
    DECLARE
        v_versioning text;
        v_owner_id text;
        v_head heads;
        v_put record;
        v_row bigint;
        v_etag text;
        t record;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({BUCKET_LOCKS}, bucket_lock(p_bucket_id));
        SELECT b.versioning, b.owner_id INTO v_versioning, v_owner_id FROM buckets b WHERE b.bucket_id = p_bucket_id;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchBucket');
        END IF;
        FOR t IN SELECT x.* FROM unnest(p_targets) WITH ORDINALITY
            AS x(object_key, which, sequence, uid, if_match, if_none_match, ordinal)
            ORDER BY x.object_key, x.ordinal
        LOOP
            r_ordinal := t.ordinal;
            r_failed := NULL;
            r_is_marker := false;
            r_sequence := NULL;
            r_uid := NULL;
            IF t.which = 'current' AND v_versioning <> '' THEN
                r_uid := substr(uuid_send(gen_random_uuid()), 9);
                SELECT p.* INTO v_put FROM put_on_top(
                    p_bucket_id, t.object_key, v_versioning,
                    ROW(r_uid, 0, '', v_owner_id, p_no_attributes, ''::bytea, 'STANDARD', '', '')::new_version,
                    true, 0, t.if_match, t.if_none_match, p_now_ms) p;
                r_failed := v_put.r_failed;
                r_is_marker := true;
                r_sequence := CASE WHEN v_versioning = '{Versioning.ENABLED.value}' THEN v_put.r_sequence END;
                IF v_put.r_replaced_row IS NOT NULL THEN
                    PERFORM drop_version(v_put.r_replaced_row, p_now_ms);
                END IF;
            ELSE
                SELECT h.* INTO v_head FROM heads h
                WHERE h.bucket_id = p_bucket_id AND h.object_key = t.object_key FOR UPDATE;
                v_row := CASE t.which WHEN 'current' THEN v_head.version_row WHEN 'null' THEN v_head.null_row END;
                IF t.which = 'version' THEN
                    SELECT v.row_id INTO v_row FROM versions v WHERE v.bucket_id = p_bucket_id
                        AND v.object_key = t.object_key AND v.sequence = t.sequence AND v.uid = t.uid
                        AND NOT v.is_null;
                END IF;
                v_etag := NULL;
                SELECT v.is_marker, CASE WHEN NOT v.is_marker THEN v.etag END INTO r_is_marker, v_etag
                FROM versions v WHERE v.row_id = v_row;
                r_is_marker := coalesce(r_is_marker, false);
                r_failed := failed_condition(v_etag, t.if_match, t.if_none_match);
                IF r_failed IS NULL AND v_row IS NOT NULL THEN
                    PERFORM remove_version(v_head, v_row, p_now_ms);
                END IF;
            END IF;
            RETURN NEXT;
        END LOOP;
    END $$""",
)
COMPLETE_UPLOAD = (
    f"""CREATE FUNCTION complete_upload(
        p_session_id bytea, p_bucket_id bigint, p_object_key bytea, p_upload_id text, p_version new_version,
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
        SELECT p.* INTO v_put FROM put_on_top(
            p_bucket_id, p_object_key, v_versioning, p_version, false, cardinality(p_parts), p_if_match,
            p_if_none_match, p_now_ms) p;
        IF v_put.r_failed IS NOT NULL THEN
            PERFORM refuse_condition(v_put.r_failed);
        END IF;
        INSERT INTO extents SELECT v_put.r_row, x.* FROM unnest(p_extents) x;
        PERFORM end_upload(v_upload_row, v_now_ms);
        IF v_put.r_replaced_row IS NOT NULL THEN
            PERFORM drop_version(v_put.r_replaced_row, p_now_ms);
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
READ_VERSION = (
    # p_which: current, null or version. r_row is NULL when there is no such version. p_first, p_last and p_suffix are
    # as in ByteRange; without p_chunks_max there is no body.
    """CREATE FUNCTION read_version(
        p_bucket_id bigint, p_object_key bytea, p_which text, p_sequence bigint, p_uid bytea,
        p_is_range boolean, p_first bigint, p_last bigint, p_suffix bigint, p_part_number integer,
        p_chunks_max integer,
        OUT r_configuration_sequence bigint, OUT r_head_row bigint, OUT r_version versions,
        OUT r_extents read_extent[], OUT r_chunks chunk_row[]) LANGUAGE plpgsql STABLE AS $$
    DECLARE
        v_start bigint := 0;
        v_end bigint;
        v_until bigint := 9223372036854775807;
        v_extent read_extent;
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
                b.redundancy, i.wrapped_key, i.digest, CASE WHEN p_chunks_max > 0 THEN i.sealed END)::read_extent
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
