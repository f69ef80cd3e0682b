"""Rebalance: plans make clusters even, come to an end, and never lower what a chunk survives."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.domains import evaluate_losses
from cluster.maintenance.rebalance import REST_RATIO, UNEVEN_RATIO, Census, Move, Scales, measure_pieces
from cluster.maintenance.spread import Spread
from cluster.placement import Placement, eligible, make_blob_seed
from cluster.redundancy import parse_redundancy
from storage.base.ids import make_blob_id
from storage.metadata.interface import ChunkPlace
from storage.model import Node, NodeState
from tests.cluster.nodes import TIB, make_node

CHUNK_BYTES = 8 << 20
ROUNDS_MAX = 64


def place_all(nodes: Sequence[Node], count: int, redundancy: str = "replica:2") -> list[ChunkPlace]:
    """As many chunks as writers of a few sessions place on these nodes."""
    width = parse_redundancy(redundancy).width
    placement = Placement(eligible(nodes, width), width)
    placed = []
    for number in range(count):
        blob_id = make_blob_id((number % 3).to_bytes(8, "big"), number // 3)
        column = placement.column(make_blob_seed(blob_id), 0)
        numbers = tuple(node.number for node in column)
        placed.append(ChunkPlace(blob_id, 0, CHUNK_BYTES, b"d" * 8, numbers, redundancy, 0, False))
    return placed


def weigh(nodes: Sequence[Node], places: Sequence[ChunkPlace]) -> Scales:
    """The shares as the records have them."""
    census = Census(Spread(nodes))
    for place in places:
        census.add(place)
    return Scales(nodes, census)


def survives(nodes: Sequence[Node], place: ChunkPlace) -> tuple[int, ...]:
    """Losses that a chunk survives, by kind."""
    domains = {node.number: node.report.failure_domain for node in nodes}
    return evaluate_losses([domains[number] for number in place.nodes], parse_redundancy(place.redundancy).needed)


def take_room(nodes: Sequence[Node], made: Sequence[Move]) -> list[Node]:
    """The nodes as they report themselves after these moves; what was moved away is not deleted yet."""
    taken = Counter({node.number: 0 for node in nodes})
    for move in made:
        taken[move.target] += move.piece_bytes
    return [
        replace(node, report=replace(node.report, free_bytes=max(0, node.report.free_bytes - taken[node.number])))
        for node in nodes
    ]


def rebalance(nodes: Sequence[Node], places: list[ChunkPlace], moves_max: int = 10**9) -> list[Move]:
    """Runs of bounded length over the records, each begun with a census, until one finds nothing to move."""
    made: list[Move] = []
    for _ in range(ROUNDS_MAX):
        scales, moved = weigh(take_room(nodes, made), places), 0
        for at, place in enumerate(places):
            if moved == moves_max or scales.is_at_rest:
                break
            move = scales.plan(place)
            if move is not None:
                places[at] = place._replace(nodes=move.nodes)
                made.append(move)
                moved += 1
        if not moved:
            return made
    raise AssertionError("it never comes to rest")


def spread(nodes: Sequence[Node], places: Sequence[ChunkPlace]) -> float:
    """Highest share to lowest."""
    scales = weigh(nodes, places)
    shares = [scales.share(node.number) for node in nodes]
    return max(shares) / min(shares)


@pytest.mark.parametrize(
    ("redundancy", "count"),
    [("replica:2", 10_000), pytest.param("replica:3", 10_000, marks=pytest.mark.long), ("ec:3+2", 2_000)],
)
def test_ten_thousand_chunks_are_even_after_two_nodes_joined(redundancy: str, count: int) -> None:
    """Equal nodes: the fullest has at most a tenth more than the emptiest, and no more was moved than needed."""
    old = [make_node(number) for number in range(1, 6)]
    places = place_all(old, count, redundancy)
    nodes = [*old, make_node(6), make_node(7)]
    assert weigh(nodes, places).is_uneven
    made = rebalance(nodes, places, moves_max=1_000)
    assert spread(nodes, places) <= 1.1
    width = parse_redundancy(redundancy).width
    assert len(made) <= count * width * 2 / 7 * 1.01
    after = weigh(nodes, places)
    assert after.is_at_rest
    assert not after.is_uneven


def test_what_was_placed_evenly_stays() -> None:
    """The placement's own shares start no rebalance of equal nodes."""
    nodes = [make_node(number) for number in range(1, 6)]
    assert not weigh(nodes, place_all(nodes, 10_000)).is_uneven


