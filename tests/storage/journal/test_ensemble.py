"""Where the journal goes: never to fewer domains than it could, never to nodes that leave while there are others."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from storage.journal.ensemble import (
    choose_ensemble,
    choose_mode,
    count_spread,
    is_leaving,
    is_writable,
    should_move,
)
from storage.metadata.settings import JOURNAL_AUTO, JOURNAL_LOCAL, JOURNAL_REPLICATED
from storage.model import Node, NodeReport, NodeState

USABLE = (NodeState.UP, NodeState.SUSPECT, NodeState.DRAINING, NodeState.JOINING)


def node(
    number: int, domain: str, state: NodeState = NodeState.UP, *, full: bool = False, closed: bool = False
) -> Node:
    report = NodeReport(f"{number:032x}", "c" * 32, "unix:/s", domain, 100, 5 if full else 50, 10, 1)
    return Node(number, report, state, 0, closed)


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    count = draw(st.integers(0, 7))
    domains = st.builds(lambda z, h, d: f"z{z}/h{h}/d{d}", *[st.integers(0, 2)] * 3)
    return [
        node(number, draw(domains), draw(st.sampled_from(list(NodeState))), full=draw(st.booleans()))
        for number in range(1, count + 1)
    ]


@given(nodes=clusters(), copies=st.integers(1, 3), data=st.data())
def test_an_ensemble_is_as_large_as_it_can_be(nodes: list[Node], copies: int, data: st.DataObject) -> None:
    """Different nodes, none that is dead or gone; those to avoid only where there are too few others."""
    avoid = set(data.draw(st.lists(st.sampled_from([it.number for it in nodes] or [0]))))
    chosen = choose_ensemble(nodes, copies, avoid)
    usable = [it for it in nodes if it.state in USABLE]
    assert len({it.number for it in chosen}) == len(chosen) == min(copies, len(usable))
    assert all(it.state in USABLE for it in chosen)
    welcome = [it for it in usable if it.number not in avoid]
    assert sum(it.number in avoid for it in chosen) == max(0, len(chosen) - len(welcome))


@given(nodes=clusters())
def test_two_copies_are_as_far_apart_as_nodes_that_are_up_allow(nodes: list[Node]) -> None:
    """From whichever is taken first."""
    up = [it for it in nodes if it.state is NodeState.UP]
    chosen = choose_ensemble(up, 2)
    if len(up) >= 2:
        assert count_spread(chosen) == max(count_spread((chosen[0], it)) for it in up if it is not chosen[0])
        best = max(count_spread(pair) for pair in itertools.combinations(up, 2))
        assert (count_spread(chosen)[0] == 2) == (best[0] == 2)


@given(nodes=clusters(), copies=st.integers(1, 3))
def test_it_moves_only_to_where_it_would_stay(nodes: list[Node], copies: int) -> None:
    """The best ensemble is never left for itself, so the journal does not move for ever."""
    best = choose_ensemble(nodes, copies)
    assert not should_move(best, nodes, copies)


def test_it_leaves_a_node_that_is_on_its_way_out() -> None:
    """When there is another, and at once; a suspect one is given time."""
    a, b, c = node(1, "z/h/a"), node(2, "z/h/b"), node(3, "z/h/c")
    for state in (NodeState.DRAINING, NodeState.DEAD, NodeState.GONE):
        leaving = node(2, "z/h/b", state)
        assert should_move((a, b), [a, leaving, c], 2)
        assert is_leaving((a, b), [a, leaving, c])
    assert not should_move((a, b), [a, node(2, "z/h/b", NodeState.DRAINING)], 2)
    assert should_move((a, b), [a, node(2, "z/h/b", closed=True), c], 2)
    assert not is_leaving((a, b), [a, node(2, "z/h/b", NodeState.SUSPECT), c])
    assert not is_writable(node(2, "z/h/b", NodeState.JOINING))


def test_it_spreads_when_another_disk_joins() -> None:
    a, b, c = node(1, "z/h/a"), node(2, "z/h/a"), node(3, "z/h/c")
    assert not should_move((a, b), [a, b], 2)
    assert should_move((a, b), [a, b, c], 2)
    assert {it.number for it in choose_ensemble([a, b, c], 2)} == {1, 3}


def test_the_mode_follows_the_settings_and_in_auto_the_disks() -> None:
    """With a reason for people where it is local."""
    one, same, other = node(1, "z/h/a"), node(2, "z/h/a"), node(3, "z/h/b")
    assert choose_mode(JOURNAL_REPLICATED, []) == (True, "")
    assert choose_mode(JOURNAL_LOCAL, [one, other]) == (False, "it is set to be local")
    assert choose_mode(JOURNAL_AUTO, []) == (False, "no datanode is up")
    assert choose_mode(JOURNAL_AUTO, [one]) == (False, "one datanode is up, and a copy needs a second disk")
    assert choose_mode(JOURNAL_AUTO, [one, same]) == (False, "all 2 datanodes that are up share one disk")
    assert choose_mode(JOURNAL_AUTO, [one, same, other]) == (True, "")
    assert choose_mode(JOURNAL_AUTO, [one, node(3, "z/h/b", NodeState.SUSPECT)]) == (True, "")
    assert not choose_mode(JOURNAL_AUTO, [one, node(3, "z/h/b", NodeState.DEAD)]).is_replicated
