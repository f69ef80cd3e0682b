"""Blobs, their chunk rows or inline bodies: inserted with what references them, released when nothing does any more.

A blob that is the whole of one version and named by no other is that version's *own*: its row says so, and holds an
inline one altogether (see schema). All others are named by extents or parts.

A released chunked blob keeps its rows until its chunks were deleted from the nodes (see layouts); the body of an inline
blob is the row, so it goes at once. A blob comes in as new with a version or a part, moves from a part to a version
when the upload completes, and is shared between versions by copies: it is never in a part and a version at a time.
"""

from __future__ import annotations

from itertools import takewhile

from storage.base.errors import SessionFenced, SourceChanged
from storage.base.ids import SESSION_ID_BYTES
from storage.metadata.chunk_rows import chunk_of
from storage.metadata.commands import ReleaseBlobs
from storage.metadata.records import encode_nodes
from storage.metadata.rules import require_first_layout
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.nodes import require_open_nodes
from storage.model import Blob, Chunk, Extent

_INSERT_BLOB = "INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING"
_INSERT_CHUNK = "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_INLINE = "INSERT INTO inline_bodies VALUES (?, ?, ?, ?)"
_SELECT_LIVE = "SELECT size FROM blobs WHERE blob_id = ? AND released_ms IS NULL"
_SELECT_RECORDED = "SELECT 1 FROM blobs WHERE blob_id = ?"
_SELECT_REFERENCE = "SELECT 1 FROM extents WHERE blob_id = ? LIMIT 1"
_RELEASE = "UPDATE blobs SET released_ms = ? WHERE blob_id = ? AND redundancy <> 'inline'"
_DELETE_INLINE = "DELETE FROM inline_bodies WHERE blob_id = ?"
_DELETE_BLOB = "DELETE FROM blobs WHERE blob_id = ?"
_CHUNK = "chunk_index, offset, length, wrapped_key, digest, nodes"
_SELECT_CHUNKS = f"SELECT {_CHUNK} FROM chunks WHERE blob_id = ? AND chunk_index >= ? ORDER BY chunk_index LIMIT ?"
_SELECT_INLINE_CHUNK = (
    "SELECT 0, 0, size, wrapped_key, digest, X'' FROM inline_bodies JOIN blobs USING (blob_id) WHERE blob_id = ?1"
    " UNION ALL SELECT 0, 0, size, wrapped_key, digest, X'' FROM versions"
    " WHERE blob_id = ?1 AND bucket_key_version IS NOT NULL"
)
_SELECT_OWN = "SELECT size, row_id, bucket_key_version FROM versions WHERE blob_id = ?"
_SPREAD_BLOB = (
    "INSERT INTO blobs SELECT blob_id, size, bucket_key_id, bucket_key_version, 'inline', NULL, 0 FROM versions"
    " WHERE row_id = ?"
)
_SPREAD_BODY = "INSERT INTO inline_bodies SELECT blob_id, wrapped_key, digest, sealed FROM versions WHERE row_id = ?"
_SPREAD_EXTENT = "INSERT INTO extents SELECT row_id, 0, size, 0, blob_id FROM versions WHERE row_id = ?"
_DISOWN = (
    "UPDATE versions SET blob_id = NULL, bucket_key_id = NULL, bucket_key_version = NULL, wrapped_key = NULL,"
    " digest = NULL, sealed = NULL WHERE row_id = ?"
)
_SELECT_LAST_INDEX = "SELECT max(chunk_index) FROM chunks WHERE blob_id = ?"
_SELECT_SPAN = "SELECT offset, length FROM chunks WHERE blob_id = ? AND chunk_index = ?"


def require_placeable(tx: Transaction, blob: Blob) -> None:
    """StalePlacement when a chunk is on a node that is closed for commits. Before the first change of a command; the
    body of an inline blob is on no node."""
    if blob.inline is None:
        require_open_nodes(tx, [chunk.nodes for chunk in blob.chunks])


def require_new(tx: Transaction, session_id: bytes, blob: Blob) -> None:
    """Of an inline blob that becomes a version's own: SessionFenced when it is of another session or was recorded, but
    for what the index of own blobs refuses."""
    _require_of_session(session_id, blob)
    if tx.execute(_SELECT_RECORDED, (blob.blob_id,)).fetchone() is not None:
        raise recorded_before()


def recorded_before() -> SessionFenced:
    """The refusal of a blob that is not new."""
    return SessionFenced("the blob is of another session, or was recorded before")


def insert_blob(tx: Transaction, session_id: bytes, blob: Blob) -> None:
    """A new blob of this session. SessionFenced when it is not of this session or was recorded before, as a blob that
    was given up (ReleaseBlobs) while its commit was still under way must not come back."""
    _require_of_session(session_id, blob)
    blob_id = blob.blob_id
    row = (blob_id, blob.size, blob.bucket_key_id, blob.bucket_key_version, blob.redundancy, None)
    if tx.execute(_INSERT_BLOB, row).rowcount != 1:
        raise recorded_before()
    if blob.inline is not None:
        chunk = blob.chunks[0]
        tx.execute(_INSERT_INLINE, (blob_id, chunk.wrapped_key, chunk.digest, blob.inline))
    else:
        _insert_chunks(tx, blob)


