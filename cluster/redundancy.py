"""PURE. How many times, or in which pieces, sealed bytes are kept, and what that promises.

    replica:R    R copies, each on another node: any one is enough
    ec:k+m       erasure coding over sealed frames: any k of k+m fragments are enough

The text is what blob rows carry. `inline` blobs live in the metadata and are as durable as that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from cluster.domains import SurvivableLosses, evaluate_losses
from cluster.placement import Placement, eligible
from storage.chunks.erasure import NEEDED_MAX, PARITY_MAX, SEALED_FRAME_BYTES
from storage.model import Node

REPLICAS_MAX = 16
DATA_FRAGMENTS_MAX = NEEDED_MAX
PARITY_FRAGMENTS_MAX = PARITY_MAX
INLINE = "inline"

_REPLICA = re.compile(r"replica:([1-9][0-9]?)\Z")
_ERASURE = re.compile(r"ec:([1-9][0-9]?)\+([1-9][0-9]?)\Z")
_PROBED_COLUMNS = 64


class Redundancy(NamedTuple):
    """`needed` pieces read a chunk, `width` pieces are made, each on a node of its own."""

    needed: int
    width: int
    is_erasure: bool = False

    @property
    def losses(self) -> int:
        """Pieces that may be lost."""
        return self.width - self.needed

    @property
    def pieces_before_ack_min(self) -> int:
        """Pieces that must be durable before a write is answered: all, since the answer promises what losses says."""
        return self.width

    def __str__(self) -> str:
        if self.is_erasure:
            return f"ec:{self.needed}+{self.losses}"
        return f"replica:{self.width}"


def replicated(replicas: int) -> Redundancy:
    """R copies. ValueError outside 1 to REPLICAS_MAX."""
    if not 1 <= replicas <= REPLICAS_MAX:
        raise ValueError(f"between 1 and {REPLICAS_MAX} replicas, not {replicas}")
    return Redundancy(1, replicas)


def parse_redundancy(text: str) -> Redundancy:
    """`replica:R` or `ec:k+m`; ValueError in one line for anything else."""
    if match := _REPLICA.match(text):
        return replicated(int(match[1]))
    if match := _ERASURE.match(text):
        data, parity = int(match[1]), int(match[2])
        if data > DATA_FRAGMENTS_MAX or parity > PARITY_FRAGMENTS_MAX:
            raise ValueError(f"{text}: at most {DATA_FRAGMENTS_MAX} data and {PARITY_FRAGMENTS_MAX} parity fragments")
        return Redundancy(data, data + parity, is_erasure=True)
    raise ValueError(f"{text[:64]!r} is no redundancy; write replica:2, for example")


def choose_for_size(policy: Redundancy, size: int) -> Redundancy:
    """What a blob of so many bytes gets under a policy: below one stripe of frames, fragments would save little and
    cost a node each, so that as many losses are survived by replicas."""
    if policy.is_erasure and size < policy.needed * SEALED_FRAME_BYTES:
        return replicated(policy.losses + 1)
    return policy


def evaluate_chunk(redundancy: Redundancy, holders: Sequence[Node]) -> SurvivableLosses:
    """What a chunk on these nodes survives; negative numbers say that it cannot be read."""
    return evaluate_losses([node.report.failure_domain for node in holders], redundancy.needed)


def evaluate_cluster(redundancy: Redundancy, nodes: Sequence[Node]) -> SurvivableLosses:
    """What every chunk written now would survive: the least over many columns. NotEnoughNodes."""
    placement = Placement(eligible(nodes, redundancy.width), redundancy.width)
    found = [evaluate_chunk(redundancy, placement.column(0, index)) for index in range(_PROBED_COLUMNS)]
    return SurvivableLosses(*(min(losses) for losses in zip(*found, strict=True)))
