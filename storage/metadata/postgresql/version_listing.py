"""The listing of versions: keyset seeks with skip-scan inside the database, one call for a page.

The scan runs over heads, and for each looks down its versions from the newest: a page costs what it shows and a seek
per key. The null version of a key, which the head leads to, is put in the place of its sequence. A key that rolls up
ends the running seek; the next one starts behind its common prefix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.base.ids import NULL_VERSION_ID, format_version_id, parse_version_id
from storage.metadata.interface import VersionEntry, VersionPage
from storage.metadata.postgresql.database import BIGINT_MAX, Database
from storage.metadata.skipscan import BEHIND_ALL_KEYS, common_prefix, prefix_upper_bound, scan_start

FUNCTIONS_2 = (
    # Of the key p_start only what is older than p_below, or than its null version; of later keys everything. A row
    # without a sequence is a common prefix. Whole sorts are off: keys come in order, and those of one key are few.
    """CREATE FUNCTION list_versions(
        p_bucket_id bigint, p_start bytea, p_below bigint, p_is_below_null boolean, p_end bytea,
        p_prefix_length integer, p_delimiter bytea, p_limit integer)
    RETURNS TABLE (
        object_key bytea, sequence bigint, uid bytea, is_null boolean, is_latest boolean, is_marker boolean,
        size bigint, etag text, last_modified_ms bigint, storage_class text, owner_id text, checksum_algorithm text,
        checksum_type text) LANGUAGE plpgsql STABLE SET enable_sort = off AS $$
    DECLARE
        v_start bytea := p_start;
        v_below bigint := p_below;
        v_left integer := p_limit;
        v_prefix bytea;
        v_row record;
    BEGIN
        IF p_is_below_null THEN
            SELECT v.sequence INTO v_below FROM heads h JOIN versions v ON v.row_id = h.null_row
            WHERE h.bucket_id = p_bucket_id AND h.object_key = p_start;
            v_below := coalesce(v_below, 0);
        END IF;
        WHILE v_start IS NOT NULL AND v_left > 0 LOOP
            v_prefix := NULL;
            FOR v_row IN SELECT h.version_row, c.* FROM heads h CROSS JOIN LATERAL (
                    (SELECT v.* FROM versions v WHERE v.bucket_id = p_bucket_id AND v.object_key = h.object_key
                        AND NOT v.is_null AND v.sequence < CASE WHEN h.object_key = v_start THEN v_below
                            ELSE 9223372036854775807 END
                        ORDER BY v.sequence DESC LIMIT v_left)
                    UNION ALL SELECT n.* FROM versions n WHERE n.row_id = h.null_row
                        AND (h.object_key <> v_start OR n.sequence < v_below)) c
                WHERE h.bucket_id = p_bucket_id AND h.object_key >= v_start AND h.object_key < p_end
                ORDER BY h.object_key, c.sequence DESC LIMIT v_left
            LOOP
                v_left := v_left - 1;
                object_key := v_row.object_key;
                v_prefix := CASE WHEN p_delimiter <> '' THEN
                    common_prefix(object_key, p_prefix_length, p_delimiter) END;
                IF v_prefix IS NOT NULL THEN
                    object_key := v_prefix;
                    sequence := NULL;
                    RETURN NEXT;
                    EXIT;
                END IF;
                sequence := v_row.sequence;
                uid := v_row.uid;
                is_null := v_row.is_null;
                is_latest := v_row.row_id = v_row.version_row;
                is_marker := v_row.is_marker;
                size := v_row.size;
                etag := v_row.etag;
                last_modified_ms := v_row.last_modified_ms;
                storage_class := v_row.storage_class;
                owner_id := v_row.owner_id;
                checksum_algorithm := v_row.checksum_algorithm;
                checksum_type := v_row.checksum_type;
                RETURN NEXT;
            END LOOP;
            v_start := prefix_upper_bound(v_prefix);
            v_below := 9223372036854775807;
        END LOOP;
    END $$""",
)

_LIST = "SELECT * FROM list_versions($1, $2, $3, $4, $5, $6, $7, $8)"


class _Position(NamedTuple):
    """Everything of this key that is older than the sequence (or its null version), and then all later keys."""

    object_key: bytes
    below: int = BIGINT_MAX
    is_below_null: bool = False


async def list_versions(
    database: Database, bucket_id: int, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
) -> VersionPage:
    """See the interface."""
    position = _find_start(prefix, delimiter, after)
    if position is None or limit <= 0:
        return VersionPage((), (), None)
    end = prefix_upper_bound(prefix) or BEHIND_ALL_KEYS
    rows = await database.read(_LIST, bucket_id, *position, end, len(prefix), delimiter, limit + 1)
    entries: list[VersionEntry] = []
    prefixes: list[bytes] = []
    last = (b"", "")
    for row in rows[:limit]:
        if row[1] is None:
            prefixes.append(row[0])
            last = (row[0], "")
        else:
            entry = _entry_of(*row)
            entries.append(entry)
            last = (entry.object_key, entry.version_id)
    return VersionPage(tuple(entries), tuple(prefixes), last if len(rows) > limit else None)


def _find_start(prefix: bytes, delimiter: bytes, after: tuple[bytes, str]) -> _Position | None:
    object_key, version_id = after
    if version_id and object_key.startswith(prefix) and common_prefix(object_key, prefix, delimiter) is None:
        parsed = parse_version_id(version_id)
        if parsed is not None:
            return _Position(object_key, min(parsed[0], BIGINT_MAX))
        if version_id == NULL_VERSION_ID:
            return _Position(object_key, is_below_null=True)
    start = scan_start(prefix, object_key, delimiter)
    return None if start is None else _Position(start)


def _entry_of(object_key: bytes, sequence: int, uid: bytes, is_null: bool, *listed: Any) -> VersionEntry:
    return VersionEntry(object_key, NULL_VERSION_ID if is_null else format_version_id(sequence, uid), *listed)
