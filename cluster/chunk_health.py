"""PURE. How a chunk is, by what the nodes said of its pieces, and an object by its chunks; for people and for JSON."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cluster.domains import SurvivableLosses, evaluate_losses
from cluster.maintenance.pieces import redundancy_of
from cluster.maintenance.survey import Health
from cluster.redundancy import INLINE
from storage.metadata.interface import ChunkPlace

_WORST_FIRST = (Health.LOST, Health.UNAVAILABLE, Health.ENDANGERED, Health.DEGRADED, Health.HEALTHY)


class PieceState(enum.StrEnum):
    """What a look at one piece found."""

    GOOD = "good"
    """there, with the length and the digest of the record"""
    MISSING = "missing"
    """not there, on a node that left the cluster, or on none"""
    DAMAGED = "damaged"
    """there, and not what was stored"""
    UNREACHABLE = "unreachable"
    """its node does not answer, or is dead: it may come back"""


class PieceHealth(NamedTuple):
    """A replica, or a fragment."""

    position: int
    """the number of a fragment; 0 of a replica"""
    node: int
    """0: a fragment that is nowhere"""
    failure_domain: str
    """empty for a node that is not known any more"""
    state: PieceState
    verified_ms: int
    """when it was last read whole from the medium and found right; 0: never since it was stored, or not known"""


class ChunkHealth(NamedTuple):
    """One chunk. offset: in the object. An inline one has no pieces: it lives in the metadata, and is as durable."""

    blob_id: bytes
    chunk_index: int
    offset: int
    length: int
    redundancy: str
    pieces: tuple[PieceHealth, ...]
    losses: SurvivableLosses | None
    """what it survives with the pieces that are good now; negative numbers when it cannot be read; None inline"""
    health: Health


class ObjectHealth(NamedTuple):
    """What the chunks of an object add up to."""

    version_id: str
    size: int
    health: Health
    """of the worst chunk"""
    blobs: dict[str, int]
    """by redundancy; `inline` ones live in the metadata"""
    chunks: dict[Health, int]
    pieces: dict[PieceState, int]
    losses: SurvivableLosses | None
    """the least that any chunk survives; None when there is no chunk outside the metadata"""
    unverified: int
    """good pieces that were never read from the medium since they were stored"""
    oldest_verified_ms: int
    """of the other good pieces; 0 when there are none"""


def assess_chunk(place: ChunkPlace, offset: int, pieces: Sequence[PieceHealth]) -> ChunkHealth:
    """pieces: all that the record names, in its order. ValueError for a redundancy that is none."""
    redundancy = redundancy_of(place)
    good = [piece for piece in pieces if piece.state is PieceState.GOOD]
    hoped_for = sum(piece.state is PieceState.UNREACHABLE for piece in pieces)
    if len(good) >= redundancy.width:
        health = Health.HEALTHY
    elif len(good) > redundancy.needed:
        health = Health.DEGRADED
    elif len(good) == redundancy.needed:
        health = Health.ENDANGERED
    else:
        health = Health.UNAVAILABLE if len(good) + hoped_for >= redundancy.needed else Health.LOST
    losses = evaluate_losses([piece.failure_domain for piece in good], redundancy.needed)
    return ChunkHealth(
        place.blob_id,
        place.chunk_index,
        offset,
        place.length,
        place.redundancy,
        tuple(pieces),
        losses,
        health,
    )


def inline_chunk(blob_id: bytes, offset: int, length: int) -> ChunkHealth:
    """The only chunk of a blob that lives in the metadata."""
    return ChunkHealth(blob_id, 0, offset, length, INLINE, (), None, Health.HEALTHY)


class HealthTally:
    """Adds up the chunks of one object; bounded, whatever their number."""

    def __init__(self, version_id: str, size: int) -> None:
        self._version_id = version_id
        self._size = size
        self._blobs: Counter[str] = Counter()
        self._chunks: Counter[Health] = Counter()
        self._pieces: Counter[PieceState] = Counter()
        self._losses: SurvivableLosses | None = None
        self._unverified = 0
        self._oldest_verified_ms = 0

    def add(self, chunk: ChunkHealth) -> None:
        """One more. A blob is counted with its first chunk."""
        self._chunks[chunk.health] += 1
        if chunk.chunk_index == 0:
            self._blobs[chunk.redundancy] += 1
        if chunk.losses is not None:
            least = chunk.losses if self._losses is None else map(min, self._losses, chunk.losses)
            self._losses = SurvivableLosses(*least)
        for piece in chunk.pieces:
            self._pieces[piece.state] += 1
            if piece.state is not PieceState.GOOD:
                continue
            if not piece.verified_ms:
                self._unverified += 1
            elif not self._oldest_verified_ms or piece.verified_ms < self._oldest_verified_ms:
                self._oldest_verified_ms = piece.verified_ms

    @property
    def health(self) -> ObjectHealth:
        """Of what was added so far."""
        worst = next((word for word in _WORST_FIRST if self._chunks[word]), Health.HEALTHY)
        return ObjectHealth(
            self._version_id,
            self._size,
            worst,
            dict(self._blobs),
            {word: self._chunks[word] for word in _WORST_FIRST if self._chunks[word]},
            {state: self._pieces[state] for state in PieceState if self._pieces[state]},
            self._losses,
            self._unverified,
            self._oldest_verified_ms,
        )
