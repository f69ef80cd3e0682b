"""PURE. How far apart the pieces of chunks are, beside how far apart the nodes of the moment would let them be.

How crowded a chunk is, is the sum of the squares of how many pieces each zone has, then each host, then each disk: the
smaller, the farther apart. It is *crowded* when that is more than for an even spread over the zones (hosts, disks) with
room: it was placed while others were away or full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cluster.domains import LEVELS, parse_levels
from storage.model import Node, NodeState


class Spread:
    """Of the nodes of one cluster map."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        present = [node for node in nodes if takes_part(node)]
        self._levels = {node.number: parse_levels(node.report.failure_domain) for node in present}
        roomy = [self._levels[node.number] for node in present if room_bytes(node)]
        self._domains = [max(1, len({names[depth] for names in roomy})) for depth in range(len(LEVELS))]

    def is_crowded(self, numbers: Sequence[int]) -> bool:
        """numbers: of the nodes of one chunk. False when one of them does not take part. Where the tree of domains is
        uneven, nothing may be done about it."""
        if not all(number in self._levels for number in numbers):
            return False
        least = (_measure_even(len(numbers), domains) for domains in self._domains)
        return any(held > even for held, even in zip(self.measure(numbers), least, strict=True))

    def measure(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """How crowded these nodes are, all of which take part."""
        return tuple(
            sum(held * held for held in Counter(self._levels[number][depth] for number in numbers).values())
            for depth in range(len(LEVELS))
        )


def _measure_even(pieces: int, domains: int) -> int:
    each, more = divmod(pieces, domains)
    return more * (each + 1) ** 2 + (domains - more) * each**2


def takes_part(node: Node) -> bool:
    """Whether pieces may come from and go to a node at all; a full one only gives."""
    return node.state is NodeState.UP and not node.is_closed and node.report.capacity_bytes > 0


def room_bytes(node: Node) -> int:
    """What it can take above its reserve."""
    return max(0, node.report.free_bytes - node.report.reserve_bytes)
