"""PURE. Rows that tell of chunks, the same from every engine, and the records that they become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage.base.ids import NULL_VERSION_ID, format_version_id
from storage.metadata.interface import BlobPage, BlobUser, ChunkPlace
from storage.metadata.records import decode_nodes
from storage.model import Blob, Chunk


def chunk_of(row: Iterable[Any]) -> Chunk:
    """From index, offset, length, wrapped_key, digest, nodes."""
    index, offset, length, wrapped_key, digest, nodes = row
    return Chunk(index, offset, length, wrapped_key, digest, decode_nodes(nodes))


def collect_released(rows: Iterable[Iterable[Any]], limit: int) -> list[Blob]:
    """The first `limit` released blobs and old layouts, with all their chunks. From released_ms, blob id, generation,
    size, bucket key's id and version, redundancy, and the columns of a chunk (an index of None: there is none)."""
    found: dict[tuple[bytes, int], tuple[tuple[Any, ...], list[Chunk]]] = {}
    for _, blob_id, generation, *others in rows:
        chunks = found.setdefault((blob_id, generation), (tuple(others[:4]), []))[1]
        if others[4] is not None:
            chunks.append(chunk_of(others[4:]))
    blobs = []
    for (blob_id, generation), ((size, key_id, key_version, redundancy), chunks) in list(found.items())[:limit]:
        blobs.append(Blob(blob_id, size, key_id, key_version, redundancy, tuple(chunks), None, generation))
    return blobs


def place_of(row: Iterable[Any]) -> ChunkPlace:
    """From blob id, index, length, digest, nodes, redundancy, generation, whether it is released."""
    blob_id, chunk_index, length, digest, nodes, redundancy, generation, is_released = row
    return ChunkPlace(
        blob_id, chunk_index, length, digest, decode_nodes(nodes), redundancy, generation, bool(is_released)
    )


def user_of(row: Iterable[Any]) -> BlobUser:
    """From blob id, bucket, key, is_null, sequence, uid, upload id (None: a version)."""
    blob_id, bucket_name, object_key, is_null, sequence, uid, upload_id = row
    if upload_id is not None:
        return BlobUser(blob_id, bucket_name, object_key, "", upload_id)
    version_id = NULL_VERSION_ID if is_null else format_version_id(sequence, uid)
    return BlobUser(blob_id, bucket_name, object_key, version_id)


def collect_blobs(rows: Iterable[Iterable[Any]], limit: int) -> BlobPage:
    """From the row of a version, blob id (None: nothing that datanodes keep), size, bucket key's id and version,
    redundancy, generation: one at least for each of up to `limit` versions, in their order."""
    blobs = []
    versions: dict[int, None] = {}
    for version_row, blob_id, size, key_id, key_version, redundancy, generation in rows:
        versions[version_row] = None
        if blob_id is not None:
            blobs.append(Blob(blob_id, size, key_id, key_version, redundancy, generation=generation))
    return BlobPage(tuple(blobs), next(reversed(versions)) if 0 < limit <= len(versions) else None)
