"""Background loops: they run again, survive failures with a growing pause, can be woken, and stop."""

from __future__ import annotations

import asyncio
import logging

import pytest

from storage.base.background import BACKOFF_FIRST_S, EAGER_PAUSE_S, JITTER_SHARE, BackgroundLoop
from storage.base.clock import ManualClock


class Work:
    """Counts its runs; fails while told to; lets a test wait for the n-th run."""

    def __init__(self) -> None:
        self.runs = 0
        self.failing = False
        self._ran = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._ran:
            self.runs += 1
            self._ran.notify_all()
        if self.failing:
            raise OSError("the disk is away")

    async def wait_for(self, runs: int) -> None:
        async with self._ran:
            await asyncio.wait_for(self._ran.wait_for(lambda: self.runs >= runs), 60)


async def test_it_runs_at_once_and_again() -> None:
    """The first run waits for no interval."""
    work = Work()
    loop = BackgroundLoop("counting", 0.001, work, clock=ManualClock(5000))
    loop.start()
    loop.start()
    await work.wait_for(3)
    await loop.stop()
    status = loop.status
    assert status.name == "counting"
    assert status.runs >= 2
    assert (status.failures_in_a_row, status.last_run_ms, status.last_error) == (0, 5000, "")


async def test_what_the_work_counts_is_shown() -> None:
    """As it is when the status is asked for; nothing where nothing is counted."""
    done = {"swept": 1}
    loop = BackgroundLoop("counting", 3600, Work(), counts=lambda: done)
    first = loop.status
    done["swept"] = 2
    assert (first.counts, loop.status.counts) == ({"swept": 1}, {"swept": 2})
    assert BackgroundLoop("silent", 3600, Work()).status.counts == {}


async def test_a_wake_cuts_the_pause_short() -> None:
    """An hour between runs, and still a second one."""
    work = Work()
    loop = BackgroundLoop("sleepy", 3600, work)
    loop.start()
    await work.wait_for(1)
    while loop.status.runs < 1:
        await asyncio.sleep(0)
    loop.wake()
    await work.wait_for(2)
    await loop.stop()


class Gate(Work):
    """A work whose runs end when they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = 0
        self._open = asyncio.Semaphore(0)

    async def __call__(self) -> None:
        self.at_once += 1
        assert self.at_once == 1, "runs overlap"
        await super().__call__()
        try:
            await self._open.acquire()
        finally:
            self.at_once -= 1

    def let(self) -> None:
        """One more run ends."""
        self._open.release()


async def test_an_order_is_fulfilled_by_a_run_that_began_after_it() -> None:
    """Given between runs, during one, and several times: each is told which run it has to wait for."""
    work, ordered = Gate(), []
    loop = BackgroundLoop("ordered", 3600, work, clock=ManualClock(7000), on_order=lambda: ordered.append(work.runs))
    assert loop.order() == 1
    loop.start()
    await work.wait_for(1)
    assert (loop.status.runs, loop.status.started_ms) == (0, 7000)
    assert [loop.order() for _ in range(3)] == [2, 2, 2]
    work.let()
    await work.wait_for(2)
    assert (loop.status.runs, loop.order()) == (1, 3)
    work.let()
    await work.wait_for(3)
    work.let()
    while loop.status.runs < 3:
        await asyncio.sleep(0)
    assert (loop.status.started_ms, work.runs) == (0, 3), "three orders were one run"
    assert loop.order() == 4
    work.let()
    await work.wait_for(4)
    await loop.stop()
    assert ordered == [0, 1, 1, 1, 2, 3]


async def test_an_order_to_a_loop_that_is_stopped_and_started_again() -> None:
    """A run that was cancelled does not count, and nothing is under way any more."""
    work = Gate()
    loop = BackgroundLoop("stopped", 3600, work)
    loop.start()
    await work.wait_for(1)
    assert loop.order() == 2
    await loop.stop()
    assert (loop.status.runs, loop.status.started_ms) == (0, 0)
    assert loop.order() == 1
    loop.start()
    await work.wait_for(2)
    work.let()
    while loop.status.runs < 1:
        await asyncio.sleep(0)
    await loop.stop()


async def test_failures_are_told_and_do_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    """The last error is kept until a run succeeds."""
    caplog.set_level(logging.INFO)
    work = Work()
    work.failing = True
    loop = BackgroundLoop("failing", 3600, work, backoff_max_s=0.001)
    loop.start()
    await work.wait_for(5)
    assert loop.status.last_error == "OSError: the disk is away"
    assert loop.status.failures_in_a_row >= 4
    work.failing = False
    while loop.status.failures_in_a_row:
        await asyncio.sleep(0)
    await loop.stop()
    assert loop.status.last_error == ""
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    # Runs 1, 2 and 4 are told, 3 and 5 are not.
    assert [text.partition("(")[2].partition(" ")[0] for text in warnings[:3]] == ["1", "2", "4"]
    assert any("works again" in record.getMessage() for record in caplog.records)


def test_the_pause_doubles_up_to_a_bound() -> None:
    """With jitter, and without overflow after a thousand failures."""
    loop = BackgroundLoop("pausing", 60, Work(), backoff_max_s=5)
    for failures, expected in ((0, 60), (1, BACKOFF_FIRST_S), (2, 2 * BACKOFF_FIRST_S), (6, 5), (5000, 5)):
        loop._failures = loop._late_failures = failures
        pauses = [loop._pause_s() for _ in range(50)]
        assert min(pauses) >= expected * (1 - JITTER_SHARE)
        assert max(pauses) <= expected * (1 + JITTER_SHARE)
        assert len(set(pauses)) > 1


async def test_failures_right_after_the_start_are_tried_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """And not told, for as long as it is said; then they are, and the pauses begin with the first."""
    caplog.set_level(logging.INFO)
    clock, work = ManualClock(), Work()
    work.failing = True
    loop = BackgroundLoop("eager", 60, work, clock=clock, eager_s=5)
    loop.start()
    await work.wait_for(1)
    await loop.stop()
    for _ in range(6):
        await loop._run_once()
    clock.advance(4.9)
    assert loop._pause_s() <= EAGER_PAUSE_S * (1 + JITTER_SHARE)
    assert loop.status.failures_in_a_row >= 6 and not caplog.records
    clock.advance(0.2)
    assert BACKOFF_FIRST_S * (1 - JITTER_SHARE) <= loop._pause_s() <= BACKOFF_FIRST_S * (1 + JITTER_SHARE)
    await loop._run_once()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert loop._pause_s() <= BACKOFF_FIRST_S * (1 + JITTER_SHARE)
    work.failing = False
    await loop._run_once()
    assert loop._pause_s() >= 60 * (1 - JITTER_SHARE)


async def test_stop_ends_a_run_under_way() -> None:
    """And may be called twice, and before start."""
    entered = asyncio.Event()

    async def endless() -> None:
        entered.set()
        await asyncio.Event().wait()

    loop = BackgroundLoop("endless", 1, endless)
    await loop.stop()
    loop.start()
    await entered.wait()
    await loop.stop()
    await loop.stop()
    assert loop.status.runs == 0
