"""Registry records for tests: nodes and reports with everything filled in."""

from __future__ import annotations

from storage.model import Node, NodeReport, NodeState

CLUSTER_ID = "c1" * 16
TIB = 1 << 40


def make_report(number: int, failure_domain: str = "", capacity_bytes: int = TIB, free_bytes: int = -1) -> NodeReport:
    """A report of the number-th node; half full and in a domain of its own unless said otherwise."""
    return NodeReport(
        node_id=f"{number:032x}",
        cluster_id=CLUSTER_ID,
        address=f"http://127.0.0.1:{9100 + number}",
        failure_domain=failure_domain or f"zone/host-{number}/{number}",
        capacity_bytes=capacity_bytes,
        free_bytes=capacity_bytes // 2 if free_bytes < 0 else free_bytes,
        reserve_bytes=1 << 30,
        format_version=1,
    )


def make_node(
    number: int,
    failure_domain: str = "",
    capacity_bytes: int = TIB,
    state: NodeState = NodeState.UP,
    free_bytes: int = -1,
) -> Node:
    """A node that was heard of at time 0."""
    return Node(number, make_report(number, failure_domain, capacity_bytes, free_bytes), state, 0)
