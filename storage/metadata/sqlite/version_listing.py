"""The listing of versions: keyset seeks with skip-scan, in one snapshot, never OFFSET.

One statement merges four walks, each in the order of an index: the heads (live keys and those under a marker), which
lead to the null version of each key, and the versions that are not null, of the key that the page begins in and of the
keys behind it. It is stepped row by row and left where the page is full, so a page costs what it shows and a row per
key. A key that rolls up ends the running statement; the next one starts behind its common prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from storage.base.ids import NULL_VERSION_ID, format_version_id, parse_version_id
from storage.metadata.interface import VersionEntry, VersionPage
from storage.metadata.records import decode_attributes
from storage.metadata.skipscan import BEHIND_ALL_KEYS, common_prefix, prefix_upper_bound, scan_start
from storage.metadata.sqlite.database import Execute

_SEQUENCE_MAX = 2**63 - 1
"""behind every sequence, and where the head of a key stands among its versions"""

_COLUMNS = "v.row_id, v.sequence, v.uid, v.is_null, v.is_marker, v.size, v.etag, v.last_modified_ms, v.owner_id"
_HEADS = (
    f"SELECT h.object_key AS object_key, {_SEQUENCE_MAX} AS place, h.version_row AS version_row, {_COLUMNS},"
    " v.attributes FROM heads h LEFT JOIN versions v ON v.row_id = h.null_row"
    " WHERE h.bucket_id = ?1 AND h.is_marker = {} AND h.object_key >= ?2 AND h.object_key < ?3"
)
_STACKED = (
    f"SELECT v.object_key, v.sequence, NULL, {_COLUMNS}, v.attributes FROM versions v"
    " WHERE v.bucket_id = ?1 AND v.is_null = 0"
)
_SELECT = (
    f"{_HEADS.format(0)} UNION ALL {_HEADS.format(1)} UNION ALL {_STACKED} AND v.object_key = ?2 AND v.sequence < ?4"
    f" UNION ALL {_STACKED} AND v.object_key > ?2 AND v.object_key < ?3 ORDER BY object_key, place DESC LIMIT ?5"
)
_SELECT_NULL_SEQUENCE = (
    "SELECT v.sequence FROM heads h JOIN versions v ON v.row_id = h.null_row"
    " WHERE h.bucket_id = ? AND h.is_marker IN (0, 1) AND h.object_key = ?"
)


class _Position(NamedTuple):
    """Everything of this key that is older than the sequence, and then all later keys."""

    object_key: bytes
    below: int


def list_versions(
    execute: Execute, bucket_id: int, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
) -> VersionPage:
    """See the interface."""
    entries: list[VersionEntry] = []
    prefixes: list[bytes] = []
    position = _find_start(execute, bucket_id, prefix, delimiter, after)
    end = prefix_upper_bound(prefix) or BEHIND_ALL_KEYS
    last = (b"", "")
    while position is not None and limit > 0:
        left = limit - len(entries) - len(prefixes)
        # a key has a row for its head beside those of its versions; a page in its middle begins with one more
        rows = execute(_SELECT, (bucket_id, position.object_key, end, position.below, 2 * left + 3))
        below, position = position, None
        for head_row, row in _in_place(rows, below):
            if len(entries) + len(prefixes) == limit:
                return VersionPage(tuple(entries), tuple(prefixes), last)
            rolled_up = common_prefix(row[0], prefix, delimiter) if delimiter else None
            if rolled_up is not None:
                prefixes.append(rolled_up)
                last = (rolled_up, "")
                behind = prefix_upper_bound(rolled_up)
                position = None if behind is None else _Position(behind, _SEQUENCE_MAX)
                break
            entry = _entry_of(row, head_row)
            entries.append(entry)
            last = (entry.object_key, entry.version_id)
    return VersionPage(tuple(entries), tuple(prefixes), None)


def _in_place(rows: Iterator[Any], start: _Position) -> Iterator[tuple[int, Any]]:
    """(version row of the key's head, version) with each key's null version in the place of its sequence."""
    head_row, null_version = 0, None
    for row in rows:
        is_head = row[2] is not None
        if null_version is not None and (is_head or row[4] < null_version[4]):
            yield head_row, null_version
            null_version = None
        if not is_head:
            yield head_row, row
            continue
        head_row = row[2]
        is_listed = row[3] is not None and (row[0] != start.object_key or row[4] < start.below)
        null_version = row if is_listed else None
    if null_version is not None:
        yield head_row, null_version


def _find_start(
    execute: Execute, bucket_id: int, prefix: bytes, delimiter: bytes, after: tuple[bytes, str]
) -> _Position | None:
    object_key, version_id = after
    if version_id and object_key.startswith(prefix) and common_prefix(object_key, prefix, delimiter) is None:
        parsed = parse_version_id(version_id)
        if parsed is not None:
            return _Position(object_key, min(parsed[0], _SEQUENCE_MAX))
        if version_id == NULL_VERSION_ID:
            row = execute(_SELECT_NULL_SEQUENCE, (bucket_id, object_key)).fetchone()
            if row is not None:
                return _Position(object_key, row[0])
    start = scan_start(prefix, object_key, delimiter)
    return None if start is None else _Position(start, _SEQUENCE_MAX)


def _entry_of(row: Any, head_row: int) -> VersionEntry:
    object_key, _, _, row_id, sequence, uid, is_null, is_marker, size, etag, last_modified_ms, owner_id, raw = row
    attributes = decode_attributes(raw)
    checksum = attributes.checksum
    return VersionEntry(
        object_key,
        NULL_VERSION_ID if is_null else format_version_id(sequence, uid),
        row_id == head_row,
        bool(is_marker),
        size,
        etag,
        last_modified_ms,
        attributes.storage_class,
        owner_id,
        "" if checksum is None else checksum.algorithm.value,
        "" if checksum is None else checksum.type.value,
    )
