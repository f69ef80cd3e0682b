"""The byte budget: a bound that holds, served in order, with loans that are called in before anybody waits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.byte_budget import ByteBudget
from storage.base.errors import Unavailable


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bytes_come_back() -> None:
    """What is released can be taken again, and the peak is remembered."""
    budget = ByteBudget(100)
    await budget.acquire(60)
    await budget.acquire(40)
    assert (budget.held_bytes, budget.held_bytes_peak) == (100, 100)
    budget.release(100)
    assert (budget.held_bytes, budget.held_bytes_peak) == (0, 100)


async def test_a_size_above_the_capacity_is_refused_at_once() -> None:
    """It would wait for ever otherwise."""
    with pytest.raises(ValueError, match="never fit"):
        await ByteBudget(100).acquire(101)


async def test_waiters_are_served_in_order() -> None:
    """A small request behind a large one does not overtake it."""
    budget = ByteBudget(100)
    await budget.acquire(80)
    served: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.acquire(size)
        served.append(name)

    tasks = [asyncio.create_task(take("large", 50)), asyncio.create_task(take("small", 10))]
    await settle()
    assert served == []
    assert not budget.try_acquire(1), "nobody passes those who wait"
    budget.release(80)
    await asyncio.gather(*tasks)
    assert served == ["large", "small"]
    assert budget.held_bytes == 60


async def test_a_full_queue_is_unavailable() -> None:
    """The number of waiters is bounded."""
    budget = ByteBudget(10, waiters_max=1)
    await budget.acquire(10)
    waiting = asyncio.create_task(budget.acquire(1))
    await settle()
    with pytest.raises(Unavailable):
        await budget.acquire(1)
    budget.release(10)
    await waiting


async def test_a_cancelled_waiter_lets_the_next_pass() -> None:
    """Whoever gives up leaves no hole in the queue."""
    budget = ByteBudget(10)
    await budget.acquire(8)
    large = asyncio.create_task(budget.acquire(9))
    small = asyncio.create_task(budget.acquire(2))
    await settle()
    large.cancel()
    await small
    assert (budget.held_bytes, budget.waiting) == (10, 0)


async def test_a_turn_that_meets_its_cancellation_is_given_back() -> None:
    """Granted and cancelled in the same moment: the bytes are not lost."""
    budget = ByteBudget(10)
    await budget.acquire(10)
    waiting = asyncio.create_task(budget.acquire(10))
    await settle()
    budget.release(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.held_bytes == 0


async def test_a_release_skips_a_waiter_that_was_just_cancelled() -> None:
    """Cancelled first, then released in the same moment: the one behind is served."""
    budget = ByteBudget(10)
    await budget.acquire(10)
    first = asyncio.create_task(budget.acquire(10))
    second = asyncio.create_task(budget.acquire(10))
    await settle()
    first.cancel()
    budget.release(10)
    await second
    assert (budget.held_bytes, budget.waiting) == (10, 0)


async def test_loans_are_called_in_before_anybody_waits() -> None:
    """The oldest loan goes first, and no more than are needed."""
    budget = ByteBudget(100)
    called: list[str] = []

    def lend(name: str, size: int) -> None:
        def call_in() -> None:
            called.append(name)
            budget.release(size)

        assert budget.try_acquire(size)
        budget.lend(name, call_in)

    lend("old", 40)
    lend("young", 40)
    await budget.acquire(60)
    assert called == ["old"]
    budget.settle("young")
    waiting = asyncio.create_task(budget.acquire(1))
    await settle()
    assert not waiting.done()
    assert called == ["old"], "a settled loan is not called in"
    budget.release(60)
    await waiting


async def test_what_is_lent_while_somebody_waits_is_called_in_at_once() -> None:
    """Whoever waits already asks nobody again."""
    budget = ByteBudget(100)
    await budget.acquire(100)
    waiting = asyncio.create_task(budget.acquire(50))
    await settle()
    budget.lend("late", lambda: budget.release(60))
    async with asyncio.timeout(60):
        await waiting
    assert budget.held_bytes == 90


@settings(max_examples=50, deadline=None)
@given(
    capacity=st.integers(1, 50),
    sizes=st.lists(st.integers(1, 60), max_size=40),
    cancelled=st.sets(st.integers(0, 39)),
)
def test_the_bound_always_holds(capacity: int, sizes: list[int], cancelled: set[int]) -> None:
    """Whatever is asked, kept a while, or cancelled: never above the capacity, and all comes back."""

    async def run() -> None:
        budget = ByteBudget(capacity)

        async def use(size: int) -> None:
            await budget.acquire(size)
            try:
                for _ in range(size % 3):
                    await asyncio.sleep(0)
                assert budget.held_bytes <= capacity
            finally:
                budget.release(size)

        tasks = [asyncio.create_task(use(size)) for size in sizes if size <= capacity]
        await asyncio.sleep(0)
        for index in cancelled:
            if index < len(tasks):
                tasks[index].cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert (budget.held_bytes, budget.waiting) == (0, 0)
        assert budget.try_acquire(capacity)

    asyncio.run(run())
