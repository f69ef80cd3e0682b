"""Listings of heads and of open uploads: keyset seeks with skip-scan inside the database, one call for a page.

The scan runs over live keys only (see tables). A key that rolls up ends the running seek; the next one starts behind
its common prefix. `next_after` is the last key or prefix of the page, and is given only when something follows it.
"""

from __future__ import annotations

from storage.metadata.interface import HeadEntry, HeadPage, UploadPage
from storage.metadata.postgresql.database import Database, without_unstorable
from storage.metadata.records import upload_of
from storage.metadata.skipscan import BEHIND_ALL_KEYS, common_prefix, prefix_upper_bound, scan_start
from storage.model import Upload

_ENTRY = "object_key, size, etag, last_modified_ms, storage_class, owner_id, checksum_algorithm, checksum_type"
_ENTRY_OF_HEAD = ", ".join(f"h.{column}" for column in _ENTRY.split(", "))

FUNCTIONS_1 = (
    # the least key that is greater than every key with this prefix; NULL when there is none
    """CREATE FUNCTION prefix_upper_bound(p_prefix bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    BEGIN
        FOR v_at IN REVERSE length(p_prefix) - 1 .. 0 LOOP
            IF get_byte(p_prefix, v_at) < 255 THEN
                RETURN set_byte(substr(p_prefix, 1, v_at + 1), v_at, get_byte(p_prefix, v_at) + 1);
            END IF;
        END LOOP;
        RETURN NULL;
    END $$""",
    # what a key rolls up into: up to and with the first delimiter after the prefix, or NULL
    """CREATE FUNCTION common_prefix(p_key bytea, p_prefix_length integer, p_delimiter bytea) RETURNS bytea
    LANGUAGE sql IMMUTABLE AS $$
        SELECT substr(p_key, 1, p_prefix_length + nullif(position(p_delimiter IN
            substr(p_key, p_prefix_length + 1)), 0) - 1 + length(p_delimiter)) $$""",
    """CREATE FUNCTION list_heads(
        p_bucket_id bigint, p_start bytea, p_end bytea, p_prefix_length integer, p_delimiter bytea, p_limit integer)
    RETURNS TABLE (
        object_key bytea, size bigint, etag text, last_modified_ms bigint, storage_class text, owner_id text,
        checksum_algorithm text, checksum_type text) LANGUAGE plpgsql STABLE AS $$
    DECLARE
        v_start bytea := p_start;
        v_left integer := p_limit;
        v_prefix bytea;
        v_head record;
    BEGIN
        WHILE v_start IS NOT NULL AND v_left > 0 LOOP
            v_prefix := NULL;
            FOR v_head IN SELECT h.* FROM heads h WHERE h.bucket_id = p_bucket_id AND NOT h.is_marker
                AND h.object_key >= v_start AND h.object_key < p_end ORDER BY h.object_key LIMIT v_left
            LOOP
                v_left := v_left - 1;
                object_key := v_head.object_key;
                v_prefix := common_prefix(object_key, p_prefix_length, p_delimiter);
                IF v_prefix IS NOT NULL THEN
                    object_key := v_prefix;
                    size := NULL;
                    RETURN NEXT;
                    EXIT;
                END IF;
                size := v_head.size;
                etag := v_head.etag;
                last_modified_ms := v_head.last_modified_ms;
                storage_class := v_head.storage_class;
                owner_id := v_head.owner_id;
                checksum_algorithm := v_head.checksum_algorithm;
                checksum_type := v_head.checksum_type;
                RETURN NEXT;
            END LOOP;
            v_start := prefix_upper_bound(v_prefix);
        END LOOP;
    END $$""",
    """CREATE FUNCTION list_uploads(
        p_bucket_id bigint, p_start bytea, p_start_id text, p_end bytea, p_prefix_length integer, p_delimiter bytea,
        p_limit integer)
    RETURNS TABLE (
        upload_id text, bucket_id bigint, object_key bytea, owner_id text, initiated_ms bigint, attributes bytea,
        checksum_algorithm text, checksum_type text) LANGUAGE plpgsql STABLE AS $$
    DECLARE
        v_start bytea := p_start;
        v_start_id text COLLATE "C" := p_start_id;
        v_left integer := p_limit;
        v_prefix bytea;
        v_upload record;
    BEGIN
        bucket_id := p_bucket_id;
        WHILE v_start IS NOT NULL AND v_left > 0 LOOP
            v_prefix := NULL;
            FOR v_upload IN SELECT u.* FROM uploads u WHERE u.bucket_id = p_bucket_id
                AND (u.object_key, u.upload_id) > (v_start, v_start_id) AND u.object_key < p_end
                ORDER BY u.object_key, u.upload_id LIMIT v_left
            LOOP
                v_left := v_left - 1;
                object_key := v_upload.object_key;
                v_prefix := CASE WHEN p_delimiter <> '' THEN
                    common_prefix(object_key, p_prefix_length, p_delimiter) END;
                IF v_prefix IS NOT NULL THEN
                    object_key := v_prefix;
                    upload_id := NULL;
                    RETURN NEXT;
                    EXIT;
                END IF;
                upload_id := v_upload.upload_id;
                owner_id := v_upload.owner_id;
                initiated_ms := v_upload.initiated_ms;
                attributes := v_upload.attributes;
                checksum_algorithm := v_upload.checksum_algorithm;
                checksum_type := v_upload.checksum_type;
                RETURN NEXT;
            END LOOP;
            v_start := prefix_upper_bound(v_prefix);
            v_start_id := '';
        END LOOP;
    END $$""",
)

