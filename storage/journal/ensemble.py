"""PURE. Whether the journal is replicated, and on which datanodes.

An *ensemble* is the datanodes that one segment is written to, as many as there are to be copies: up, in different
failure domains (zone, host, disk) as far as there are, and with room. Who failed a moment ago comes last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from storage.metadata.settings import JOURNAL_LOCAL, JOURNAL_REPLICATED
from storage.model import Node, NodeState

_RANKS = {NodeState.UP: 0, NodeState.SUSPECT: 1, NodeState.DRAINING: 2, NodeState.JOINING: 3}
"""states of nodes that a segment may be on; all but the first only where there are too few of those before"""

Spread = tuple[int, int, int]
"""how many zones, hosts and disks"""


class Wanted(NamedTuple):
    """What the journal should be now. reason: why it is local, in a few words; empty when it is replicated."""

    is_replicated: bool
    reason: str = ""


def choose_mode(setting: str, nodes: Sequence[Node]) -> Wanted:
    """setting: of the configuration. `auto` replicates as soon as datanodes that are not known to be dead stand on two
    disks: on one the copies would be lost with the original."""
    if setting == JOURNAL_REPLICATED:
        return Wanted(True)
    if setting == JOURNAL_LOCAL:
        return Wanted(False, "it is set to be local")
    present = [node for node in nodes if is_writable(node)]
    disks = count_spread(present)[2]
    if disks >= 2:
        return Wanted(True)
    if not present:
        return Wanted(False, "no datanode is up")
    if len(present) == 1:
        return Wanted(False, "one datanode is up, and a copy needs a second disk")
    return Wanted(False, f"all {len(present)} datanodes that are up share one disk")


def choose_ensemble(nodes: Sequence[Node], copies: int, avoid: Collection[int] = ()) -> tuple[Node, ...]:
    """`copies` nodes, or fewer where there are not as many. avoid: numbers of nodes that failed lately."""
    left = [node for node in nodes if node.state in _RANKS]
    chosen: list[Node] = []
    while left and len(chosen) < copies:
        best = min(left, key=lambda node: _rank(node, chosen, avoid))
        chosen.append(best)
        left.remove(best)
    return tuple(chosen)


def should_move(ensemble: Sequence[Node], nodes: Sequence[Node], copies: int) -> bool:
    """Whether the next record belongs into a segment on other nodes: one of these is on its way out and there is
    another, or others would be spread wider."""
    now = {node.number: node for node in nodes}
    present = [now[node.number] for node in ensemble if node.number in now]
    return _quality(choose_ensemble(nodes, copies)) > _quality(present)


def is_leaving(ensemble: Sequence[Node], nodes: Sequence[Node]) -> bool:
    """Whether one of these is not to be relied on any more."""
    now = {node.number: node for node in nodes}
    return not all(node.number in now and is_writable(now[node.number]) for node in ensemble)


def is_writable(node: Node) -> bool:
    """Whether it is there to stay."""
    return node.state in (NodeState.UP, NodeState.SUSPECT) and not node.is_closed


def count_spread(nodes: Sequence[Node]) -> Spread:
    """Over how many zones, hosts and disks."""
    zones, hosts, disks = ({_levels(node)[: depth + 1] for node in nodes} for depth in range(3))
    return len(zones), len(hosts), len(disks)


def _quality(ensemble: Sequence[Node]) -> tuple[int, Spread]:
    return sum(map(is_writable, ensemble)), count_spread(ensemble)


def _rank(node: Node, chosen: Sequence[Node], avoid: Collection[int]) -> tuple[bool, bool, int, int, bool, int]:
    """The lowest is the best."""
    report = node.report
    shared = max((_shared_levels(node, other) for other in chosen), default=0)
    is_full = report.free_bytes <= report.reserve_bytes
    return node.number in avoid, node.is_closed, _RANKS[node.state], shared, is_full, node.number


def _shared_levels(one: Node, other: Node) -> int:
    return next((depth for depth in range(3) if _levels(one)[depth] != _levels(other)[depth]), 3)


def _levels(node: Node) -> tuple[str, ...]:
    """Zone, host, disk; what is not named is as near as can be."""
    parts = node.report.failure_domain.split("/", 2)
    return (*parts, *[""] * (3 - len(parts)))
