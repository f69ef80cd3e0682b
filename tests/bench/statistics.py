"""PURE. Medians, ranges and ratios of a few rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """What several rounds of one measurement gave."""

    median: float
    low: float
    high: float
    rounds: int


def summarize(samples: Sequence[float]) -> Spread:
    """Median and range of at least one sample; ValueError on none."""
    if not samples:
        raise ValueError("no samples")
    return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


def compare(ours: Spread, theirs: Spread, *, higher_is_better: bool) -> float | None:
    """How many times better `ours` is by medians; above 1 is ahead. None when the divisor is zero."""
    numerator, divisor = (ours.median, theirs.median) if higher_is_better else (theirs.median, ours.median)
    return numerator / divisor if divisor else None
