"""PURE. Which nodes hold a chunk: column after column of a Latin rectangle over the nodes that can take it.

Nodes stand in a circle; column c of a rectangle starts at place c and has its further rows a fixed shift on. As long as
the shifts stay, every row visits every node once per turn of the circle: the shares are exact. After each turn the
shifts change, over all that there are, so the replicas of one node's chunks lie on all the others and a lost node is
rebuilt by all of them. A blob's chunks take consecutive columns, and so do the blobs of one writer.

The circle orders the nodes so that neighbours are as far apart as can be (zone, then host, then disk). Where the tree
of failure domains is even, a shift alone says how far apart two rows are, and only the farthest shifts are used. Where
it is uneven, or capacities differ, each chunk ranks the nodes by a hash weighted with capacity (weighted rendezvous:
Schindelhauer, Schomaker 2005) and takes the best-ranked of those farthest from the ones taken: shares are statistical.
Placements are recorded with each chunk, so nothing that is stored moves when this changes.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence

from cluster.domains import Levels, parse_levels
from storage.base.errors import NotEnoughNodes
from storage.base.ids import SESSION_ID_BYTES
from storage.model import Node, NodeState

EQUAL_CAPACITY_RATIO = 1.1
"""capacities that differ by less are equal: file systems of one size never report quite the same"""
SHIFTS_REMEMBERED_MAX = 1_024
SUBSTITUTES_MAX = 16
"""a write that finds so many nodes full or dead has other troubles"""

_RANK = struct.Struct(">QII")
_SHIFT = struct.Struct(">QI")


def make_blob_seed(blob_id: bytes) -> int:
    """Where a blob's columns begin. Blobs of one session follow each other, so that objects of one chunk have exact
    shares as well; sessions begin anywhere."""
    digest = hashlib.blake2b(blob_id[:SESSION_ID_BYTES], digest_size=6).digest()
    return int.from_bytes(digest, "big") + int.from_bytes(blob_id[SESSION_ID_BYTES:], "big")


def is_full(node: Node) -> bool:
    """Whether only the reserve is left."""
    return node.report.free_bytes <= node.report.reserve_bytes


def eligible(nodes: Iterable[Node], replicas: int) -> list[Node]:
    """The nodes that new chunks may go to: up, with room. NotEnoughNodes when they are fewer than the replicas.

    A suspect node, silent for a moment, is asked only when the others are too few: it may be back before it is dead.
    """
    roomy = [node for node in nodes if not is_full(node)]
    found = [node for node in roomy if node.state is NodeState.UP]
    if len(found) < replicas:
        found += [node for node in roomy if node.state is NodeState.SUSPECT]
    if len(found) < replicas:
        raise NotEnoughNodes(f"{replicas} nodes are needed, {len(found)} can take a chunk", eligible=str(len(found)))
    return found


class Placement:
    """The rectangle over one set of nodes; make it once per cluster map. Nodes are taken as given: see `eligible`."""

    def __init__(self, nodes: Sequence[Node], replicas: int) -> None:
        if replicas < 1:
            raise ValueError("at least one replica")
        if len(nodes) < replicas:
            raise NotEnoughNodes(f"{replicas} nodes are needed, there are {len(nodes)}", eligible=str(len(nodes)))
        self._replicas = replicas
        self._nodes = sorted(nodes, key=lambda node: node.number)
        self._levels = {node.number: parse_levels(node.report.failure_domain) for node in self._nodes}
        self._circle = self._even_circle()
        self._moduli = [len({levels[depth] for levels in self._levels.values()}) for depth in range(3)]
        self._shifts: dict[int, list[int]] = {}

    def column(self, blob_seed: int, chunk_index: int) -> list[Node]:
        """The nodes of one chunk: all different, as far apart as they can be; the first is no better than the rest."""
        position = blob_seed + chunk_index
        if self._circle is None:
            return self._pick(position, [], self._replicas)
        turn, start = divmod(position, len(self._circle))
        shifts = self._shifts.get(turn)
        if shifts is None:
            shifts = self._remember_shifts(turn)
        return [self._circle[(start + shift) % len(self._circle)] for shift in shifts]

    def substitutes(self, blob_seed: int, chunk_index: int, holders: Sequence[Node]) -> list[Node]:
        """Other nodes, best first, to stand in for one that is full or does not answer, or to take a repaired copy:
        each as far from the holders and from the ones before it as can be. holders need not be among the nodes."""
        return self._pick(blob_seed + chunk_index, holders, SUBSTITUTES_MAX)

    def candidates(self, blob_seed: int, chunk_index: int) -> list[Node]:
        """The order in which a writer tries nodes: the column, then its substitutes."""
        column = self.column(blob_seed, chunk_index)
        if len(column) == len(self._nodes):
            return column
        return column + self.substitutes(blob_seed, chunk_index, column)

    # ------------------------------------------------------------------ even: shifts around the circle

    def _even_circle(self) -> list[Node] | None:
        """The nodes ordered so that zone, host, disk are the place modulo their counts; None when they are uneven."""
        capacities = [node.report.capacity_bytes for node in self._nodes]
        if max(capacities) > max(1, min(capacities)) * EQUAL_CAPACITY_RATIO:
            return None
        return _interleave(self._nodes, self._levels, 0)

    def _remember_shifts(self, turn: int) -> list[int]:
        if len(self._shifts) >= SHIFTS_REMEMBERED_MAX:
            self._shifts.clear()
        shifts = self._shifts[turn] = self._choose_shifts(turn)
        return shifts

    def _choose_shifts(self, turn: int) -> list[int]:
        """The shifts of all rows for one turn of the circle. The second row goes through all that are farthest, one per
        turn; further rows take the farthest from those chosen, in an order drawn for the turn."""
        size = len(self._nodes)
        chosen = [0]
        left = sorted(range(1, size), key=lambda shift: _draw(_SHIFT.pack(turn % 2**64, shift)))
        used = [Counter([0]) for _ in self._moduli]
        while len(chosen) < self._replicas:
            shared = {shift: self._shared_shifts(shift, used) for shift in left}
            least = min(shared.values())
            farthest = [shift for shift in left if shared[shift] == least]
            shift = sorted(farthest)[turn % len(farthest)] if len(chosen) == 1 else farthest[0]
            chosen.append(shift)
            left.remove(shift)
            for counter, modulus in zip(used, self._moduli, strict=True):
                counter[shift % modulus] += 1
        return chosen

    def _shared_shifts(self, shift: int, used: list[Counter[int]]) -> list[int]:
        return [counter[shift % modulus] for counter, modulus in zip(used, self._moduli, strict=True)]

    # ------------------------------------------------------------------ uneven: a weighted rank per chunk

    def _pick(self, position: int, holders: Sequence[Node], count: int) -> list[Node]:
        """Up to `count` nodes beside the holders: of those farthest from all before, the best-ranked."""
        held = {node.number for node in holders}
        left = sorted((node for node in self._nodes if node.number not in held), key=lambda node: _rank(position, node))
        used: list[Counter[str]] = [Counter(), Counter(), Counter()]
        for node in holders:
            _count(used, parse_levels(node.report.failure_domain))
        chosen: list[Node] = []
        while left and len(chosen) < count:
            node = min(left, key=lambda node: _shared(used, self._levels[node.number]))
            chosen.append(node)
            left.remove(node)
            _count(used, self._levels[node.number])
        return chosen


def choose_column(blob_seed: int, chunk_index: int, nodes: Sequence[Node], replicas: int) -> list[Node]:
    """The nodes of one chunk; see Placement, which a caller with many chunks keeps. NotEnoughNodes."""
    return Placement(nodes, replicas).column(blob_seed, chunk_index)


def choose_substitutes(blob_seed: int, chunk_index: int, nodes: Sequence[Node], holders: Sequence[Node]) -> list[Node]:
    """The nodes beside the holders, best first; see Placement.substitutes."""
    return Placement(nodes, 1).substitutes(blob_seed, chunk_index, holders) if nodes else []


def _interleave(nodes: Sequence[Node], levels: dict[int, Levels], depth: int) -> list[Node] | None:
    """Nodes of an even tree dealt out like cards: neighbours in different zones, then hosts, then disks."""
    if depth == 3:
        return list(nodes)
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        groups.setdefault(levels[node.number][depth], []).append(node)
    dealt = []
    for name in sorted(groups):
        inner = _interleave(groups[name], levels, depth + 1)
        if inner is None or len(inner) != len(nodes) // len(groups):
            return None
        dealt.append(inner)
    return [node for row in zip(*dealt, strict=False) for node in row] if _same_shape(dealt, levels) else None


def _same_shape(dealt: list[list[Node]], levels: dict[int, Levels]) -> bool:
    """Whether every group has as many hosts, and as many disks, as the others, and as many nodes."""
    shapes = {
        (len(group), *(len({levels[node.number][depth] for node in group}) for depth in range(3))) for group in dealt
    }
    return len(shapes) == 1


def _rank(position: int, node: Node) -> float:
    """An exponential draw with the capacity as its rate: the smallest of all is this node's with a probability that is
    its share of the capacity."""
    drawn = _draw(_RANK.pack(position % 2**64, position >> 64 & 0xFFFFFFFF, node.number))
    return -math.log((drawn + 1) / 2**64) / max(1, node.report.capacity_bytes)


def _draw(of: bytes) -> int:
    """64 bits that look random and are the same everywhere."""
    return int.from_bytes(hashlib.blake2b(of, digest_size=8).digest(), "big")


def _shared(used: list[Counter[str]], levels: Levels) -> tuple[int, int, int]:
    """How many chosen nodes share the zone, the host, the disk."""
    return used[0][levels[0]], used[1][levels[1]], used[2][levels[2]]


def _count(used: list[Counter[str]], levels: Levels) -> None:
    for counter, name in zip(used, levels, strict=True):
        counter[name] += 1
