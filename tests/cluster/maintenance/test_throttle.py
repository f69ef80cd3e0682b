"""The token bucket: never faster than told over any stretch of time, in order, and nothing is lost by who gives up."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.throttle import BURST_S, Throttle
from storage.base.clock import ManualClock


class SteppedSleep:
    """Sleeping moves the clock: one taker at a time, as time passes for all."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock

    async def __call__(self, seconds: float) -> None:
        self.clock.advance(seconds)


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 100)), max_size=30),
)
async def test_the_rate_is_kept(bytes_per_s: float, steps: list[tuple[int, float]]) -> None:
    """Whatever is taken when: at most the rate times the time, and one burst."""
    clock = ManualClock()
    throttle = Throttle(bytes_per_s, clock, SteppedSleep(clock))
    taken = 0
    for size, idle_s in steps:
        await throttle.take(size)
        taken += size
        allowed = bytes_per_s * (clock.monotonic_s() + BURST_S)
        assert taken <= allowed * (1 + 1e-6) + 1
        clock.advance(idle_s)
    assert throttle.taken_bytes == taken


async def test_a_burst_costs_no_time_and_the_rest_does() -> None:
    """The first bytes at once; then as much time as the rate says, and no more."""
    clock = ManualClock()
    throttle = Throttle(1000, clock, SteppedSleep(clock))
    await throttle.take(round(1000 * BURST_S))
    assert clock.monotonic_s() == 0
    await throttle.take(500)
    assert clock.monotonic_s() == pytest.approx(0.5)
    throttle.bytes_per_s = 100
    await throttle.take(500)
    assert clock.monotonic_s() == pytest.approx(5.5)


async def test_time_that_was_not_used_is_worth_one_burst() -> None:
    """An hour of idleness is no licence for an hour's bytes."""
    clock = ManualClock()
    throttle = Throttle(1000, clock, SteppedSleep(clock))
    clock.advance(3600)
    before_s = clock.monotonic_s()
    await throttle.take(1250)
    assert clock.monotonic_s() - before_s == pytest.approx(1.0)


async def test_who_gives_up_gives_the_bytes_back() -> None:
    """A cancelled taker does not make the next one wait."""
    clock = ManualClock()
    throttle = Throttle(1000, clock)
    waiting = asyncio.create_task(throttle.take(1_000_000))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert throttle.taken_bytes == 0
    async with asyncio.timeout(60):
        await throttle.take(250)
