"""Placement: distinct nodes and domains, exact and weighted shares, spread, fallbacks, stability."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domains import parse_levels
from cluster.placement import (
    SUBSTITUTES_MAX,
    Placement,
    choose_column,
    choose_substitutes,
    eligible,
    is_full,
    make_blob_seed,
)
from storage.base.errors import NotEnoughNodes
from storage.base.ids import make_blob_id
from storage.model import Node, NodeState
from tests.cluster.nodes import TIB, make_node

seeds = st.integers(0, 2**64 - 1)


def tree(zones: int, hosts: int, disks: int, per_disk: int = 1) -> list[Node]:
    """An even cluster."""
    places = [
        f"z{z}/h{h}/{d}" for z in range(zones) for h in range(hosts) for d in range(disks) for _ in range(per_disk)
    ]
    return [make_node(number, place) for number, place in enumerate(places, 1)]


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    """Any nodes in any domains with any capacities, numbered with gaps."""
    numbers = draw(st.lists(st.integers(1, 10_000), min_size=1, max_size=14, unique=True))
    small = st.integers(0, 3)
    return [
        make_node(number, f"z{draw(small)}/h{draw(small)}/{draw(small)}", TIB * draw(st.sampled_from([1, 1, 1, 4])))
        for number in numbers
    ]


def depth_names(nodes: list[Node], depth: int) -> list[str]:
    """The zone, host or disk of each node."""
    return [parse_levels(node.report.failure_domain)[depth] for node in nodes]


@given(clusters(), st.integers(1, 6), seeds, st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_a_column_has_different_nodes_in_as_many_domains_as_there_are(
    nodes: list[Node], replicas: int, seed: int, chunk_index: int
) -> None:
    """Never two replicas on a node, never two in a zone (host, disk) while another zone (…) has none."""
    if replicas > len(nodes):
        with pytest.raises(NotEnoughNodes):
            choose_column(seed, chunk_index, nodes, replicas)
        return
    column = choose_column(seed, chunk_index, nodes, replicas)
    assert len({node.number for node in column}) == len(column) == replicas
    zones = len(set(depth_names(nodes, 0)))
    assert len(set(depth_names(column, 0))) == min(replicas, zones)
    if zones == 1:
        assert len(set(depth_names(column, 1))) == min(replicas, len(set(depth_names(nodes, 1))))


@given(clusters(), st.integers(1, 4), seeds, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_placement_does_not_depend_on_the_order_of_the_nodes(
    nodes: list[Node], replicas: int, seed: int, random
) -> None:  # type: ignore[no-untyped-def]
    """The same question has the same answer in every gateway."""
    replicas = min(replicas, len(nodes))
    shuffled = list(nodes)
    random.shuffle(shuffled)
    one, other = Placement(nodes, replicas), Placement(shuffled, replicas)
    for index in range(20):
        assert one.candidates(seed, index) == other.candidates(seed, index)


@pytest.mark.parametrize(
    "nodes", [tree(1, 5, 1), tree(1, 1, 1, 5), tree(1, 1, 7), tree(1, 3, 2), tree(3, 2, 2), tree(2, 2, 2, 2)]
)
@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
def test_shares_are_exact_in_every_turn(nodes: list[Node], replicas: int) -> None:
    """Equal weights in an even tree: in each turn of the circle every row has every node once."""
    placement = Placement(nodes, replicas)
    for turn in range(4):
        columns = [placement.column(turn * len(nodes), index) for index in range(len(nodes))]
        for row in zip(*columns, strict=True):
            assert {node.number for node in row} == {node.number for node in nodes}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13])
def test_two_replicas_go_over_all_pairs_equally(count: int) -> None:
    """In one rectangle, n·(n-1) columns, every ordered pair of nodes appears exactly once: a rebuild is parallel."""
    placement = Placement(tree(1, count, 1), 2)
    pairs = Counter(tuple(node.number for node in placement.column(0, index)) for index in range(count * (count - 1)))
    assert len(pairs) == count * (count - 1)
    assert set(pairs.values()) == {1}


@pytest.mark.parametrize(("count", "replicas"), [(5, 3), (8, 3), (9, 4)])
def test_more_replicas_spread_over_all_the_others_too(count: int, replicas: int) -> None:
    """The other replicas of one node's chunks lie on every other node, none with half as many again as its share."""
    placement = Placement(tree(1, count, 1), replicas)
    beside: Counter[int] = Counter()
    columns = 40 * count * (count - 1)
    for index in range(columns):
        numbers = [node.number for node in placement.column(0, index)]
        if 1 in numbers:
            beside.update(number for number in numbers if number != 1)
    share = columns * replicas / count * (replicas - 1) / (count - 1)
    assert set(beside) == set(range(2, count + 1))
    assert max(beside.values()) < 1.5 * share
    assert min(beside.values()) > 0.5 * share


