"""Deletes, by the rules of the bucket's versioning state (AWS: Deleting object versions)."""

from __future__ import annotations

from typing import Any

from storage.base.ids import NULL_VERSION_ID, format_version_id
from storage.metadata.commands import Deleted, DeleteTarget, DeleteVersions
from storage.metadata.postgresql.database import BIGINT_MAX, Database
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.postgresql.versions import which_version
from storage.metadata.records import encode_record
from storage.metadata.rules import NO_CONDITIONS
from storage.model import Attributes, Versioning

TARGETS_PER_TRANSACTION = 128
"""so that the locks of a batch are held for milliseconds"""

FUNCTIONS_2 = (
    # of what a delete would remove or hide; see rules.failed_delete_condition
    """CREATE FUNCTION fails_conditions(p_version versions, p_target conditional_target) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(
            p_target.if_match <> '*' AND (p_version.is_marker OR p_target.if_match <> p_version.etag)
            OR p_target.if_none_match IN ('*', p_version.etag) AND NOT p_version.is_marker
            OR p_target.size <> p_version.size
            OR p_target.last_modified_s <> p_version.last_modified_ms / 1000, false) $$""",
    # Targets are taken in the order of their keys, so that two batches never wait for each other; those of one key in
    # the order given. A refusal is decided before the target's first change.
    f"""CREATE FUNCTION delete_versions_2(
        p_bucket_id bigint, p_targets conditional_target[], p_bypass_governance boolean, p_no_attributes bytea,
        p_now_ms bigint)
    RETURNS TABLE (r_ordinal bigint, r_failed text, r_is_marker boolean, r_sequence bigint, r_uid bytea)
    LANGUAGE plpgsql AS $$
    DECLARE
        v_versioning text;
        v_owner_id text;
        v_head heads;
        v_version versions;
        v_put record;
        v_target conditional_target;
        v_makes_marker boolean;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({BUCKET_LOCKS}, bucket_lock(p_bucket_id));
        SELECT b.versioning, b.owner_id INTO v_versioning, v_owner_id FROM buckets b WHERE b.bucket_id = p_bucket_id;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchBucket');
        END IF;
        FOR r_ordinal IN
            SELECT g.at FROM generate_subscripts(p_targets, 1) g(at) ORDER BY p_targets[g.at].object_key, g.at
        LOOP
            v_target := p_targets[r_ordinal];
            v_makes_marker := v_target.which = 'current' AND v_versioning <> '';
            r_failed := NULL;
            r_is_marker := v_makes_marker;
            r_sequence := NULL;
            r_uid := NULL;
            IF v_target.has_conditions OR NOT v_makes_marker THEN
                SELECT h.* INTO v_head FROM heads h
                WHERE h.bucket_id = p_bucket_id AND h.object_key = v_target.object_key FOR UPDATE;
                SELECT v.* INTO v_version FROM versions v WHERE v.row_id = CASE v_target.which
                    WHEN 'current' THEN v_head.version_row WHEN 'null' THEN v_head.null_row
                    WHEN 'version' THEN (SELECT x.row_id FROM versions x WHERE x.bucket_id = p_bucket_id
                        AND x.object_key = v_target.object_key AND x.sequence = v_target.sequence
                        AND x.uid = v_target.uid AND NOT x.is_null) END;
                IF NOT FOUND THEN
                    r_is_marker := false;
                ELSIF v_target.has_conditions AND (fails_conditions(v_version, v_target)
                    OR v_target.noncurrent_only AND v_version.row_id = v_head.version_row) THEN
                    r_failed := 'PreconditionFailed';
                ELSIF v_makes_marker THEN
                    NULL;
                ELSIF is_locked(v_version.lock_mode, v_version.retain_until_ms, v_version.legal_hold,
                    p_bypass_governance, p_now_ms) THEN
                    r_failed := 'ObjectLocked';
                ELSE
                    r_is_marker := v_version.is_marker;
                    PERFORM remove_version_2(v_head, v_version.row_id, p_bypass_governance, p_now_ms);
                END IF;
                IF v_version.row_id IS NULL OR r_failed IS NOT NULL OR NOT v_makes_marker THEN
                    RETURN NEXT;
                    CONTINUE;
                END IF;
            END IF;
            r_uid := substr(uuid_send(gen_random_uuid()), 9);
            SELECT p.* INTO v_put FROM put_on_top_2(
                p_bucket_id, v_target.object_key, v_versioning,
                ROW(r_uid, 0, '', v_owner_id, p_no_attributes, ''::bytea, 'STANDARD', '', '', '', 0,
                    false)::locked_version,
                true, 0, NULL, NULL, p_bypass_governance, p_now_ms) p;
            r_failed := v_put.r_failed;
            r_sequence := CASE WHEN v_versioning = '{Versioning.ENABLED.value}' THEN v_put.r_sequence END;
            IF r_failed IS NULL AND v_put.r_replaced_row IS NOT NULL THEN
                PERFORM drop_version_2(v_put.r_replaced_row, p_bypass_governance, p_now_ms);
            END IF;
            RETURN NEXT;
        END LOOP;
    END $$""",
)

_DELETE = "SELECT * FROM delete_versions_2($1, $2, $3, $4, $5)"
_NO_ATTRIBUTES = encode_record(Attributes())


async def delete_versions(database: Database, command: DeleteVersions) -> list[Deleted]:
    """One outcome per target, in order; several transactions when there are many."""
    outcomes: list[Deleted] = []
    targets = command.targets
    for at in range(0, max(1, len(targets)), TARGETS_PER_TRANSACTION):
        some = targets[at : at + TARGETS_PER_TRANSACTION]
        rows = await database.write(
            _DELETE,
            command.bucket_id,
            [_target_row(target) for target in some],
            command.bypass_governance,
            _NO_ATTRIBUTES,
            database.now_ms(),
        )
        by_ordinal = sorted(map(tuple, rows))
        outcomes.extend(_outcome(target, row) for target, row in zip(some, by_ordinal, strict=True))
    return outcomes


def _target_row(target: DeleteTarget) -> tuple[Any, ...]:
    """As a conditional_target."""
    asked = target.conditions
    numbers = [None if number is None else min(number, BIGINT_MAX) for number in (asked.size, asked.last_modified_s)]
    has_conditions = asked != NO_CONDITIONS or target.noncurrent_only
    conditions = (has_conditions, asked.if_match, asked.if_none_match, *numbers, target.noncurrent_only)
    return (target.object_key, *which_version(target.version_id), *conditions)


def _outcome(target: DeleteTarget, row: tuple[Any, ...]) -> Deleted:
    _, failed, is_marker, sequence, uid = row
    if failed is not None:
        return Deleted(target.version_id, refusal=failed)
    if uid is None:
        return Deleted(target.version_id, is_marker=is_marker)
    return Deleted(NULL_VERSION_ID if sequence is None else format_version_id(sequence, uid), is_marker=is_marker)
