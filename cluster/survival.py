"""PURE. What an acknowledged write must survive: worked out from the nodes that hold its pieces, before the ack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.domains import LEVELS, evaluate_losses
from cluster.redundancy import Redundancy

NODE = "node"


class SurviveMin(NamedTuple):
    """The loss of any `losses` domains of one level; None: as many as the redundancy promises of nodes, less
    `missing_max`. Blobs that live in the metadata are not asked."""

    level: str = NODE
    losses: int | None = None
    missing_max: int = 0
    """pieces that may be made after the ack, where `losses` is None"""

    def losses_of(self, redundancy: Redundancy) -> int:
        """How many losses a chunk of this redundancy must survive."""
        return max(0, redundancy.losses - self.missing_max) if self.losses is None else self.losses

    def is_met(self, redundancy: Redundancy, held: Sequence[str]) -> bool:
        """Whether a chunk survives enough with its pieces in these failure domains (one text for each piece)."""
        if self.level == NODE:
            return len(held) - redundancy.needed >= self.losses_of(redundancy)
        survived = evaluate_losses(held, redundancy.needed)
        return survived[LEVELS.index(self.level)] >= self.losses_of(redundancy)

    def __str__(self) -> str:
        if self.losses is None:
            return f"all but {self.missing_max} of its pieces" if self.missing_max else "all of its pieces"
        return f"the loss of {self.losses} {self.level}{'' if self.losses == 1 else 's'}"


def make_survive_min(level: str, losses: int) -> SurviveMin:
    """As an operator asks for it. ValueError in one line."""
    if level not in (NODE, *LEVELS):
        raise ValueError(f"survive_min: the level is {', '.join((NODE, *reversed(LEVELS)))}, not {level[:64]!r}")
    if losses < 0:
        raise ValueError(f"survive_min: losses are not negative: {losses}")
    return SurviveMin(level, losses)


def require_promise(survive_min: SurviveMin, redundancy: Redundancy) -> None:
    """ValueError for a redundancy that cannot survive so much, wherever its pieces are."""
    if survive_min.losses_of(redundancy) > redundancy.losses:
        raise ValueError(f"{redundancy} survives {redundancy.losses} losses, and {survive_min} must be survived")
