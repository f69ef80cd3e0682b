"""PURE. Which nodes can take a piece of a chunk, best first, by the cluster map of the moment."""

from __future__ import annotations

from collections.abc import Collection

from cluster.placement import Placement, eligible, make_blob_seed
from storage.base.errors import NotEnoughNodes
from storage.metadata.interface import ChunkPlace
from storage.model import ClusterMap


class Targets:
    """Over one map; made once for it, not once for a chunk."""

    def __init__(self, cluster_map: ClusterMap) -> None:
        self._nodes = {node.number: node for node in cluster_map.nodes}
        try:
            self._able = [node for node in eligible(cluster_map.nodes, 1) if not node.is_closed]
        except NotEnoughNodes:
            self._able = []
        self._placement = Placement(self._able, 1) if self._able else None

    @property
    def able(self) -> frozenset[int]:
        """The numbers of all that can take anything."""
        return frozenset(node.number for node in self._able)

    def rank(self, place: ChunkPlace, holders: Collection[int], failed: Collection[int] = ()) -> list[int]:
        """Node numbers for pieces of this chunk beside those on `holders` (which are left out): each as far from the
        holders and from the ones before it as can be. failed: nodes that just failed; they come last."""
        if self._placement is None:
            return []
        held = [self._nodes[number] for number in holders if number in self._nodes]
        best = self._placement.substitutes(make_blob_seed(place.blob_id), place.chunk_index, held)
        ranked = [node.number for node in best]
        ranked += [node.number for node in self._able if node.number not in {*ranked, *holders}]
        return sorted(ranked, key=lambda number: number in failed)
