"""What those who look after chunks ask the records: where every chunk is, and whose it is. Statements for the thread of
long reads, each bounded by its limit, and what their rows become. None of them reads a key."""

from __future__ import annotations

_PLACE = (
    "SELECT c.blob_id, c.chunk_index, c.length, c.digest, c.nodes, b.redundancy, b.generation,"
    " b.released_ms IS NOT NULL"
)

CHUNK_PLACES = (
    f"{_PLACE} FROM chunks c JOIN blobs b ON b.blob_id = c.blob_id WHERE (c.blob_id, c.chunk_index) > (?, ?)"
    " ORDER BY c.blob_id, c.chunk_index LIMIT ?"
)
BUCKET_BLOBS = (
    "SELECT v.row_id, b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, b.generation FROM"
    " (SELECT row_id, bucket_id, blob_id FROM versions WHERE row_id > ?1 ORDER BY row_id LIMIT ?2) v"
    " LEFT JOIN extents e ON e.version_row = CASE WHEN v.bucket_id = ?3 AND v.blob_id IS NULL THEN v.row_id END"
    " LEFT JOIN blobs b ON b.blob_id = coalesce(e.blob_id, CASE WHEN v.bucket_id = ?3 THEN v.blob_id END)"
    " AND b.redundancy <> 'inline'"
)
"""after, limit, bucket id: one row at least for each version that was looked at, of whichever bucket it is, so that a
page of a small bucket in a large store is bounded without one more index that every commit would write"""


def select_places(count: int) -> str:
    """The statement that finds `count` chunks, by blob id and index of each."""
    asked = ", ".join(["(?, ?)"] * count)
    return (
        f"WITH asked (blob_id, chunk_index) AS (VALUES {asked}) {_PLACE} FROM asked a"
        " CROSS JOIN chunks c ON c.blob_id = a.blob_id AND c.chunk_index = a.chunk_index"
        " CROSS JOIN blobs b ON b.blob_id = c.blob_id"
    )


def select_users(count: int) -> str:
    """The statement that finds the versions and parts that `count` blobs are in; the limit is its last parameter."""
    asked = ", ".join(["(?)"] * count)
    return (
        f"WITH asked (blob_id) AS (VALUES {asked})"
        " SELECT a.blob_id, k.name, v.object_key, v.is_null, v.sequence, v.uid, NULL FROM asked a"
        " CROSS JOIN extents e ON e.blob_id = a.blob_id CROSS JOIN versions v ON v.row_id = e.version_row"
        " CROSS JOIN buckets k ON k.bucket_id = v.bucket_id"
        " UNION ALL SELECT a.blob_id, k.name, v.object_key, v.is_null, v.sequence, v.uid, NULL FROM asked a"
        " CROSS JOIN versions v ON v.blob_id = a.blob_id CROSS JOIN buckets k ON k.bucket_id = v.bucket_id"
        " UNION ALL SELECT a.blob_id, k.name, u.object_key, 0, 0, X'', u.upload_id FROM asked a"
        " CROSS JOIN parts p ON p.blob_id = a.blob_id CROSS JOIN uploads u ON u.upload_row = p.upload_row"
        " CROSS JOIN buckets k ON k.bucket_id = u.bucket_id LIMIT ?"
    )
