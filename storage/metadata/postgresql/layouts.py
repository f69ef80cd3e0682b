"""Where the chunks of a blob lie, and in which redundancy: replicas change one chunk at a time, a layout as a whole.

The layout that a blob had before is kept, as rows of its own and without keys, until its chunks were deleted from the
nodes; so are released blobs. Both are listed by age, and forgotten by their generation, so that whoever deletes the
chunks of an old layout can never take the rows of the current one. A change of replicas holds the blob's row shared, a
new layout holds it for update: it waits for the former, and those that come later find another generation.
"""

from __future__ import annotations

from storage.metadata.chunk_rows import collect_released
from storage.metadata.commands import ForgetBlobs, Relayout, SetReplicas
from storage.metadata.postgresql.database import Database
from storage.metadata.records import encode_nodes
from storage.metadata.rules import layouts_to_forget, require_next_generation
from storage.model import Blob

FUNCTIONS_3 = (
    # p_added: of the nodes those that were not expected
    """CREATE FUNCTION set_replicas(
        p_blob_id bytea, p_chunk_index bigint, p_generation integer, p_expected bytea, p_nodes bytea, p_added bytea,
        p_term bigint) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM require_term(p_term);
        IF length(p_added) > 0 THEN
            PERFORM require_open_nodes(ARRAY[p_added]);
        END IF;
        PERFORM 1 FROM blobs b WHERE b.blob_id = p_blob_id AND b.generation = p_generation FOR SHARE;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        UPDATE chunks SET nodes = p_nodes
        WHERE blob_id = p_blob_id AND chunk_index = p_chunk_index AND nodes = p_expected;
        RETURN FOUND;
    END $$""",
    # the rows of the old layout are set aside before they are changed; the keys of the chunks stay
    """CREATE FUNCTION relayout(
        p_blob_id bytea, p_generation integer, p_new_generation integer, p_redundancy text, p_chunks chunk_layout[],
        p_term bigint, p_now_ms bigint) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM require_term(p_term);
        PERFORM require_open_nodes(ARRAY(SELECT DISTINCT p.nodes FROM unnest(p_chunks) p));
        PERFORM 1 FROM blobs b
        WHERE b.blob_id = p_blob_id AND b.generation = p_generation AND b.released_ms IS NULL FOR UPDATE;
        IF NOT FOUND OR cardinality(p_chunks) = 0
            OR ARRAY(SELECT c.chunk_index FROM chunks c WHERE c.blob_id = p_blob_id ORDER BY c.chunk_index)
            <> ARRAY(SELECT p.chunk_index FROM unnest(p_chunks) p ORDER BY p.chunk_index) THEN
            RETURN false;
        END IF;
        INSERT INTO retired_layouts SELECT b.blob_id, b.generation, b.size, b.redundancy, release_ms(p_now_ms)
        FROM blobs b WHERE b.blob_id = p_blob_id;
        INSERT INTO retired_chunks
        SELECT c.blob_id, p_generation, c.chunk_index, c.offset, c.length, c.digest, c.nodes
        FROM chunks c WHERE c.blob_id = p_blob_id;
        UPDATE blobs SET generation = p_new_generation, redundancy = p_redundancy WHERE blob_id = p_blob_id;
        UPDATE chunks c SET digest = p.digest, nodes = p.nodes FROM unnest(p_chunks) p
        WHERE c.blob_id = p_blob_id AND c.chunk_index = p.chunk_index;
        RETURN true;
    END $$""",
    # of each blob id and generation: what is referenced, or has another generation by now, is left alone
    """CREATE FUNCTION forget_blobs(p_blob_ids bytea[], p_generations integer[], p_term bigint) RETURNS void
    LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM require_term(p_term);
        WITH gone AS (
            DELETE FROM blobs b USING unnest(p_blob_ids, p_generations) a(blob_id, generation)
            WHERE b.blob_id = a.blob_id AND b.generation = a.generation AND b.released_ms IS NOT NULL
            RETURNING b.blob_id)
        DELETE FROM chunks c USING gone g WHERE c.blob_id = g.blob_id;
        WITH gone AS (
            DELETE FROM retired_layouts l USING unnest(p_blob_ids, p_generations) a(blob_id, generation)
            WHERE l.blob_id = a.blob_id AND l.generation = a.generation RETURNING l.blob_id, l.generation)
        DELETE FROM retired_chunks c USING gone g WHERE c.blob_id = g.blob_id AND c.generation = g.generation;
    END $$""",
)

_SET_REPLICAS = "SELECT set_replicas($1, $2, $3, $4, $5, $6, $7)"
_RELAYOUT = "SELECT relayout($1, $2, $3, $4, $5, $6, $7)"
_FORGET = "SELECT forget_blobs($1, $2, $3)"
_SELECT_RELEASED = (
    "SELECT b.released_ms, b.blob_id, b.generation, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy,"
    " c.chunk_index, c.offset, c.length, c.wrapped_key, c.digest, c.nodes FROM"
    " (SELECT * FROM blobs WHERE released_ms IS NOT NULL AND released_ms < $1 ORDER BY released_ms, blob_id LIMIT $2) b"
    " LEFT JOIN chunks c ON c.blob_id = b.blob_id"
    " UNION ALL SELECT l.released_ms, l.blob_id, l.generation, l.size, '', 0, l.redundancy,"
    " c.chunk_index, c.offset, c.length, ''::bytea, c.digest, c.nodes FROM"
    " (SELECT * FROM retired_layouts WHERE released_ms < $1 ORDER BY released_ms, blob_id, generation LIMIT $2) l"
    " LEFT JOIN retired_chunks c ON c.blob_id = l.blob_id AND c.generation = l.generation ORDER BY 1, 2, 3, 8"
)


async def set_replicas(database: Database, command: SetReplicas) -> bool:
    """One row, compared and set."""
    added = sorted(set(command.nodes) - set(command.expected))
    ((is_set,),) = await database.write(
        _SET_REPLICAS,
        command.blob_id,
        command.chunk_index,
        command.generation,
        encode_nodes(command.expected),
        encode_nodes(command.nodes),
        encode_nodes(added),
        command.term,
    )
    return bool(is_set)


async def relayout(database: Database, command: Relayout) -> bool:
    """See the command."""
    generation = require_next_generation(command)
    chunks = [(chunk.index, chunk.digest, encode_nodes(chunk.nodes)) for chunk in command.chunks]
    ((is_set,),) = await database.write(
        _RELAYOUT,
        command.blob_id,
        command.generation,
        generation,
        command.redundancy,
        chunks,
        command.term,
        database.now_ms(),
    )
    return bool(is_set)


async def forget_blobs(database: Database, command: ForgetBlobs) -> None:
    """Referenced blobs and their current layouts are left alone, whatever the caller believes."""
    layouts = layouts_to_forget(command)
    blob_ids, generations = [blob_id for blob_id, _ in layouts], [generation for _, generation in layouts]
    await database.write(_FORGET, blob_ids, generations, command.term)


async def list_released(database: Database, before_ms: int, limit: int) -> list[Blob]:
    """See the interface. Of released blobs and of old layouts `limit` each are read; the oldest of both are given."""
    return collect_released(await database.read(_SELECT_RELEASED, before_ms, limit), limit)
