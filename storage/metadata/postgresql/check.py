"""An integrity check of the whole database: what every commit must leave true, as queries that must find nothing."""

from __future__ import annotations

from storage.base.ids import GENERATION_MAX
from storage.metadata.commands import OBJECT_LOCK_SETTING
from storage.metadata.postgresql.pool import Connection
from storage.model import Versioning

_EXAMPLES_PER_RULE = 3

_RULES: tuple[tuple[str, str], ...] = (
    (
        "a head that is not its version",
        """SELECT h.bucket_id, h.object_key FROM heads h LEFT JOIN versions v ON v.row_id = h.version_row
        WHERE v.row_id IS NULL
        OR (v.bucket_id, v.object_key, v.is_marker, v.size, v.etag, v.last_modified_ms, v.owner_id, v.storage_class,
            v.checksum_algorithm, v.checksum_type)
        IS DISTINCT FROM (h.bucket_id, h.object_key, h.is_marker, h.size, h.etag, h.last_modified_ms, h.owner_id,
            h.storage_class, h.checksum_algorithm, h.checksum_type)""",
    ),
    (
        "a key whose head is missing, not the newest version, or behind in its sequence",
        """SELECT v.bucket_id, v.object_key FROM
        (SELECT bucket_id, object_key, max(sequence) AS newest FROM versions GROUP BY bucket_id, object_key) v
        LEFT JOIN heads h ON h.bucket_id = v.bucket_id AND h.object_key = v.object_key
        LEFT JOIN versions c ON c.row_id = h.version_row
        WHERE c.sequence IS DISTINCT FROM v.newest OR h.last_sequence < v.newest""",
    ),
    (
        "a null version that its head does not lead to",
        """SELECT v.bucket_id, v.object_key FROM versions v
        LEFT JOIN heads h ON h.bucket_id = v.bucket_id AND h.object_key = v.object_key AND h.null_row = v.row_id
        WHERE v.is_null AND h.null_row IS NULL""",
    ),
    (
        "a head that leads to no null version",
        """SELECT h.bucket_id, h.object_key FROM heads h LEFT JOIN versions v ON v.row_id = h.null_row
        WHERE h.null_row IS NOT NULL AND v.is_null IS NOT TRUE""",
    ),
    (
        "two versions of one sequence",
        """SELECT bucket_id, object_key, sequence FROM versions
        GROUP BY bucket_id, object_key, sequence HAVING count(*) > 1""",
    ),
    (
        "a version whose extents are not its whole body in order",
        """SELECT v.row_id, v.size FROM versions v LEFT JOIN
        (SELECT s.version_row, sum(s.length) AS total, max(abs(s.offset - s.before)) AS gap FROM
          (SELECT version_row, "offset", length, coalesce(sum(length) OVER
            (PARTITION BY version_row ORDER BY "offset" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM extents) s GROUP BY s.version_row) e ON e.version_row = v.row_id
        WHERE coalesce(e.total, 0) <> v.size OR coalesce(e.gap, 0) <> 0""",
    ),
    (
        "a multipart version without an extent for each part",
        """SELECT v.row_id FROM versions v WHERE v.part_count > 0
        AND v.part_count <> (SELECT count(DISTINCT part_number) FROM extents WHERE version_row = v.row_id)""",
    ),
    (
        "an extent without a version",
        "SELECT e.version_row FROM extents e LEFT JOIN versions v ON v.row_id = e.version_row WHERE v.row_id IS NULL",
    ),
    (
        "an extent whose blob is missing, released or of another size",
        """SELECT e.version_row, e.blob_id FROM extents e LEFT JOIN blobs b ON b.blob_id = e.blob_id
        WHERE (e.blob_id IS NULL AND e.length > 0)
        OR (e.blob_id IS NOT NULL AND (b.blob_id IS NULL OR b.released_ms IS NOT NULL OR b.size <> e.length))""",
    ),
    (
        "a part whose blob is missing, released or of another size",
        """SELECT p.upload_row, p.part_number FROM parts p LEFT JOIN blobs b ON b.blob_id = p.blob_id
        WHERE (p.blob_id IS NULL AND p.size > 0)
        OR (p.blob_id IS NOT NULL AND (b.blob_id IS NULL OR b.released_ms IS NOT NULL OR b.size <> p.size))""",
    ),
    (
        "a part without an upload",
        """SELECT p.upload_row FROM parts p LEFT JOIN uploads u ON u.upload_row = p.upload_row
        WHERE u.upload_row IS NULL""",
    ),
    (
        "a blob in two parts, or in a part and a version",
        """SELECT c.blob_id FROM
        (SELECT blob_id FROM parts UNION ALL SELECT e.blob_id FROM extents e JOIN parts p ON p.blob_id = e.blob_id) c
        WHERE c.blob_id IS NOT NULL GROUP BY c.blob_id HAVING count(*) > 1""",
    ),
    (
        "an unreleased blob that nothing references",
        """SELECT b.blob_id FROM blobs b WHERE b.released_ms IS NULL
        AND NOT EXISTS (SELECT FROM extents e WHERE e.blob_id = b.blob_id)
        AND NOT EXISTS (SELECT FROM parts p WHERE p.blob_id = b.blob_id)""",
    ),
    (
        "a referenced blob whose chunks are not its whole body in order",
        """SELECT b.blob_id FROM blobs b LEFT JOIN
        (SELECT s.blob_id, sum(s.length) AS total, max(abs(s.offset - s.before)) AS gap,
          max(s.chunk_index) + 1 - count(*) AS hole FROM
          (SELECT blob_id, chunk_index, "offset", length, coalesce(sum(length) OVER
            (PARTITION BY blob_id ORDER BY chunk_index ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM chunks) s GROUP BY s.blob_id) c ON c.blob_id = b.blob_id
        WHERE b.redundancy <> 'inline' AND b.released_ms IS NULL
        AND (coalesce(c.total, 0) <> b.size OR c.gap <> 0 OR c.hole <> 0)""",
    ),
    (
        "an inline blob without a body, released, or with chunks",
        """SELECT b.blob_id FROM blobs b LEFT JOIN inline_bodies i ON i.blob_id = b.blob_id
        WHERE b.redundancy = 'inline' AND (i.blob_id IS NULL OR b.released_ms IS NOT NULL
        OR EXISTS (SELECT FROM chunks c WHERE c.blob_id = b.blob_id))""",
    ),
    (
        "an old layout that is not older than its blob's, or without all its chunks",
        """SELECT l.blob_id, l.generation FROM retired_layouts l LEFT JOIN blobs b ON b.blob_id = l.blob_id
        LEFT JOIN (SELECT blob_id, generation, sum(length) AS total FROM retired_chunks
          GROUP BY blob_id, generation) c ON c.blob_id = l.blob_id AND c.generation = l.generation
        WHERE l.generation >= b.generation OR coalesce(c.total, 0) <> l.size""",
    ),
    (
        "a chunk of an old layout that does not exist",
        """SELECT c.blob_id, c.generation FROM retired_chunks c LEFT JOIN retired_layouts l
        ON l.blob_id = c.blob_id AND l.generation = c.generation WHERE l.blob_id IS NULL""",
    ),
    (
        "a generation that no chunk id can hold",
        f"""SELECT blob_id, generation FROM blobs WHERE generation NOT BETWEEN 0 AND {GENERATION_MAX}
        OR (generation <> 0 AND redundancy = 'inline')""",
    ),
    (
        "a chunk without a blob",
        "SELECT c.blob_id FROM chunks c LEFT JOIN blobs b ON b.blob_id = c.blob_id WHERE b.blob_id IS NULL",
    ),
    (
        "a body without an inline blob",
        """SELECT i.blob_id FROM inline_bodies i LEFT JOIN blobs b ON b.blob_id = i.blob_id
        WHERE b.redundancy IS DISTINCT FROM 'inline'""",
    ),
    (
        "something in a bucket that does not exist",
        """SELECT s.bucket_id FROM (SELECT bucket_id FROM heads UNION SELECT bucket_id FROM uploads
        UNION SELECT bucket_id FROM bucket_settings) s WHERE s.bucket_id NOT IN (SELECT bucket_id FROM buckets)""",
    ),
    (
        "an access key without a user",
        """SELECT k.access_key_id FROM access_keys k LEFT JOIN users u ON u.canonical_id = k.canonical_id
        WHERE u.canonical_id IS NULL""",
    ),
    (
        "a lock that is none",
        """SELECT row_id, lock_mode FROM versions WHERE lock_mode NOT IN ('', 'GOVERNANCE', 'COMPLIANCE')
        OR (lock_mode = '' AND retain_until_ms <> 0)""",
    ),
    (
        "a marker with tags, an ACL or a lock",
        """SELECT row_id FROM versions WHERE is_marker
        AND (tags IS NOT NULL OR acl IS NOT NULL OR lock_mode <> '' OR legal_hold)""",
    ),
    (
        "a bucket with object lock that is not versioned",
        f"""SELECT b.name FROM buckets b JOIN bucket_settings s ON s.bucket_id = b.bucket_id
        WHERE s.name = '{OBJECT_LOCK_SETTING}' AND b.versioning <> '{Versioning.ENABLED.value}'""",
    ),
    ("two root users", "SELECT name FROM users WHERE is_root AND (SELECT count(*) FROM users WHERE is_root) > 1"),
)

_SETTINGS = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;"
    " SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
)


async def check_integrity(connection: Connection) -> list[str]:
    """One line per rule that does not hold, with a few examples; an empty list when the database is whole.

    Runs on one snapshot; reads every row, so it is for tests and for a doctor, not for a server under load.
    """
    problems = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_SETTINGS)
        for rule, query in _RULES:
            found = await connection.fetch(f"{query} LIMIT {_EXAMPLES_PER_RULE}", timeout=None)
            if found:
                problems.append(f"{rule}: {', '.join(str(tuple(row)) for row in found)}")
    return problems
