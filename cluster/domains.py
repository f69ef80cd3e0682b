"""PURE. Failure domains: what is lost together, as text `zone/host/disk` in a node's report, coarse to fine.

Two nodes share a zone when the first part is equal, a host when the first two are, a disk when all three are. A text
with fewer parts names the coarse levels only; then the finer ones are no further apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LEVELS = ("zone", "host", "disk")

Levels = tuple[str, str, str]


class SurvivableLosses(NamedTuple):
    """How many zones, hosts, disks or single nodes can be lost, whichever they are, with the data still readable."""

    zones: int
    hosts: int
    disks: int
    nodes: int


def parse_levels(failure_domain: str) -> Levels:
    """The names of the zone, the host and the disk, each with the coarser ones in front so that it is unique."""
    parts = failure_domain.split("/", 2)
    zone, host, disk = ("/".join(parts[: depth + 1]) for depth in range(3))
    return zone, host, disk


def count_survivable(held: Iterable[str], needed: int) -> int:
    """How many domains can be lost, whichever they are, while `needed` of the pieces stay.

    held: the domain of each piece, at one level. -1 when fewer than `needed` pieces are there at all.
    """
    largest_first = sorted(Counter(held).values(), reverse=True)
    left, lost = sum(largest_first), -1
    for share in [0, *largest_first]:
        left -= share
        if left < needed:
            break
        lost += 1
    return lost


def evaluate_losses(held: Sequence[str], needed: int) -> SurvivableLosses:
    """For pieces in these failure domains (one text per piece and node), of which `needed` must stay readable."""
    levels = [parse_levels(failure_domain) for failure_domain in held]
    zones, hosts, disks = (count_survivable((names[depth] for names in levels), needed) for depth in range(3))
    return SurvivableLosses(zones, hosts, disks, len(held) - needed)
