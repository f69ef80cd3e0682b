"""Deletes, by the rules of the bucket's versioning state (AWS: Deleting object versions)."""

from __future__ import annotations

from typing import Any

from storage.base.ids import NULL_VERSION_ID, format_version_id, parse_version_id
from storage.metadata.commands import Deleted, DeleteTarget, DeleteVersions
from storage.metadata.postgresql.database import BIGINT_MAX, Database
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.records import encode_record
from storage.model import Attributes, Versioning

TARGETS_PER_TRANSACTION = 128
"""so that the locks of a batch are held for milliseconds"""

FUNCTIONS_1 = (
    # Targets are taken in the order of their keys, so that two batches never wait for each other; those of one key in
    # the order given. A refusal is decided before the target's first change.
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

_DELETE = "SELECT * FROM delete_versions($1, $2, $3, $4)"
_NO_ATTRIBUTES = encode_record(Attributes())


async def delete_versions(database: Database, command: DeleteVersions) -> list[Deleted]:
    """One outcome per target, in order; several transactions when there are many."""
    outcomes: list[Deleted] = []
    targets = command.targets
    for at in range(0, max(1, len(targets)), TARGETS_PER_TRANSACTION):
        some = targets[at : at + TARGETS_PER_TRANSACTION]
        rows = await database.write(
            _DELETE, command.bucket_id, [_target_row(target) for target in some], _NO_ATTRIBUTES, database.now_ms()
        )
        by_ordinal = sorted(map(tuple, rows))
        outcomes.extend(_outcome(target, row) for target, row in zip(some, by_ordinal, strict=True))
    return outcomes


def _target_row(target: DeleteTarget) -> tuple[Any, ...]:
    conditions = (target.conditions.if_match, target.conditions.if_none_match)
    if target.version_id is None:
        return (target.object_key, "current", None, None, *conditions)
    if target.version_id == NULL_VERSION_ID:
        return (target.object_key, "null", None, None, *conditions)
    parsed = parse_version_id(target.version_id)
    if parsed is None or parsed[0] > BIGINT_MAX:
        return (target.object_key, "unknown", None, None, *conditions)
    return (target.object_key, "version", *parsed, *conditions)


def _outcome(target: DeleteTarget, row: tuple[Any, ...]) -> Deleted:
    _, failed, is_marker, sequence, uid = row
    if failed is not None:
        return Deleted(target.version_id, refusal="NoSuchKey" if failed == "NoSuchKey" else "PreconditionFailed")
    if uid is None:
        return Deleted(target.version_id, is_marker=is_marker)
    return Deleted(NULL_VERSION_ID if sequence is None else format_version_id(sequence, uid), is_marker=is_marker)
