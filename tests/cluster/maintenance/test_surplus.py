"""Which surplus may go: seen twice, old enough, read by nobody, and every named piece whole and verified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.pieces import named_pieces, receipt_of
from cluster.maintenance.repair import Finding, Piece
from cluster.maintenance.surplus import SurplusMemory, find_unverified, is_settled, same_placement
from cluster.maintenance.survey import ChunkSurvey, Surplus
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkState
from storage.metadata.interface import ChunkPlace
from tests.cluster.maintenance.test_survey import make_place

AGE_S = 60.0
SEEN = Surplus(3, ChunkId(bytes(16), 0), 100)


@given(
    st.lists(
        st.tuples(st.floats(1, 50), st.booleans(), st.floats(-100, 10)),
        min_size=1,
        max_size=12,
    )
)
def test_a_piece_is_old_when_two_walks_far_enough_apart_saw_it(walks: list[tuple[float, bool, float]]) -> None:
    """Each walk: seconds after the one before, whether it saw the piece, and how long before it the oldest read that
    still runs began. A walk that looked and did not see it begins anew."""
    memory, now_s, first_s = SurplusMemory(AGE_S), 0.0, None
    for seconds, is_seen, since_s in walks:
        now_s += seconds
        memory.begin_walk(now_s)
        if is_seen:
            is_old = memory.note(SEEN, now_s + since_s)
            if first_s is None:
                assert not is_old
                first_s = now_s
            else:
                assert is_old == (now_s - first_s >= AGE_S and now_s + since_s > first_s)
        else:
            first_s = None
        memory.end_walk(silent=[])
        assert memory.ripe_s == (None if first_s is None else first_s + AGE_S)


def test_what_is_known_of_a_silent_node_stays() -> None:
    """A walk that could not look there forgets nothing; what was set aside is forgotten."""
    memory = SurplusMemory(AGE_S)
    for now_s, silent in ((0.0, []), (30.0, [3]), (61.0, [])):
        memory.begin_walk(now_s)
        if not silent:
            assert memory.note(SEEN, now_s) == (now_s == 61.0)
        if now_s == 61.0:
            memory.forget(SEEN)
        memory.end_walk(silent)
    assert len(memory) == 0


def test_the_memory_is_bounded() -> None:
    """What does not fit is seen again when there is room."""
    memory = SurplusMemory(AGE_S, seen_max=2)
    for now_s in (0.0, 100.0):
        memory.begin_walk(now_s)
        old = [memory.note(Surplus(number, SEEN.chunk_id, 1), now_s) for number in range(4)]
        memory.end_walk([])
        assert len(memory) == 2
    assert old == [True, True, False, False]


def states_of(place: ChunkPlace, verified_ms: int = 500) -> dict[int, ChunkState | None]:
    """Every named node has the right piece."""
    return {
        number: ChunkState(receipt_of(place, position).length, receipt_of(place, position).digest, 100, verified_ms)
        for position, number in named_pieces(place)
    }


@pytest.mark.parametrize("redundancy", ["replica:3", "ec:2+1"])
def test_every_named_piece_must_be_there_and_verified(redundancy: str) -> None:
    """Never read, or not since its node came back: to be read; not there or another one: nothing may go."""
    place = make_place(1, redundancy, (1, 2, 3))
    assert find_unverified(place, states_of(place), {}) == []
    assert find_unverified(place, states_of(place), {2: 499, 5: 9999}) == []
    assert find_unverified(place, states_of(place), {2: 500}) == [2]
    assert find_unverified(place, states_of(place, verified_ms=0), {}) == [1, 2, 3]
    for number in (1, 2, 3):
        wrong = ChunkState(7, bytes(8), 100, 500)
        assert find_unverified(place, {**states_of(place), number: None}, {}) is None
        assert find_unverified(place, {**states_of(place), number: wrong}, {}) is None
        left_out = {key: state for key, state in states_of(place).items() if key != number}
        assert find_unverified(place, left_out, {}) is None


def test_a_chunk_is_settled_with_every_piece_on_nodes_that_stay() -> None:
    """Not with one fragment nowhere, not with one that is leaving."""
    place = make_place(1, "ec:2+1", (1, 2, 0))
    pieces = (Piece(0, 1), Piece(1, 2), Piece(2, 3))
    assert is_settled(ChunkSurvey(place, pieces))
    assert not is_settled(ChunkSurvey(place, pieces[:2]))
    for finding in Finding:
        if finding is not Finding.GOOD:
            assert not is_settled(ChunkSurvey(place, (*pieces[:2], Piece(2, 3, finding))))


def test_a_placement_is_the_same_only_unchanged() -> None:
    """Another node, another layout, a release or no row: not the same."""
    place = make_place(1, "replica:2", (1, 2))
    assert same_placement(place, [make_place(2, "replica:2", (1, 2)), place])
    for later in (place._replace(nodes=(1, 3)), place._replace(generation=1), place._replace(is_released=True)):
        assert not same_placement(place, [later])
    assert not same_placement(place, [])
