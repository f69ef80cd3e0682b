"""The owner's time under a wall clock that is set at will."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.base.clock import ManualClock
from storage.metadata.sqlite.owner_time import OwnerTime

STEPS = st.lists(st.tuples(st.floats(-3_600, 3_600), st.floats(0.01, 60)), max_size=30)


def test_it_is_the_wall_clock_where_that_goes_forward() -> None:
    """A jump included."""
    clock = ManualClock()
    time = OwnerTime(clock, 0)
    assert time.now_ms() == clock.now_ms()
    clock.set_wall(600)
    assert time.now_ms() == clock.now_ms()


def test_it_goes_on_at_half_the_pace_until_the_wall_clock_has_caught_up() -> None:
    """Set back by ten seconds, it takes twenty."""
    clock = ManualClock()
    time = OwnerTime(clock, 0)
    begun_ms = time.now_ms()
    clock.set_wall(-10)
    for seconds in range(1, 20):
        clock.advance(1)
        assert time.now_ms() == begun_ms + 500 * seconds > clock.now_ms()
    clock.advance(1)
    assert time.now_ms() == clock.now_ms()
    clock.advance(1)
    assert time.now_ms() == clock.now_ms()


def test_fractions_of_a_millisecond_add_up() -> None:
    """However often it is asked."""
    clock = ManualClock()
    time = OwnerTime(clock, clock.now_ms() + 60_000)
    begun_ms = time.now_ms()
    for _ in range(1_000):
        clock.advance(0.001)
        time.now_ms()
    assert begun_ms + 490 <= time.now_ms() <= begun_ms + 500


def test_it_is_never_before_what_another_owner_recorded() -> None:
    """At the start and later."""
    clock = ManualClock()
    time = OwnerTime(clock, clock.now_ms() + 5)
    assert time.now_ms() == clock.now_ms() + 5
    time.skip_to(clock.now_ms() + 9)
    assert time.now_ms() == clock.now_ms() + 9
    time.skip_to(0)
    assert time.now_ms() == clock.now_ms() + 9


@given(STEPS)
def test_it_moves_forward_whenever_time_passes(steps: list[tuple[float, float]]) -> None:
    """Wherever the wall clock is set; and it is never behind it."""
    clock = ManualClock()
    time = OwnerTime(clock, 0)
    last_ms = time.now_ms()
    for jump_s, passed_s in steps:
        clock.set_wall(jump_s)
        clock.advance(passed_s)
        now_ms = time.now_ms()
        assert now_ms > last_ms
        assert now_ms >= clock.now_ms()
        last_ms = now_ms