def require_shareable(tx: Transaction, extent: Extent) -> None:
    """SourceChanged unless a version references the blob now and the extent is the whole of it."""
    row = tx.execute(_SELECT_OWN, (extent.blob_id,)).fetchone()
    if row is not None:
        if row[0] != extent.length:
            raise SourceChanged()
        return
    row = tx.execute(_SELECT_LIVE, (extent.blob_id,)).fetchone()
    if row is None or row[0] != extent.length or not tx.execute(_SELECT_REFERENCE, (extent.blob_id,)).fetchone():
        raise SourceChanged()


def spread_blob(tx: Transaction, blob_id: bytes) -> None:
    """Before it is shared: if it is the own blob of a version, name it by an extent, as all that are shared."""
    row = tx.execute(_SELECT_OWN, (blob_id,)).fetchone()
    if row is None:
        return
    _, version_row, inline_key_version = row
    if inline_key_version is not None:
        tx.execute(_SPREAD_BLOB, (version_row,))
        tx.execute(_SPREAD_BODY, (version_row,))
    tx.execute(_SPREAD_EXTENT, (version_row,))
    tx.execute(_DISOWN, (version_row,))


def release_own(tx: Transaction, blob_id: bytes) -> None:
    """After the version was removed whose own blob it was; it is not inline."""
    tx.execute(_RELEASE, (tx.now_ms, blob_id))


def release_unreferenced(tx: Transaction, blob_id: bytes) -> None:
    """After a reference to the blob was removed: nothing happens while another version holds it."""
    if tx.execute(_SELECT_REFERENCE, (blob_id,)).fetchone():
        return
    if tx.execute(_RELEASE, (tx.now_ms, blob_id)).rowcount == 0:
        tx.execute(_DELETE_INLINE, (blob_id,))
        tx.execute(_DELETE_BLOB, (blob_id,))


def release_blobs(tx: Transaction, command: ReleaseBlobs) -> None:
    """Blobs that have a row are left alone: they are referenced, or released already."""
    for blob in command.blobs:
        if blob.blob_id[:SESSION_ID_BYTES] != command.session_id or blob.inline is not None or blob.generation:
            continue
        row = (blob.blob_id, blob.size, blob.bucket_key_id, blob.bucket_key_version, blob.redundancy, tx.now_ms)
        if tx.execute(_INSERT_BLOB, row).rowcount == 1:
            _insert_chunks(tx, blob)


def read_chunks(execute: Execute, blob_id: bytes, from_index: int, limit: int) -> list[Chunk]:
    rows = execute(_SELECT_CHUNKS, (blob_id, from_index, limit)).fetchall()
    if not rows and from_index == 0 and limit > 0:
        rows = execute(_SELECT_INLINE_CHUNK, (blob_id,)).fetchall()
    return [chunk_of(row) for row in rows]


def find_chunk_index(execute: Execute, blob_id: bytes, offset: int) -> int:
    """The index of the chunk that holds this offset of the blob. One seek where all chunks but the last have the length
    of the first, which is how they are cut; a binary search otherwise."""
    if offset == 0:
        return 0
    low, high = 0, execute(_SELECT_LAST_INDEX, (blob_id,)).fetchone()[0] or 0
    row = execute(_SELECT_SPAN, (blob_id, 0)).fetchone()
    middle = min(high, offset // row[1]) if row and row[1] else 0
    while low < high:
        row = execute(_SELECT_SPAN, (blob_id, middle)).fetchone()
        if row is None or row[0] > offset:
            high = middle - 1
        elif row[0] + row[1] <= offset:
            low = middle + 1
        else:
            return middle
        middle = (low + high) // 2
    return low


def read_span_chunks(execute: Execute, blob_id: bytes, start: int, end: int, limit: int) -> tuple[Chunk, ...]:
    """Up to `limit` chunks that hold bytes of [start, end) of the blob, in order."""
    first = find_chunk_index(execute, blob_id, start)
    rows = execute(_SELECT_CHUNKS, (blob_id, first, limit))
    return tuple(chunk_of(row) for row in takewhile(lambda row: row[1] < end, rows))


def select_recorded(count: int) -> str:
    """The statement that finds which of `count` blob ids have a row."""
    return f"SELECT blob_id FROM blobs WHERE blob_id IN ({', '.join('?' * count)})"


def _require_of_session(session_id: bytes, blob: Blob) -> None:
    require_first_layout(blob)
    if blob.blob_id[:SESSION_ID_BYTES] != session_id:
        raise recorded_before()


def _insert_chunks(tx: Transaction, blob: Blob) -> None:
    blob_id = blob.blob_id
    tx.executemany(
        _INSERT_CHUNK,
        [
            (
                blob_id,
                chunk.index,
                chunk.offset,
                chunk.length,
                chunk.wrapped_key,
                chunk.digest,
                encode_nodes(chunk.nodes),
            )
            for chunk in blob.chunks
        ],
    )
