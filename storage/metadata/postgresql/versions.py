"""Versions and heads, as functions inside the database: how a version is put on top of its key, and how one is taken
away. Every one of them runs under the lock of the key's head row.

A bucket that was never versioned, or is suspended, gives null versions and replaces the null version of the key; an
enabled one stacks. The sequence is the head's last one plus one, and LastModified is never before the head's.
"""

from __future__ import annotations

from typing import Any

from storage.base.ids import NULL_VERSION_ID, format_version_id, parse_version_id
from storage.metadata.commands import NewVersion
from storage.metadata.postgresql.database import BIGINT_MAX
from storage.metadata.records import encode_version_attributes, lock_columns
from storage.model import Versioning

_ATTEMPTS_MAX = 100

FUNCTIONS_1 = (
    # RFC 9110 §13.1. p_etag: of the current version, NULL when there is none or a marker is current
    """CREATE FUNCTION failed_condition(p_etag text, p_if_match text, p_if_none_match text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE
            WHEN p_if_match IS NOT NULL AND p_etag IS NULL THEN 'NoSuchKey'
            WHEN p_if_match NOT IN ('*', p_etag) THEN 'If-Match'
            WHEN p_etag IS NOT NULL AND p_if_none_match IN ('*', p_etag) THEN 'If-None-Match' END $$""",
    """CREATE FUNCTION refuse_condition(p_failed text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF p_failed = 'NoSuchKey' THEN
            PERFORM refuse('NoSuchKey');
        END IF;
        PERFORM refuse('PreconditionFailed', '', jsonb_build_object('condition', p_failed));
    END $$""",
)

FUNCTIONS_2 = (
    # Locks the head, or makes it; decides the conditions under the lock; leaves what is replaced to the caller, so
    # that a copy of a key onto itself never sees its own blobs unreferenced. A marker that would take the place of a
    # locked null version fails here, as it is one target of many; any other version does in drop_version_2.
    f"""CREATE FUNCTION put_on_top_2(
        p_bucket_id bigint, p_object_key bytea, p_versioning text, p_version locked_version, p_is_marker boolean,
        p_part_count integer, p_if_match text, p_if_none_match text, p_bypass_governance boolean, p_now_ms bigint,
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
                IF p_is_marker AND r_replaced_row IS NOT NULL THEN
                    PERFORM 1 FROM versions v WHERE v.row_id = r_replaced_row AND is_locked(
                        v.lock_mode, v.retain_until_ms, v.legal_hold, p_bypass_governance, p_now_ms);
                    IF FOUND THEN
                        r_failed := 'ObjectLocked';
                        RETURN;
                    END IF;
                END IF;
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
            p_version.storage_class, p_version.checksum_algorithm, p_version.checksum_type, NULL, NULL,
            p_version.lock_mode, p_version.retain_until_ms, p_version.legal_hold);
    END $$""",
    # The row, its extents, and the blobs that nothing references any more; the head is the caller's to set. Nothing
    # that is locked gets past this, whoever calls.
    """CREATE FUNCTION drop_version_2(p_row bigint, p_bypass_governance boolean, p_now_ms bigint) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        v_blob_ids bytea[];
    BEGIN
        DELETE FROM versions v WHERE v.row_id = p_row AND ((v.lock_mode = '' AND NOT v.legal_hold) OR NOT is_locked(
            v.lock_mode, v.retain_until_ms, v.legal_hold, p_bypass_governance, p_now_ms));
        IF NOT FOUND THEN
            PERFORM refuse('ObjectLocked');
        END IF;
        WITH gone AS (DELETE FROM extents WHERE version_row = p_row RETURNING blob_id)
        SELECT array_agg(DISTINCT blob_id) INTO v_blob_ids FROM gone WHERE blob_id IS NOT NULL;
        IF v_blob_ids IS NOT NULL THEN
            PERFORM release_unreferenced(v_blob_ids, p_now_ms);
        END IF;
    END $$""",
    # what gateways of the first release call: they know no locks, and must not delete what is locked
    """CREATE OR REPLACE FUNCTION drop_version(p_row bigint, p_now_ms bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM drop_version_2(p_row, false, p_now_ms);
    END $$""",
    # deletes one version for good; the next newest becomes current when it was the head
    """CREATE FUNCTION remove_version_2(p_head heads, p_row bigint, p_bypass_governance boolean, p_now_ms bigint)
    RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_null_row bigint := nullif(p_head.null_row, p_row);
        v_newest versions;
    BEGIN
        PERFORM drop_version_2(p_row, p_bypass_governance, p_now_ms);
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


def version_row(version: NewVersion) -> tuple[Any, ...]:
    """As a locked_version."""
    attributes = version.attributes
    checksum = attributes.checksum
    algorithm, kind = ("", "") if checksum is None else (checksum.algorithm.value, checksum.type.value)
    return (
        version.uid,
        version.size,
        version.etag,
        version.owner_id,
        encode_version_attributes(attributes),
        version.mac,
        attributes.storage_class,
        algorithm,
        kind,
        *lock_columns(attributes.lock),
    )


def version_id_of(versioning: str, sequence: int, uid: bytes) -> str | None:
    """What a version made now is called: None in a bucket that was never versioned."""
    if versioning == Versioning.ENABLED.value:
        return format_version_id(sequence, uid)
    return NULL_VERSION_ID if versioning else None


def which_version(version_id: str | None) -> tuple[str, int | None, bytes | None]:
    """How functions are told of a version: (`current` | `null` | `version` | `unknown`, sequence, uid)."""
    if version_id is None:
        return "current", None, None
    if version_id == NULL_VERSION_ID:
        return "null", None, None
    parsed = parse_version_id(version_id)
    if parsed is None or parsed[0] > BIGINT_MAX:
        return "unknown", None, None
    return "version", *parsed
