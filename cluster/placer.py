"""Placement over the cluster map of the moment: the rectangle is built once per map, not once per chunk."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.nodes import NodePool
from cluster.placement import Placement, eligible, make_blob_seed
from storage.base.errors import NotEnoughNodes
from storage.model import ClusterMap, Node


class Placer:
    """Knows which nodes can take a chunk now. Nodes that just failed are left out while enough others are there."""

    def __init__(self, nodes: NodePool, replicas: int) -> None:
        self._nodes = nodes
        self._replicas = replicas
        self._map = ClusterMap(0)
        self._placement: Placement | None = None
        self._left_out: frozenset[int] = frozenset()

    def adopt(self, cluster_map: ClusterMap) -> None:
        """Place over this map from now on."""
        self._map = cluster_map
        self._placement = None

    def eligible(self) -> list[Node]:
        """The nodes that can take a chunk, by the map. NotEnoughNodes when they are fewer than the replicas."""
        return eligible(self._map.nodes, self._replicas)

    def candidates(self, blob_id: bytes, chunk_index: int) -> Sequence[Node]:
        """Eligible nodes in the order of preference: the first get the replicas, the rest stand in. NotEnoughNodes."""
        failed = frozenset(node.number for node in self._map.nodes if self._nodes.has_failed(node.number))
        placement = self._placement
        if placement is None or failed != self._left_out:
            placement = self._placement = self._build(failed)
            self._left_out = failed
        return placement.candidates(make_blob_seed(blob_id), chunk_index)

    def _build(self, failed: frozenset[int]) -> Placement:
        try:
            working = [node for node in self._map.nodes if node.number not in failed]
            return Placement(eligible(working, self._replicas), self._replicas)
        except NotEnoughNodes:
            return Placement(self.eligible(), self._replicas)