_LIST_PLAIN = (
    f"SELECT {_ENTRY_OF_HEAD} FROM heads h WHERE h.bucket_id = $1 AND NOT h.is_marker"
    " AND h.object_key >= $2 AND h.object_key < $3 ORDER BY h.object_key LIMIT $4"
)
_LIST_ROLLED_UP = f"SELECT {_ENTRY} FROM list_heads($1, $2, $3, $4, $5, $6)"
_LIST_UPLOADS = "SELECT * FROM list_uploads($1, $2, $3, $4, $5, $6, $7)"


async def list_heads(
    database: Database, bucket_id: int, *, prefix: bytes, after: bytes, delimiter: bytes, limit: int
) -> HeadPage:
    """See the interface."""
    start = scan_start(prefix, after, delimiter)
    if start is None or limit <= 0:
        return HeadPage((), (), None)
    end = prefix_upper_bound(prefix) or BEHIND_ALL_KEYS
    if not delimiter:
        rows = await database.read(_LIST_PLAIN, bucket_id, start, end, limit + 1)
        entries = tuple([HeadEntry(*row) for row in rows[:limit]])
        return HeadPage(entries, (), entries[-1].object_key if len(rows) > limit else None)
    rows = await database.read(_LIST_ROLLED_UP, bucket_id, start, end, len(prefix), delimiter, limit + 1)
    listed = rows[:limit]
    entries = tuple([HeadEntry(*row) for row in listed if row[1] is not None])
    prefixes = tuple([row[0] for row in listed if row[1] is None])
    return HeadPage(entries, prefixes, listed[-1][0] if len(rows) > limit else None)


async def list_uploads(
    database: Database, bucket_id: int, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
) -> UploadPage:
    """See the interface. A page that ends with a common prefix continues after (prefix, '')."""
    position = _upload_start(prefix, delimiter, after)
    if position is None or limit <= 0:
        return UploadPage((), (), None)
    end = prefix_upper_bound(prefix) or BEHIND_ALL_KEYS
    rows = await database.read(_LIST_UPLOADS, bucket_id, *position, end, len(prefix), delimiter, limit + 1)
    uploads: list[Upload] = []
    prefixes: list[bytes] = []
    last = (b"", "")
    for row in rows[:limit]:
        last = (row[2], row[0] or "")
        if row[0] is None:
            prefixes.append(row[2])
        else:
            uploads.append(upload_of(row))
    return UploadPage(tuple(uploads), tuple(prefixes), last if len(rows) > limit else None)


def _upload_start(prefix: bytes, delimiter: bytes, after: tuple[bytes, str]) -> tuple[bytes, str] | None:
    """The position that the first upload must be greater than; every upload id is greater than the empty one."""
    object_key, upload_id = after
    if upload_id and object_key.startswith(prefix) and common_prefix(object_key, prefix, delimiter) is None:
        return object_key, without_unstorable(upload_id)
    start = scan_start(prefix, object_key, delimiter)
    return None if start is None else (start, "")
