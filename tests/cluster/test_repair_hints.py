"""Repair hints: a bounded set, the newest kept."""

from __future__ import annotations

from cluster.repair_hints import RepairHints
from storage.base.errors import ChunkNotFound, Corrupt, NodeUnreachable, SealBroken
from storage.base.ids import ChunkId


def test_hints_are_a_bounded_set() -> None:
    """Noted twice is once, with the newest error; above the bound the oldest go."""
    hints = RepairHints(hints_max=3)
    ids = [ChunkId(bytes(16), index) for index in range(5)]
    for chunk_id in ids:
        hints.note(chunk_id, 1, ChunkNotFound())
    hints.note(ids[2], 1, Corrupt())
    assert [(hint.chunk_id.chunk_index, hint.error) for hint in hints.listed()] == [
        (3, "ChunkNotFound"),
        (4, "ChunkNotFound"),
        (2, "Corrupt"),
    ]
    assert len(hints) == 3


def test_taking_removes_the_oldest() -> None:
    """And a hint that is restored is the newest."""
    hints = RepairHints()
    for index in range(4):
        hints.note(ChunkId(bytes(16), index), 1, Corrupt())
    taken = hints.take(2)
    assert [hint.chunk_id.chunk_index for hint in taken] == [0, 1]
    hints.restore(taken[0])
    assert [hint.chunk_id.chunk_index for hint in hints.listed()] == [2, 3, 0]


def test_lost_pieces_are_those_that_were_seen_to_be() -> None:
    """Missing or bad; not those that could not be asked for, and not once somebody looks after them."""
    hints = RepairHints()
    errors = [ChunkNotFound(), Corrupt(), SealBroken(), NodeUnreachable()]
    ids = [ChunkId(bytes(16), index) for index in range(len(errors))]
    for chunk_id, error in zip(ids, errors, strict=True):
        hints.note(chunk_id, 1, error)
    assert [hints.is_lost(chunk_id, 1) for chunk_id in ids] == [True, True, True, False]
    assert not hints.is_lost(ids[0], 2)
    hints.take(1)
    assert not hints.is_lost(ids[0], 1)
