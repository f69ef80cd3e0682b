"""Placement over the cluster map of the moment: the rectangle is built once per map, not once per chunk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.domains import parse_levels
from cluster.nodes import NodePool
from cluster.placement import Placement, eligible, make_blob_seed
from storage.base.errors import NotEnoughNodes
from storage.model import ClusterMap, Node


class Choice:
    """The nodes of one chunk. Stand-ins are ranked only when they are needed, which they hardly ever are."""

    __slots__ = ("_chunk_index", "_last_resort", "_placement", "_seed", "column")

    def __init__(self, placement: Placement, seed: int, chunk_index: int, last_resort: tuple[Node, ...] = ()) -> None:
        self.column = placement.column(seed, chunk_index)
        """who gets the replicas"""
        self._placement = placement
        self._seed = seed
        self._chunk_index = chunk_index
        self._last_resort = last_resort

    def stand_ins(self) -> list[Node]:
        """All other nodes that can take the chunk, best first; those that just failed last."""
        others = self._placement.substitutes(self._seed, self._chunk_index, self.column)
        return [*others, *self._last_resort]


class Placer:
    """Knows which nodes can take a chunk now. Nodes that just failed are left out while the others serve as well."""

    def __init__(self, nodes: NodePool, replicas: int) -> None:
        self._nodes = nodes
        self._replicas = replicas
        self._map = ClusterMap(0)
        self._placement: Placement | None = None
        self._left_out: frozenset[int] = frozenset()
        self._last_resort: tuple[Node, ...] = ()

    def adopt(self, cluster_map: ClusterMap) -> None:
        """Place over this map from now on."""
        self._map = cluster_map
        self._placement = None

    def eligible(self) -> list[Node]:
        """The nodes that can take a chunk, by the map. NotEnoughNodes when they are fewer than the replicas."""
        return eligible(self._map.nodes, self._replicas)

    def choose(self, blob_id: bytes, chunk_index: int) -> Choice:
        """Where a chunk goes. NotEnoughNodes."""
        failed = self._nodes.failed_numbers()
        placement = self._placement
        if placement is None or failed != self._left_out:
            placement = self._placement = self._build(failed)
            self._left_out = failed
        return Choice(placement, make_blob_seed(blob_id), chunk_index, self._last_resort)

    def rank(self, blob_id: bytes, chunk_index: int, holders: Iterable[int]) -> list[Node]:
        """All nodes that can take a copy of a chunk that is on `holders`, those far from them first, holders last."""
        able = eligible(self._map.nodes, 1)
        held = [node for node in self._map.nodes if node.number in set(holders)]
        others = Placement(able, 1).substitutes(make_blob_seed(blob_id), chunk_index, held)
        return [*others, *(node for node in able if node not in others)]

    def _build(self, failed: frozenset[int]) -> Placement:
        everybody = self.eligible()
        try:
            working = eligible([node for node in self._map.nodes if node.number not in failed], self._replicas)
        except NotEnoughNodes:
            working = []
        # Copies side by side would be worse than asking a node that may fail again.
        as_far_apart = self._spread(working) == self._spread(everybody)
        if not as_far_apart:
            working = everybody
        self._last_resort = tuple(node for node in everybody if node not in working)
        return Placement(working, self._replicas)

    def _spread(self, nodes: Sequence[Node]) -> list[int]:
        """How many different zones, hosts and disks the replicas can have."""
        levels = [parse_levels(node.report.failure_domain) for node in nodes]
        return [min(self._replicas, len({names[depth] for names in levels})) for depth in range(3)]
