"""PURE. How one chunk gets back as many good pieces as it should have, from what a look at each of them found.

A plan never drops a piece that may still be there, and never touches anything of a chunk that cannot be read now: what
is missing or bad stays named then, since nothing better can be named. A piece on a dead or draining node stays named
until a good one takes its place.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from cluster.maintenance.pieces import NOWHERE
from cluster.redundancy import Redundancy


class Finding(enum.Enum):
    """What a look at one piece found."""

    GOOD = "good"
    LEAVING = "leaving"
    """good, on a node that is being drained"""
    MISSING = "missing"
    """its node answers and does not have it, or is gone for good"""
    BAD = "bad"
    """there, with other bytes than were stored"""
    UNKNOWN = "unknown"
    """its node did not answer; whether it is lost is the master's decision"""
    AWAY = "away"
    """its node is dead, or silent while it is drained: to be replaced, unless it comes back before that"""


USABLE = (Finding.GOOD, Finding.LEAVING)
"""findings of what can be read, copied and rebuilt from"""


class Piece(NamedTuple):
    """A replica (position 0), or the fragment of this number, on a node."""

    position: int
    node: int
    finding: Finding = Finding.GOOD


class RepairPlan(NamedTuple):
    """What to do, in this order. Afterwards the row names what `name_nodes` says."""

    set_aside: tuple[int, ...]
    """nodes whose bad piece goes into quarantine, so that they could take a good one"""
    adopted: tuple[Piece, ...]
    """good ones that the row did not name: it names them as they are"""
    wanted: tuple[int, ...]
    """positions to be made"""
    targets: tuple[int, ...]
    """where to make them, best first, one piece on each at most"""
    sources: tuple[Piece, ...]
    """what can be copied and rebuilt from"""
    kept: tuple[Piece, ...]
    """named now and afterwards"""
    spare: tuple[Piece, ...]
    """named afterwards only where nothing took their place"""


def plan_repair(
    redundancy: Redundancy, named: Sequence[Piece], strays: Sequence[Piece], able: Iterable[int]
) -> RepairPlan | None:
    """named: every piece that the row names. strays: good ones that it does not name. able: nodes that can take a
    piece, best first. None when there is nothing to do, or nothing that can be done.

    The nodes that lost their piece come last: a disk that damaged one will damage another, but one more piece there is
    better than none.
    """
    sources = tuple(piece for piece in (*named, *strays) if piece.finding in USABLE)
    is_readable = is_enough(redundancy, sources)
    failed = [piece for piece in named if piece.finding in (Finding.MISSING, Finding.BAD)]
    kept = [piece for piece in named if piece.finding in (Finding.GOOD, Finding.UNKNOWN)]
    spare = [piece for piece in named if piece.finding in (Finding.LEAVING, Finding.AWAY)]
    adopted = _adopt(redundancy, kept, [piece for piece in strays if piece.finding is Finding.GOOD])
    open_positions = _open_positions(redundancy, [*kept, *adopted])
    held = {piece.position for piece in sources}
    wanted = tuple(position for position in open_positions if is_readable or position in held)
    # What failed is dropped only where what stays named is enough without anything having been made.
    drops = is_enough(redundancy, [piece for piece in (*kept, *spare, *adopted) if piece.finding in USABLE])
    if not drops:
        spare += failed
    if not (wanted or adopted or (drops and failed)):
        return None
    set_aside = tuple(piece.node for piece in failed if piece.finding is Finding.BAD) if drops else ()
    taken = {piece.node for piece in (*kept, *spare, *adopted)}
    targets = _order_targets([number for number in able if number not in taken], failed, strays)
    return RepairPlan(set_aside, tuple(adopted), wanted, targets, sources, tuple(kept), tuple(spare))


def name_nodes(redundancy: Redundancy, plan: RepairPlan, made: Iterable[Piece]) -> tuple[int, ...]:
    """What the row names once these pieces were made: as Chunk.nodes."""
    certain = [*plan.kept, *plan.adopted, *made]
    if redundancy.is_erasure:
        # Spare ones first, so that whatever was made at their position replaces them.
        by_position = {piece.position: piece.node for piece in (*plan.spare, *certain)}
        return tuple(by_position.get(position, NOWHERE) for position in range(redundancy.width))
    spare = sorted(plan.spare, key=lambda piece: piece.finding is not Finding.LEAVING)
    room = max(0, redundancy.width - len(certain))
    return tuple(piece.node for piece in (*certain, *spare[:room]))


def is_enough(redundancy: Redundancy, pieces: Iterable[Piece]) -> bool:
    """Whether the chunk can be read from these."""
    return count_distinct(redundancy, pieces) >= redundancy.needed


def count_distinct(redundancy: Redundancy, pieces: Iterable[Piece]) -> int:
    """How many pieces these are worth: replicas on different nodes, or different fragments."""
    return len({piece.position if redundancy.is_erasure else piece.node for piece in pieces})


def _adopt(redundancy: Redundancy, kept: Sequence[Piece], strays: Sequence[Piece]) -> list[Piece]:
    adopted: list[Piece] = []
    for piece in strays:
        if piece.position in _open_positions(redundancy, [*kept, *adopted]):
            adopted.append(piece)
    return adopted


def _open_positions(redundancy: Redundancy, pieces: Collection[Piece]) -> list[int]:
    """Where a piece is still wanted: for replicas, 0 once for each."""
    if not redundancy.is_erasure:
        return [0] * max(0, redundancy.width - len(pieces))
    held = {piece.position for piece in pieces}
    return [position for position in range(redundancy.width) if position not in held]


def _order_targets(able: Sequence[int], failed: Iterable[Piece], strays: Iterable[Piece]) -> tuple[int, ...]:
    """Fresh nodes, then those that lost their piece, then those that hold another piece of this chunk, which would have
    to go first."""
    lost, crowded = {piece.node for piece in failed}, {piece.node for piece in strays}
    return tuple(sorted(able, key=lambda number: (number in crowded, number in lost)))
