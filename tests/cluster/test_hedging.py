"""When a second node is asked: percentiles against sorting, and a bound on hedges whatever happens."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.hedging import (
    BURST_ASKS,
    DELAY_MAX_S,
    DELAY_MIN_S,
    DELAY_UNKNOWN_S,
    HEDGED_SHARE,
    SAMPLES_MIN,
    STALLED_AFTER,
    WINDOW_SAMPLES,
    Hedging,
    LatencyWindow,
)
from storage.chunks.erasure import NEEDED_MAX

times = st.floats(0, 30, allow_nan=False)


@given(st.lists(times, min_size=1, max_size=60), st.integers(1, 20), st.floats(0.01, 1))
def test_a_percentile_is_what_sorting_the_newest_says(values: list[float], samples: int, share: float) -> None:
    """At least that share does not exceed it, and of any smaller value that is not so."""
    window = LatencyWindow(samples)
    for value in values:
        window.add(value)
    newest = sorted(values[-samples:])
    assert len(window) == len(newest)
    found = window.percentile(share)
    assert found in newest
    needed = math.ceil(share * len(newest))
    assert sum(value <= found for value in newest) >= needed
    assert all(sum(it <= value for it in newest) < needed for value in newest if value < found)


@settings(max_examples=30)
@given(st.lists(times, max_size=2 * WINDOW_SAMPLES))
def test_a_delay_is_between_its_bounds(values: list[float]) -> None:
    """Whatever was measured; one node's pace says nothing of another's."""
    hedging = Hedging()
    for value in values:
        hedging.note_first_byte(1, value)
    assert DELAY_MIN_S <= hedging.delay_s(1) <= DELAY_MAX_S
    if len(values) < SAMPLES_MIN:
        assert hedging.delay_s(1) == DELAY_UNKNOWN_S
    assert hedging.delay_s(2) == DELAY_UNKNOWN_S


def test_a_delay_follows_the_node() -> None:
    """Slow ones are given more time, and quick ones that became slow too."""
    hedging = Hedging()
    for _ in range(WINDOW_SAMPLES):
        hedging.note_first_byte(1, 0.1)
    assert hedging.delay_s(1) == 0.1
    for _ in range(WINDOW_SAMPLES // 10):
        hedging.note_first_byte(1, 0.4)
    assert hedging.delay_s(1) == 0.4


@given(st.lists(st.integers(1, NEEDED_MAX), max_size=400))
def test_hedges_stay_a_small_share(wanted: list[int]) -> None:
    """Of everything asked, beside one burst; a burst takes the widest stripe."""
    hedging = Hedging()
    assert NEEDED_MAX <= BURST_ASKS
    hedged = 0
    for number, asks in enumerate(wanted, 1):
        hedging.earn()
        if hedging.take(asks):
            hedged += asks
        assert hedged <= BURST_ASKS + HEDGED_SHARE * number + 1e-6


def test_the_bucket_fills_and_no_further() -> None:
    """After a long quiet time there is one burst, not many."""
    hedging = Hedging()
    assert hedging.take(int(BURST_ASKS))
    assert not hedging.take(1)
    for _ in range(21):
        hedging.earn()
    assert hedging.take(1)
    assert not hedging.take(1)
    for _ in range(10_000):
        hedging.earn()
    assert hedging.take(int(BURST_ASKS))
    assert not hedging.take(1)


def test_a_node_that_is_late_again_and_again_is_stalled() -> None:
    """An answer in between makes it one that was slow."""
    hedging = Hedging()
    assert [hedging.note_late(1) for _ in range(STALLED_AFTER - 1)] == [False] * (STALLED_AFTER - 1)
    hedging.note_first_byte(1, 0.1)
    assert [hedging.note_late(1) for _ in range(STALLED_AFTER)] == [False] * (STALLED_AFTER - 1) + [True]
    assert hedging.note_late(1), "until it answers"
    assert not hedging.note_late(2)
