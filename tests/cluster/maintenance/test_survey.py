"""The survey's comparison and judgement, and all of its planners together on a model of a cluster: whatever fails in
whatever order, maintenance itself loses nothing and comes to rest with everything whole that can be."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domains import evaluate_losses
from cluster.maintenance.pieces import named_pieces, receipt_of, redundancy_of, stored_id_of
from cluster.maintenance.repair import Finding, Piece, is_enough, name_nodes, plan_repair
from cluster.maintenance.surplus import find_unverified, is_settled
from cluster.maintenance.survey import (
    ChunkSurvey,
    Health,
    Listed,
    Standing,
    can_be_repaired,
    compare_window,
    count_good,
    cut_to_whole_blobs,
    evaluate,
    judge,
    needs_second_look,
)
from cluster.maintenance.targets import Targets
from cluster.redundancy import parse_redundancy
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.store import ChunkState
from storage.metadata.interface import ChunkPlace
from storage.model import ClusterMap, NodeState
from tests.cluster.nodes import make_node

LENGTH = 200_000
REDUNDANCIES = ["replica:1", "replica:2", "replica:3", "ec:2+1", "ec:3+2"]


def make_place(
    number: int, redundancy: str, nodes: tuple[int, ...], generation: int = 0, *, is_released: bool = False
) -> ChunkPlace:
    """The row of the chunk of this number."""
    width = parse_redundancy(redundancy).width
    digests = [bytes([position] * 8) for position in range(width)]
    digest = b"".join(digests) if redundancy.startswith("ec") else digests[0]
    return ChunkPlace(number.to_bytes(16, "big"), 0, LENGTH, digest, nodes, redundancy, generation, is_released)


@st.composite
def chunk_surveys(draw: st.DrawFn) -> ChunkSurvey:
    """Any findings."""
    redundancy = draw(st.sampled_from(REDUNDANCIES))
    width = parse_redundancy(redundancy).width
    nodes = tuple(draw(st.permutations(range(1, 9)))[:width])
    place = make_place(1, redundancy, nodes)
    findings = draw(st.lists(st.sampled_from(Finding), min_size=width, max_size=width))
    return ChunkSurvey(
        place,
        tuple(Piece(*piece, finding) for piece, finding in zip(named_pieces(place), findings, strict=True)),
    )


# ------------------------------------------------------------------ the comparison


@given(
    st.lists(
        st.tuples(
            st.sampled_from(REDUNDANCIES),
            st.permutations(range(1, 7)),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=4,
    ),
    st.sets(st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2)), max_size=20),
    st.lists(st.sampled_from(Standing), min_size=6, max_size=6),
)
def test_every_piece_is_found_and_everything_else_is_surplus(
    rows: list[tuple[str, list[int], int, bool]], stored: set[tuple[int, int, int]], stands: list[Standing]
) -> None:
    """stored: (node, number of the blob, generation). Against the definition, piece by piece."""
    places = [
        make_place(
            number,
            redundancy,
            tuple(nodes[: parse_redundancy(redundancy).width]),
            generation,
            is_released=is_released,
        )
        for number, (redundancy, nodes, generation, is_released) in enumerate(rows)
    ]
    standings = dict(enumerate(stands, 1))
    listed = {
        number: Listed({_id(blob, generation): 9 for node, blob, generation in stored if node == number})
        for number, standing in standings.items()
        if standing in (Standing.HERE, Standing.LEAVING)
    }
    chunks = {chunk.place: chunk for chunk in compare_window(places, listed, standings)}
    assert set(chunks) == {place for place in places if not place.is_released}
    for place, chunk in chunks.items():
        blob = int.from_bytes(place.blob_id, "big")
        for piece in chunk.pieces:
            is_listed = piece.node in listed and (piece.node, blob, place.generation) in stored
            expected = {
                Standing.HERE: Finding.GOOD if is_listed else Finding.MISSING,
                Standing.LEAVING: Finding.LEAVING if is_listed else Finding.MISSING,
                Standing.SILENT: Finding.UNKNOWN,
                Standing.LEFT: Finding.AWAY,
                Standing.DEAD: Finding.AWAY,
                Standing.GONE: Finding.MISSING,
            }[standings[piece.node]]
            assert piece.finding is expected
        surplus = {
            (node, generation)
            for node, at, generation in stored
            if at == blob and node in listed and (generation != place.generation or node not in place.nodes)
        }
        assert {(it.node, it.chunk_id) for it in chunk.surplus} == {(node, _id(blob, gen)) for node, gen in surplus}
        assert set(chunk.strays) == {node for node, generation in surplus if generation == place.generation}


def _id(blob: int, generation: int) -> ChunkId:
    return stored_chunk_id(blob.to_bytes(16, "big"), 0, generation)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_a_page_is_cut_to_whole_blobs(numbers: list[int]) -> None:
    """The last blob is left out, as more of it may follow, unless there is no other."""
    places = [make_place(number, "replica:1", (1,)) for number in sorted(numbers)]
    whole = cut_to_whole_blobs(places)
    last = places[-1].blob_id
    if places[0].blob_id == last:
        assert whole == places
    else:
        assert whole == [place for place in places if place.blob_id != last]


# ------------------------------------------------------------------ the judgement


@given(chunk_surveys())
def test_health_is_what_can_be_read(chunk: ChunkSurvey) -> None:
    """Healthy: every piece. Lost: not even with all silent nodes. In between by how many losses are left."""
    redundancy, health = redundancy_of(chunk.place), judge(chunk)
    good = count_good(chunk)
    silent = sum(piece.finding in (Finding.UNKNOWN, Finding.AWAY) for piece in chunk.pieces)
    assert (health is Health.HEALTHY) == (good == redundancy.width)
    assert (health is Health.LOST) == (good + silent < redundancy.needed)
    assert (health is Health.UNAVAILABLE) == (good < redundancy.needed <= good + silent)
    assert (health is Health.ENDANGERED) == (good == redundancy.needed < redundancy.width)
    nodes = {number: make_node(number) for number in range(1, 9)}
    assert evaluate(chunk, nodes).nodes == good - redundancy.needed


@given(chunk_surveys(), st.sets(st.integers(1, 8)))
def test_what_is_queued_is_what_a_repair_would_change(chunk: ChunkSurvey, able: set[int]) -> None:
    """No chunk is queued for nothing, and none that could be helped is left out."""
    redundancy, able = redundancy_of(chunk.place), able - {it.node for it in chunk.pieces if it.finding in _UNABLE}
    plan = plan_repair(redundancy, chunk.pieces, [], sorted(able))
    changes = False
    if plan is not None:
        made = [Piece(position, target) for position, target in zip(plan.wanted, plan.targets, strict=False)]
        nodes, before = name_nodes(redundancy, plan, made), chunk.place.nodes
        changes = bool(made) or (nodes != before if redundancy.is_erasure else set(nodes) != set(before))
    if is_enough(redundancy, [piece for piece in chunk.pieces if piece.finding in _USABLE]):
        assert can_be_repaired(chunk, able) == changes
    else:
        assert not can_be_repaired(chunk, able)


_USABLE = (Finding.GOOD, Finding.LEAVING)
_UNABLE = (Finding.UNKNOWN, Finding.AWAY, Finding.LEAVING)


# ------------------------------------------------------------------ all planners on a model


class Model:
    """Nodes with what they hold, and one row for each chunk. Bytes are right or not there."""

    def __init__(self, domains: list[str], chunks: list[str]) -> None:
        self.domains = dict(enumerate(domains, 1))
        self.states = dict.fromkeys(self.domains, NodeState.UP)
        self.silent: set[int] = set()
        self.held: dict[int, dict[ChunkId, int]] = {number: {} for number in self.domains}
        """node → stored id → position of the piece"""
        self.rows: dict[int, ChunkPlace] = {}
        for number, redundancy in enumerate(chunks):
            width = parse_redundancy(redundancy).width
            place = make_place(number, redundancy, ())
            nodes = tuple(self.targets().rank(place, [])[:width])
            self.rows[number] = place._replace(nodes=nodes)
            for position, node in named_pieces(self.rows[number]):
                self.held[node][stored_id_of(place)] = position

    @property
    def cluster_map(self) -> ClusterMap:
        """By the states."""
        nodes = (make_node(number, self.domains[number], state=state) for number, state in self.states.items())
        return ClusterMap(1, tuple(nodes))

    def targets(self) -> Targets:
        """By the map."""
        return Targets(self.cluster_map)

    def standings(self) -> dict[int, Standing]:
        """As a walk finds them."""
        found = {}
        for number, state in self.states.items():
            if state is NodeState.DEAD:
                found[number] = Standing.DEAD
            elif state is NodeState.DRAINING:
                found[number] = Standing.LEFT if number in self.silent else Standing.LEAVING
            else:
                found[number] = Standing.SILENT if number in self.silent else Standing.HERE
        return found

    def survey(self) -> list[ChunkSurvey]:
        """One walk."""
        standings = self.standings()
        listed = {
            number: Listed(dict.fromkeys(self.held[number], 9))
            for number, standing in standings.items()
            if standing in (Standing.HERE, Standing.LEAVING)
        }
        return compare_window(self.rows.values(), listed, standings)

    def is_readable(self, number: int) -> bool:
        """From the pieces on the nodes that answer, named or not (a repair finds those)."""
        place = self.rows[number]
        answering = {it for it, stand in self.standings().items() if stand in (Standing.HERE, Standing.LEAVING)}
        held = [
            Piece(self.held[node][stored_id_of(place)], node)
            for node in answering
            if stored_id_of(place) in self.held[node]
        ]
        return is_enough(redundancy_of(place), held)

    def repair(self, chunk: ChunkSurvey, unwilling: set[int]) -> bool:
        """Whether anything changed."""
        place, redundancy = chunk.place, redundancy_of(chunk.place)
        chunk_id, standings = stored_id_of(place), self.standings()
        strays = [
            Piece(
                self.held[node][chunk_id],
                node,
                Finding.LEAVING if standings[node] is Standing.LEAVING else Finding.GOOD,
            )
            for node in chunk.strays
        ]
        holders = [it.node for it in chunk.pieces if it.finding in (Finding.GOOD, Finding.UNKNOWN)]
        able = self.targets().rank(place, holders)
        plan = plan_repair(redundancy, chunk.pieces, strays, able)
        if plan is None:
            return False
        made: list[Piece] = []
        targets = iter(plan.targets)
        for position in plan.wanted:
            for target in targets:
                if target not in unwilling and target not in self.silent:
                    self.held[target][chunk_id] = position
                    made.append(Piece(position, target))
                    break
        nodes = name_nodes(redundancy, plan, made)
        changed = nodes != place.nodes
        self.rows[int.from_bytes(place.blob_id, "big")] = place._replace(nodes=nodes)
        return changed

    def remove_surplus(self, chunk: ChunkSurvey) -> bool:
        """After its age; whether anything went."""
        place = chunk.place
        if not chunk.surplus or not is_settled(chunk):
            return False
        states: dict[int, ChunkState | None] = {}
        for position, node in named_pieces(place):
            has = self.held[node].get(stored_id_of(place)) == position
            expected = receipt_of(place, position)
            states[node] = ChunkState(expected.length, expected.digest, 1, 5) if has else None
        if find_unverified(place, states, {}) != []:
            return False
        standings = self.standings()
        gone = [it for it in chunk.surplus if standings[it.node] is Standing.HERE]
        for surplus in gone:
            del self.held[surplus.node][surplus.chunk_id]
        return bool(gone)

    def maintain(self, unwilling: set[int]) -> bool:
        """A walk, then what it asks for; whether anything changed. Maintenance must not make a chunk unreadable."""
        changed = False
        able = self.targets().able
        readable = {number: self.is_readable(number) for number in self.rows}
        for chunk in sorted(self.survey(), key=lambda it: evaluate(it, self._nodes()).disks):
            if can_be_repaired(chunk, able):
                changed |= self.repair(chunk, unwilling)
        for chunk in self.survey():
            changed |= self.remove_surplus(chunk)
        for number, was_readable in readable.items():
            assert self.is_readable(number) or not was_readable
        return changed

    def _nodes(self) -> Mapping[int, object]:
        return {node.number: node for node in self.cluster_map.nodes}  # type: ignore[return-value]


events = st.lists(
    st.tuples(
        st.sampled_from(["die", "return", "silent", "drain", "resume", "lose", "maintain", "maintain"]),
        st.integers(1, 8),
        st.integers(0, 3),
        st.sets(st.integers(1, 8), max_size=3),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(["a/1/d", "a/2/d", "b/3/d", "b/4/d", "c/5/d"]), min_size=5, max_size=8),
    st.lists(st.sampled_from(REDUNDANCIES), min_size=1, max_size=4),
    events,
)
def test_whatever_happens_maintenance_loses_nothing_and_comes_to_rest(
    domains: list[str], chunks: list[str], history: list[tuple[str, int, int, set[int]]]
) -> None:
    """Nodes die, return, fall silent and are drained, pieces vanish, and repairs fail: after that, with every node that
    is not dead answering, a bounded number of walks leaves each chunk that can be read with all its pieces on as many
    nodes as there are, on as many disks as can be, without surplus."""
    model = Model(domains, chunks)
    for what, node, number, unwilling in history:
        if node not in model.states:
            continue
        if what == "die":
            model.states[node] = NodeState.DEAD
        elif what == "return" and model.states[node] is NodeState.DEAD:
            model.states[node] = NodeState.UP
            model.silent.discard(node)
        elif what == "silent":
            model.silent ^= {node}
        elif what == "drain" and model.states[node] is NodeState.UP:
            model.states[node] = NodeState.DRAINING
        elif what == "resume" and model.states[node] is NodeState.DRAINING:
            model.states[node] = NodeState.UP
        elif what == "lose" and number in model.rows:
            model.held[node].pop(stored_id_of(model.rows[number]), None)
        elif what == "maintain":
            model.maintain(unwilling)
    model.silent.clear()
    for _ in range(12):
        if not model.maintain(set()):
            break
    else:
        raise AssertionError("maintenance does not come to rest")
    able = model.targets().able
    for chunk in model.survey():
        redundancy = redundancy_of(chunk.place)
        if not model.is_readable(int.from_bytes(chunk.place.blob_id, "big")):
            assert judge(chunk) in (Health.LOST, Health.UNAVAILABLE)
            continue
        good = [piece for piece in chunk.pieces if piece.finding is Finding.GOOD]
        if len(able) >= redundancy.width:
            assert len(good) == redundancy.width
            assert not [it for it in chunk.surplus if model.states[it.node] is NodeState.UP]
        assert not needs_second_look(chunk) or len(able) < redundancy.width


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from(["a/1/d", "a/2/d", "b/3/d", "b/4/d", "c/5/d"]), min_size=5, max_size=8),
    st.sampled_from(["replica:2", "replica:3", "ec:2+1"]),
    st.integers(1, 8),
)
def test_a_repair_survives_as_much_as_a_new_write_would(domains: list[str], redundancy: str, lost: int) -> None:
    """One node dies: what is made anew is as far from the rest as the nodes that are left allow."""
    model = Model(domains, [redundancy])
    if lost not in model.rows[0].nodes or len(domains) <= parse_redundancy(redundancy).width:
        return
    survivors = [node for node in model.rows[0].nodes if node != lost]
    model.states[lost] = NodeState.DEAD
    model.maintain(set())
    needed = parse_redundancy(redundancy).needed

    def survives(nodes: tuple[int, ...]) -> tuple[int, ...]:
        return evaluate_losses([model.domains[node] for node in nodes], needed)[:3]

    choices = [it for it in model.targets().able if it not in survivors]
    best = max(survives((*survivors, choice)) for choice in choices)
    assert survives(model.rows[0].nodes) == best
