"""A deadline that moves: it strikes at its last moment, once, and not when it was taken back."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.deadline import Deadline, StepLimit


class Timers:
    """An event loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.set = 0
        self._timers: list[tuple[float, asyncio.TimerHandle]] = []

    def time(self) -> float:
        """Now."""
        return self.now_s

    def call_at(self, when_s: float, callback: object) -> asyncio.TimerHandle:
        """As loop.call_at."""
        self.set += 1
        timer = asyncio.TimerHandle(when_s, callback, (), self)  # type: ignore[arg-type]
        self._timers.append((when_s, timer))
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        self._timers = [entry for entry in self._timers if entry[1] is not timer]

    def get_debug(self) -> bool:
        """Handles ask."""
        return False

    def go_to(self, now_s: float) -> None:
        """Let time pass, and fire what is due."""
        self.now_s = now_s
        due = [entry for entry in self._timers if entry[0] <= now_s]
        self._timers = [entry for entry in self._timers if entry[0] > now_s]
        for _, timer in due:
            timer._run()


def make() -> tuple[Timers, Deadline, list[float]]:
    """Timers, a deadline on them, and the moments at which it struck."""
    timers, struck = Timers(), list[float]()
    return timers, Deadline(timers, lambda: struck.append(timers.now_s)), struck  # type: ignore[arg-type]


def test_it_strikes_once_at_its_last_moment() -> None:
    """However often it moved, on one timer while it moves on."""
    timers, deadline, struck = make()
    for now_s in range(10):
        timers.go_to(now_s)
        deadline.move(5)
    timers.go_to(13.9)
    assert struck == []
    timers.go_to(14)
    timers.go_to(100)
    assert struck == [14]
    assert timers.set <= 4


def test_it_moves_to_an_earlier_moment() -> None:
    """Not only away."""
    timers, deadline, struck = make()
    deadline.move(60)
    deadline.move(1)
    timers.go_to(1)
    assert struck == [1]


def test_it_is_taken_back() -> None:
    """For now, or for good; and set again after the one."""
    timers, deadline, struck = make()
    deadline.move(5)
    deadline.move(None)
    timers.go_to(10)
    assert struck == []
    deadline.move(5)
    timers.go_to(15)
    assert struck == [15]
    deadline.move(5)
    deadline.close()
    timers.go_to(30)
    assert struck == [15]


async def test_a_step_that_takes_too_long_times_out() -> None:
    """The one step; those before it did not, and the task goes on behind it."""
    limit = StepLimit(0.05)
    try:
        for _ in range(4):
            with limit:
                await asyncio.sleep(0.02)
        with pytest.raises(TimeoutError):
            with limit:
                await asyncio.sleep(60)
        with limit:
            await asyncio.sleep(0.001)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    finally:
        limit.close()


async def test_what_is_between_steps_is_not_limited() -> None:
    """Nor anything once it is closed."""
    limit = StepLimit(0.02)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    limit.close()
    await asyncio.sleep(0.1)


async def test_a_cancellation_stays_one() -> None:
    """Somebody else's is no timeout; nor is an error of the step."""

    async def take_steps() -> None:
        limit = StepLimit(60)
        try:
            with limit:
                await asyncio.sleep(60)
        finally:
            limit.close()

    task = asyncio.create_task(take_steps())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    limit = StepLimit(60)
    with pytest.raises(KeyError), limit:
        raise KeyError
    limit.close()
