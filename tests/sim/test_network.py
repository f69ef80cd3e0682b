"""Calls between processes in fair and in bad weather."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.sim.loop import Process, VirtualLoop
from tests.sim.network import Broken, Network
from tests.sim.trace import Trace


class Scene:
    """A caller and a callee that counts."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.network = Network(self.loop, random.Random(1), Trace(self.loop.time))
        self.caller = self.network.parties["a"] = Process(self.loop, "a")
        self.callee = self.network.parties["b"] = Process(self.loop, "b")
        self.served = 0
        self.work_s = 0.0

    async def _serve(self) -> int:
        await asyncio.sleep(self.work_s)
        self.served += 1
        return self.served

    def call(self, timeout_s: float = 30.0) -> asyncio.Task[int]:
        """From a to b."""
        return self.caller.start(self.network.call(self.caller, "b", "count", self._serve, timeout_s))

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """To the end."""

        async def all_of_it() -> None:
            await work()

        try:
            self.loop.run_until_complete(all_of_it())
        finally:
            self.network.is_closed = True
            self.loop.unwind()
            self.loop.close()


async def _outcome(call: asyncio.Task[int]) -> Any:
    try:
        return await call
    except (Broken, TimeoutError) as error:
        return error


def test_a_call_is_answered() -> None:
    """After a while, in the other process."""
    scene = Scene()

    async def work() -> None:
        assert await scene.call() == 1
        assert 0 < scene.loop.time() < 1

    scene.run(work)


def test_lost_messages_end_in_an_error() -> None:
    """Of the connection, or of the deadline; the work may have been done or not."""
    scene = Scene()
    scene.network.weather.loss = 0.5

    async def work() -> None:
        outcomes = [await _outcome(scene.call()) for _ in range(100)]
        failures = [it for it in outcomes if isinstance(it, Exception)]
        assert 50 < len(failures) < 95
        assert {type(it) for it in failures} == {Broken, TimeoutError}
        assert all(it.sent for it in failures if isinstance(it, Broken))
        assert 100 - len(failures) < scene.served < 70

    scene.run(work)


def test_a_second_delivery_is_served_and_not_told() -> None:
    """Of each call one answer counts."""
    scene = Scene()
    scene.network.weather.duplication = 1.0

    async def work() -> None:
        assert await scene.call() in (1, 2)
        await asyncio.sleep(30)
        assert scene.served == 2

    scene.run(work)


def test_a_cut_holds_messages_up() -> None:
    """They come when it heals, if that is soon; also those of a caller that does not wait any more."""
    scene = Scene()
    scene.network.weather.cuts.add(("a", "b"))

    async def work() -> None:
        call = scene.call(timeout_s=5)
        assert isinstance(await _outcome(call), TimeoutError)
        assert scene.served == 0
        scene.network.weather.cuts.clear()
        await asyncio.sleep(5)
        assert scene.served == 1

    scene.run(work)


@pytest.mark.parametrize("cut", [("a", "b"), ("b", "a")])
def test_a_cut_may_be_of_one_direction(cut: tuple[str, str]) -> None:
    """Then the work is done, and the answer does not come."""
    scene = Scene()
    scene.network.weather.cuts.add(cut)

    async def work() -> None:
        assert isinstance(await _outcome(scene.call(timeout_s=5)), TimeoutError)
        assert scene.served == (cut == ("b", "a"))

    scene.run(work)


def test_nobody_listens_where_nothing_runs() -> None:
    """Which is known to be before anything was sent."""
    scene = Scene()

    async def work() -> None:
        scene.callee.kill()
        outcome = await _outcome(scene.call())
        assert isinstance(outcome, Broken)
        assert not outcome.sent

    scene.run(work)


def test_a_callee_that_dies_breaks_its_calls() -> None:
    """Or leaves them to their deadlines, as a machine does that is gone."""
    scene = Scene()
    scene.work_s = 1.0

    async def work() -> None:
        calls = [scene.call() for _ in range(20)]
        await asyncio.sleep(0.5)
        scene.callee.kill()
        outcomes = [await _outcome(call) for call in calls]
        assert {type(it) for it in outcomes} == {Broken, TimeoutError}
        assert scene.served == 0

    scene.run(work)


def test_a_new_incarnation_does_not_answer_for_the_old_one() -> None:
    """What was on its way to the old one is lost with the connection."""
    scene = Scene()
    scene.network.weather.cuts.add(("a", "b"))

    async def work() -> None:
        call = scene.call()
        await asyncio.sleep(0.5)
        scene.callee.kill()
        scene.network.parties["b"] = Process(scene.loop, "b")
        scene.network.weather.cuts.clear()
        outcome = await _outcome(call)
        assert isinstance(outcome, Broken)
        assert outcome.sent
        assert scene.served == 0

    scene.run(work)


def test_a_stopped_callee_answers_when_it_goes_on() -> None:
    """The request was in its buffer."""
    scene = Scene()

    async def work() -> None:
        scene.callee.stop()
        call = scene.call()
        await asyncio.sleep(10)
        assert scene.served == 0
        scene.callee.resume()
        assert await call == 1

    scene.run(work)


def test_garbled_bytes_differ_in_one_bit() -> None:
    """As often as the weather says."""
    scene = Scene()
    data = bytes(100)
    assert scene.network.garble(data) == data
    scene.network.weather.garbling = 1.0
    assert sum(byte.bit_count() for byte in scene.network.garble(data)) == 1
    scene.loop.close()
