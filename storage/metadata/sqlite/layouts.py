"""Where the chunks of a blob lie, and in which redundancy: replicas change one chunk at a time, a layout as a whole.

The layout that a blob had before is kept, as rows of its own and without keys, until its chunks were deleted from the
nodes; so are released blobs. Both are listed by age, and forgotten by their generation, so that whoever deletes the
chunks of an old layout can never take the rows of the current one.
"""

from __future__ import annotations

from storage.metadata.commands import ForgetBlobs, Relayout, SetReplicas
from storage.metadata.records import decode_nodes, encode_nodes
from storage.metadata.rules import layouts_to_forget, require_next_generation
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.masters import require_term_if_any
from storage.metadata.sqlite.nodes import require_open_nodes

_SELECT_NODES = (
    "SELECT c.nodes, b.generation FROM chunks c JOIN blobs b ON b.blob_id = c.blob_id"
    " WHERE c.blob_id = ? AND c.chunk_index = ?"
)
_SET_NODES = "UPDATE chunks SET nodes = ? WHERE blob_id = ? AND chunk_index = ?"
_SELECT_LIVE = "SELECT generation FROM blobs WHERE blob_id = ? AND released_ms IS NULL"
_SELECT_INDEXES = "SELECT chunk_index FROM chunks WHERE blob_id = ? ORDER BY chunk_index"
_RETIRE_LAYOUT = (
    "INSERT INTO retired_layouts SELECT blob_id, generation, size, redundancy, ?1 FROM blobs WHERE blob_id = ?2"
)
_RETIRE_CHUNKS = (
    "INSERT INTO retired_chunks SELECT blob_id, ?1, chunk_index, offset, length, digest, nodes FROM chunks"
    " WHERE blob_id = ?2"
)
_SET_LAYOUT = "UPDATE blobs SET generation = ?, redundancy = ? WHERE blob_id = ?"
_SET_CHUNK = "UPDATE chunks SET digest = ?, nodes = ? WHERE blob_id = ? AND chunk_index = ?"
_FORGET_BLOB = "DELETE FROM blobs WHERE blob_id = ? AND generation = ? AND released_ms IS NOT NULL"
_DELETE_CHUNKS = "DELETE FROM chunks WHERE blob_id = ?"
_FORGET_LAYOUT = "DELETE FROM retired_layouts WHERE blob_id = ? AND generation = ?"
_DELETE_RETIRED_CHUNKS = "DELETE FROM retired_chunks WHERE blob_id = ? AND generation = ?"

RELEASED_WITH_CHUNKS = (
    "SELECT b.released_ms, b.blob_id, b.generation, b.size, b.bucket_key_id, b.bucket_key_version, b.redundancy,"
    " c.chunk_index, c.offset, c.length, c.wrapped_key, c.digest, c.nodes FROM"
    " (SELECT * FROM blobs WHERE released_ms IS NOT NULL AND released_ms < ?1 ORDER BY released_ms, blob_id LIMIT ?2) b"
    " LEFT JOIN chunks c ON c.blob_id = b.blob_id"
    " UNION ALL SELECT l.released_ms, l.blob_id, l.generation, l.size, '', 0, l.redundancy,"
    " c.chunk_index, c.offset, c.length, X'', c.digest, c.nodes FROM"
    " (SELECT * FROM retired_layouts WHERE released_ms < ?1 ORDER BY released_ms, blob_id, generation LIMIT ?2) l"
    " LEFT JOIN retired_chunks c ON c.blob_id = l.blob_id AND c.generation = l.generation ORDER BY 1, 2, 3, 8"
)
"""before_ms, limit: of released blobs and of old layouts that many each; see chunk_rows"""


def set_replicas(tx: Transaction, command: SetReplicas) -> bool:
    require_term_if_any(tx, command.term)
    added = set(command.nodes) - set(command.expected)
    if added:
        require_open_nodes(tx, [sorted(added)])
    at = (command.blob_id, command.chunk_index)
    row = tx.execute(_SELECT_NODES, at).fetchone()
    if row is None or row[1] != command.generation or decode_nodes(row[0]) != command.expected:
        return False
    tx.execute(_SET_NODES, (encode_nodes(command.nodes), *at))
    return True


def relayout(tx: Transaction, command: Relayout) -> bool:
    """The rows of the old layout are set aside before they are changed; the keys of the chunks stay."""
    require_term_if_any(tx, command.term)
    generation = require_next_generation(command)
    require_open_nodes(tx, [chunk.nodes for chunk in command.chunks])
    blob_id = command.blob_id
    live = tx.execute(_SELECT_LIVE, (blob_id,)).fetchone()
    if live is None or live[0] != command.generation or not command.chunks:
        return False
    indexes = [row[0] for row in tx.execute(_SELECT_INDEXES, (blob_id,)).fetchall()]
    if sorted(chunk.index for chunk in command.chunks) != indexes:
        return False
    tx.execute(_RETIRE_LAYOUT, (tx.now_ms, blob_id))
    tx.execute(_RETIRE_CHUNKS, (command.generation, blob_id))
    tx.execute(_SET_LAYOUT, (generation, command.redundancy, blob_id))
    tx.executemany(
        _SET_CHUNK, [(chunk.digest, encode_nodes(chunk.nodes), blob_id, chunk.index) for chunk in command.chunks]
    )
    return True


def forget_blobs(tx: Transaction, command: ForgetBlobs) -> None:
    """Referenced blobs and their current layouts are left alone, whatever the caller believes."""
    require_term_if_any(tx, command.term)
    for layout in layouts_to_forget(command):
        if tx.execute(_FORGET_BLOB, layout).rowcount == 1:
            tx.execute(_DELETE_CHUNKS, layout[:1])
        elif tx.execute(_FORGET_LAYOUT, layout).rowcount == 1:
            tx.execute(_DELETE_RETIRED_CHUNKS, layout)
