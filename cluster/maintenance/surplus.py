"""PURE. Which surplus pieces may go: a memory of when each was first seen, and what must hold of its chunk.

A surplus piece goes when two walks a minimum age apart both saw it, when no read is left that began before the first of
them did (such a read may have an older row), and when every piece that the row names was found whole right before, by
its digest, and read from the medium where that was not done since it was stored or since its node came back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from cluster.maintenance.pieces import named_pieces, receipt_of, redundancy_of
from cluster.maintenance.repair import Finding
from cluster.maintenance.survey import ChunkSurvey, Surplus
from storage.chunks.store import ChunkReceipt, ChunkState
from storage.metadata.interface import ChunkPlace

SEEN_MAX = 100_000
"""pieces remembered; more are found when these are gone"""

_Key = tuple[int, bytes]


class SurplusMemory:
    """`note` every surplus piece that a walk finds, between `begin_walk` and `end_walk`."""

    def __init__(self, age_s: float, seen_max: int = SEEN_MAX) -> None:
        self._age_s = age_s
        self._seen_max = seen_max
        self._seen: dict[_Key, float] = {}
        """as of the last walk: (node, stored id) → when a walk that saw it first began"""
        self._seeing: dict[_Key, float] = {}
        self._began_s = 0.0

    def __len__(self) -> int:
        """Pieces that the last walk saw."""
        return len(self._seen)

    @property
    def ripe_s(self) -> float | None:
        """When the first of them will be old enough; None when there is none."""
        return min(self._seen.values()) + self._age_s if self._seen else None

    def begin_walk(self, now_s: float) -> None:
        """Nothing of this walk was seen yet."""
        self._seeing.clear()
        self._began_s = now_s

    def note(self, surplus: Surplus, reads_since_s: float, kept_s: float = 0.0) -> bool:
        """Whether the piece is old enough to go. reads_since_s: no read that still runs began before. kept_s: how old
        it has to be, if that is more than any must be."""
        key = (surplus.node, surplus.chunk_id.to_bytes())
        first_s = self._seen.get(key, self._began_s)
        if len(self._seeing) < self._seen_max:
            self._seeing[key] = first_s
        is_old = self._began_s - first_s >= max(self._age_s, kept_s)
        return is_old and reads_since_s > first_s and first_s < self._began_s

    def forget(self, surplus: Surplus) -> None:
        """It is gone."""
        self._seeing.pop((surplus.node, surplus.chunk_id.to_bytes()), None)

    def end_walk(self, silent: Collection[int]) -> None:
        """silent: nodes that this walk did not look through; what is known of them stays."""
        kept = {key: first_s for key, first_s in self._seen.items() if key[0] in silent}
        self._seen = {**kept, **self._seeing}
        self._seeing = {}

    def clear(self) -> None:
        """Forget everything."""
        self._seen.clear()
        self._seeing.clear()


def is_settled(chunk: ChunkSurvey) -> bool:
    """Whether every piece that the row should name was listed, on nodes that are there to stay."""
    is_good = all(piece.finding is Finding.GOOD for piece in chunk.pieces)
    return is_good and len(chunk.pieces) >= redundancy_of(chunk.place).width


def find_unverified(
    place: ChunkPlace, states: Mapping[int, ChunkState | None], returned_ms: Mapping[int, int]
) -> list[int] | None:
    """The nodes whose piece has to be read from the medium before a surplus piece of the chunk may go; None when a
    piece is not there as the row says, so that nothing may. states: of every node that the row names, as found just
    now. returned_ms: when nodes came back that had been dead."""
    unverified = []
    for position, number in named_pieces(place):
        state = states.get(number)
        if state is None or ChunkReceipt(state.length, state.digest) != receipt_of(place, position):
            return None
        if state.verified_ms == 0 or state.verified_ms <= returned_ms.get(number, 0):
            unverified.append(number)
    return unverified


def same_placement(place: ChunkPlace, later: Iterable[ChunkPlace]) -> bool:
    """Whether the row still says what it said, and its blob is not released."""
    return any(place == it for it in later) and not place.is_released
