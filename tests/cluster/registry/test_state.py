"""The registry's table of states: reports, silence, drains, refusals, and when the epoch rises."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.registry.state import (
    Holdings,
    NodeRetired,
    RegistryState,
    RemovalStep,
    ReportRefused,
    Timing,
    Transition,
    apply_closing,
    apply_transition,
    begin,
    evaluate_report,
    list_awaited,
    list_unheard,
    must_record,
    note_heard,
    plan_close,
    plan_drain,
    plan_removal,
    plan_resume,
    plan_retire,
    record_node,
    renew,
    tick,
)
from storage.model import ClusterMap, Node, NodeReport, NodeState
from tests.cluster.nodes import CLUSTER_ID, make_node, make_report

TIMING = Timing()
ALIVE = [NodeState.JOINING, NodeState.UP, NodeState.SUSPECT, NodeState.DEAD, NodeState.DRAINING]


def with_nodes(*nodes: Node, now_s: float = 100.0) -> RegistryState:
    """A master that begins with these nodes."""
    return begin(ClusterMap(7, nodes), now_s)


def evaluate(state: RegistryState, report: NodeReport, now_s: float = 100.0) -> NodeState:
    """With the cluster and the timing of these tests."""
    return evaluate_report(state, report, CLUSTER_ID, TIMING, now_s)


def report_to(state: RegistryState, report: NodeReport, now_s: float) -> RegistryState:
    """What the master does with a report, with metadata that numbers nodes by their id."""
    becomes = evaluate(state, report, now_s)
    if must_record(state, report, becomes):
        return record_node(state, Node(int(report.node_id, 16), report, becomes, 0), now_s)
    return renew(state, report, now_s, round(now_s * 1000))


def tick_to(state: RegistryState, now_s: float) -> RegistryState:
    """What the master does with a tick."""
    state, transitions = tick(state, TIMING, now_s)
    for transition in transitions:
        state = apply_transition(state, transition)
    return state


def state_of(state: RegistryState, number: int) -> NodeState:
    """The state of the number-th node."""
    node = state.find(f"{number:032x}")
    assert node is not None
    return node.state


def test_a_node_is_joining_then_up() -> None:
    """The first report registers it, the second shows that it lives; each raises the epoch, further ones do not."""
    state = with_nodes()
    state = report_to(state, make_report(1), 100.0)
    assert (state_of(state, 1), state.cluster_map.epoch) == (NodeState.JOINING, 8)
    state = report_to(state, make_report(1), 100.2)
    assert (state_of(state, 1), state.cluster_map.epoch) == (NodeState.UP, 9)
    state = report_to(state, make_report(1, free_bytes=5 << 30), 101.0)
    assert state.cluster_map.epoch == 9
    node = state.find(make_report(1).node_id)
    assert node is not None
    assert (node.report.free_bytes, node.last_heard_ms) == (5 << 30, 101_000)


def test_silence_makes_suspect_then_dead_and_a_report_brings_back() -> None:
    """At the default times, with an epoch for each change."""
    state = report_to(with_nodes(make_node(1)), make_report(1), 100.0)
    expected = {102.9: NodeState.UP, 103.0: NodeState.SUSPECT, 114.9: NodeState.SUSPECT, 115.0: NodeState.DEAD}
    now_s = 100.0
    for until_s, becomes in expected.items():
        while now_s < until_s - 0.01:
            now_s = min(now_s + 0.5, until_s)
            state = tick_to(state, now_s)
        assert state_of(state, 1) is becomes
    assert state.cluster_map.epoch == 9
    state = report_to(state, make_report(1), 200.0)
    assert (state_of(state, 1), state.cluster_map.epoch) == (NodeState.UP, 10)


def test_a_master_that_starts_gives_everybody_the_whole_time() -> None:
    """What was recorded long ago is no silence that this master has heard."""
    state = with_nodes(make_node(1), make_node(2, state=NodeState.SUSPECT), now_s=5_000.0)
    state = tick_to(state, 5_000.5)
    assert (state_of(state, 1), state_of(state, 2)) == (NodeState.UP, NodeState.SUSPECT)
    for half_seconds in range(2, 31):
        state = tick_to(state, 5_000.0 + half_seconds / 2)
    assert (state_of(state, 1), state_of(state, 2)) == (NodeState.DEAD, NodeState.DEAD)


def test_a_master_that_was_stopped_blames_nobody() -> None:
    """After a gap between two ticks the reports may be waiting unread."""
    state = tick_to(report_to(with_nodes(make_node(1)), make_report(1), 100.0), 100.5)
    state = tick_to(state, 160.0)
    assert state_of(state, 1) is NodeState.UP
    state = tick_to(tick_to(state, 161.4), 162.8)
    assert state_of(state, 1) is NodeState.UP
    assert state_of(tick_to(state, 163.0), 1) is NodeState.SUSPECT


def test_nodes_are_awaited_until_they_are_heard_of_or_suspected() -> None:
    """A dead one too, which may come back with the others; of one that is gone nothing is expected. Then silence is
    silence."""
    nodes = [make_node(1), make_node(2, state=NodeState.DEAD), make_node(3), make_node(4, state=NodeState.GONE)]
    state = with_nodes(*nodes, now_s=100.0)
    assert list_awaited(state, TIMING, 100.0) == list_unheard(state, TIMING, 100.0) == {1, 2, 3}
    state = report_to(report_to(state, make_report(1), 100.1), make_report(2), 101.0)
    assert list_awaited(state, TIMING, 102.9) == list_unheard(state, TIMING, 102.9) == {3}
    assert list_awaited(state, TIMING, 103.0) == frozenset()
    assert list_unheard(state, TIMING, 103.0) == {3}
    assert list_unheard(state, TIMING, 103.2) == {1, 3}


def test_all_are_awaited_again_by_a_master_that_was_stopped() -> None:
    """What it heard before says nothing of now."""
    state = tick_to(report_to(with_nodes(make_node(1)), make_report(1), 100.0), 100.5)
    assert list_awaited(state, TIMING, 100.5) == frozenset()
    state = tick_to(state, 160.0)
    assert list_awaited(state, TIMING, 160.1) == {1}
    assert list_awaited(report_to(state, make_report(1), 160.2), TIMING, 160.3) == frozenset()
    assert list_awaited(state, TIMING, 163.0) == frozenset()


@pytest.mark.parametrize("before", NodeState)
def test_every_state_and_report(before: NodeState) -> None:
    """A report makes up of all but a draining node; a retired one is refused."""
    state = with_nodes(make_node(1, state=before))
    if before is NodeState.GONE:
        with pytest.raises(NodeRetired, match="retired"):
            evaluate(state, make_report(1))
        return
    expected = NodeState.DRAINING if before is NodeState.DRAINING else NodeState.UP
    assert evaluate(state, make_report(1)) is expected
    assert must_record(state, make_report(1), expected) == (expected is not before)


@pytest.mark.parametrize("before", NodeState)
def test_every_state_and_silence(before: NodeState) -> None:
    """Draining, dead and gone nodes stay what they are, however long they are silent."""
    state = with_nodes(make_node(1, state=before), now_s=100.0)
    for half_seconds in range(1, 60):
        state = tick_to(state, 100.0 + half_seconds / 2)
    kept = {NodeState.DRAINING, NodeState.GONE}
    assert state_of(state, 1) is (before if before in kept else NodeState.DEAD)


@pytest.mark.parametrize(
    ("plan", "allowed", "becomes", "nothing_to_do"),
    [
        (plan_drain, {*ALIVE} - {NodeState.DRAINING}, NodeState.DRAINING, {NodeState.DRAINING}),
        (plan_resume, {NodeState.DRAINING}, NodeState.SUSPECT, {*NodeState} - {NodeState.DRAINING}),
        (plan_retire, {NodeState.DRAINING}, NodeState.GONE, {NodeState.GONE}),
    ],
)
def test_every_state_and_order(
    plan: Callable[[RegistryState, str], Transition | None],
    allowed: set[NodeState],
    becomes: NodeState,
    nothing_to_do: set[NodeState],
) -> None:
    """Each order in each state: carried out, already so, or refused."""
    for before in NodeState:
        closed = plan is plan_retire and before is NodeState.DRAINING
        state = with_nodes(msgspec.structs.replace(make_node(1, state=before), is_closed=closed))
        if before in nothing_to_do:
            assert plan(state, make_report(1).node_id) is None
        elif before in allowed:
            transition = plan(state, make_report(1).node_id)
            assert transition is not None
            after = apply_transition(state, transition)
            assert (state_of(after, 1), after.cluster_map.epoch) == (becomes, 8)
        else:
            with pytest.raises(ReportRefused):
                plan(state, make_report(1).node_id)
        with pytest.raises(ReportRefused, match="no node"):
            plan(state, "f" * 32)


def test_a_resumed_node_is_up_with_its_next_report() -> None:
    """And was never placed on in between."""
    state = report_to(with_nodes(make_node(1, state=NodeState.DRAINING)), make_report(1), 100.0)
    assert state_of(state, 1) is NodeState.DRAINING
    transition = plan_resume(state, make_report(1).node_id)
    assert transition is not None
    state = apply_transition(state, transition)
    assert state_of(report_to(state, make_report(1), 100.5), 1) is NodeState.UP


REFUSED = {
    "another cluster": {"cluster_id": "ab" * 16},
    "a newer format": {"format_version": 3},
    "a negative size": {"free_bytes": -1},
    "plain http elsewhere": {"address": "http://10.0.0.1:9000"},
    "no address": {"address": "nonsense"},
    "a huge failure domain": {"failure_domain": "z" * 300},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_reports_that_are_refused(changes: dict[str, object]) -> None:
    """With one line for the node's operator, whether the node is known or not."""
    report = msgspec.structs.replace(make_report(1), **changes)
    for state in (with_nodes(), with_nodes(make_node(1))):
        with pytest.raises(ReportRefused) as caught:
            evaluate(state, report)
        assert "\n" not in str(caught.value)


