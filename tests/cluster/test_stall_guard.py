"""Waits that last too long are ended, those and no others, and nobody else's cancellation is taken for one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cluster.stall_guard import StallGuard

STALL_S = 0.05
WAIT_S = 20


async def wait_guarded(guard: StallGuard, event: asyncio.Event) -> str:
    """How the wait ended; a CancelledError that is not of it goes on."""
    wait, is_late = guard.begin(), False
    try:
        try:
            await event.wait()
        finally:
            is_late = wait.end()
    except asyncio.CancelledError:
        if not is_late:
            raise
        return "late"
    return "in time"


async def begun(guard: StallGuard, event: asyncio.Event) -> asyncio.Task[str]:
    """One that waits."""
    task = asyncio.ensure_future(wait_guarded(guard, event))
    await asyncio.sleep(0)
    return task


async def test_what_is_late_is_ended_and_nothing_else() -> None:
    """In the order in which they began, each after its own time; the tasks go on."""
    guard, ready, never = StallGuard(STALL_S), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    ready.set()
    assert await wait_guarded(guard, ready) == "in time"
    began_s = loop.time()
    first = await begun(guard, never)
    await asyncio.sleep(STALL_S / 2)
    second = await begun(guard, never)
    assert await asyncio.wait_for(first, WAIT_S) == "late"
    assert loop.time() - began_s >= STALL_S and not second.done()
    assert await asyncio.wait_for(second, WAIT_S) == "late"
    assert loop.time() - began_s >= STALL_S * 1.5
    assert first.cancelling() == second.cancelling() == 0
    assert not guard._waits


async def test_one_timer_watches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come and go."""
    guard, ready, never = StallGuard(STALL_S), asyncio.Event(), asyncio.Event()
    ready.set()
    loop, made = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def counted(when: float, *arguments: Any, **more: Any) -> asyncio.TimerHandle:
        made.append(when)
        return call_at(when, *arguments, **more)

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(100):
        assert await wait_guarded(guard, ready) == "in time"
    assert len(made) == 1
    last = await begun(guard, never)
    assert await asyncio.wait_for(last, WAIT_S) == "late"


async def test_a_cancellation_from_outside_is_no_delay() -> None:
    """Also where it comes beside one."""
    guard, never = StallGuard(STALL_S), asyncio.Event()
    task = await begun(guard, never)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    both = await begun(guard, never)
    (wait,) = guard._waits
    wait.until_s = 0.0
    guard._look()
    assert wait.is_late
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert not guard._waits


async def test_a_task_that_is_ended_twice_is_cancelled_once() -> None:
    """While it cleans up after the first, which takes longer than the guard allows."""
    guard, ended, cancelled = StallGuard(STALL_S), asyncio.Event(), 0

    async def stubborn() -> bool:
        nonlocal cancelled
        wait = guard.begin()
        for _ in range(2):
            try:
                await asyncio.wait_for(ended.wait(), WAIT_S)
            except asyncio.CancelledError:
                cancelled += 1
        return wait.end()

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(STALL_S * 4)
    other = await begun(guard, ended)
    await asyncio.sleep(STALL_S / 4)
    ended.set()
    assert await task and cancelled == 1 and task.cancelling() == 0
    assert await other == "in time"
