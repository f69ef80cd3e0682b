"""PURE. A walk of the survey as it is remembered: what it added up, and how the cluster was when it began."""

from __future__ import annotations

from cluster.maintenance.survey_status import AffectedObject
from cluster.maintenance.survey_tally import Tally
from storage.model import ClusterMap, NodeState

HERE, DEAD, DRAINING = "here", NodeState.DEAD.value, NodeState.DRAINING.value
_TOLD_APART = (NodeState.DEAD, NodeState.DRAINING, NodeState.GONE)


class WalkRecord:
    """repaired: how many pieces had been repaired when it began. unheard: the nodes that the master did not hear of."""

    def __init__(
        self, cluster_map: ClusterMap, now_s: float, now_ms: int, repaired: int, unheard: frozenset[int]
    ) -> None:
        self.tally = Tally()
        self.classes = classify(cluster_map)
        self.closed = closed_numbers(cluster_map)
        self.repaired = repaired
        self.unheard = unheard
        self.began_s = self.ended_s = now_s
        self.began_ms = now_ms
        self.ended_ms = 0
        self.affected: tuple[AffectedObject, ...] = ()


def classify(cluster_map: ClusterMap) -> dict[int, str]:
    """What decides which pieces count, by node number: a change is a reason to walk."""
    return {node.number: node.state.value if node.state in _TOLD_APART else HERE for node in cluster_map.nodes}


def closed_numbers(cluster_map: ClusterMap) -> frozenset[int]:
    """The nodes that no commit may name."""
    return frozenset(node.number for node in cluster_map.nodes if node.is_closed)