def test_a_node_that_has_a_piece_of_everything_can_have_no_more() -> None:
    """As large as all others together: the others share the other pieces, and it comes to an end."""
    nodes = [make_node(1), make_node(2), make_node(3, capacity_bytes=4 * TIB)]
    places = place_all(nodes, 1_000)
    rebalance(nodes, places)
    assert all(3 in place.nodes for place in places)
    scales = weigh(nodes, places)
    assert scales.share(1) / scales.share(2) == pytest.approx(1, abs=0.05)
    assert scales.is_uneven  # and nothing to be done about it


def test_a_few_pieces_out_of_place_are_chance() -> None:
    """Ten objects are never even; that is no reason to move."""
    nodes = [make_node(number) for number in (1, 2, 3)]
    scales = weigh(nodes, place_all(nodes[:2], 10))
    assert scales.share(3) == 0
    assert not scales.is_uneven


def test_empty_clusters_and_single_nodes_are_even() -> None:
    """Nothing to divide by."""
    for nodes in ([], [make_node(1)], [make_node(1), make_node(2)]):
        scales = weigh(nodes, [])
        assert not scales.is_uneven
        assert scales.is_at_rest
        assert scales.misplaced_bytes == 0


def test_full_draining_and_silent_nodes_get_nothing() -> None:
    """And what has a piece on one that is not up stays where it is."""
    old = [make_node(number) for number in range(1, 5)]
    places = place_all(old, 2_000)
    others = [
        make_node(5, free_bytes=1 << 29),
        make_node(6, state=NodeState.DRAINING),
        make_node(7, state=NodeState.SUSPECT),
        make_node(8, state=NodeState.JOINING),
        make_node(9, state=NodeState.DEAD),
        replace(make_node(10), is_closed=True),
    ]
    assert rebalance([*old, *others], list(places)) == []
    silent = [replace(old[0], state=NodeState.SUSPECT), *old[1:], make_node(11)]
    made = rebalance(silent, list(places))
    assert made
    assert all(1 not in move.place.nodes and move.target == 11 for move in made)


def test_a_full_node_below_the_level_does_not_hold_the_others_up() -> None:
    """It is full of something else: the others share what there is without it."""
    nodes = [make_node(number) for number in range(1, 5)]
    places = place_all(nodes, 4_000)
    with_full = [*nodes, make_node(5, free_bytes=0)]
    assert not weigh(with_full, places).is_uneven


def test_no_more_goes_to_a_node_than_it_has_room_for() -> None:
    """Down to its reserve, whatever its share."""
    old = [make_node(number) for number in range(1, 5)]
    small = make_node(5, free_bytes=(1 << 30) + 10 * CHUNK_BYTES)
    made = rebalance([*old, small], place_all(old, 2_000), moves_max=5)
    assert len(made) == 9  # a sealed chunk is a little longer than its plaintext
    assert {move.target for move in made} == {5}


def test_chunks_that_are_not_whole_or_on_their_way_out_are_left_alone() -> None:
    """Repair and the sweep come first."""
    nodes = [make_node(number) for number in range(1, 5)]
    scales = weigh(nodes, place_all(nodes[:3], 1_000))
    whole = place_all(nodes[:3], 1)[0]
    assert scales.plan(whole._replace(nodes=whole.nodes[:1])) is None
    assert scales.plan(whole._replace(is_released=True)) is None
    assert scales.plan(whole._replace(nodes=(0, whole.nodes[1]))) is None
    assert scales.plan(whole._replace(nodes=(99, whole.nodes[1]))) is None
    move = scales.plan(whole)
    assert move is not None
    assert move.target == 4


def test_what_was_not_carried_out_does_not_count() -> None:
    """A failed copy leaves the shares as they were."""
    nodes = [make_node(number) for number in range(1, 4)]
    scales = weigh(nodes, place_all(nodes[:2], 100))
    before = [scales.share(number) for number in (1, 2, 3)]
    move = scales.plan(place_all(nodes[:2], 1)[0])
    assert move is not None
    assert [scales.share(number) for number in (1, 2, 3)] != before
    scales.undo(move)
    assert [scales.share(number) for number in (1, 2, 3)] == before


def test_a_fragment_stays_in_its_position_and_counts_its_own_length() -> None:
    """Fragments are not alike: each has its place in the row."""
    nodes = [make_node(number) for number in range(1, 7)]
    places = place_all(nodes[:5], 500, "ec:3+2")
    lengths = measure_pieces(places[0])
    assert len(lengths) == 5
    assert sum(lengths) > CHUNK_BYTES * 5 // 3
    for move in rebalance(nodes, places):
        assert move.piece_bytes == lengths[move.position]
        assert move.nodes[move.position] == move.target
        rest = [number for at, number in enumerate(move.place.nodes) if at != move.position]
        assert [number for at, number in enumerate(move.nodes) if at != move.position] == rest


