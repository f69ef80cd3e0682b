"""An integrity check of the whole database: what every commit must leave true, as queries that must find nothing."""

from __future__ import annotations

import sqlite3

from storage.base.ids import GENERATION_MAX
from storage.metadata.commands import OBJECT_LOCK_SETTING
from storage.model import Versioning

_EXAMPLES_PER_RULE = 3

_RULES: tuple[tuple[str, str], ...] = (
    (
        "a head that is not its version",
        """SELECT h.bucket_id, h.object_key FROM heads h LEFT JOIN versions v ON v.row_id = h.version_row
        WHERE v.row_id IS NULL
        OR (v.bucket_id, v.object_key, v.is_marker, v.size, v.etag, v.last_modified_ms, v.owner_id)
        IS NOT (h.bucket_id, h.object_key, h.is_marker, h.size, h.etag, h.last_modified_ms, h.owner_id)""",
    ),
    (
        "a key with two heads",
        "SELECT bucket_id, object_key FROM heads GROUP BY bucket_id, object_key HAVING count(*) > 1",
    ),
    (
        "a key whose head is missing, not the newest version, or behind in its sequence",
        """SELECT v.bucket_id, v.object_key FROM
        (SELECT bucket_id, object_key, max(sequence) AS newest FROM versions GROUP BY bucket_id, object_key) v
        LEFT JOIN heads h ON h.bucket_id = v.bucket_id AND h.object_key = v.object_key
        LEFT JOIN versions c ON c.row_id = h.version_row
        WHERE c.sequence IS NOT v.newest OR h.last_sequence < v.newest""",
    ),
    (
        "a null version that its head does not lead to",
        """SELECT v.bucket_id, v.object_key FROM versions v
        LEFT JOIN heads h ON h.bucket_id = v.bucket_id AND h.object_key = v.object_key AND h.null_row = v.row_id
        WHERE v.is_null = 1 AND h.null_row IS NULL""",
    ),
    (
        "a head that leads to no null version",
        """SELECT h.bucket_id, h.object_key FROM heads h LEFT JOIN versions v ON v.row_id = h.null_row
        WHERE h.null_row IS NOT NULL AND v.is_null IS NOT 1""",
    ),
    (
        "two versions of one sequence",
        """SELECT bucket_id, object_key, sequence FROM versions
        GROUP BY bucket_id, object_key, sequence HAVING count(*) > 1""",
    ),
    (
        "a version whose extents are not its whole body in order",
        """SELECT v.row_id, v.size FROM versions v LEFT JOIN
        (SELECT version_row, sum(length) AS total, max(abs(offset - before)) AS gap FROM
          (SELECT version_row, offset, length, coalesce(sum(length) OVER
            (PARTITION BY version_row ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM every_extent) GROUP BY version_row) e ON e.version_row = v.row_id
        WHERE coalesce(e.total, 0) <> v.size OR coalesce(e.gap, 0) <> 0""",
    ),
    (
        "a multipart version without an extent for each part",
        """SELECT v.row_id FROM versions v WHERE v.part_count > 0
        AND v.part_count <> (SELECT count(DISTINCT part_number) FROM extents WHERE version_row = v.row_id)""",
    ),
    (
        "an extent without a version",
        "SELECT version_row FROM extents WHERE version_row NOT IN (SELECT row_id FROM versions)",
    ),
    (
        "an extent whose blob is missing, released or of another size",
        """SELECT e.version_row, hex(e.blob_id) FROM extents e LEFT JOIN blobs b ON b.blob_id = e.blob_id
        WHERE (e.blob_id IS NULL AND e.length > 0)
        OR (e.blob_id IS NOT NULL AND (b.blob_id IS NULL OR b.released_ms IS NOT NULL OR b.size <> e.length))""",
    ),
    (
        "an own blob that is missing, released or of another size",
        """SELECT v.row_id, hex(v.blob_id) FROM versions v LEFT JOIN blobs b ON b.blob_id = v.blob_id
        WHERE v.blob_id IS NOT NULL AND v.bucket_key_version IS NULL
        AND (b.blob_id IS NULL OR b.redundancy = 'inline' OR b.released_ms IS NOT NULL OR b.size <> v.size)""",
    ),
    (
        "an own blob that is recorded elsewhere as well",
        """SELECT v.row_id, hex(v.blob_id) FROM versions v WHERE v.blob_id IS NOT NULL
        AND (EXISTS (SELECT 1 FROM extents e WHERE e.blob_id = v.blob_id)
        OR EXISTS (SELECT 1 FROM extents e WHERE e.version_row = v.row_id)
        OR EXISTS (SELECT 1 FROM parts p WHERE p.blob_id = v.blob_id)
        OR (v.bucket_key_version IS NOT NULL AND EXISTS (SELECT 1 FROM blobs b WHERE b.blob_id = v.blob_id)))""",
    ),
    (
        "a body in a version that is not whole",
        """SELECT row_id FROM versions WHERE (bucket_key_version IS NULL) + (bucket_key_id IS NULL)
        + (wrapped_key IS NULL) + (digest IS NULL) + (sealed IS NULL) NOT IN (0, 5)
        OR (blob_id IS NULL AND bucket_key_version IS NOT NULL)""",
    ),
    (
        "a part whose blob is missing, released or of another size",
        """SELECT p.upload_row, p.part_number FROM parts p LEFT JOIN blobs b ON b.blob_id = p.blob_id
        WHERE (p.blob_id IS NULL AND p.size > 0)
        OR (p.blob_id IS NOT NULL AND (b.blob_id IS NULL OR b.released_ms IS NOT NULL OR b.size <> p.size))""",
    ),
    (
        "a part without an upload",
        "SELECT upload_row FROM parts WHERE upload_row NOT IN (SELECT upload_row FROM uploads)",
    ),
    (
        "a blob in two parts, or in a part and a version",
        """SELECT hex(blob_id) FROM
        (SELECT blob_id FROM parts UNION ALL SELECT blob_id FROM extents WHERE blob_id IN (SELECT blob_id FROM parts))
        WHERE blob_id IS NOT NULL GROUP BY blob_id HAVING count(*) > 1""",
    ),
    (
        "an unreleased blob that nothing references",
        """SELECT hex(blob_id) FROM blobs WHERE released_ms IS NULL
        AND NOT EXISTS (SELECT 1 FROM extents e WHERE e.blob_id = blobs.blob_id)
        AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.blob_id = blobs.blob_id)
        AND blob_id NOT IN (SELECT blob_id FROM parts WHERE blob_id IS NOT NULL)""",
    ),
    (
        "a referenced blob whose chunks are not its whole body in order",
        """SELECT hex(b.blob_id) FROM blobs b LEFT JOIN
        (SELECT blob_id, sum(length) AS total, max(abs(offset - before)) AS gap, max(chunk_index) + 1 - count(*) AS hole
        FROM (SELECT blob_id, chunk_index, offset, length, coalesce(sum(length) OVER
            (PARTITION BY blob_id ORDER BY chunk_index ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM chunks) GROUP BY blob_id) c ON c.blob_id = b.blob_id
        WHERE b.redundancy <> 'inline' AND b.released_ms IS NULL
        AND (coalesce(c.total, 0) <> b.size OR c.gap <> 0 OR c.hole <> 0)""",
    ),
    (
        "an inline blob without a body, released, or with chunks",
        """SELECT hex(b.blob_id) FROM blobs b LEFT JOIN inline_bodies i ON i.blob_id = b.blob_id
        WHERE b.redundancy = 'inline' AND (i.blob_id IS NULL OR b.released_ms IS NOT NULL
        OR b.blob_id IN (SELECT blob_id FROM chunks))""",
    ),
    (
        "an old layout that is not older than its blob's, or without all its chunks",
        """SELECT hex(l.blob_id), l.generation FROM retired_layouts l LEFT JOIN blobs b ON b.blob_id = l.blob_id
        LEFT JOIN (SELECT blob_id, generation, sum(length) AS total FROM retired_chunks
          GROUP BY blob_id, generation) c ON c.blob_id = l.blob_id AND c.generation = l.generation
        WHERE l.generation >= b.generation OR coalesce(c.total, 0) <> l.size""",
    ),
    (
        "a chunk of an old layout that does not exist",
        """SELECT hex(blob_id), generation FROM retired_chunks
        WHERE (blob_id, generation) NOT IN (SELECT blob_id, generation FROM retired_layouts)""",
    ),
    (
        "a generation that no chunk id can hold",
        f"""SELECT hex(blob_id), generation FROM blobs WHERE generation NOT BETWEEN 0 AND {GENERATION_MAX}
        OR (generation <> 0 AND redundancy = 'inline')""",
    ),
    ("a chunk without a blob", "SELECT hex(blob_id) FROM chunks WHERE blob_id NOT IN (SELECT blob_id FROM blobs)"),
    (
        "a body without an inline blob",
        """SELECT hex(blob_id) FROM inline_bodies
        WHERE blob_id NOT IN (SELECT blob_id FROM blobs WHERE redundancy = 'inline')""",
    ),
    (
        "something in a bucket that does not exist",
        """SELECT bucket_id FROM (SELECT bucket_id FROM heads UNION SELECT bucket_id FROM uploads
        UNION SELECT bucket_id FROM bucket_settings) WHERE bucket_id NOT IN (SELECT bucket_id FROM buckets)""",
    ),
    (
        "an access key without a user",
        "SELECT access_key_id FROM access_keys WHERE canonical_id NOT IN (SELECT canonical_id FROM users)",
    ),
    (
        "a lock that is none",
        """SELECT row_id, lock_mode FROM versions WHERE lock_mode NOT IN ('', 'GOVERNANCE', 'COMPLIANCE')
        OR legal_hold NOT IN (0, 1) OR (lock_mode = '' AND retain_until_ms <> 0)""",
    ),
    (
        "a marker with tags, an ACL or a lock",
        """SELECT row_id FROM versions WHERE is_marker = 1
        AND (tags IS NOT NULL OR acl IS NOT NULL OR lock_mode <> '' OR legal_hold <> 0)""",
    ),
    (
        "a bucket with object lock that is not versioned",
        f"""SELECT b.name FROM buckets b JOIN bucket_settings s ON s.bucket_id = b.bucket_id
        WHERE s.name = '{OBJECT_LOCK_SETTING}' AND b.versioning <> '{Versioning.ENABLED.value}'""",
    ),
    ("two root users", "SELECT name FROM users WHERE is_root = 1 AND (SELECT sum(is_root) FROM users) > 1"),
)


def check_integrity(connection: sqlite3.Connection) -> list[str]:
    """One line per rule that does not hold, with a few examples; an empty list when the database is whole.

    Runs on one snapshot; reads every row, so it is for tests and for a doctor, not for a server under load.
    """
    problems = []
    connection.execute("BEGIN")
    try:
        for (answer,) in connection.execute("PRAGMA integrity_check").fetchall():
            if answer != "ok":
                problems.append(f"SQLite: {answer}")
        for rule, query in _RULES:
            found = connection.execute(f"{query} LIMIT {_EXAMPLES_PER_RULE}").fetchall()
            if found:
                problems.append(f"{rule}: {', '.join(map(str, found))}")
    finally:
        connection.execute("COMMIT")
    return problems
