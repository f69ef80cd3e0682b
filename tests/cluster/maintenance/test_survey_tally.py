"""What a walk adds up, against the definition of each figure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.domains import evaluate_losses
from cluster.maintenance.pieces import receipt_of, redundancy_of
from cluster.maintenance.repair import USABLE, Finding, Piece, is_enough
from cluster.maintenance.survey import ChunkSurvey, Health, Listed, Standing, Surplus, judge
from cluster.maintenance.survey_status import AFFECTED_NAMES_MAX
from cluster.maintenance.survey_tally import Tally
from storage.base.ids import ChunkId
from tests.cluster.maintenance.test_survey import chunk_surveys, make_place
from tests.cluster.nodes import make_node

NODES = {number: make_node(number) for number in range(1, 9)}


@given(st.lists(chunk_surveys(), max_size=8), st.lists(st.tuples(st.integers(1, 8), st.integers(1, 99)), max_size=5))
def test_every_figure(chunks: list[ChunkSurvey], extra: list[tuple[int, int]]) -> None:
    """Chunks by health, pieces and bytes by node, and the chunks that need a node."""
    tally = Tally()
    surplus = tuple(Surplus(node, ChunkId(bytes(16), 0), length) for node, length in extra)
    chunks = [chunk._replace(surplus=surplus) for chunk in chunks]
    for chunk in chunks:
        survives = tally.add_chunk(chunk, NODES)
        held = [NODES[it.node].report.failure_domain for it in chunk.pieces if it.finding in USABLE]
        assert survives == evaluate_losses(held, redundancy_of(chunk.place).needed)
    assert tally.chunks == len(chunks)
    assert tally.bytes == sum(chunk.place.length for chunk in chunks)
    assert {health: count for health, count in tally.health.items() if count} == {
        health: count for health in Health if (count := sum(judge(chunk) is health for chunk in chunks))
    }
    assert all(sum(counts.values()) == len(chunks) for counts in tally.losses.values())
    for node in tally.holdings(NODES.values()):
        named = [(chunk, it) for chunk in chunks for it in chunk.pieces if it.node == node.number]
        lost = [it for _, it in named if it.finding in (Finding.MISSING, Finding.BAD)]
        assert (node.named_pieces, node.missing_pieces) == (len(named), len(lost))
        assert node.named_bytes == sum(receipt_of(chunk.place, it.position).length for chunk, it in named)
        needed = [
            chunk
            for chunk, it in named
            if it not in lost
            and not is_enough(
                redundancy_of(chunk.place),
                [other for other in chunk.pieces if other.finding in USABLE and other.node != node.number],
            )
        ]
        assert node.last_pieces == tally.last_pieces(node.number) == len(needed)
        mine = [length for number, length in extra if number == node.number] * len(chunks)
        assert (node.surplus_pieces, node.surplus_bytes) == (len(mine), sum(mine))


def test_listings_and_silence() -> None:
    """Summed over windows; a node that was silent in one window was silent."""
    tally = Tally()
    tally.add_listing({1: Listed({}, 3, 30), 2: Listed({}, 1, 10)}, {1: Standing.HERE, 2: Standing.HERE})
    tally.add_listing({1: Listed({}, 4, 40)}, {1: Standing.HERE, 2: Standing.SILENT, 3: Standing.DEAD})
    holdings = {node.number: node for node in tally.holdings(NODES.values())}
    assert (holdings[1].listed_pieces, holdings[1].listed_bytes, holdings[1].was_silent) == (7, 70, False)
    assert [holdings[number].was_silent for number in (2, 3, 4)] == [True, True, False]


def test_names_are_bounded_and_counts_are_not() -> None:
    """A blob is told once, as lost when one of its chunks is; what is beyond the bound is counted."""
    tally = Tally()
    for number in range(AFFECTED_NAMES_MAX + 7):
        for finding in (Finding.AWAY, Finding.MISSING):
            place = make_place(number, "replica:1", (1,))
            tally.add_chunk(ChunkSurvey(place, (Piece(0, 1, finding),)), NODES)
    assert len(tally.affected) == AFFECTED_NAMES_MAX
    assert set(tally.affected.values()) == {Health.LOST}
    assert tally.affected_over == 2 * 7
    assert tally.health[Health.LOST] == tally.health[Health.UNAVAILABLE] == AFFECTED_NAMES_MAX + 7