def test_an_uneven_tree_of_domains_is_left_as_even_as_it_may_be() -> None:
    """One zone has a single node, which holds a copy of everything: nothing may leave it, the others are evened out."""
    lonely = make_node(1, "z1/h1/d1")
    rest = [make_node(number, f"z2/h{number}/d") for number in range(2, 6)]
    places = place_all([lonely, *rest[:3]], 2_000)
    assert all(1 in place.nodes for place in places)
    made = rebalance([lonely, *rest], places)
    assert all(move.source != 1 for move in made)
    assert len(made) <= 2_000 / 4 * 1.1
    assert spread(rest, places) <= 1.1


class Case:
    """Of a property."""

    def __init__(self, nodes: list[Node], places: list[ChunkPlace]) -> None:
        self.nodes = nodes
        self.places = places

    def __repr__(self) -> str:
        return f"{[(it.number, it.report.failure_domain, it.state) for it in self.nodes]}, {len(self.places)} chunks"


@st.composite
def clusters(draw: st.DrawFn) -> Case:
    """Nodes of uneven capacity in a random tree of domains, and chunks on some of them, not all placed well."""
    count = draw(st.integers(2, 9))
    nodes = []
    for number in range(1, count + 1):
        zone, host = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        capacity = draw(st.integers(1, 8)) * TIB
        disk = draw(st.sampled_from(["shared", str(number)]))
        node = make_node(
            number, f"z{zone}/h{host}/{disk}", capacity, draw(st.sampled_from([NodeState.UP] * 4 + [NodeState.DEAD]))
        )
        if draw(st.integers(0, 9)) == 0:
            node = replace(node, report=replace(node.report, free_bytes=0))
        nodes.append(node)
    redundancy = draw(st.sampled_from(["replica:1", "replica:2", "replica:3", "ec:2+1", "ec:4+2"]))
    width = parse_redundancy(redundancy).width
    if width > count:
        redundancy, width = "replica:2", 2
    source = random.Random(draw(st.integers(0, 2**32)))
    favoured = [node.number for node in nodes[: draw(st.integers(width, count))]]
    places = []
    for number in range(draw(st.integers(0, 300))):
        holders = tuple(source.sample(favoured, width))
        length = source.choice([1, 70_000, CHUNK_BYTES])
        places.append(ChunkPlace(number.to_bytes(16, "big"), 0, length, b"", holders, redundancy, 0, False))
    return Case(nodes, places)