def test_two_processes_with_one_id_are_refused() -> None:
    """A copied data directory: the one that lives stays, the other is refused; after a real move it is accepted."""
    moved = msgspec.structs.replace(make_report(1), address="http://127.0.0.1:9999")
    state = report_to(with_nodes(make_node(1)), make_report(1), 100.0)
    with pytest.raises(ReportRefused, match="cannot be served twice"):
        evaluate(state, moved, 101.0)
    state = report_to(state, make_report(1), 101.0)
    with pytest.raises(ReportRefused, match="cannot be served twice"):
        evaluate(state, moved, 103.9)
    state = report_to(state, moved, 104.1)
    assert (state_of(state, 1), state.cluster_map.epoch) == (NodeState.UP, 8)
    with pytest.raises(ReportRefused, match="cannot be served twice"):
        evaluate(state, make_report(1), 105.0)


def test_a_node_that_moved_while_the_master_was_away_is_accepted_at_once() -> None:
    """This master never heard the old address."""
    moved = msgspec.structs.replace(make_report(1), address="unix:/run/other.sock")
    state = with_nodes(make_node(1))
    assert evaluate(state, moved) is NodeState.UP
    assert must_record(state, moved, NodeState.UP)


def test_a_draining_node_is_closed_once_and_opened_by_a_resume() -> None:
    """Closing raises the epoch; a drain that is taken back opens the node; a retired one stays closed."""
    state, node_id = with_nodes(make_node(1, state=NodeState.DRAINING), make_node(2)), make_report(1).node_id
    assert plan_close(state, node_id)
    with pytest.raises(ReportRefused, match="opened again"):
        plan_retire(state, node_id)
    closed = apply_closing(state, node_id)
    assert closed.cluster_map.epoch == state.cluster_map.epoch + 1
    assert [node.is_closed for node in closed.cluster_map.nodes] == [True, False]
    assert not plan_close(closed, node_id)
    resumed = apply_transition(closed, Transition(node_id, NodeState.SUSPECT))
    assert not resumed.cluster_map.nodes[0].is_closed
    assert apply_transition(closed, Transition(node_id, NodeState.GONE)).cluster_map.nodes[0].is_closed