def test_an_even_tree_keeps_replicas_in_different_zones_and_hosts() -> None:
    """The shifts that are used are the farthest ones."""
    for nodes, replicas, depth in [
        (tree(3, 2, 2), 3, 0),
        (tree(1, 3, 2), 3, 1),
        (tree(2, 2, 1), 4, 1),
        (tree(1, 1, 4), 3, 2),
    ]:
        placement = Placement(nodes, replicas)
        for index in range(200):
            column = placement.column(7, index)
            assert len(set(depth_names(column, depth))) == replicas


def test_four_replicas_in_two_zones_are_two_and_two() -> None:
    """Where there are fewer zones than replicas they are filled alike, on different hosts."""
    for nodes in (tree(2, 3, 1), [*tree(2, 3, 1), make_node(99, "z0/extra/0", 3 * TIB)]):
        placement = Placement(nodes, 4)
        for index in range(200):
            column = placement.column(0, index)
            assert sorted(Counter(depth_names(column, 0)).values()) == [2, 2]
            assert len(set(depth_names(column, 1))) == 4


def test_capacity_weights_the_choice() -> None:
    """A node of three times the capacity gets about three times the chunks, one replica each."""
    nodes = [make_node(1, capacity_bytes=3 * TIB), *(make_node(number) for number in range(2, 6))]
    placement = Placement(nodes, 1)
    shares = Counter(placement.column(seed, 0)[0].number for seed in range(7_000))
    assert 0.9 < shares[1] / 3_000 < 1.1
    assert all(0.85 < shares[number] / 1_000 < 1.15 for number in range(2, 6))


def test_capacities_that_are_nearly_equal_are_equal() -> None:
    """A few blocks more on one disk do not cost the exact shares."""
    nodes = [make_node(number, capacity_bytes=TIB + number * 4096) for number in range(1, 6)]
    columns = [choose_column(0, index, nodes, 2) for index in range(5)]
    assert Counter(node.number for column in columns for node in column) == dict.fromkeys(range(1, 6), 2)


def test_objects_of_one_chunk_have_exact_shares_as_well() -> None:
    """The blobs of one session take consecutive columns."""
    placement = Placement(tree(1, 5, 1), 2)
    start = make_blob_seed(make_blob_id(b"session1", 0))
    first = -start % 20
    shares: Counter[int] = Counter()
    for counter in range(first, first + 20):
        seed = make_blob_seed(make_blob_id(b"session1", counter))
        assert seed == start + counter
        shares.update(node.number for node in placement.column(seed, 0))
    assert set(shares.values()) == {8}
    assert make_blob_seed(make_blob_id(b"session2", 0)) != start


@given(clusters(), st.integers(1, 3), seeds)
@settings(max_examples=150, deadline=None)
def test_candidates_are_all_nodes_the_column_first(nodes: list[Node], replicas: int, seed: int) -> None:
    """A writer that goes through them has asked everybody once."""
    replicas = min(replicas, len(nodes))
    placement = Placement(nodes, replicas)
    candidates = placement.candidates(seed, 3)
    assert candidates[:replicas] == placement.column(seed, 3)
    assert sorted(node.number for node in candidates) == sorted(node.number for node in nodes)


