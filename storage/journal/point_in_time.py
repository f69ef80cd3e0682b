"""What the records of an earlier moment must take over from those of now, so that the store that has moved on since can
be used with them.

- Locks are never lost: of a version that is in both, the later retain-until, the stronger mode, and a hold that is on
  in either. A bucket that has object lock now had better keep it.
- Chunks are where they are now: repair, rebalance and a change of redundancy moved them since. A blob that is in both
  lies as it does now; so do the layouts that wait to be swept.
- Nodes, their numbers, the epoch and the master's lease go on from now; write sessions are those of now, and none of
  them can commit any more. Ids of buckets that were made since are not given out again.
- Users, access keys, buckets, settings, versions and uploads are those of the moment.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from storage.metadata.commands import OBJECT_LOCK_SETTING
from storage.metadata.sqlite.database import connect_writer
from storage.model import LockMode, SessionState, Versioning

_STRENGTH = f"CASE {{0}} WHEN '{LockMode.COMPLIANCE.value}' THEN 2 WHEN '{LockMode.GOVERNANCE.value}' THEN 1 ELSE 0 END"
_KEEP_LOCKS = (
    "UPDATE main.versions SET"
    " retain_until_ms = max(main.versions.retain_until_ms, n.retain_until_ms),"
    " legal_hold = max(main.versions.legal_hold, n.legal_hold),"
    f" lock_mode = CASE WHEN {_STRENGTH.format('n.lock_mode')} > {_STRENGTH.format('main.versions.lock_mode')}"
    " THEN n.lock_mode ELSE main.versions.lock_mode END"
    " FROM now.versions n WHERE n.bucket_id = main.versions.bucket_id AND n.object_key = main.versions.object_key"
    " AND n.sequence = main.versions.sequence AND n.uid = main.versions.uid"
    " AND (n.lock_mode <> '' OR n.legal_hold <> 0)"
    " AND (n.lock_mode, n.retain_until_ms, n.legal_hold)"
    " <> (main.versions.lock_mode, main.versions.retain_until_ms, main.versions.legal_hold)"
)
_COMMON_BLOBS = "SELECT b.blob_id FROM main.blobs b JOIN now.blobs n ON n.blob_id = b.blob_id"

_STEPS: tuple[str, ...] = (
    # chunks as they lie now
    "CREATE TEMP TABLE common AS " + _COMMON_BLOBS + " WHERE b.redundancy <> 'inline'",
    "UPDATE main.blobs SET redundancy = n.redundancy, generation = n.generation FROM now.blobs n"
    " WHERE n.blob_id = main.blobs.blob_id AND n.redundancy <> 'inline'",
    "DELETE FROM main.chunks WHERE blob_id IN (SELECT blob_id FROM common)",
    "INSERT INTO main.chunks SELECT * FROM now.chunks WHERE blob_id IN (SELECT blob_id FROM common)",
    "DROP TABLE common",
    "DELETE FROM main.retired_layouts",
    "DELETE FROM main.retired_chunks",
    "INSERT INTO main.retired_layouts SELECT * FROM now.retired_layouts",
    "INSERT INTO main.retired_chunks SELECT * FROM now.retired_chunks",
    # what was released then and is gone now
    "CREATE TEMP TABLE swept AS SELECT blob_id FROM main.blobs WHERE released_ms IS NOT NULL"
    " AND blob_id NOT IN (SELECT blob_id FROM now.blobs)",
    "DELETE FROM main.chunks WHERE blob_id IN (SELECT blob_id FROM swept)",
    "DELETE FROM main.blobs WHERE blob_id IN (SELECT blob_id FROM swept)",
    "DROP TABLE swept",
    # locks of buckets
    f"INSERT INTO main.bucket_settings SELECT n.* FROM now.bucket_settings n JOIN main.buckets b"
    f" ON b.bucket_id = n.bucket_id WHERE n.name = '{OBJECT_LOCK_SETTING}' ON CONFLICT DO NOTHING",
    f"UPDATE main.buckets SET versioning = '{Versioning.ENABLED.value}' WHERE bucket_id IN"
    f" (SELECT bucket_id FROM main.bucket_settings WHERE name = '{OBJECT_LOCK_SETTING}')",
    # the cluster as it is now
    "DELETE FROM main.nodes",
    "INSERT INTO main.nodes SELECT * FROM now.nodes",
    "DELETE FROM main.master_lease",
    "INSERT INTO main.master_lease SELECT * FROM now.master_lease",
    "DELETE FROM main.write_sessions",
    "INSERT INTO main.write_sessions SELECT * FROM now.write_sessions",
    f"UPDATE main.write_sessions SET state = '{SessionState.FENCED.value}' WHERE state = '{SessionState.OPEN.value}'",
    "INSERT INTO main.meta SELECT * FROM now.meta WHERE name IN ('epoch', 'journal_sequence', 'journal_incarnation')"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    "UPDATE main.meta SET value = 1 + max(value, (SELECT value FROM now.meta WHERE name = 'configuration_sequence'))"
    " WHERE name = 'configuration_sequence'",
)
_RAISE_SEQUENCES = (
    "UPDATE main.sqlite_sequence SET seq = max(seq, (SELECT seq FROM now.sqlite_sequence n"
    " WHERE n.name = main.sqlite_sequence.name)) WHERE name IN (SELECT name FROM now.sqlite_sequence)"
)
_ADD_SEQUENCES = (
    "INSERT INTO main.sqlite_sequence SELECT name, seq FROM now.sqlite_sequence"
    " WHERE name NOT IN (SELECT name FROM main.sqlite_sequence)"
)


class Merged(NamedTuple):
    """locks: versions of which the present lock is kept, as it differs from that of the moment."""

    locks: int


def take_over(earlier: Path, now: Path) -> Merged:
    """Change the database of the moment; that of now stays as it is. One transaction: all of it or nothing."""
    with closing(connect_writer(earlier)) as connection:
        connection.execute("ATTACH DATABASE ? AS now", (str(now),))
        connection.execute("BEGIN IMMEDIATE")
        try:
            locks = connection.execute(_KEEP_LOCKS).rowcount
            for statement in _STEPS:
                connection.execute(statement)
            connection.execute(_RAISE_SEQUENCES)
            connection.execute(_ADD_SEQUENCES)
        except sqlite3.Error:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("DETACH DATABASE now")
    return Merged(locks)