@pytest.mark.parametrize("state", [it for it in NodeState if it is not NodeState.DRAINING])
def test_only_a_draining_node_is_closed(state: NodeState) -> None:
    """What serves writes must be open to them."""
    with pytest.raises(ReportRefused):
        plan_close(with_nodes(make_node(1, state=state)), make_report(1).node_id)


@given(
    st.sampled_from(NodeState),
    st.booleans(),
    st.none() | st.builds(Holdings, st.integers(0, 3), st.integers(0, 3), st.booleans()),
    st.booleans(),
)
def test_a_removal_ends_a_node_only_when_nothing_is_lost_by_it(
    node_state: NodeState, is_closed: bool, holdings: Holdings | None, force: bool
) -> None:
    """Every state and every finding: it never skips the drain, the closing or the last walk, and never takes what
    a chunk cannot be read without."""
    is_closed = is_closed and node_state is NodeState.DRAINING
    state, node_id = with_nodes(make_node(1, state=node_state)), make_report(1).node_id
    if is_closed:
        state = apply_closing(state, node_id)
    try:
        step = plan_removal(state, node_id, holdings, force=force)
    except ReportRefused:
        step = None
    may_go = holdings is not None and not holdings.needed and (force or not holdings.pieces)
    expected = {
        NodeState.GONE: RemovalStep.DONE,
        NodeState.DEAD: RemovalStep.DRAIN,
        NodeState.DRAINING: (RemovalStep.CLOSE if not is_closed else RemovalStep.RETIRE) if may_go else None,
    }.get(node_state)
    if holdings is not None and expected in (RemovalStep.CLOSE, RemovalStep.RETIRE) and holdings.is_final != is_closed:
        expected = None  # what was closed is looked through once more; what was looked through is open again
    assert step is expected


