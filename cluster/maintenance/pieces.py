"""PURE. The pieces of a chunk as its row describes them: replicas, or fragments by their number.

A *position* is the number of a fragment; all replicas are alike, and each is at position 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cluster.redundancy import Redundancy, parse_redundancy
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.erasure import Striping
from storage.chunks.store import DIGEST_BYTES, ChunkReceipt
from storage.crypto.envelope import sealed_length
from storage.metadata.interface import ChunkPlace

NOWHERE = 0
"""in the place of a node number: the fragment is on no node"""


_parse = lru_cache(maxsize=256)(parse_redundancy)


def redundancy_of(place: ChunkPlace) -> Redundancy:
    """How many pieces there should be, and how many are needed."""
    return _parse(place.redundancy)


def stored_id_of(place: ChunkPlace) -> ChunkId:
    """What datanodes keep every piece of it under."""
    return stored_chunk_id(place.blob_id, place.chunk_index, place.generation)


def striping_of(place: ChunkPlace) -> Striping:
    """Of an erasure-coded chunk: how its fragments are cut."""
    redundancy = redundancy_of(place)
    return Striping(redundancy.needed, redundancy.width, sealed_length(place.length))


@lru_cache(maxsize=4_096)
def _piece_length(redundancy: str, length: int, position: int) -> int:
    parsed, sealed = _parse(redundancy), sealed_length(length)
    return Striping(parsed.needed, parsed.width, sealed).fragment_length(position) if parsed.is_erasure else sealed


def length_of(place: ChunkPlace, position: int) -> int:
    """Of a piece, in bytes."""
    return _piece_length(place.redundancy, place.length, position)


def receipt_of(place: ChunkPlace, position: int) -> ChunkReceipt:
    """What a datanode says of the right bytes. ValueError for a position that the row has no digest of."""
    if not redundancy_of(place).is_erasure:
        return ChunkReceipt(length_of(place, position), place.digest)
    digest = place.digest[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES]
    if len(digest) != DIGEST_BYTES:
        raise ValueError(f"chunk {stored_id_of(place)} has no fragment {position}")
    return ChunkReceipt(length_of(place, position), digest)


def named_pieces(place: ChunkPlace) -> Iterator[tuple[int, int]]:
    """(position, node number) of every piece that the row says is somewhere."""
    if not redundancy_of(place).is_erasure:
        return ((0, number) for number in place.nodes)
    return ((position, number) for position, number in enumerate(place.nodes) if number != NOWHERE)


def position_of(place: ChunkPlace, receipt: ChunkReceipt) -> int | None:
    """Which piece of the chunk these bytes are; None for none of them."""
    redundancy = redundancy_of(place)
    positions = range(redundancy.width) if redundancy.is_erasure else range(1)
    return next((position for position in positions if receipt_of(place, position) == receipt), None)
