"""Which objects lack chunks, by looking at what lies in the directories of datanodes: for records of an earlier moment,
whose chunks may have been swept since.

Both sides are walked in the order of chunk ids, side by side, a page at a time.
"""

from __future__ import annotations

import heapq
import itertools
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from storage.base.files import DiskFiles
from storage.base.ids import GENERATION_SHIFT, ChunkId
from storage.chunks.inventory import read_inventory
from storage.chunks.layout import CHUNKS
from storage.chunks.store import INVENTORY_ENTRIES_MAX
from storage.metadata.chunk_rows import user_of
from storage.metadata.interface import BlobUser
from storage.metadata.sqlite.places import select_users

USERS_MAX = 1_000
"""objects that are told by name"""
USERS_PER_BLOB_MAX = 100

_PLACES = (
    f"SELECT c.blob_id, (b.generation << {GENERATION_SHIFT}) | c.chunk_index AS stored, b.redundancy"
    " FROM blobs b JOIN chunks c ON c.blob_id = b.blob_id WHERE b.released_ms IS NULL ORDER BY c.blob_id, stored"
)
_FRAGMENTS = re.compile(r"ec:([0-9]+)\+[0-9]+\Z")


class Lost(NamedTuple):
    """chunks: that cannot be read. users: the objects and parts that they are in, USERS_MAX at most."""

    chunks: int
    users: list[BlobUser]


def find_lost(connection: sqlite3.Connection, directories: Sequence[Path]) -> Lost:
    """directories: of datanodes. OSError."""
    held = itertools.groupby(heapq.merge(*map(_list_chunks, directories)))
    next_id, copies = _next(held)
    chunks, blob_ids = 0, list[bytes]()
    for blob_id, stored_index, redundancy in connection.execute(_PLACES):
        chunk_id = ChunkId(blob_id, stored_index).to_bytes()
        while next_id is not None and next_id < chunk_id:
            next_id, copies = _next(held)
        if (copies if next_id == chunk_id else 0) < _count_needed(redundancy):
            chunks += 1
            if len(blob_ids) < USERS_MAX and (not blob_ids or blob_ids[-1] != blob_id):
                blob_ids.append(blob_id)
    return Lost(chunks, _find_users(connection, blob_ids))


def _find_users(connection: sqlite3.Connection, blob_ids: Sequence[bytes]) -> list[BlobUser]:
    users: list[BlobUser] = []
    for blob_id in blob_ids:
        rows = connection.execute(select_users(1), (blob_id, USERS_PER_BLOB_MAX)).fetchall()
        users += [user_of(row) for row in rows]
        if len(users) >= USERS_MAX:
            break
    return users[:USERS_MAX]


def _list_chunks(directory: Path) -> Iterator[bytes]:
    """Ids in order."""
    after: ChunkId | None = None
    while True:
        page = read_inventory(DiskFiles(), str(directory / CHUNKS), after, INVENTORY_ENTRIES_MAX)
        yield from (entry.chunk_id for entry in page)
        if len(page) < INVENTORY_ENTRIES_MAX:
            return
        last = page[-1].chunk_id
        after = ChunkId(last[:16], int.from_bytes(last[16:], "big"))


def _next(held: Iterator[tuple[bytes, Iterator[bytes]]]) -> tuple[bytes | None, int]:
    """(chunk id, how many datanodes have it)"""
    found = next(held, None)
    return (None, 0) if found is None else (found[0], sum(1 for _ in found[1]))


def _count_needed(redundancy: str) -> int:
    match = _FRAGMENTS.match(redundancy)
    return int(match[1]) if match else 1