@given(clusters(), st.integers(1, 100))
@settings(deadline=None, max_examples=40)
def test_any_cluster_comes_to_rest_and_no_chunk_survives_less(cluster: Case, moves_max: int) -> None:
    """Whatever the capacities and domains, and however short the runs: moves end, each to a node that may take it and
    does not hold the chunk, each making the cluster more even."""
    nodes, places = cluster.nodes, cluster.places
    able = {node.number for node in nodes if node.state is NodeState.UP and node.report.free_bytes}
    before = [survives(nodes, place) for place in places]
    made = rebalance(nodes, places, moves_max=max(moves_max, len(places) // 2))
    for move in made:
        assert move.target in able
        assert move.target not in move.place.nodes
        now, was = survives(nodes, move.place._replace(nodes=move.nodes)), survives(nodes, move.place)
        assert all(after >= earlier for after, earlier in zip(now, was, strict=True))
    for place, was in zip(places, before, strict=True):
        assert len(set(place.nodes)) == len(place.nodes)
        assert all(after >= earlier for after, earlier in zip(survives(nodes, place), was, strict=True))
    scales = weigh(nodes, places)
    assert all(scales.plan(place) is None for place in places) or scales.is_at_rest


@given(clusters())
@settings(deadline=None, max_examples=40)
def test_every_move_lowers_the_distance_from_the_level(cluster: Case) -> None:
    """The measure that makes moving end."""
    nodes, places = cluster.nodes, cluster.places
    scales = weigh(nodes, places)
    up = {node.number: node.report.capacity_bytes for node in nodes if node.state is NodeState.UP}

    def distance() -> float:
        return sum(capacity * scales.share(number) ** 2 for number, capacity in up.items())

    for place in places:
        before = distance()
        if scales.plan(place):
            assert distance() < before


def test_the_bounds_fit_together() -> None:
    """At rest nobody is out of what begins a move: otherwise it would never stop."""
    assert REST_RATIO < UNEVEN_RATIO


# ------------------------------------------------------------------ crowded chunks


def spread_out(nodes: Sequence[Node], places: list[ChunkPlace]) -> list[Move]:
    """Walks that move one piece of each crowded chunk, until one moves nothing."""
    made: list[Move] = []
    for _ in range(ROUNDS_MAX):
        scales, before = weigh(take_room(nodes, made), places), len(made)
        for at, place in enumerate(places):
            move = scales.plan_spread(place)
            if move is not None:
                places[at] = place._replace(nodes=move.nodes)
                made.append(move)
        if len(made) == before:
            return made
    raise AssertionError("it never comes to rest")


def test_chunks_that_were_placed_while_a_zone_was_away_are_spread() -> None:
    """One move each, and both zones have a piece of everything; the census says how many there are."""
    near = [make_node(number, f"z1/h{number}/d") for number in (1, 2, 3)]
    far = [make_node(number, f"z2/h{number}/d") for number in (4, 5, 6)]
    places = place_all(near, 300)
    census = Census(Spread([*near, *far]))
    for place in places:
        census.add(place)
    assert census.crowded == 300
    made = spread_out([*near, *far], places)
    assert len(made) == 300
    assert all(survives([*near, *far], place)[0] == 1 for place in places)
    assert all(min(place.nodes) <= 3 < max(place.nodes) for place in places)
    shares = Counter(max(place.nodes) for place in places)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert not any(Spread([*near, *far]).is_crowded(place.nodes) for place in places)


def test_fragments_are_spread_over_zones_in_several_moves() -> None:
    """4+2 in one zone of two nodes a host, two more zones come back: two fragments in each at the end."""
    near = [make_node(number, f"z1/h{number % 3}/{number}") for number in range(1, 7)]
    far = [make_node(number, f"z{2 + number % 2}/h{number}/d") for number in range(7, 13)]
    places = [
        ChunkPlace(number.to_bytes(16, "big"), 0, CHUNK_BYTES, b"", (1, 2, 3, 4, 5, 6), "ec:4+2", 0, False)
        for number in range(50)
    ]
    spread_out([*near, *far], places)
    zones = {node.number: node.report.failure_domain.split("/")[0] for node in [*near, *far]}
    for place in places:
        assert Counter(zones[number] for number in place.nodes) == {"z1": 2, "z2": 2, "z3": 2}
        assert survives([*near, *far], place)[0] == 1


def test_a_chunk_in_three_of_four_zones_is_crowded() -> None:
    """However few of its pieces share one."""
    nodes = [make_node(number, f"z{number % 4}/h{number}/d") for number in range(1, 9)]
    place = ChunkPlace(bytes(16), 0, CHUNK_BYTES, b"", (1, 5, 2, 6, 3), "ec:3+2", 0, False)
    assert Spread(nodes).is_crowded(place.nodes)
    (move,) = spread_out(nodes, [place])
    assert move.target in (4, 8)
    assert not Spread(nodes).is_crowded(move.nodes)


def test_what_cannot_be_farther_apart_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared disks, an uneven tree, a zone that is full: looked at once for each set of nodes."""
    one_disk = [make_node(number, "z/h/d") for number in (1, 2, 3)]
    assert spread_out(one_disk, place_all(one_disk, 20)) == []
    full = [make_node(1, "z1/h1/d"), make_node(2, "z1/h2/d"), make_node(3, "z2/h3/d", free_bytes=0)]
    assert spread_out(full, place_all(full[:2], 20)) == []
    # Two zones, one with a single host: of four pieces two have to share that.
    uneven = [make_node(1, "z1/h/a"), make_node(2, "z1/h/b"), *(make_node(n, f"z2/h{n}/d") for n in (3, 4, 5))]
    place = ChunkPlace(bytes(16), 0, CHUNK_BYTES, b"", (1, 2, 3, 4), "ec:2+2", 0, False)
    scales = weigh(uneven, [place])
    assert Spread(uneven).is_crowded(place.nodes)
    assert scales.plan_spread(place) is None
    monkeypatch.setattr(scales, "_takers", lambda: pytest.fail("it was looked at again"))
    assert scales.plan_spread(place) is None


@given(clusters())
@settings(deadline=None, max_examples=40)
def test_any_chunks_are_spread_and_evened_out_in_finite_time(cluster: Case) -> None:
    """Both kinds of moves in turn come to an end; none makes a chunk survive less, and evenness crowds none."""
    nodes, places = cluster.nodes, cluster.places
    spread = Spread(nodes)
    for _ in range(ROUNDS_MAX):
        scales, moved = weigh(nodes, places), 0
        for at, place in enumerate(places):
            move = scales.plan_spread(place)
            if move is not None:
                assert spread.measure(move.nodes) < spread.measure(place.nodes)
            else:
                move = scales.plan(place)
                if move is not None:
                    assert spread.measure(move.nodes) <= spread.measure(place.nodes)
            if move is None:
                continue
            now, was = survives(nodes, place._replace(nodes=move.nodes)), survives(nodes, place)
            assert all(after >= earlier for after, earlier in zip(now, was, strict=True))
            assert len(set(move.nodes)) == len(move.nodes)
            places[at] = place._replace(nodes=move.nodes)
            moved += 1
        if not moved:
            return
    raise AssertionError("it never comes to rest")
