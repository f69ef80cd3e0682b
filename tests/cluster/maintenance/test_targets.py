"""Targets of repairs: only nodes that can take a piece, far ones first, those that just failed last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.targets import Targets
from storage.model import ClusterMap, NodeState
from tests.cluster.maintenance.test_survey import make_place
from tests.cluster.nodes import TIB, make_node


@given(
    st.lists(st.tuples(st.sampled_from(NodeState), st.booleans()), max_size=8),
    st.sets(st.integers(1, 8), max_size=4),
    st.sets(st.integers(1, 8), max_size=3),
)
def test_only_what_can_take_a_piece(nodes: list[tuple[NodeState, bool]], holders: set[int], failed: set[int]) -> None:
    """Up (or suspect, where nobody is up), with room, and not holding a piece; each once, failed ones last."""
    made = [
        make_node(number, state=state, free_bytes=0 if is_full else -1)
        for number, (state, is_full) in enumerate(nodes, 1)
    ]
    ranked = Targets(ClusterMap(1, tuple(made))).rank(make_place(1, "replica:2", ()), holders, failed)
    roomy = {number: state for number, (state, is_full) in enumerate(nodes, 1) if not is_full}
    able = {number for number, state in roomy.items() if state is NodeState.UP}
    able = able or {number for number, state in roomy.items() if state is NodeState.SUSPECT}
    assert sorted(ranked) == sorted(able - holders)
    assert [number in failed for number in ranked] == sorted(number in failed for number in ranked)


def test_far_domains_first() -> None:
    """Another zone before another host, another host before another disk."""
    domains = ["a/1/x", "a/1/y", "a/2/x", "b/3/x"]
    nodes = tuple(make_node(number, domain, TIB) for number, domain in enumerate(domains, 1))
    assert Targets(ClusterMap(1, nodes)).rank(make_place(1, "replica:2", ()), [1]) == [4, 3, 2]


def test_more_nodes_than_are_ranked() -> None:
    """All of a large cluster can be asked."""
    nodes = tuple(make_node(number) for number in range(1, 41))
    assert len(Targets(ClusterMap(1, nodes)).rank(make_place(1, "replica:2", ()), [1, 2])) == 38
