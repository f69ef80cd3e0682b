"""The threads that block so that an event loop need not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from storage.base.errors import Unavailable
from storage.chunks.worker_pool import WorkerPool


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    """Two threads."""
    pool = WorkerPool(2, "test")
    yield pool
    pool.close()


def _wait(begun: threading.Event, go_on: threading.Event) -> None:
    """Occupy a thread until told to go on."""
    begun.set()
    go_on.wait()


async def test_results_and_errors_come_back(pool: WorkerPool) -> None:
    """From a thread of the pool, to the one who awaits."""

    def name(prefix: str) -> str:
        return prefix + threading.current_thread().name

    def fail() -> None:
        raise LookupError("no")

    assert await pool.run(name, "in ") in {"in test-0", "in test-1"}
    with pytest.raises(LookupError, match="no"):
        await pool.run(fail)
    assert await asyncio.gather(*[pool.run(pow, n, 2) for n in range(100)]) == [n * n for n in range(100)]


async def test_a_cancelled_call_still_runs(pool: WorkerPool) -> None:
    """What was begun is finished, and its outcome is nobody's business: neither the thread nor the loop minds."""
    begun, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        go_on.wait()
        finished.set()
        raise LookupError("nobody hears this")

    future = pool.run(step)
    await asyncio.to_thread(begun.wait)
    future.cancel()
    go_on.set()
    await asyncio.to_thread(finished.wait)
    assert await pool.run(pow, 2, 3) == 8


async def test_the_queue_has_a_bound() -> None:
    """More calls than may wait are Unavailable; those that wait are done."""
    pool = WorkerPool(1, "test", waiting_max=3)
    begun, go_on = threading.Event(), threading.Event()
    first = pool.run(_wait, begun, go_on)
    await asyncio.to_thread(begun.wait)
    waiting = [pool.run(pow, n, 2) for n in range(3)]
    with pytest.raises(Unavailable):
        pool.run(pow, 1, 1)
    go_on.set()
    await first
    assert await asyncio.gather(*waiting) == [0, 1, 4]
    pool.close()


async def test_close_finishes_what_waits() -> None:
    """Calls made before are done, calls made after are refused."""
    pool = WorkerPool(1, "test")
    done: list[int] = []
    for n in range(50):
        pool.run(done.append, n)
    await asyncio.to_thread(pool.close)
    assert done == list(range(50))
    with pytest.raises(Unavailable):
        pool.run(pow, 1, 1)


def test_a_loop_that_closed_meanwhile_is_no_error() -> None:
    """The outcome of a call is dropped when its loop is gone, and the thread lives on."""
    pool = WorkerPool(1, "test")
    begun, go_on = threading.Event(), threading.Event()

    async def leave() -> None:
        pool.run(_wait, begun, go_on)
        await asyncio.to_thread(begun.wait)

    async def come_back() -> int:
        return await pool.run(pow, 3, 2)

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(come_back()) == 9
    pool.close()
