"""PURE. The registry as a table of states: a report, a tick or an order in, the next state of nodes out.

                 report          silent ≥ suspect_after   silent ≥ dead_after   drain        emptied
    (unknown)    joining         -                        -                     -            -
    joining      up              suspect                  dead                  draining     -
    up           up, renewed     suspect                  dead                  draining     -
    suspect      up              -                        dead                  draining     -
    dead         up              -                        -                     draining     -
    draining     renewed         -                        -                     -            gone
    gone         refused         -                        -                     refused      -

A report that says that the node's medium fails keeps no lease: whoever is up is suspect with it, and what is suspect is
dead when no good report came for as long as of a silent node. A good one makes it up again.

A node is `up` with its second report: it lived long enough to be worth placing on. A draining node stays so while it is
silent, as its chunks are being copied away in any case. When nothing names it any more it is *closed*: no commit can
name it either, and a last look finds it empty for good or not. A dead node that is to be removed is drained as well,
so that its return changes nothing. Silence counts from the last report that this master heard, and never from before it
began to listen: a master that starts, or that was stopped for a while itself, gives everybody the whole time again.

Refused are: a report of another cluster, a newer format, a node that was retired, and a second process that claims the
id of one that lives at another address (a copied data directory).

The epoch rises with everything that could change a placement: membership, state, address, failure domain, room.
Times here are monotonic seconds; `last_heard_ms` of a node is wall time, for people.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from cluster.placement import is_full
from storage.base.address import parse_address
from storage.model import MEDIUM_ERROR_CHARACTERS_MAX, ClusterMap, Node, NodeReport, NodeState

FORMAT_VERSION_MAX = 2
NODES_MAX = 4_096
FAILURE_DOMAIN_CHARACTERS_MAX = 256

_SILENT: dict[NodeState, tuple[NodeState, NodeState]] = {
    NodeState.JOINING: (NodeState.SUSPECT, NodeState.DEAD),
    NodeState.UP: (NodeState.SUSPECT, NodeState.DEAD),
    NodeState.SUSPECT: (NodeState.SUSPECT, NodeState.DEAD),
}
"""state → what it is after suspect_after and after dead_after of silence; others are not touched by silence"""

_HEARD: dict[NodeState, NodeState] = {
    NodeState.JOINING: NodeState.UP,
    NodeState.UP: NodeState.UP,
    NodeState.SUSPECT: NodeState.UP,
    NodeState.DEAD: NodeState.UP,
    NodeState.DRAINING: NodeState.DRAINING,
}

_HEARD_FAILING: dict[NodeState, NodeState] = {
    NodeState.JOINING: NodeState.JOINING,
    NodeState.UP: NodeState.SUSPECT,
    NodeState.SUSPECT: NodeState.SUSPECT,
    NodeState.DEAD: NodeState.DEAD,
    NodeState.DRAINING: NodeState.DRAINING,
}
"""with a report that its medium fails"""

_DRAINABLE = frozenset(_HEARD)

_FIGURES = (
    "capacity_bytes",
    "free_bytes",
    "reserve_bytes",
    "chunk_count",
    "stored_bytes",
    "requests",
    "damaged_count",
    "unverified_count",
    "oldest_verified_ms",
    "clock_ms",
)


class ReportRefused(Exception):
    """The report or the order is not accepted; the text is one line for the operator of the node."""


class NodeRetired(ReportRefused):
    """The node is gone. Told by this name (wire.NODE_RETIRED), so that it takes no chunks any more."""


class Timing(NamedTuple):
    """Seconds."""

    heartbeat_interval_s: float = 1.0
    joining_interval_s: float = 0.05
    """until its second report, so that a node is up soon after its start"""
    suspect_after_s: float = 3.0
    dead_after_s: float = 15.0
    tick_interval_s: float = 0.5


class Holdings(NamedTuple):
    """What a whole walk over the records found that a node holds."""

    pieces: int
    """named there by rows of what is not released"""
    needed: int
    """chunks that cannot be read without them"""
    is_final: bool
    """the node was closed before the walk began, so that nothing came later"""


class RemovalStep(enum.Enum):
    """What is next on the way of a node out of the cluster."""

    DRAIN = "drain"
    CLOSE = "close"
    RETIRE = "retire"
    DONE = "done"


class RegistryState(NamedTuple):
    """All that the master knows. heard_s: by node id, when this master last heard of it."""

    cluster_map: ClusterMap
    heard_s: dict[str, float]
    listening_since_s: float
    ticked_s: float

    def find(self, node_id: str) -> Node | None:
        """The record of a node."""
        return next((node for node in self.cluster_map.nodes if node.report.node_id == node_id), None)


class Transition(NamedTuple):
    """A node that is to be in another state."""

    node_id: str
    state: NodeState


def begin(cluster_map: ClusterMap, now_s: float) -> RegistryState:
    """The state of a master that starts with what the metadata recorded."""
    return RegistryState(cluster_map, {}, now_s, now_s)


def evaluate_report(
    state: RegistryState, report: NodeReport, cluster_id: str, timing: Timing, now_s: float
) -> NodeState:
    """The state that a node has with this report. ReportRefused."""
    _check_report(report, cluster_id)
    node = state.find(report.node_id)
    if node is None:
        if len(state.cluster_map.nodes) >= NODES_MAX:
            raise ReportRefused(f"a cluster has at most {NODES_MAX} nodes")
        return NodeState.JOINING
    if node.state is NodeState.GONE:
        raise NodeRetired(f"node {report.node_id} was retired; empty its data directory to join as a new node")
    heard_s = state.heard_s.get(report.node_id)
    if report.address != node.report.address and heard_s is not None and now_s - heard_s < timing.suspect_after_s:
        raise ReportRefused(
            f"node {report.node_id} lives at {node.report.address} already; a data directory cannot be served twice"
        )
    return (_HEARD_FAILING if report.medium_error else _HEARD)[node.state]


def must_record(state: RegistryState, report: NodeReport, becomes: NodeState) -> bool:
    """Whether the metadata has to learn of this report; otherwise only the lease is renewed."""
    node = state.find(report.node_id)
    return node is None or node.state is not becomes or _places_differently(node, report)


def note_heard(state: RegistryState, report: NodeReport, now_s: float) -> RegistryState:
    """A report came: its node lives, whatever becomes of recording the rest; unless its medium fails."""
    if report.medium_error:
        return state
    return state._replace(heard_s={**state.heard_s, report.node_id: now_s})


def record_node(state: RegistryState, node: Node, now_s: float) -> RegistryState:
    """After the metadata recorded a report: the node is new or changed, and was heard of now (see note_heard)."""
    others = [known for known in state.cluster_map.nodes if known.number != node.number]
    nodes = tuple(sorted([*others, node], key=lambda known: known.number))
    return note_heard(state._replace(cluster_map=ClusterMap(state.cluster_map.epoch + 1, nodes)), node.report, now_s)


def renew(state: RegistryState, report: NodeReport, now_s: float, now_ms: int) -> RegistryState:
    """A report that changes no placement: the same epoch, with the newest figures (see note_heard)."""
    nodes = tuple(
        msgspec.structs.replace(node, report=report, last_heard_ms=now_ms)
        if node.report.node_id == report.node_id
        else node
        for node in state.cluster_map.nodes
    )
    return note_heard(state._replace(cluster_map=ClusterMap(state.cluster_map.epoch, nodes)), report, now_s)


def tick(state: RegistryState, timing: Timing, now_s: float) -> tuple[RegistryState, list[Transition]]:
    """Time passed: who is suspect or dead now. The state returned only notes the tick; see apply_transition."""
    since_s = state.listening_since_s
    if now_s - state.ticked_s > timing.suspect_after_s / 2:
        since_s = now_s  # this process was stopped: reports may be waiting unread
    state = state._replace(ticked_s=now_s, listening_since_s=since_s)
    transitions = []
    for node in state.cluster_map.nodes:
        becomes = _after_silence(node.state, now_s - _heard_or_since(state, node), timing)
        if becomes is not node.state:
            transitions.append(Transition(node.report.node_id, becomes))
    return state, transitions


def list_unheard(state: RegistryState, timing: Timing, now_s: float) -> frozenset[int]:
    """Numbers of the nodes of which this master has not heard since it began to listen, or for suspect_after."""
    oldest_s = max(state.listening_since_s, now_s - timing.suspect_after_s)
    return frozenset(
        node.number
        for node in state.cluster_map.nodes
        if node.state is not NodeState.GONE and state.heard_s.get(node.report.node_id, float("-inf")) < oldest_s
    )


def list_awaited(state: RegistryState, timing: Timing, now_s: float) -> frozenset[int]:
    """Of these, those of which it is too early to say that they are silent: all, as long as this master has not
    listened for suspect_after; then none."""
    is_early = now_s - state.listening_since_s < timing.suspect_after_s
    return list_unheard(state, timing, now_s) if is_early else frozenset()


def plan_drain(state: RegistryState, node_id: str) -> Transition | None:
    """Empty the node; None when it is being done. ReportRefused for a node that is unknown or gone."""
    node = _require(state, node_id)
    if node.state is NodeState.DRAINING:
        return None
    if node.state not in _DRAINABLE:
        raise ReportRefused(f"node {node_id} is {node.state.value}")
    return Transition(node_id, NodeState.DRAINING)


def plan_resume(state: RegistryState, node_id: str) -> Transition | None:
    """Take a drain back: the node is suspect until it is heard of. None when it is not draining."""
    node = _require(state, node_id)
    return Transition(node_id, NodeState.SUSPECT) if node.state is NodeState.DRAINING else None


def plan_retire(state: RegistryState, node_id: str) -> Transition | None:
    """A drained node holds nothing any more; None when it is gone already. ReportRefused unless it is draining, and
    closed: a drain that was taken back meanwhile opened it, and what was found before says nothing."""
    node = _require(state, node_id)
    if node.state is NodeState.GONE:
        return None
    if node.state is not NodeState.DRAINING:
        raise ReportRefused(f"node {node_id} is {node.state.value}; only a drained node can be retired")
    if not node.is_closed:
        raise ReportRefused(f"node {node_id} was opened again; a walk has to find it empty once it is closed")
    return Transition(node_id, NodeState.GONE)


def plan_close(state: RegistryState, node_id: str) -> bool:
    """Whether the node is to be closed; False when it is. ReportRefused unless it is draining."""
    node = _require(state, node_id)
    if node.state is not NodeState.DRAINING:
        raise ReportRefused(f"node {node_id} is {node.state.value}; only a draining node is closed")
    return not node.is_closed


def plan_removal(state: RegistryState, node_id: str, holdings: Holdings | None, *, force: bool) -> RemovalStep:
    """The next step of an operator's removal. ReportRefused, in one line, while something has to happen first.

    force: its pieces are not waited for, as long as every chunk can be read without them.
    """
    node = _require(state, node_id)
    if node.state is NodeState.GONE:
        return RemovalStep.DONE
    if node.state is NodeState.DEAD:
        return RemovalStep.DRAIN
    if node.state is not NodeState.DRAINING:
        raise ReportRefused(f"node {node_id} is {node.state.value}; drain it first")
    if holdings is None:
        raise ReportRefused(f"node {node_id} is drained; what is on it is known after the walk that is under way")
    if holdings.pieces and not force:
        raise ReportRefused(f"node {node_id} is drained; {holdings.pieces} pieces are left on it")
    if holdings.needed:
        raise ReportRefused(f"{holdings.needed} chunks cannot be read without node {node_id}")
    if not node.is_closed and holdings.is_final:
        raise ReportRefused(f"node {node_id} was opened again since it was looked through; the next walk knows more")
    if not node.is_closed:
        return RemovalStep.CLOSE
    if not holdings.is_final:
        raise ReportRefused(f"node {node_id} is closed; one more walk has to find that nothing came to it meanwhile")
    return RemovalStep.RETIRE


def apply_closing(state: RegistryState, node_id: str) -> RegistryState:
    """After the metadata recorded it: a new map under the next epoch."""
    nodes = tuple(
        msgspec.structs.replace(node, is_closed=True) if node.report.node_id == node_id else node
        for node in state.cluster_map.nodes
    )
    return state._replace(cluster_map=ClusterMap(state.cluster_map.epoch + 1, nodes))


def apply_transition(state: RegistryState, transition: Transition) -> RegistryState:
    """After the metadata recorded it: a new map under the next epoch; the same when nothing changes. A drain that is
    taken back opens the node again."""
    node = state.find(transition.node_id)
    if node is None or node.state is transition.state:
        return state
    is_closed = node.is_closed and transition.state in (NodeState.DRAINING, NodeState.GONE)
    becomes = msgspec.structs.replace(node, state=transition.state, is_closed=is_closed)
    nodes = tuple(becomes if known is node else known for known in state.cluster_map.nodes)
    return state._replace(cluster_map=ClusterMap(state.cluster_map.epoch + 1, nodes))


def _check_report(report: NodeReport, cluster_id: str) -> None:
    if report.cluster_id != cluster_id:
        raise ReportRefused(f"node {report.node_id} belongs to another cluster")
    if not 1 <= report.format_version <= FORMAT_VERSION_MAX:
        raise ReportRefused(
            f"node {report.node_id} has format {report.format_version}, this master knows up to {FORMAT_VERSION_MAX}"
        )
    if min(getattr(report, name) for name in _FIGURES) < 0:
        raise ReportRefused(f"node {report.node_id} reports a negative size")
    if len(report.medium_error) > MEDIUM_ERROR_CHARACTERS_MAX:
        raise ReportRefused(f"what is wrong with a medium is told in {MEDIUM_ERROR_CHARACTERS_MAX} characters")
    if len(report.failure_domain) > FAILURE_DOMAIN_CHARACTERS_MAX:
        raise ReportRefused(f"a failure domain has at most {FAILURE_DOMAIN_CHARACTERS_MAX} characters")
    try:
        parse_address(report.address)
    except ValueError as error:
        raise ReportRefused(f"node {report.node_id}: {error}") from None


def _places_differently(node: Node, report: NodeReport) -> bool:
    before = node.report
    same_place = (before.address, before.failure_domain, before.capacity_bytes, before.reserve_bytes) == (
        report.address,
        report.failure_domain,
        report.capacity_bytes,
        report.reserve_bytes,
    )
    return not same_place or is_full(node) != is_full(msgspec.structs.replace(node, report=report))


def _after_silence(before: NodeState, silent_s: float, timing: Timing) -> NodeState:
    suspect, dead = _SILENT.get(before, (before, before))
    if silent_s >= timing.dead_after_s:
        return dead
    return suspect if silent_s >= timing.suspect_after_s else before


def _heard_or_since(state: RegistryState, node: Node) -> float:
    return max(state.heard_s.get(node.report.node_id, state.listening_since_s), state.listening_since_s)


def _require(state: RegistryState, node_id: str) -> Node:
    node = state.find(node_id)
    if node is None:
        raise ReportRefused(f"there is no node {node_id[:64]}")
    return node
