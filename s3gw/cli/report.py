"""PURE. What `frostbyte status` says about a cluster: figures by name, and warnings as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.domains import LEVELS, SurvivableLosses, parse_levels
from cluster.placement import is_full
from cluster.redundancy import Redundancy, evaluate_cluster
from storage.base.errors import NotEnoughNodes
from storage.model import ClusterMap, Node, NodeState


def describe_nodes(cluster_map: ClusterMap) -> list[dict[str, Any]]:
    """One dict for each node, in the order of the numbers. Sizes are bytes; figures of what is stored count pieces."""
    return [
        {
            "number": node.number,
            "node_id": node.report.node_id,
            "state": node.state.value,
            "is_full": is_full(node),
            "address": node.report.address,
            "failure_domain": node.report.failure_domain,
            "capacity_bytes": node.report.capacity_bytes,
            "free_bytes": node.report.free_bytes,
            "reserve_bytes": node.report.reserve_bytes,
            "durability": node.report.durability,
            "last_heard_ms": node.last_heard_ms,
            "is_closed": node.is_closed,
            "chunk_count": node.report.chunk_count,
            "stored_bytes": node.report.stored_bytes,
            "requests": node.report.requests,
            "damaged_count": node.report.damaged_count,
            "unverified_count": node.report.unverified_count,
            "oldest_verified_ms": node.report.oldest_verified_ms,
            "medium_error": node.report.medium_error,
        }
        for node in cluster_map.nodes
    ]


def evaluate_survival(redundancy: Redundancy, nodes: Sequence[Node]) -> SurvivableLosses | None:
    """How many zones, hosts, disks or nodes may be lost after a write now; None where a write is not possible."""
    try:
        return evaluate_cluster(redundancy, nodes)
    except NotEnoughNodes:
        return None


def describe_durability(nodes: Sequence[Node]) -> str:
    """`fsync`, `none`, `mixed`, or `unknown` without nodes."""
    modes = {node.report.durability for node in nodes if node.state is not NodeState.GONE}
    if len(modes) > 1:
        return "mixed"
    return modes.pop() if modes else "unknown"


def list_warnings(redundancy: Redundancy, cluster_map: ClusterMap) -> list[str]:
    """What an operator should know, in sentences; empty when all is well."""
    present = [node for node in cluster_map.nodes if node.state is not NodeState.GONE]
    found = [
        f"Node {node.number} is {node.state.value}."
        for node in present
        if node.state not in (NodeState.UP, NodeState.DRAINING)
    ]
    found += [
        f"Node {node.number} cannot use its medium: {node.report.medium_error}. It counts as silent until it can."
        for node in present
        if node.report.medium_error
    ]
    found += [f"Node {node.number} is full: only its reserve is left." for node in present if is_full(node)]
    survives = evaluate_survival(redundancy, cluster_map.nodes)
    if survives is None:
        found.append(f"Writes fail now: {redundancy} needs {redundancy.width} nodes that take chunks.")
    found += _describe_domains(redundancy, present, survives)
    unsynced = [str(node.number) for node in present if node.report.durability == "none"]
    if unsynced:
        found.append(
            f"Durability none on node {', '.join(unsynced)}: chunks acknowledged last do not survive a power cut."
        )
    return found


def describe_survival(redundancy: Redundancy, survives: SurvivableLosses) -> str:
    """What any chunk that is written now outlives, in one sentence."""
    count = {"datanode": survives.nodes, "disk": survives.disks, "host": survives.hosts, "zone": survives.zones}
    losses = [f"{number} {name}{'s' if number > 1 else ''}" for name, number in count.items() if number > 0]
    if not losses:
        return f"With {redundancy} no loss is survived: there is one copy of every chunk."
    return f"With {redundancy} the loss of {' or of '.join(losses)} is survived, whichever it is."


def _describe_domains(redundancy: Redundancy, present: Sequence[Node], survives: SurvivableLosses | None) -> list[str]:
    """Where the datanodes stand so close that more is lost at once than the number of copies suggests."""
    if not present:
        return []
    shared = [
        level
        for depth, level in enumerate(LEVELS)
        if len({parse_levels(node.report.failure_domain)[depth] for node in present}) == 1
    ]
    if len(present) > 1 and shared and shared[-1] == LEVELS[-1]:
        return [
            f"All {len(present)} datanodes share one failure domain, the disk {present[0].report.failure_domain}:"
            " copies protect from a failing process, not from the loss of the disk."
        ]
    if redundancy.width > 1 and survives is not None and survives.disks < redundancy.losses:
        lost, promised = survives.disks, redundancy.losses
        return [f"Copies of a chunk share a disk: the loss of {lost} is survived, not of {promised}."]
    return []