@pytest.mark.parametrize(
    "changes", [{"failure_domain": "z/other/1"}, {"capacity_bytes": 9 << 40}, {"reserve_bytes": 5}, {"free_bytes": 0}]
)
def test_what_could_change_a_placement_raises_the_epoch(changes: dict[str, object]) -> None:
    """Domain, capacity, reserve, and running full."""
    state = report_to(with_nodes(make_node(1)), make_report(1), 100.0)
    after = report_to(state, msgspec.structs.replace(make_report(1), **changes), 101.0)
    assert after.cluster_map.epoch == state.cluster_map.epoch + 1
    again = report_to(after, msgspec.structs.replace(make_report(1), **changes), 102.0)
    assert again.cluster_map.epoch == after.cluster_map.epoch


@pytest.mark.parametrize(
    "name",
    [
        "chunk_count",
        "stored_bytes",
        "requests",
        "damaged_count",
        "unverified_count",
        "oldest_verified_ms",
        "clock_ms",
        "free_bytes",
    ],
)
def test_figures_are_not_recorded(name: str) -> None:
    """They change with every report: the lease is renewed, with the newest of them, under the same epoch. A negative
    one is refused."""
    state = report_to(with_nodes(make_node(1)), make_report(1), 100.0)
    report = msgspec.structs.replace(make_report(1), **{name: getattr(make_report(1), name) + 12345})
    assert not must_record(state, report, evaluate(state, report))
    after = report_to(state, report, 101.0)
    assert after.cluster_map.epoch == state.cluster_map.epoch
    assert after.cluster_map.nodes[0].report == report
    with pytest.raises(ReportRefused, match="negative"):
        evaluate(state, msgspec.structs.replace(report, **{name: -1}))


