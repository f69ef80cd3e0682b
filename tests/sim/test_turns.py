"""Threads by turns: in the order of the loop, and never further than their process."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator

import pytest

from tests.sim.loop import Process, VirtualLoop
from tests.sim.turns import SimEvent, SimQueue, SimThread, run_on_loop


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """Everything that was begun is ended."""
    loop = VirtualLoop()
    yield loop
    loop.unwind()
    loop.close()


def test_a_thread_and_the_loop_take_turns(loop: VirtualLoop) -> None:
    """Each goes on when the other has come to where it waits."""
    told: list[str] = []

    async def sleep_on_loop() -> int:
        await asyncio.sleep(2.0)
        return 7

    async def work() -> None:
        arrivals: SimQueue[str] = SimQueue()

        def run() -> None:
            told.append(arrivals.get())
            told.append(f"{run_on_loop(sleep_on_loop(), loop).result()} at {loop.time():.0f}")
            with pytest.raises(queue.Empty):
                arrivals.get(timeout=3.0)
            told.append(f"nothing at {loop.time():.0f}")

        SimThread(target=run).start()
        await asyncio.sleep(1.0)
        assert told == []
        arrivals.put("first")
        await asyncio.sleep(10.0)

    loop.run_until_complete(Process(loop, "p").start(work()))
    assert told == ["first", "7 at 3", "nothing at 6"]


def test_what_the_loop_raises_is_raised_in_the_thread(loop: VirtualLoop) -> None:
    """As by run_coroutine_threadsafe."""
    told: list[str] = []

    async def fail() -> None:
        raise ValueError("no")

    async def work() -> None:
        def run() -> None:
            with pytest.raises(ValueError, match="no"):
                run_on_loop(fail(), loop).result()
            told.append("raised")

        SimThread(target=run).start()
        await asyncio.sleep(1.0)

    loop.run_until_complete(Process(loop, "p").start(work()))
    assert told == ["raised"]


@pytest.mark.parametrize("goes_on", [True, False])
def test_the_thread_of_a_stopped_process_waits(loop: VirtualLoop, goes_on: bool) -> None:
    """Until it goes on; of a dead one for ever."""
    told: list[str] = []
    process = Process(loop, "p")
    events: list[SimEvent] = []

    async def begin() -> None:
        event = SimEvent()
        events.append(event)

        def run() -> None:
            event.wait()
            told.append("went on")

        SimThread(target=run).start()
        await asyncio.sleep(1.0)

    async def outside() -> None:
        await process.start(begin())
        process.stop()
        events[0].set()
        await asyncio.sleep(5.0)
        assert told == []
        (process.resume if goes_on else process.kill)()
        await asyncio.sleep(5.0)

    loop.run_until_complete(outside())
    loop.unwind()
    assert told == (["went on"] if goes_on else [])


def test_a_thread_that_did_not_begin_before_its_process_died_never_does(loop: VirtualLoop) -> None:
    """Not even at the end, when the process is thawed."""
    told: list[str] = []
    process = Process(loop, "p")

    async def begin() -> None:
        SimThread(target=lambda: told.append("began")).start()
        process.kill()
        await asyncio.sleep(1.0)

    async def outside() -> None:
        process.start(begin())
        await asyncio.sleep(5.0)

    loop.run_until_complete(outside())
    loop.unwind()
    assert told == []


def test_what_a_thread_ends_with_is_told_and_the_loop_goes_on(loop: VirtualLoop) -> None:
    """As what a task ends with that nobody awaits."""
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(f"{context['message']}: {context['exception']}"))

    def run() -> None:
        raise ValueError("no")

    async def work() -> None:
        SimThread(target=run, name="writer").start()
        await asyncio.sleep(1.0)
        told.append("later")

    loop.run_until_complete(Process(loop, "p").start(work()))
    assert told == ["writer ended: no", "later"]
