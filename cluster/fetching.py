"""What all fetches of a worker share, and what one of them has learnt: the common part of cluster.replica_fetch and
cluster.fragment_fetch, which decide what to ask for. Reading itself is in cluster.piece_read.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from cluster.chunk_slice import ChunkSlice, Layout
from cluster.deadlines import Deadlines
from cluster.hedging import Hedging
from cluster.near_pieces import NearPieces
from cluster.nodes import NodePool
from cluster.read_counts import ReadCounts
from cluster.repair_hints import RepairHints
from storage.base.errors import ChunkNotFound, Corrupt, FrostbyteError
from storage.base.ids import ChunkId
from storage.crypto.envelope import Buffer, Opener

ERRORS_TOLD_MAX = 4


class ReadServices(NamedTuple):
    """What all fetches of a worker share."""

    nodes: NodePool
    hints: RepairHints
    hedging: Hedging
    counts: ReadCounts
    deadlines: Deadlines
    near: NearPieces

    def is_doubtful(self, chunk_id: ChunkId, node: int) -> bool:
        """Whether a piece is better asked for last: its node just failed, or the piece was found lost."""
        return self.nodes.is_doubtful(node) or self.hints.is_lost(chunk_id, node)


class Attempt:
    """What one fetch of a slice has learnt, over all layouts that it tried."""

    def __init__(self, services: ReadServices) -> None:
        self.services = services
        self.is_degraded = False
        """something was asked for in place of something else"""
        self.stored_bytes = 0
        self._errors: dict[tuple[ChunkId, int], FrostbyteError] = {}

    def has_failed(self, chunk_id: ChunkId, node: int) -> bool:
        """Whether this piece cannot be had."""
        return (chunk_id, node) in self._errors

    def fail(self, chunk_id: ChunkId, node: int, error: FrostbyteError) -> None:
        """A piece could not be used. Only for a way that leads nowhere is its node asked last from now on: one lost
        piece says little about the others."""
        self.is_degraded = True
        self._errors[chunk_id, node] = error
        if not is_lost(error):
            self.services.nodes.note_failure(node)

    @property
    def all_lost(self) -> bool:
        """Whether everything that failed is missing or bad, and nothing only unreachable."""
        return all(map(is_lost, self._errors.values()))

    def told(self) -> str:
        """What was wrong, for people."""
        errors = list(self._errors.values())
        return "; ".join(str(error) for error in errors[:ERRORS_TOLD_MAX]) or "none is recorded"

    def close(self, chunk_id: ChunkId, served_bytes: int) -> None:
        """The fetch is over. chunk_id: of the newest layout; what failed of older ones may be gone by right."""
        for (found, node), error in self._errors.items():
            if found == chunk_id:
                self.services.hints.note(found, node, error)
        self.services.counts.add(self.stored_bytes, served_bytes, is_degraded=self.is_degraded)


class Fetcher(Protocol):
    """Brings slices of chunks of one kind of layout."""

    async def fetch(self, layout: Layout, opener: Opener, piece: ChunkSlice, attempt: Attempt) -> Buffer:
        """The plaintext of a slice. Corrupt when the pieces of this layout cannot give it, for certain; Unavailable
        when those that cannot be reached may still have it."""
        ...


def is_lost(error: FrostbyteError) -> bool:
    """Whether it says that the piece is not there or not right, rather than that it cannot be asked for."""
    return isinstance(error, Corrupt | ChunkNotFound)