@given(clusters(), seeds, st.data())
@settings(max_examples=150, deadline=None)
def test_substitutes_go_as_far_from_the_holders_as_they_can(nodes: list[Node], seed: int, data: st.DataObject) -> None:
    """Never a holder; the first is in a zone without a holder when there is one."""
    holders = data.draw(st.lists(st.sampled_from(nodes), max_size=3, unique_by=lambda node: node.number))
    found = choose_substitutes(seed, 0, nodes, holders)
    held = {node.number for node in holders}
    assert {node.number for node in found} == {node.number for node in nodes} - held
    held_zones = set(depth_names(holders, 0))
    if found and set(depth_names(found, 0)) - held_zones:
        assert depth_names(found[:1], 0)[0] not in held_zones


def test_substitutes_are_bounded() -> None:
    """In a large cluster a writer gives up before it has asked everybody."""
    assert len(Placement(tree(1, 40, 1), 3).candidates(0, 0)) == 3 + SUBSTITUTES_MAX


def test_substitutes_for_a_lost_node_are_spread() -> None:
    """What a dead node held is taken over by all the others."""
    nodes = tree(1, 6, 1)
    alive = nodes[1:]
    taken = Counter(
        choose_substitutes(0, index, alive, choose_column(0, index, nodes, 2))[0].number for index in range(1_000)
    )
    assert set(taken) == {2, 3, 4, 5, 6}
    assert max(taken.values()) < 2 * min(taken.values())


def test_only_nodes_that_are_up_and_have_room_are_eligible() -> None:
    """Joining, draining, dead, gone and full ones are left out; order is kept."""
    nodes = [make_node(number, state=state) for number, state in enumerate(NodeState, 1)]
    full = make_node(20, free_bytes=1 << 30)
    assert is_full(full)
    assert not is_full(make_node(21, free_bytes=(1 << 30) + 1))
    up = [node for node in nodes if node.state is NodeState.UP]
    assert eligible([full, *nodes], 1) == up
    with pytest.raises(NotEnoughNodes, match="3 nodes are needed, 2"):
        eligible([full, *nodes], 3)


def test_a_suspect_node_is_asked_only_when_it_must_be() -> None:
    """Two of three up: two replicas do without it, three need it."""
    nodes = [make_node(1), make_node(2, state=NodeState.SUSPECT), make_node(3)]
    assert [node.number for node in eligible(nodes, 2)] == [1, 3]
    assert sorted(node.number for node in eligible(nodes, 3)) == [1, 2, 3]


def test_no_nodes_and_no_replicas() -> None:
    """The edges of the question."""
    with pytest.raises(NotEnoughNodes):
        choose_column(0, 0, [], 1)
    with pytest.raises(ValueError, match="one replica"):
        choose_column(0, 0, [make_node(1)], 0)
    assert choose_substitutes(0, 0, [], []) == []


def test_known_columns_stay() -> None:
    """A change of the algorithm is a decision, not an accident: these columns are part of the tests."""
    even, uneven = Placement(tree(1, 5, 1), 3), Placement([make_node(1, capacity_bytes=2 * TIB), *tree(1, 5, 1)[1:]], 3)
    assert [[node.number for node in even.column(0, index)] for index in (0, 1, 5, 10, 15)] == EVEN
    assert [[node.number for node in uneven.column(0, index)] for index in (0, 1, 2, 3, 4)] == UNEVEN


EVEN = [[1, 2, 3], [2, 3, 4], [1, 3, 5], [1, 4, 5], [1, 5, 2]]
UNEVEN = [[4, 1, 5], [4, 1, 2], [5, 1, 4], [2, 1, 5], [4, 1, 3]]