def test_being_heard_counts_even_when_nothing_could_be_recorded() -> None:
    """While the metadata is away a suspect node that reports does not die."""
    state = with_nodes(make_node(1, state=NodeState.SUSPECT), now_s=100.0)
    for half_seconds in range(1, 60):
        now_s = 100.0 + half_seconds / 2
        state, transitions = tick(note_heard(state, make_report(1), now_s), TIMING, now_s)
        assert transitions == []


@pytest.mark.parametrize("before", ALIVE)
def test_a_node_whose_medium_fails_counts_as_silent(before: NodeState) -> None:
    """Though it reports every second: suspect at once, dead after the usual time, and up with the first good report. A
    drain goes on. What is wrong is in the map."""
    state = with_nodes(make_node(1, state=before))
    good = make_report(1)
    failing = msgspec.structs.replace(good, medium_error="the medium does not write: Input/output error")
    seen = []
    for now_s in range(100, 130):
        state = tick_to(report_to(state, failing, float(now_s)), now_s + 0.5)
        seen.append(state_of(state, 1))
    assert state.cluster_map.nodes[0].report == failing
    if before is NodeState.DRAINING:
        assert set(seen) == {NodeState.DRAINING}
    else:
        assert NodeState.UP not in seen
        assert seen[int(TIMING.dead_after_s)] is NodeState.DEAD
        assert before is NodeState.DEAD or seen[int(TIMING.dead_after_s) - 2] is NodeState.SUSPECT
    state = report_to(state, good, 131.0)
    assert state_of(state, 1) is (before if before is NodeState.DRAINING else NodeState.UP)
    assert state.cluster_map.nodes[0].report == good


def test_what_is_told_of_a_medium_is_bounded() -> None:
    """As everything that a report brings."""
    with pytest.raises(ReportRefused, match="characters"):
        evaluate(with_nodes(), msgspec.structs.replace(make_report(1), medium_error="x" * 201))


def test_a_transition_of_an_unknown_or_unchanged_node_changes_nothing() -> None:
    """No epoch is spent on it."""
    state = with_nodes(make_node(1))
    assert apply_transition(state, Transition("f" * 32, NodeState.DEAD)) is state
    assert apply_transition(state, Transition(make_report(1).node_id, NodeState.UP)) is state


events = st.lists(
    st.one_of(
        st.tuples(st.just("report"), st.integers(1, 3)),
        st.tuples(st.just("tick"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["drain", "resume", "retire"]), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(events)
@settings(max_examples=150, deadline=None)
def test_any_history_keeps_the_rules(history: list[tuple[str, int]]) -> None:
    """Numbers and order are stable, the epoch never falls and rises with every visible change, and a node that was
    heard of within suspect_after is never suspect, dead or waited for; nobody is waited for longer than that."""
    state, now_s, heard = with_nodes(now_s=0.0), 0.0, dict[int, float]()
    for kind, value in history:
        before = state
        if kind == "tick":
            for _ in range(value):
                now_s += 0.5
                state = tick_to(state, now_s)
        else:
            try:
                if kind == "report":
                    state = report_to(state, make_report(value), now_s)
                    heard[value] = now_s
                else:
                    plan = {"drain": plan_drain, "resume": plan_resume, "retire": plan_retire}[kind]
                    transition = plan(state, make_report(value).node_id)
                    state = apply_transition(state, transition) if transition else state
                    heard.pop(value, None)
            except ReportRefused:
                continue
        views = [{node.number: node.state for node in it.cluster_map.nodes} for it in (before, state)]
        assert state.cluster_map.epoch >= before.cluster_map.epoch
        assert (state.cluster_map.epoch > before.cluster_map.epoch) or views[0] == views[1]
        assert list(views[1]) == sorted(views[1])
        assert set(views[0]) <= set(views[1])
        unheard, awaited = list_unheard(state, TIMING, now_s), list_awaited(state, TIMING, now_s)
        assert awaited == (unheard if now_s < TIMING.suspect_after_s else frozenset())
        for number, heard_s in heard.items():
            if now_s - heard_s < TIMING.suspect_after_s:
                assert number not in unheard
                assert views[1][number] not in (NodeState.SUSPECT, NodeState.DEAD)
