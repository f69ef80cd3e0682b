"""Blobs, their chunk rows or inline bodies: inserted with what references them, released when nothing does any more.

A released chunked blob keeps its rows until its chunks were deleted from the nodes (see layouts); the body of an inline
blob is the row, so it goes at once. Whoever shares a blob locks its row shared, whoever takes a reference away locks it
for update and only then looks for others: of a copy and a delete that race, the second sees what the first did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from storage.base.errors import SessionFenced
from storage.base.ids import SESSION_ID_BYTES
from storage.metadata.chunk_rows import chunk_of
from storage.metadata.commands import ReleaseBlobs
from storage.metadata.postgresql.database import Database
from storage.metadata.records import encode_nodes
from storage.metadata.rules import require_first_layout
from storage.model import Blob, Chunk

FUNCTIONS_1 = (
    # SourceChanged unless a version references every blob now, and each shared extent is the whole of its blob
    """CREATE FUNCTION require_shareable(p_shared bytea[], p_extents new_extent[]) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM 1 FROM blobs WHERE blob_id = ANY (p_shared) ORDER BY blob_id FOR SHARE;
        PERFORM 1 FROM unnest(p_extents) x LEFT JOIN blobs b ON b.blob_id = x.blob_id
        WHERE x.blob_id = ANY (p_shared) AND (b.size IS DISTINCT FROM x.length OR b.released_ms IS NOT NULL
            OR NOT EXISTS (SELECT FROM extents e WHERE e.blob_id = x.blob_id));
        IF FOUND THEN
            PERFORM refuse('SourceChanged');
        END IF;
    END $$""",
)

FUNCTIONS_2 = (
    # after references to these blobs were removed: nothing happens to those that another version holds
    """CREATE OR REPLACE FUNCTION release_unreferenced(p_blob_ids bytea[], p_now_ms bigint) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        v_free bytea[];
    BEGIN
        PERFORM 1 FROM blobs WHERE blob_id = ANY (p_blob_ids) ORDER BY blob_id FOR UPDATE;
        SELECT array_agg(u.blob_id) INTO v_free FROM unnest(p_blob_ids) u(blob_id)
        WHERE NOT EXISTS (SELECT FROM extents e WHERE e.blob_id = u.blob_id);
        IF v_free IS NULL THEN
            RETURN;
        END IF;
        WITH gone AS (
            DELETE FROM blobs WHERE blob_id = ANY (v_free) AND redundancy = 'inline' RETURNING blob_id)
        DELETE FROM inline_bodies i USING gone g WHERE i.blob_id = g.blob_id;
        UPDATE blobs SET released_ms = release_ms(p_now_ms)
        WHERE blob_id = ANY (v_free) AND redundancy <> 'inline' AND released_ms IS NULL;
    END $$""",
    # blobs that have a row are left alone: they are referenced, or released already
    """CREATE OR REPLACE FUNCTION release_blobs(p_blobs new_blob[], p_chunks chunk_row[], p_now_ms bigint) RETURNS void
    LANGUAGE sql AS $$
        WITH recorded AS (
            INSERT INTO blobs
            SELECT b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, release_ms(p_now_ms)
            FROM unnest(p_blobs) b ORDER BY b.blob_id ON CONFLICT DO NOTHING RETURNING blob_id)
        INSERT INTO chunks SELECT c.* FROM unnest(p_chunks) c JOIN recorded r ON r.blob_id = c.blob_id $$""",
)

FUNCTIONS_3 = (
    # as before, and the look at closed nodes: here, so that commits of the release before are refused as well
    """CREATE OR REPLACE FUNCTION insert_blobs(p_blobs new_blob[], p_chunks chunk_row[]) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        v_count bigint;
    BEGIN
        IF cardinality(p_chunks) > 0 THEN
            PERFORM require_open_nodes(ARRAY(SELECT DISTINCT c.nodes FROM unnest(p_chunks) c));
        END IF;
        INSERT INTO blobs SELECT b.blob_id, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy, NULL
        FROM unnest(p_blobs) b ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_count = ROW_COUNT;
        IF v_count <> cardinality(p_blobs) THEN
            -- a blob that was given up while its commit was still under way must not come back
            PERFORM refuse('SessionFenced', 'the blob was recorded before');
        END IF;
        INSERT INTO inline_bodies SELECT b.blob_id, b.wrapped_key, b.digest, b.sealed
        FROM unnest(p_blobs) b WHERE b.sealed IS NOT NULL;
        IF cardinality(p_chunks) > 0 THEN
            INSERT INTO chunks SELECT c.* FROM unnest(p_chunks) c;
        END IF;
    END $$""",
)

_RELEASE = "SELECT release_blobs($1, $2, $3)"
_SELECT_CHUNKS = (
    'SELECT chunk_index, "offset", length, wrapped_key, digest, nodes FROM chunks'
    " WHERE blob_id = $1 AND chunk_index >= $2 UNION ALL"
    " SELECT 0, 0, b.size, i.wrapped_key, i.digest, ''::bytea FROM inline_bodies i JOIN blobs b USING (blob_id)"
    " WHERE i.blob_id = $1 AND $2 = 0 ORDER BY 1 LIMIT $3"
)
_SELECT_RECORDED = "SELECT blob_id FROM blobs WHERE blob_id = ANY($1::bytea[])"

_IDS_PER_QUERY = 5_000


def blob_rows(session_id: bytes, blobs: Iterable[Blob]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """New blobs as arrays of new_blob and chunk_row. SessionFenced for a blob that is not of this session."""
    rows: list[tuple[Any, ...]] = []
    chunks: list[tuple[Any, ...]] = []
    for blob in blobs:
        if blob.blob_id[:SESSION_ID_BYTES] != session_id:
            raise SessionFenced("the blob is of another session")
        require_first_layout(blob)
        described = (blob.blob_id, blob.size, blob.bucket_key_id, blob.bucket_key_version, blob.redundancy)
        if blob.inline is not None:
            chunk = blob.chunks[0]
            rows.append((*described, chunk.wrapped_key, chunk.digest, blob.inline))
        else:
            rows.append((*described, None, None, None))
            chunks.extend(
                (blob.blob_id, c.index, c.offset, c.length, c.wrapped_key, c.digest, encode_nodes(c.nodes))
                for c in blob.chunks
            )
    return rows, chunks


async def release_blobs(database: Database, command: ReleaseBlobs) -> None:
    """Only chunked blobs of the session; the others have nothing to release."""
    session_id = command.session_id
    own = (
        blob
        for blob in command.blobs
        if blob.blob_id[:SESSION_ID_BYTES] == session_id and blob.inline is None and not blob.generation
    )
    rows, chunks = blob_rows(session_id, own)
    if rows:
        await database.write(_RELEASE, rows, chunks, database.now_ms())


async def read_chunks(database: Database, blob_id: bytes, from_index: int, limit: int) -> list[Chunk]:
    """See the interface."""
    return [chunk_of(row) for row in await database.read(_SELECT_CHUNKS, blob_id, from_index, limit)]


async def find_recorded(database: Database, blob_ids: Sequence[bytes]) -> set[bytes]:
    """Those of the ids that have a row; ids are looked up independently, a few thousand at a time."""
    found: set[bytes] = set()
    for at in range(0, len(blob_ids), _IDS_PER_QUERY):
        rows = await database.read(_SELECT_RECORDED, list(blob_ids[at : at + _IDS_PER_QUERY]))
        found.update(row[0] for row in rows)
    return found
