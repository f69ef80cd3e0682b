"""The tables, as forward migrations. A database carries its version; a newer one is refused with one line.

Choices that the rest relies on:
- Object keys are BLOBs, compared bytewise.
- `heads` holds one row per key that has any version: the newest. The flag comes before the key in its primary key, so
  that a listing walks over live keys only and never over delete markers. `last_sequence` keeps version order monotonic
  while any row of the key exists.
- The index over versions leaves out null versions: a key has at most one, and `heads.null_row` leads to it. A PUT into
  a bucket without versioning thus touches one tree in the order of keys instead of two, which is a quarter of its log.
- A version that is one blob, which no other version names, says so itself (`versions.blob_id`) and has no extents. If
  that blob is inline, all of it is in this row and nowhere else: a small PUT writes the row of the version with its
  index by blob and the head, and a GET reads these. Who shares such a blob spreads it out first (`spread_blob`): into
  `extents`, `blobs` and `inline_bodies`, where parts and what was committed before version 4 are as well.
- An extent without a blob is a part of no bytes, kept for its number.
- `versions.tags` and `acl` NULL: as in the attributes that the version was committed with. A lock is in its own columns
  only, never in the attributes; an empty mode is no retention.
- `blobs.released_ms` NULL means referenced. Bodies of inline blobs have a rowid table of their own: rows up to a page
  stay in one piece there, and neither listings nor HEADs touch them.
- Ids of buckets and nodes are never used twice (AUTOINCREMENT): they are kept outside the transaction that read them.
- A layout that a blob had before (Relayout) is in tables of its own until its chunks are deleted, without keys, which
  are the same in every layout: reads and the commits of versions never see these tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from storage.base.errors import FrostbyteError
from storage.metadata.sqlite import masters

_VERSION_1 = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('schema_version', 1), ('configuration_sequence', 1), ('epoch', 1)",
    """CREATE TABLE write_sessions (
        session_id BLOB PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, opened_ms INTEGER NOT NULL,
        renewed_ms INTEGER NOT NULL, oldest_read_ms INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE users (
        canonical_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL, email TEXT NOT NULL,
        is_root INTEGER NOT NULL, created_ms INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE access_keys (
        access_key_id TEXT PRIMARY KEY, canonical_id TEXT NOT NULL, sealed_secret BLOB NOT NULL,
        enabled INTEGER NOT NULL, created_ms INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX access_keys_by_user ON access_keys (canonical_id)",
    """CREATE TABLE buckets (
        bucket_id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, owner_id TEXT NOT NULL,
        region TEXT NOT NULL, created_ms INTEGER NOT NULL, bucket_key_id TEXT NOT NULL, versioning TEXT NOT NULL)""",
    "CREATE INDEX buckets_by_owner ON buckets (owner_id, name)",
    """CREATE TABLE bucket_settings (
        bucket_id INTEGER NOT NULL, name TEXT NOT NULL, document BLOB NOT NULL,
        PRIMARY KEY (bucket_id, name)) WITHOUT ROWID""",
    """CREATE TABLE heads (
        bucket_id INTEGER NOT NULL, is_marker INTEGER NOT NULL, object_key BLOB NOT NULL, version_row INTEGER NOT NULL,
        null_row INTEGER, last_sequence INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        last_modified_ms INTEGER NOT NULL, storage_class TEXT NOT NULL, owner_id TEXT NOT NULL,
        checksum_algorithm TEXT NOT NULL, checksum_type TEXT NOT NULL,
        PRIMARY KEY (bucket_id, is_marker, object_key)) WITHOUT ROWID""",
    """CREATE TABLE versions (
        row_id INTEGER PRIMARY KEY, bucket_id INTEGER NOT NULL, object_key BLOB NOT NULL, sequence INTEGER NOT NULL,
        uid BLOB NOT NULL, is_null INTEGER NOT NULL, is_marker INTEGER NOT NULL, size INTEGER NOT NULL,
        etag TEXT NOT NULL, last_modified_ms INTEGER NOT NULL, owner_id TEXT NOT NULL, attributes BLOB NOT NULL,
        mac BLOB NOT NULL, part_count INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX versions_by_key ON versions (bucket_id, object_key, sequence) WHERE is_null = 0",
    """CREATE TABLE extents (
        version_row INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL, part_number INTEGER NOT NULL,
        blob_id BLOB, PRIMARY KEY (version_row, offset)) WITHOUT ROWID""",
    "CREATE INDEX extents_by_blob ON extents (blob_id)",
    """CREATE TABLE blobs (
        blob_id BLOB PRIMARY KEY, size INTEGER NOT NULL, bucket_key_id TEXT NOT NULL,
        bucket_key_version INTEGER NOT NULL, redundancy TEXT NOT NULL, released_ms INTEGER) WITHOUT ROWID""",
    "CREATE INDEX blobs_released ON blobs (released_ms, blob_id) WHERE released_ms IS NOT NULL",
    """CREATE TABLE chunks (
        blob_id BLOB NOT NULL, chunk_index INTEGER NOT NULL, offset INTEGER NOT NULL, length INTEGER NOT NULL,
        wrapped_key BLOB NOT NULL, digest BLOB NOT NULL, nodes BLOB NOT NULL,
        PRIMARY KEY (blob_id, chunk_index)) WITHOUT ROWID""",
    """CREATE TABLE inline_bodies (
        blob_id BLOB PRIMARY KEY, wrapped_key BLOB NOT NULL, digest BLOB NOT NULL, sealed BLOB NOT NULL)""",
    """CREATE TABLE uploads (
        upload_row INTEGER PRIMARY KEY, bucket_id INTEGER NOT NULL, object_key BLOB NOT NULL, upload_id TEXT NOT NULL,
        owner_id TEXT NOT NULL, initiated_ms INTEGER NOT NULL, attributes BLOB NOT NULL,
        checksum_algorithm TEXT, checksum_type TEXT, UNIQUE (bucket_id, object_key, upload_id))""",
    """CREATE TABLE parts (
        upload_row INTEGER NOT NULL, part_number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        last_modified_ms INTEGER NOT NULL, blob_id BLOB, checksum BLOB,
        PRIMARY KEY (upload_row, part_number)) WITHOUT ROWID""",
    """CREATE TABLE completed_uploads (
        bucket_id INTEGER NOT NULL, object_key BLOB NOT NULL, upload_id TEXT NOT NULL, version_id TEXT,
        etag TEXT NOT NULL, last_modified_ms INTEGER NOT NULL, completed_ms INTEGER NOT NULL,
        PRIMARY KEY (bucket_id, object_key, upload_id)) WITHOUT ROWID""",
    "CREATE INDEX completed_uploads_by_age ON completed_uploads (completed_ms)",
    """CREATE TABLE nodes (
        number INTEGER PRIMARY KEY AUTOINCREMENT, node_id TEXT NOT NULL UNIQUE, report BLOB NOT NULL,
        state TEXT NOT NULL, last_heard_ms INTEGER NOT NULL)""",
)

_VERSION_2 = (
    "ALTER TABLE versions ADD COLUMN tags BLOB",
    "ALTER TABLE versions ADD COLUMN acl BLOB",
    "ALTER TABLE versions ADD COLUMN lock_mode TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE versions ADD COLUMN retain_until_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE versions ADD COLUMN legal_hold INTEGER NOT NULL DEFAULT 0",
    # in the order that versions are listed in
    """CREATE UNIQUE INDEX versions_newest_first ON versions (bucket_id, object_key, sequence DESC)
        WHERE is_null = 0""",
    "DROP INDEX versions_by_key",
    "CREATE INDEX users_by_email ON users (email) WHERE email <> ''",
    *masters.TABLES,
)

_VERSION_3 = (
    "ALTER TABLE blobs ADD COLUMN generation INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE nodes ADD COLUMN is_closed INTEGER NOT NULL DEFAULT 0",
    # empty but while a drain ends: what every commit with chunks looks at
    "CREATE INDEX nodes_closed ON nodes (number) WHERE is_closed = 1",
    """CREATE TABLE retired_layouts (
        blob_id BLOB NOT NULL, generation INTEGER NOT NULL, size INTEGER NOT NULL, redundancy TEXT NOT NULL,
        released_ms INTEGER NOT NULL, PRIMARY KEY (blob_id, generation)) WITHOUT ROWID""",
    "CREATE INDEX retired_layouts_by_age ON retired_layouts (released_ms, blob_id, generation)",
    """CREATE TABLE retired_chunks (
        blob_id BLOB NOT NULL, generation INTEGER NOT NULL, chunk_index INTEGER NOT NULL, offset INTEGER NOT NULL,
        length INTEGER NOT NULL, digest BLOB NOT NULL, nodes BLOB NOT NULL,
        PRIMARY KEY (blob_id, generation, chunk_index)) WITHOUT ROWID""",
    "CREATE INDEX parts_by_blob ON parts (blob_id) WHERE blob_id IS NOT NULL",
    "INSERT INTO meta VALUES ('journal_sequence', 0), ('journal_applied_ms', 0), ('journal_history', 0),"
    " ('journal_incarnation', 0), ('journal_snapshot_due', 0)",
    "CREATE TABLE journal_pending (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL)",
)

_VERSION_4 = (
    "ALTER TABLE versions ADD COLUMN blob_id BLOB",
    # of an inline blob, otherwise NULL; the body is last, so that whoever does not ask for it does not read it
    "ALTER TABLE versions ADD COLUMN bucket_key_id TEXT",
    "ALTER TABLE versions ADD COLUMN bucket_key_version INTEGER",
    "ALTER TABLE versions ADD COLUMN wrapped_key BLOB",
    "ALTER TABLE versions ADD COLUMN digest BLOB",
    "ALTER TABLE versions ADD COLUMN sealed BLOB",
    "CREATE UNIQUE INDEX versions_by_blob ON versions (blob_id) WHERE blob_id IS NOT NULL",
    # for those who want all of them, wherever they are kept
    """CREATE VIEW every_extent AS
        SELECT row_id AS version_row, 0 AS offset, size AS length, 0 AS part_number, blob_id FROM versions
        WHERE blob_id IS NOT NULL UNION ALL
        SELECT version_row, offset, length, part_number, blob_id FROM extents""",
    """CREATE VIEW every_blob AS
        SELECT blob_id, size, bucket_key_id, bucket_key_version, 'inline' AS redundancy, NULL AS released_ms,
        0 AS generation FROM versions WHERE blob_id IS NOT NULL AND bucket_key_version IS NOT NULL UNION ALL
        SELECT blob_id, size, bucket_key_id, bucket_key_version, redundancy, released_ms, generation FROM blobs""",
    """CREATE VIEW every_inline_body AS
        SELECT blob_id, wrapped_key, digest, sealed FROM versions
        WHERE blob_id IS NOT NULL AND bucket_key_version IS NOT NULL UNION ALL
        SELECT blob_id, wrapped_key, digest, sealed FROM inline_bodies""",
)

Migrations = Sequence[Sequence[str]]

MIGRATIONS: Migrations = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)
"""statements that lead from version n to n + 1, at index n; a released one is never edited"""


def read_schema_version(connection: sqlite3.Connection) -> int:
    """0 for a database without tables."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return 0
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone()
    return int(row[0])


def require_known_version(version: int, migrations: Migrations = MIGRATIONS) -> None:
    """FrostbyteError, in one line, for a database that a later Frostbyte wrote."""
    if version > len(migrations):
        raise FrostbyteError(
            f"metadata.db has schema version {version}, this Frostbyte knows up to {len(migrations)}: "
            "start the newer Frostbyte again"
        )


def migrate(connection: sqlite3.Connection, migrations: Migrations = MIGRATIONS) -> int:
    """Bring the database forward, each step one transaction: a crash leaves a whole version. → the version now."""
    version = read_schema_version(connection)
    require_known_version(version, migrations)
    for step in range(version, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[step]:
                connection.execute(statement)
            connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (step + 1,))
        except sqlite3.Error:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return len(migrations)
