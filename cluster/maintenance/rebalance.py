"""PURE. Which pieces move to which node, so that chunks are as far apart as the nodes allow (spread.py), and so that
nodes are filled evenly, by capacity, without lowering what a chunk survives.

A node's *share* is the bytes that the records place on it for each byte of its capacity. Moving for evenness begins
when the highest share is more than a tenth above the lowest, and ends when no piece can go to a node whose share is
more than 4 % below its own: so it comes to rest, and stays there while data comes and goes.

For evenness a piece goes from the fullest of its chunk's nodes that can give it to the emptiest that may take it, and
only when the source is still as full as the target afterwards, and the chunk no more crowded: the sum of
(share² · capacity) falls with every move. A move that spreads a chunk makes it less crowded, whatever that does to the
shares. So moves come to an end whatever the order of the chunks. The figures are those of the records, not of the
nodes' reports: a copy that was moved away and is not deleted yet counts no more, so nothing is moved twice for it.

Left alone are chunks that are not whole (repair comes first), and those with a piece on a node that is not up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from cluster.domains import evaluate_losses
from cluster.maintenance.spread import Spread, room_bytes, takes_part
from cluster.redundancy import Redundancy, parse_redundancy
from storage.chunks.erasure import Striping
from storage.crypto.envelope import sealed_length
from storage.metadata.interface import ChunkPlace
from storage.model import Node

UNEVEN_RATIO = 1.1
"""of the highest share to the lowest: more, and pieces begin to move"""
REST_RATIO = 1.04
"""of two shares: no more, and nothing moves between their nodes"""
MISPLACED_PIECES_MIN = 16
"""fewer pieces of usual size out of place are chance, not unevenness"""
HOPELESS_MAX = 10_000
"""kinds of crowded chunks that are remembered as those for which nothing can be done"""
TARGETS_TRIED_MAX = 16
"""for one piece: the emptiest ones; in an uneven tree of domains hardly any target may be allowed"""


class Move(NamedTuple):
    """One piece of a chunk, the one at `position` of its nodes, goes to another node."""

    place: ChunkPlace
    position: int
    target: int
    piece_bytes: int

    @property
    def source(self) -> int:
        """The node that it is on."""
        return self.place.nodes[self.position]

    @property
    def nodes(self) -> tuple[int, ...]:
        """What the row names afterwards."""
        before = self.place.nodes
        return (*before[: self.position], self.target, *before[self.position + 1 :])


class Census:
    """What the records place on each node, by node number, and how many chunks are crowded."""

    def __init__(self, spread: Spread) -> None:
        self.spread = spread
        self.stored: Counter[int] = Counter()
        """bytes"""
        self.pieces = 0
        self.crowded = 0

    def add(self, place: ChunkPlace) -> None:
        """Count one chunk, released or not: its bytes are there until it is swept."""
        for number, piece_bytes in zip(place.nodes, measure_pieces(place), strict=False):
            if number:
                self.stored[number] += piece_bytes
                self.pieces += 1
        if not place.is_released and self.spread.is_crowded(place.nodes):
            self.crowded += 1


class Scales:
    """The shares of one cluster map's nodes, as of a census and of the moves that were planned since."""

    def __init__(self, nodes: Iterable[Node], census: Census) -> None:
        self._nodes = {node.number: node for node in nodes if takes_part(node)}
        self._stored = {number: census.stored[number] for number in self._nodes}
        self._spread = census.spread
        self._room = {number: room_bytes(node) for number, node in self._nodes.items()}
        self._ranked: list[int] | None = None
        """between two moves; most chunks are looked at without one"""
        self._hopeless: set[tuple[str, tuple[int, ...]]] = set()
        """redundancies and nodes of crowded chunks that no move spreads"""
        self._piece_bytes = sum(census.stored.values()) / census.pieces if census.pieces else 0.0

    @property
    def is_uneven(self) -> bool:
        """Whether moving should begin."""
        return self._exceeds(UNEVEN_RATIO) and self.misplaced_bytes >= MISPLACED_PIECES_MIN * self._piece_bytes > 0

    @property
    def is_at_rest(self) -> bool:
        """Whether moving should end: no two nodes are far apart. (Domains may not let it come to that.)"""
        return not self._exceeds(REST_RATIO)

    @property
    def misplaced_bytes(self) -> int:
        """What is above the average share, on all nodes together: about as much as will move."""
        capacity = sum(node.report.capacity_bytes for node in self._nodes.values())
        level = sum(self._stored.values()) / capacity if capacity else 0.0
        above = (self._stored[it] - level * node.report.capacity_bytes for it, node in self._nodes.items())
        return round(sum(excess for excess in above if excess > 0))

    def share(self, number: int) -> float:
        """Of one node that takes part."""
        return self._stored[number] / self._nodes[number].report.capacity_bytes

    def plan(self, place: ChunkPlace) -> Move | None:
        """A move of one of the chunk's pieces that makes the cluster more even; None when there is none. The move is
        counted at once: `undo` it when it is not carried out."""
        redundancy = self._find_redundancy(place)
        if redundancy is None:
            return None
        emptiest, pieces = self._takers()[:1], measure_pieces(place)
        for position in sorted(range(len(pieces)), key=lambda at: -self.share(place.nodes[at])):
            if not emptiest or not self._is_fuller(place.nodes[position], emptiest[0]):
                return None
            target = self._choose_target(place, position, pieces[position], redundancy)
            if target is not None:
                return self._count(Move(place, position, target, pieces[position]))
        return None

    def plan_spread(self, place: ChunkPlace) -> Move | None:
        """The move of one of the chunk's pieces that makes it least crowded, counted as by `plan`; None when there is
        none. The next piece may move when the row was changed."""
        redundancy = self._find_redundancy(place)
        key = (place.redundancy, place.nodes)
        if redundancy is None or key in self._hopeless or not self._spread.is_crowded(place.nodes):
            return None
        pieces, best = measure_pieces(place), None
        least = self._spread.measure(place.nodes)
        for position, piece_bytes in enumerate(pieces):
            for target in self._takers():
                if target in place.nodes or self._room[target] < piece_bytes:
                    continue
                move = Move(place, position, target, piece_bytes)
                crowding = self._spread.measure(move.nodes)
                if crowding < least and self._survives_as_much(move, redundancy):
                    best, least = move, crowding
        if best is None:
            if len(self._hopeless) < HOPELESS_MAX:
                self._hopeless.add(key)
            return None
        return self._count(best)

    def undo(self, move: Move) -> None:
        """It was not made."""
        self._apply(move, -1)

    def _choose_target(self, place: ChunkPlace, position: int, piece_bytes: int, redundancy: Redundancy) -> int | None:
        source = place.nodes[position]
        crowding = self._spread.measure(place.nodes)
        for target in islice(self._targets(place, source, piece_bytes), TARGETS_TRIED_MAX):
            move = Move(place, position, target, piece_bytes)
            if self._spread.measure(move.nodes) <= crowding and self._survives_as_much(move, redundancy):
                return target
        return None

    def _targets(self, place: ChunkPlace, source: int, piece_bytes: int) -> Iterator[int]:
        """The emptiest first; only those that are no fuller than the source afterwards."""
        source_share = self.share(source) - piece_bytes / self._nodes[source].report.capacity_bytes
        for number in self._takers():
            if not self._is_fuller(source, number):
                return
            share = self.share(number) + piece_bytes / self._nodes[number].report.capacity_bytes
            if share <= source_share and self._room[number] >= piece_bytes and number not in place.nodes:
                yield number

    def _takers(self) -> list[int]:
        """The nodes with room, the emptiest first."""
        if self._ranked is None:
            self._ranked = sorted((number for number, room in self._room.items() if room > 0), key=self.share)
        return self._ranked

    def _find_redundancy(self, place: ChunkPlace) -> Redundancy | None:
        """None for a chunk that is left alone."""
        if place.is_released or not all(number in self._nodes for number in place.nodes):
            return None
        redundancy = parse_redundancy(place.redundancy)
        return redundancy if len(place.nodes) == redundancy.width else None

    def _survives_as_much(self, move: Move, redundancy: Redundancy) -> bool:
        """At every level."""
        before, after = (
            evaluate_losses([self._nodes[number].report.failure_domain for number in numbers], redundancy.needed)
            for numbers in (move.place.nodes, move.nodes)
        )
        return all(now >= was for now, was in zip(after, before, strict=True))

    def _count(self, move: Move) -> Move:
        self._apply(move, 1)
        return move

    def _apply(self, move: Move, sign: int) -> None:
        self._stored[move.source] -= sign * move.piece_bytes
        self._stored[move.target] += sign * move.piece_bytes
        self._room[move.target] -= sign * move.piece_bytes
        self._ranked = None

    def _is_fuller(self, number: int, other: int) -> bool:
        return self.share(number) > REST_RATIO * self.share(other)

    def _exceeds(self, ratio: float) -> bool:
        """Of the fullest node to the emptiest of those that can take something."""
        highest = max(map(self.share, self._nodes), default=0.0)
        return highest > ratio * min(map(self.share, self._takers()), default=highest)


def measure_pieces(place: ChunkPlace) -> tuple[int, ...]:
    """How many bytes each piece of a chunk has on its node, in the order of its nodes (of fragments, all of them)."""
    redundancy = parse_redundancy(place.redundancy)
    if redundancy.is_erasure:
        return _measure_fragments(Striping(redundancy.needed, redundancy.width, sealed_length(place.length)))
    return (sealed_length(place.length),) * len(place.nodes)


@lru_cache(maxsize=256)
def _measure_fragments(striping: Striping) -> tuple[int, ...]:
    return tuple(striping.fragment_length(number) for number in range(striping.width))
