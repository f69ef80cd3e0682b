"""Listings of heads and of open uploads: keyset seeks with skip-scan, in one snapshot, never OFFSET.

The scan runs over live keys only (see schema). A key that rolls up ends the running seek; the next one starts behind
its common prefix. Where prefixes follow each other, one statement seeks from each to the next: a statement for each
would cost several times what the seek does. `next_after` is the last key or prefix of the page, and is given only when
something follows it.
"""

from __future__ import annotations

from typing import Any

from storage.metadata.interface import HeadEntry, HeadPage, UploadPage
from storage.metadata.records import upload_of
from storage.metadata.skipscan import BEHIND_ALL_KEYS, common_prefix, prefix_upper_bound, scan_start
from storage.metadata.sqlite.database import Execute
from storage.metadata.sqlite.uploads import UPLOAD
from storage.model import Upload

_HEADS = (
    "SELECT object_key, size, etag, last_modified_ms, storage_class, owner_id, checksum_algorithm, checksum_type"
    " FROM heads WHERE bucket_id = ? AND is_marker = 0 AND object_key >= ?"
)
_UPLOADS = f"SELECT {UPLOAD} FROM uploads WHERE bucket_id = ? AND (object_key, upload_id) > (?, ?)"
_BEFORE = " AND object_key < ?"
_HEADS_UNBOUNDED = f"{_HEADS} ORDER BY object_key LIMIT ?"
_HEADS_BOUNDED = f"{_HEADS}{_BEFORE} ORDER BY object_key LIMIT ?"
_UPLOADS_UNBOUNDED = f"{_UPLOADS} ORDER BY object_key, upload_id LIMIT ?"
_UPLOADS_BOUNDED = f"{_UPLOADS}{_BEFORE} ORDER BY object_key, upload_id LIMIT ?"
_ROLLS_UP_AT = "instr(substr(run.object_key, ?4 + 1), ?5)"
_FIRST_KEY = (
    "SELECT object_key FROM heads WHERE bucket_id = ?1 AND is_marker = 0 AND object_key >= {} AND object_key < ?3"
    " ORDER BY object_key LIMIT 1"
)
_BEHIND_PREFIX = f"CAST(substr(run.object_key, 1, ?4 + {_ROLLS_UP_AT} - 1) || ?6 AS BLOB)"
_PREFIX_RUN = (
    f"WITH RECURSIVE run (object_key) AS (SELECT ({_FIRST_KEY.format('?2')})"
    f" UNION ALL SELECT ({_FIRST_KEY.format(_BEHIND_PREFIX)}) FROM run WHERE {_ROLLS_UP_AT} > 0 LIMIT ?7)"
    " SELECT object_key FROM run WHERE object_key IS NOT NULL"
)
"""the first key, and for as long as a key rolls up the first one behind its common prefix"""

_new_entry = HeadEntry._make


def list_heads(
    execute: Execute, bucket_id: int, *, prefix: bytes, after: bytes, delimiter: bytes, limit: int
) -> HeadPage:
    """See the interface."""
    entries: list[HeadEntry] = []
    prefixes: list[bytes] = []
    start = scan_start(prefix, after, delimiter)
    end = prefix_upper_bound(prefix)
    last = b""
    while start is not None and limit > 0:
        need = limit - len(entries) - len(prefixes) + 1
        start_now, start, listed = start, None, len(entries)
        if end is None:
            rows = execute(_HEADS_UNBOUNDED, (bucket_id, start_now, need))
        else:
            rows = execute(_HEADS_BOUNDED, (bucket_id, start_now, end, need))
        for row in rows:
            need -= 1
            if not need:
                return HeadPage(tuple(entries), tuple(prefixes), last)
            rolled_up = common_prefix(row[0], prefix, delimiter) if delimiter else None
            if rolled_up is not None:
                found = [rolled_up]
                if listed == len(entries):  # nothing but prefixes since the last one: more of them may follow
                    found += _list_prefix_run(execute, bucket_id, rolled_up, len(prefix), delimiter, end, need)
                prefixes += found[: limit - len(entries) - len(prefixes)]
                last = prefixes[-1]
                if len(found) > need:
                    return HeadPage(tuple(entries), tuple(prefixes), last)
                start = prefix_upper_bound(last)
                break
            entries.append(_new_entry(row))
            last = row[0]
    return HeadPage(tuple(entries), tuple(prefixes), None)


def _list_prefix_run(
    execute: Execute, bucket_id: int, behind: bytes, prefix_length: int, delimiter: bytes, end: bytes | None, limit: int
) -> list[bytes]:
    """The common prefixes that follow one with no key between them that does not roll up; `limit` at most."""
    start, bound = prefix_upper_bound(behind), prefix_upper_bound(delimiter)
    if start is None or bound is None:
        return []
    position = (bucket_id, start, end or BEHIND_ALL_KEYS, prefix_length, delimiter, bound, limit)
    rolled_up = (common_prefix(row[0], behind[:prefix_length], delimiter) for row in execute(_PREFIX_RUN, position))
    return [it for it in rolled_up if it is not None]


def list_uploads(
    execute: Execute, bucket_id: int, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
) -> UploadPage:
    """See the interface. A page that ends with a common prefix continues after (prefix, '')."""
    uploads: list[Upload] = []
    prefixes: list[bytes] = []
    position = _upload_start(prefix, delimiter, after)
    end = prefix_upper_bound(prefix)
    last = (b"", "")
    while position is not None and limit > 0:
        need = limit - len(uploads) - len(prefixes) + 1
        position_now, position = position, None
        for row in _upload_rows(execute, bucket_id, position_now, end, need):
            need -= 1
            if not need:
                return UploadPage(tuple(uploads), tuple(prefixes), last)
            object_key = row[2]
            rolled_up = common_prefix(object_key, prefix, delimiter)
            if rolled_up is not None:
                prefixes.append(rolled_up)
                last = (rolled_up, "")
                behind = prefix_upper_bound(rolled_up)
                position = None if behind is None else (behind, "")
                break
            uploads.append(upload_of(row))
            last = (object_key, row[0])
    return UploadPage(tuple(uploads), tuple(prefixes), None)


def _upload_start(prefix: bytes, delimiter: bytes, after: tuple[bytes, str]) -> tuple[bytes, str] | None:
    """The position that the first upload must be greater than; every upload id is greater than the empty one."""
    object_key, upload_id = after
    if upload_id and object_key.startswith(prefix) and common_prefix(object_key, prefix, delimiter) is None:
        return after
    start = scan_start(prefix, object_key, delimiter)
    return None if start is None else (start, "")


def _upload_rows(
    execute: Execute, bucket_id: int, position: tuple[bytes, str], end: bytes | None, limit: int
) -> list[tuple[Any, ...]]:
    if end is None:
        return execute(_UPLOADS_UNBOUNDED, (bucket_id, *position, limit)).fetchall()
    return execute(_UPLOADS_BOUNDED, (bucket_id, *position, end, limit)).fetchall()
