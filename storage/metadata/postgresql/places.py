"""What those who look after chunks ask the records: where every chunk is, and whose it is. Each is one statement,
bounded by its limit, and none of them reads a key."""

from __future__ import annotations

from collections.abc import Sequence

from storage.metadata.chunk_rows import collect_blobs, place_of, user_of
from storage.metadata.interface import BlobPage, BlobUser, ChunkPlace
from storage.metadata.postgresql.database import Database

_PLACE = (
    "SELECT c.blob_id, c.chunk_index, c.length, c.digest, c.nodes, b.redundancy, b.generation,"
    " b.released_ms IS NOT NULL"
)
# Bounded before the join, or the planner may join and sort all that is left for each page. No row is lost by it: a
# chunk has its blob in every snapshot, as both are written and deleted in one transaction (check.py looks).
_LIST_PLACES = (
    f"{_PLACE} FROM (SELECT * FROM chunks WHERE (blob_id, chunk_index) > ($1, $2)"
    " ORDER BY blob_id, chunk_index LIMIT $3) c JOIN blobs b ON b.blob_id = c.blob_id"
    " ORDER BY c.blob_id, c.chunk_index"
)
_FIND_PLACES = (
    f"{_PLACE} FROM unnest($1::bytea[], $2::bigint[]) a(blob_id, chunk_index)"
    " JOIN chunks c ON c.blob_id = a.blob_id AND c.chunk_index = a.chunk_index JOIN blobs b ON b.blob_id = c.blob_id"
)
_FIND_USERS = (
    "SELECT a.blob_id, k.name, v.object_key, v.is_null, v.sequence, v.uid, NULL FROM unnest($1::bytea[]) a(blob_id)"
    " JOIN extents e ON e.blob_id = a.blob_id JOIN versions v ON v.row_id = e.version_row"
    " JOIN buckets k ON k.bucket_id = v.bucket_id"
    " UNION ALL SELECT a.blob_id, k.name, u.object_key, false, 0, ''::bytea, u.upload_id"
    " FROM unnest($1::bytea[]) a(blob_id) JOIN parts p ON p.blob_id = a.blob_id"
    " JOIN uploads u ON u.upload_row = p.upload_row JOIN buckets k ON k.bucket_id = u.bucket_id LIMIT $2"
)
# one row at least for each version that was looked at, of whichever bucket it is, so that a page of a small bucket in a
# large store is bounded without one more index that every commit would write
_LIST_BLOBS = (
    "SELECT v.row_id, b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, b.generation FROM"
    " (SELECT row_id, bucket_id FROM versions WHERE row_id > $1 ORDER BY row_id LIMIT $2) v"
    " LEFT JOIN extents e ON e.version_row = CASE WHEN v.bucket_id = $3 THEN v.row_id END"
    " LEFT JOIN blobs b ON b.blob_id = e.blob_id AND b.redundancy <> 'inline' ORDER BY v.row_id, e.offset"
)


async def list_chunk_places(database: Database, after: tuple[bytes, int] | None, limit: int) -> list[ChunkPlace]:
    """See the interface."""
    return [place_of(row) for row in await database.read(_LIST_PLACES, *(after or (b"", -1)), limit)]


async def find_chunk_places(database: Database, chunks: Sequence[tuple[bytes, int]]) -> list[ChunkPlace]:
    """See the interface."""
    blob_ids, indexes = [blob_id for blob_id, _ in chunks], [index for _, index in chunks]
    return [place_of(row) for row in await database.read(_FIND_PLACES, blob_ids, indexes)]


async def find_blob_users(database: Database, blob_ids: Sequence[bytes], limit: int) -> list[BlobUser]:
    """See the interface."""
    rows = await database.read(_FIND_USERS, list(blob_ids), limit)
    return list(dict.fromkeys(user_of(row) for row in rows))


async def list_bucket_blobs(database: Database, bucket_id: int, after: int, limit: int) -> BlobPage:
    """See the interface."""
    return collect_blobs(await database.read(_LIST_BLOBS, after, limit, bucket_id), limit)
