"""The commit of a PUT or a copy: the one transaction that makes a version visible. One call, one round trip."""

from __future__ import annotations

from storage.metadata.commands import CommitVersion, VersionCommitted
from storage.metadata.postgresql.blobs import blob_rows
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.versions import version_id_of, version_row
from storage.metadata.rules import commit_spans, require_covered

FUNCTIONS_2 = (
    """CREATE FUNCTION commit_version_2(
        p_session_id bytea, p_bucket_id bigint, p_object_key bytea, p_version locked_version, p_blobs new_blob[],
        p_chunks chunk_row[], p_extents new_extent[], p_shared bytea[], p_if_match text, p_if_none_match text,
        p_now_ms bigint, OUT r_versioning text, OUT r_sequence bigint, OUT r_last_modified_ms bigint)
    LANGUAGE plpgsql AS $$
    DECLARE
        v_put record;
    BEGIN
        SELECT e.r_versioning INTO r_versioning FROM enter_bucket(p_session_id, p_bucket_id) e;
        SELECT p.* INTO v_put FROM put_on_top_2(
            p_bucket_id, p_object_key, r_versioning, p_version, false, 0, p_if_match, p_if_none_match, false,
            p_now_ms) p;
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
            PERFORM drop_version_2(v_put.r_replaced_row, false, p_now_ms);
        END IF;
        r_sequence := v_put.r_sequence;
        r_last_modified_ms := v_put.r_last_modified_ms;
    END $$""",
)

_COMMIT = "SELECT * FROM commit_version_2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"


async def commit_version(database: Database, command: CommitVersion) -> VersionCommitted:
    """See the command."""
    version, conditions = command.version, command.conditions
    spans = commit_spans(command)
    require_covered(version.size, spans)
    blobs, chunks = blob_rows(command.session_id, command.blobs)
    extents = [(*span, 0, blob.blob_id) for span, blob in zip(spans, command.blobs, strict=False)]
    extents.extend((extent.offset, extent.length, extent.part_number, extent.blob_id) for extent in command.shared)
    ((versioning, sequence, last_modified_ms),) = await database.write(
        _COMMIT,
        command.session_id,
        command.bucket_id,
        command.object_key,
        version_row(version),
        blobs,
        chunks,
        extents,
        [extent.blob_id for extent in command.shared],
        conditions.if_match,
        conditions.if_none_match,
        database.now_ms(),
    )
    return VersionCommitted(version_id_of(versioning, sequence, version.uid), last_modified_ms, version.etag)
