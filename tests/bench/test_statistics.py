"""Medians, ranges and ratios of rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.statistics import Spread, compare, summarize

positive = st.floats(min_value=1e-6, max_value=1e9)


def test_median_and_range() -> None:
    """The median is not the mean; low and high are the extremes."""
    assert summarize([100.0, 1.0, 3.0]) == Spread(3.0, 1.0, 100.0, 3)
    assert summarize([2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 2)


def test_no_samples() -> None:
    """Nothing to summarize is an error and not a zero."""
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


@given(st.lists(positive, min_size=1, max_size=9))
def test_the_median_lies_in_the_range(samples: list[float]) -> None:
    """low ≤ median ≤ high, whatever the order."""
    spread = summarize(samples)
    assert spread.low <= spread.median <= spread.high
    assert spread == summarize(sorted(samples))


@given(positive, positive)
def test_ratios_are_above_one_for_the_better_side(ours: float, theirs: float) -> None:
    """More requests or fewer milliseconds: ahead is above one either way."""
    us, them = summarize([ours]), summarize([theirs])
    rate, time = compare(us, them, higher_is_better=True), compare(us, them, higher_is_better=False)
    assert rate is not None
    assert time is not None
    assert (rate > 1) == (ours > theirs) or ours == pytest.approx(theirs)
    assert rate * time == pytest.approx(1)


def test_a_zero_divisor_has_no_ratio() -> None:
    """A side that did nothing is not compared."""
    assert compare(summarize([5.0]), summarize([0.0]), higher_is_better=True) is None
