"""What reads noticed about replicas that are missing or bad: bounded, newest kept, for repair and for people."""

from __future__ import annotations

from typing import NamedTuple

from storage.base.errors import ChunkNotFound, Corrupt, SealBroken
from storage.base.ids import ChunkId

HINTS_MAX = 10_000
LOST = frozenset((ChunkNotFound.__name__, Corrupt.__name__, SealBroken.__name__))
"""errors that tell of the piece itself, not of the way to it"""


class RepairHint(NamedTuple):
    """One replica of one chunk. error: the class name of what was wrong with it. node 0: a copy that was never made."""

    chunk_id: ChunkId
    node: int
    error: str


class RepairHints:
    """A set in order of arrival; above HINTS_MAX the oldest are forgotten (a scrub finds them again)."""

    def __init__(self, hints_max: int = HINTS_MAX) -> None:
        self._hints_max = hints_max
        self._hints: dict[tuple[ChunkId, int], str] = {}

    def __len__(self) -> int:
        return len(self._hints)

    def note(self, chunk_id: ChunkId, node: int, error: Exception) -> None:
        """Remember that this node's replica could not be used."""
        self.restore(RepairHint(chunk_id, node, type(error).__name__))

    def is_lost(self, chunk_id: ChunkId, node: int) -> bool:
        """Whether this node's piece was found missing or bad, and nobody has looked after it since."""
        return self._hints.get((chunk_id, node)) in LOST

    def restore(self, hint: RepairHint) -> None:
        """Remember a hint (again), as the newest."""
        place = (hint.chunk_id, hint.node)
        self._hints.pop(place, None)
        while len(self._hints) >= self._hints_max:
            del self._hints[next(iter(self._hints))]
        self._hints[place] = hint.error

    def listed(self) -> list[RepairHint]:
        """The oldest first."""
        return [RepairHint(chunk_id, node, error) for (chunk_id, node), error in self._hints.items()]

    def take(self, limit: int) -> list[RepairHint]:
        """Remove and return up to `limit`, the oldest first."""
        taken = self.listed()[:limit]
        for hint in taken:
            del self._hints[(hint.chunk_id, hint.node)]
        return taken
