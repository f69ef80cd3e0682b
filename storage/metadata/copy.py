"""Moves a whole store from one engine to another: row by row in the order of their keys, and compared at the end.

Neither side may be in use; each engine sees to that as well as it can (see its `rows` module). A copy that was cut
short goes on where it stopped: the last key that the target holds of a table is where the next batch begins. Small
tables are written anew each time. Until everything was compared the target is not a store that anybody can open. What
a crash leaves at each step:
1. begun: a target that is marked as unfinished, or lies aside; opening it for use is refused.
2. some tables copied: the same; the next run continues.
3. all copied, compared, and only then the target becomes a store: one transaction or one rename.
A source that was changed between two runs is found by the comparison; then the copy must begin anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from storage.base.errors import Corrupt

BATCH_ROWS = 500
"""of inline bodies, at most 32 MiB"""

Row = tuple[Any, ...]
"""integers (flags are 0 or 1), texts, bytes and None, the same from every engine"""


class Table(NamedTuple):
    """Columns that every engine keeps, and the key that rows are ordered by. Byte and text keys compare bytewise."""

    name: str
    key: tuple[str, ...]
    others: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    is_marker: bool | None = None
    """only rows of heads with this flag: a key that is an index in both engines leaves the flag out"""
    is_small: bool = False
    """written anew by every run"""

    @property
    def columns(self) -> tuple[str, ...]:
        """The key comes first."""
        return self.key + self.others


def _heads(is_marker: bool) -> Table:
    others = (
        *("is_marker", "version_row", "null_row", "last_sequence", "size", "etag", "last_modified_ms"),
        *("storage_class", "owner_id", "checksum_algorithm", "checksum_type"),
    )
    return Table("heads", ("bucket_id", "object_key"), others, frozenset({"is_marker"}), is_marker)


_SESSION = ("owner", "state", "opened_ms", "renewed_ms", "oldest_read_ms")
_USER = ("name", "display_name", "email", "is_root", "created_ms")
_ACCESS_KEY = ("canonical_id", "sealed_secret", "enabled", "created_ms")
_BUCKET = ("name", "owner_id", "region", "created_ms", "bucket_key_id", "versioning")
_VERSION = (
    *("bucket_id", "object_key", "sequence", "uid", "is_null", "is_marker", "size", "etag", "last_modified_ms"),
    *("owner_id", "attributes", "mac", "part_count", "tags", "acl", "lock_mode", "retain_until_ms", "legal_hold"),
)
_NODE = ("node_id", "report", "state", "last_heard_ms", "is_closed")
_BLOB = ("size", "bucket_key_id", "bucket_key_version", "redundancy", "released_ms", "generation")
_RETIRED_CHUNK = ("offset", "length", "digest", "nodes")
_UPLOAD = (
    *("bucket_id", "object_key", "upload_id", "owner_id", "initiated_ms", "attributes"),
    *("checksum_algorithm", "checksum_type"),
)

TABLES = (
    Table("write_sessions", ("session_id",), _SESSION, is_small=True),
    Table("users", ("canonical_id",), _USER, frozenset({"is_root"}), is_small=True),
    Table("access_keys", ("access_key_id",), _ACCESS_KEY, frozenset({"enabled"}), is_small=True),
    Table("buckets", ("bucket_id",), _BUCKET, is_small=True),
    Table("bucket_settings", ("bucket_id", "name"), ("document",), is_small=True),
    Table("nodes", ("number",), _NODE, frozenset({"is_closed"}), is_small=True),
    Table("versions", ("row_id",), _VERSION, frozenset({"is_null", "is_marker", "legal_hold"})),
    _heads(is_marker=False),
    _heads(is_marker=True),
    Table("extents", ("version_row", "offset"), ("length", "part_number", "blob_id")),
    Table("blobs", ("blob_id",), _BLOB),
    Table("chunks", ("blob_id", "chunk_index"), ("offset", "length", "wrapped_key", "digest", "nodes")),
    Table("retired_layouts", ("blob_id", "generation"), ("size", "redundancy", "released_ms")),
    Table("retired_chunks", ("blob_id", "generation", "chunk_index"), _RETIRED_CHUNK),
    Table("inline_bodies", ("blob_id",), ("wrapped_key", "digest", "sealed")),
    Table("uploads", ("upload_row",), _UPLOAD),
    Table(
        "parts",
        ("upload_row", "part_number"),
        ("size", "etag", "last_modified_ms", "blob_id", "checksum"),
    ),
    Table(
        "completed_uploads",
        ("bucket_id", "object_key", "upload_id"),
        ("version_id", "etag", "last_modified_ms", "completed_ms"),
    ),
)


class Counters(NamedTuple):
    """Numbers that must go on from where they were: none of the ids may be used twice."""

    configuration_sequence: int
    epoch: int
    bucket_id: int
    node_number: int
    version_row: int
    upload_row: int
    journal_sequence: int


class Source(Protocol):
    """A store to read from; also a target that is compared. All of one copy is one state."""

    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        """Rows with a key greater than `after`, in the order of their keys."""
        ...

    async def read_counters(self) -> Counters: ...


class Target(Source, Protocol):
    """A store to be filled."""

    async def begin(self, *, anew: bool) -> None:
        """FrostbyteError unless it is empty or an unfinished copy. anew: drop what the unfinished copy left."""
        ...

    async def clear(self, table: Table) -> None:
        """Remove its rows."""
        ...

    async def last_key(self, table: Table) -> Row | None:
        """None for a table without rows."""
        ...

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        """One transaction; the rows follow all that are there."""
        ...

    async def finish(self, counters: Counters) -> None:
        """From now on it is a store."""
        ...


OnProgress = Callable[[str, int], None]
"""called with a table's name and the number of rows that were done by this run, after each batch"""


async def copy_metadata(
    source: Source, target: Target, *, anew: bool = False, on_progress: OnProgress | None = None
) -> dict[str, int]:
    """Copy, compare, finish. → rows per table. Corrupt when the two differ; the target stays unfinished then."""
    await target.begin(anew=anew)
    for table in TABLES:
        if table.is_small:
            await target.clear(table)
        done = 0
        async for rows in _batches(source, table, await target.last_key(table)):
            await target.append(table, rows)
            done += len(rows)
            if on_progress is not None:
                on_progress(table.name, done)
    counted = await compare_metadata(source, target)
    await target.finish(await source.read_counters())
    return counted


async def compare_metadata(one: Source, other: Source) -> dict[str, int]:
    """Every row of every table. → rows per table. Corrupt names the first table that differs."""
    counted: dict[str, int] = {}
    for table in TABLES:
        count, digest = await _digest(one, table)
        if (count, digest) != await _digest(other, table):
            raise Corrupt(f"the copy differs from its source in `{table.name}`: begin it anew")
        counted[table.name] = counted.get(table.name, 0) + count
    return counted


async def _digest(store: Source, table: Table) -> tuple[int, bytes]:
    """(rows, SHA-256 over all of them in order)"""
    count, hasher = 0, hashlib.sha256()
    async for rows in _batches(store, table, None):
        count += len(rows)
        for row in rows:
            hasher.update(msgspec.msgpack.encode(row))
    return count, hasher.digest()


async def _batches(store: Source, table: Table, after: Row | None) -> AsyncIterator[list[Row]]:
    while rows := await store.read(table, after, BATCH_ROWS):
        yield rows
        after = rows[-1][: len(table.key)]
