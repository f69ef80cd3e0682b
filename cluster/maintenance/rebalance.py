"""PURE. Which pieces move to which node so that nodes are filled evenly: by capacity, without lowering what a chunk
survives.

A node's *share* is the bytes that the records place on it for each byte of its capacity. Moving begins when the highest
share is more than a tenth above the lowest, and ends when no piece can go to a node whose share is more than 4 % below
its own: so it comes to rest, and stays there while data comes and goes.

A piece goes from the fullest of its chunk's nodes that can give it to the emptiest that may take it, and only when the
source is still as full as the target afterwards: the sum of (share² · capacity) falls with every move, so moves come to
an end whatever the order of the chunks. The figures are those of the records, not of the nodes' reports: a copy that
was moved away and is not deleted yet counts no more, so nothing is moved twice for it.

Left alone are chunks that are not whole (repair comes first), and those with a piece on a node that is not up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from cluster.domains import evaluate_losses
from cluster.redundancy import Redundancy, parse_redundancy
from storage.chunks.erasure import Striping
from storage.crypto.envelope import sealed_length
from storage.metadata.interface import ChunkPlace
from storage.model import Node, NodeState

UNEVEN_RATIO = 1.1
"""of the highest share to the lowest: more, and pieces begin to move"""
REST_RATIO = 1.04
"""of two shares: no more, and nothing moves between their nodes"""
MISPLACED_PIECES_MIN = 16
"""fewer pieces of usual size out of place are chance, not unevenness"""
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
    """What the records place on each node, by node number."""

    def __init__(self) -> None:
        self.stored: Counter[int] = Counter()
        """bytes"""
        self.pieces = 0

    def add(self, place: ChunkPlace) -> None:
        """Count one chunk, released or not: its bytes are there until it is swept."""
        for number, piece_bytes in zip(place.nodes, measure_pieces(place), strict=False):
            if number:
                self.stored[number] += piece_bytes
                self.pieces += 1


class Scales:
    """The shares of one cluster map's nodes, as of a census and of the moves that were planned since."""

    def __init__(self, nodes: Iterable[Node], census: Census) -> None:
        self._nodes = {node.number: node for node in nodes if takes_part(node)}
        self._stored = {number: census.stored[number] for number in self._nodes}
        self._room = {number: _room_bytes(node) for number, node in self._nodes.items()}
        self._ranked: list[int] | None = None
        """between two moves; most chunks are looked at without one"""
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
        if place.is_released or not all(number in self._nodes for number in place.nodes):
            return None
        redundancy = parse_redundancy(place.redundancy)
        if len(place.nodes) != redundancy.width:
            return None
        emptiest, pieces = self._takers()[:1], measure_pieces(place)
        for position in sorted(range(len(pieces)), key=lambda at: -self.share(place.nodes[at])):
            if not emptiest or not self._is_fuller(place.nodes[position], emptiest[0]):
                return None
            target = self._choose_target(place, position, pieces[position], redundancy)
            if target is not None:
                move = Move(place, position, target, pieces[position])
                self._apply(move, 1)
                return move
        return None

    def undo(self, move: Move) -> None:
        """It was not made."""
        self._apply(move, -1)

    def _choose_target(self, place: ChunkPlace, position: int, piece_bytes: int, redundancy: Redundancy) -> int | None:
        source = place.nodes[position]
        tried = islice(self._targets(place, source, piece_bytes), TARGETS_TRIED_MAX)
        return next((it for it in tried if self._survives_as_much(place, position, it, redundancy.needed)), None)

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

    def _survives_as_much(self, place: ChunkPlace, position: int, target: int, needed: int) -> bool:
        domains = [self._nodes[number].report.failure_domain for number in place.nodes]
        before = evaluate_losses(domains, needed)
        domains[position] = self._nodes[target].report.failure_domain
        after = evaluate_losses(domains, needed)
        return all(now >= was for now, was in zip(after, before, strict=True))

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


def takes_part(node: Node) -> bool:
    """Whether pieces may come from and go to a node at all; a full one only gives."""
    return node.state is NodeState.UP and not node.is_closed and node.report.capacity_bytes > 0


def measure_pieces(place: ChunkPlace) -> tuple[int, ...]:
    """How many bytes each piece of a chunk has on its node, in the order of its nodes (of fragments, all of them)."""
    redundancy = parse_redundancy(place.redundancy)
    if redundancy.is_erasure:
        return _measure_fragments(Striping(redundancy.needed, redundancy.width, sealed_length(place.length)))
    return (sealed_length(place.length),) * len(place.nodes)


@lru_cache(maxsize=256)
def _measure_fragments(striping: Striping) -> tuple[int, ...]:
    return tuple(striping.fragment_length(number) for number in range(striping.width))


def _room_bytes(node: Node) -> int:
    return max(0, node.report.free_bytes - node.report.reserve_bytes)
