"""The virtual loop: time that jumps, processes that stop and die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.sim.loop import Process, Stuck, VirtualLoop, run_now


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """Unwound and closed in the end."""
    loop = VirtualLoop()
    yield loop
    loop.unwind()
    loop.close()


def test_time_jumps_to_the_next_timer(loop: VirtualLoop) -> None:
    """A day passes at once, and in order."""
    seen: list[float] = []

    async def note(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append(loop.time())

    async def all_of_it() -> None:
        await asyncio.gather(note(86_400), note(1.5), note(3_600))

    loop.run_until_complete(all_of_it())
    assert seen == [1.5, 3_600, 86_400]


def test_timeouts_are_virtual(loop: VirtualLoop) -> None:
    """asyncio.timeout and wait_for strike at their time."""

    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 12)
        return loop.time()

    assert loop.run_until_complete(wait()) == 42


def test_threads_run_at_once(loop: VirtualLoop) -> None:
    """What is given to a thread is done, or fails, before anything else happens."""

    async def work() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return await asyncio.to_thread(max, 1, 2)

    assert loop.run_until_complete(work()) == 2
    assert loop.time() == 0


def test_waiting_for_nothing_is_told(loop: VirtualLoop) -> None:
    """Where a real loop would wait for ever."""
    with pytest.raises(Stuck):
        loop.run_until_complete(asyncio.Event().wait())


async def _tick(seen: list[float], loop: VirtualLoop) -> None:
    while True:
        seen.append(loop.time())
        await asyncio.sleep(1)


def test_a_stopped_process_goes_on_late(loop: VirtualLoop) -> None:
    """Its timers strike when it goes on, once each; another process goes on meanwhile."""
    stopped, other = Process(loop, "stopped"), Process(loop, "other")
    seen: list[float] = []
    seen_by_other: list[float] = []

    async def all_of_it() -> None:
        stopped.start(_tick(seen, loop))
        other.start(_tick(seen_by_other, loop))
        await asyncio.sleep(2.5)
        stopped.stop()
        await asyncio.sleep(5)
        stopped.resume()
        await asyncio.sleep(1.25)

    loop.run_until_complete(all_of_it())
    assert seen == [0, 1, 2, 7.5, 8.5]
    assert seen_by_other == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_a_killed_process_runs_nothing_any_more(loop: VirtualLoop) -> None:
    """No `finally`, no `except`, and none of the tasks that it started; whoever wants to know is told."""
    process = Process(loop, "killed")
    done: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(1)
            done.append("slept")
        finally:
            done.append("finally")

    async def work() -> None:
        await asyncio.gather(inner(), inner())

    async def all_of_it() -> None:
        process.on_death["x"] = lambda: done.append("told")
        process.start(work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(10)
        assert done == ["told"]
        assert not process.is_alive
        process.resume()
        await asyncio.sleep(10)
        assert done == ["told"]

    loop.run_until_complete(all_of_it())
    loop.unwind()
    assert done == ["told", "finally", "finally"], "at the end of everything its tasks are ended"


def test_run_now_takes_what_waits_for_nothing() -> None:
    """And refuses what would wait."""

    async def at_once() -> int:
        return 7

    assert run_now(at_once()) == 7
    with pytest.raises(AssertionError):
        run_now(asyncio.sleep(0))
