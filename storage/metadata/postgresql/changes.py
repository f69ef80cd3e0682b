"""What changes of a version that stays the same version: tags, ACL, retention, legal hold. One call, one round trip."""

from __future__ import annotations

from storage.base.ids import NULL_VERSION_ID, format_version_id
from storage.metadata.commands import ChangeObject, ObjectChanged
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.metadata.postgresql.versions import which_version
from storage.metadata.records import encode_record

FUNCTIONS_2 = (
    # Refuses what would weaken a retention that has not run out; see rules.choose_lock. p_lock_mode NULL: no change.
    """CREATE FUNCTION require_changeable(
        p_version versions, p_lock_mode text, p_retain_until_ms bigint, p_bypass_governance boolean, p_now_ms bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF (p_lock_mode <> p_version.lock_mode OR p_retain_until_ms < p_version.retain_until_ms)
            AND is_locked(p_version.lock_mode, p_version.retain_until_ms, false, p_bypass_governance, p_now_ms) THEN
            PERFORM refuse('ObjectLocked', 'a retention that has not run out is only prolonged');
        END IF;
    END $$""",
    # NULL for tags, ACL, mode and hold leaves them as they are; p_which as in read_version
    f"""CREATE FUNCTION change_object(
        p_bucket_id bigint, p_object_key bytea, p_which text, p_sequence bigint, p_uid bytea, p_tags bytea,
        p_acl bytea, p_lock_mode text, p_retain_until_ms bigint, p_legal_hold boolean, p_bypass_governance boolean,
        p_now_ms bigint, OUT r_sequence bigint, OUT r_uid bytea) LANGUAGE plpgsql AS $$
    DECLARE
        v_head heads;
        v_version versions;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({BUCKET_LOCKS}, bucket_lock(p_bucket_id));
        PERFORM 1 FROM buckets b WHERE b.bucket_id = p_bucket_id;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchBucket');
        END IF;
        SELECT h.* INTO v_head FROM heads h
        WHERE h.bucket_id = p_bucket_id AND h.object_key = p_object_key FOR UPDATE;
        SELECT v.* INTO v_version FROM versions v WHERE v.row_id = CASE p_which
            WHEN 'current' THEN v_head.version_row WHEN 'null' THEN v_head.null_row
            WHEN 'version' THEN (SELECT x.row_id FROM versions x WHERE x.bucket_id = p_bucket_id
                AND x.object_key = p_object_key AND x.sequence = p_sequence AND x.uid = p_uid AND NOT x.is_null) END;
        IF NOT FOUND THEN
            PERFORM refuse(CASE p_which WHEN 'current' THEN 'NoSuchKey' ELSE 'NoSuchVersion' END);
        END IF;
        IF v_version.is_marker AND p_which = 'current' THEN
            PERFORM refuse('NoSuchKey', '', jsonb_build_object(
                'delete_marker_version_id', CASE WHEN v_version.is_null THEN '{NULL_VERSION_ID}'
                    ELSE lpad(to_hex(v_version.sequence), 16, '0') || encode(v_version.uid, 'hex') END,
                'last_modified_ms', v_version.last_modified_ms::text));
        ELSIF v_version.is_marker THEN
            PERFORM refuse('NoSuchVersion', '', '{{"is_marker": "true"}}');
        END IF;
        PERFORM require_changeable(v_version, p_lock_mode, p_retain_until_ms, p_bypass_governance, p_now_ms);
        UPDATE versions SET tags = coalesce(p_tags, tags), acl = coalesce(p_acl, acl),
            lock_mode = coalesce(p_lock_mode, lock_mode),
            retain_until_ms = coalesce(p_retain_until_ms, retain_until_ms),
            legal_hold = coalesce(p_legal_hold, legal_hold) WHERE row_id = v_version.row_id;
        IF NOT v_version.is_null THEN
            r_sequence := v_version.sequence;
            r_uid := v_version.uid;
        END IF;
    END $$""",
)

_CHANGE = "SELECT * FROM change_object($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


async def change_object(database: Database, command: ChangeObject) -> ObjectChanged:
    """See the command."""
    retention = command.retention
    mode = None if retention is None else retention.mode.value
    retain_until_ms = None if retention is None else retention.retain_until_ms if mode else 0
    ((sequence, uid),) = await database.write(
        _CHANGE,
        command.bucket_id,
        command.object_key,
        *which_version(command.version_id),
        None if command.tags is None else encode_record(command.tags),
        None if command.acl is None else encode_record(command.acl),
        mode,
        retain_until_ms,
        command.legal_hold,
        command.bypass_governance,
        database.now_ms(),
    )
    return ObjectChanged(NULL_VERSION_ID if uid is None else format_version_id(sequence, uid))
