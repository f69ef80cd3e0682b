"""PURE. How one chunk gets back as many good copies as it should have, from what its replicas said of themselves."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from storage.model import Node


class ReplicaState(enum.Enum):
    """What a look at one replica found."""

    GOOD = "good"
    MISSING = "missing"
    BAD = "bad"
    """there, with other bytes than were stored"""
    UNKNOWN = "unknown"
    """its node did not answer; whether it is lost is the master's decision"""


class RepairPlan(NamedTuple):
    """source: a good copy. targets: where to make copies, in order of preference, until `missing` are made. set_aside:
    nodes whose bad copy goes into quarantine first. kept: what the row names besides the new copies."""

    source: int
    targets: tuple[int, ...]
    missing: int
    set_aside: tuple[int, ...]
    kept: tuple[int, ...]


def plan_repair(states: Mapping[int, ReplicaState], wanted: int, stand_ins: Sequence[Node]) -> RepairPlan | None:
    """states: of every replica that the row names. stand_ins: nodes that can take a copy, best first.

    None when there is nothing to copy from, or nothing to do. The nodes that lost their copy come last: a disk that
    damaged one will damage another, but one more copy there is better than none.
    """
    good = [number for number, state in states.items() if state is ReplicaState.GOOD]
    kept = tuple(number for number, state in states.items() if state in (ReplicaState.GOOD, ReplicaState.UNKNOWN))
    bad = tuple(number for number, state in states.items() if state is ReplicaState.BAD)
    if not good or (len(kept) >= wanted and len(kept) == len(states)):
        return None
    able = [node.number for node in stand_ins if node.number not in kept]
    targets = [number for number in able if number not in states] + [number for number in able if number in states]
    return RepairPlan(good[0], tuple(targets), max(0, wanted - len(kept)), bad, kept)
