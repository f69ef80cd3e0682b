"""Side by side: all results in order, or one failure and nobody left running."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.gathering import gather_or_cancel


async def test_results_come_in_the_order_given() -> None:
    """Whoever is first."""

    async def give(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await gather_or_cancel(give(turns) for turns in (5, 0, 3)) == [5, 0, 3]
    assert await gather_or_cancel([]) == []


async def test_a_failure_ends_the_others_before_it_is_raised() -> None:
    """They have ended then, not only been told to."""
    ended = []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await gather_or_cancel([wait(1), fail(), wait(2)])
    assert ended == [1, 2]


async def test_who_is_cancelled_cancels_the_others() -> None:
    """None goes on without anybody who waits for it."""
    ended = []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    task = asyncio.create_task(gather_or_cancel([wait(1), wait(2)]))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [1, 2]
