"""Placement over the cluster map of the moment: the rectangle is built once per map and width, not once per chunk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from cluster.column_runs import ColumnRuns
from cluster.domains import parse_levels
from cluster.nodes import NodePool
from cluster.placement import Placement, eligible, make_blob_seed
from storage.base.errors import NotEnoughNodes
from storage.model import ClusterMap, Node

_START_BYTES = 6
"""workers begin anywhere"""


class Choice:
    """The nodes of one chunk. Stand-ins are ranked only when they are needed, which they hardly ever are."""

    __slots__ = ("_chunk_index", "_last_resort", "_placement", "_seed", "column")

    def __init__(self, placement: Placement, seed: int, chunk_index: int, last_resort: tuple[Node, ...] = ()) -> None:
        self.column = placement.column(seed, chunk_index)
        """who gets the replicas, or the fragments in their order"""
        self._placement = placement
        self._seed = seed
        self._chunk_index = chunk_index
        self._last_resort = last_resort

    def stand_ins(self) -> list[Node]:
        """All other nodes that can take the chunk, best first; those that just failed last."""
        others = self._placement.substitutes(self._seed, self._chunk_index, self.column)
        return [*others, *self._last_resort]


class _Built(NamedTuple):
    """For chunks of one width."""

    placement: Placement
    last_resort: tuple[Node, ...]


class Placer:
    """Knows which nodes can take a chunk now. Nodes that just failed are left out while the others serve as well."""

    def __init__(self, nodes: NodePool) -> None:
        self._nodes = nodes
        self._map = ClusterMap(0)
        self._built: dict[int, _Built] = {}
        """by width"""
        self._left_out: frozenset[int] = frozenset()
        self._runs = ColumnRuns(int.from_bytes(os.urandom(_START_BYTES)))

    def adopt(self, cluster_map: ClusterMap) -> None:
        """Place over this map from now on."""
        self._map = cluster_map
        self._built.clear()

    def eligible(self, width: int) -> list[Node]:
        """The nodes that can take a piece, by the map. NotEnoughNodes when they are fewer than a chunk has pieces."""
        return eligible(self._map.nodes, width)

    def choose(self, blob_id: bytes, chunk_index: int, width: int) -> Choice:
        """Where the pieces of a chunk go. NotEnoughNodes."""
        return self._choose(make_blob_seed(blob_id), chunk_index, width)

    def begin_small(self, length: int, width: int) -> Choice:
        """Where the one chunk of a blob of so many bytes goes, which is written until `end_small`. NotEnoughNodes, and
        it is not begun."""
        column = self._runs.enter(length)
        try:
            return self._choose(column, 0, width)
        except BaseException:
            self._runs.leave()
            raise

    def end_small(self) -> None:
        """Whether it was written or not."""
        self._runs.leave()

    def _choose(self, seed: int, chunk_index: int, width: int) -> Choice:
        failed = self._nodes.failed_numbers()
        if failed != self._left_out:
            self._built.clear()
            self._left_out = failed
        built = self._built.get(width)
        if built is None:
            built = self._built[width] = self._build(width)
        return Choice(built.placement, seed, chunk_index, built.last_resort)

    def _build(self, width: int) -> _Built:
        everybody = self.eligible(width)
        try:
            working = eligible([node for node in self._map.nodes if node.number not in self._left_out], width)
        except NotEnoughNodes:
            working = []
        # Pieces side by side would be worse than asking a node that may fail again.
        as_far_apart = _spread(working, width) == _spread(everybody, width)
        if not as_far_apart:
            working = everybody
        return _Built(Placement(working, width), tuple(node for node in everybody if node not in working))


def _spread(nodes: Sequence[Node], width: int) -> list[int]:
    """How many different zones, hosts and disks the pieces can have."""
    levels = [parse_levels(node.report.failure_domain) for node in nodes]
    return [min(width, len({names[depth] for names in levels})) for depth in range(3)]
