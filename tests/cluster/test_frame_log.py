"""The frame log: every reader sees every block in order, within a window, and a start that is kept while it can be."""

from __future__ import annotations

import asyncio
import os

import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.byte_budget import ByteBudget
from cluster.deadlines import Deadlines
from cluster.frame_log import Cursor, FrameLog
from storage.base.errors import Unavailable


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def put(log: FrameLog, block: bytes) -> None:
    """Reserve and append."""
    await log.reserve(len(block))
    log.append(block)


async def read(cursor: Cursor) -> bytes:
    """Everything up to the end, then leave."""
    try:
        return b"".join([bytes(block) async for block in cursor])
    finally:
        cursor.close()


def begin(log: FrameLog) -> Cursor:
    """A cursor that there must be."""
    cursor = log.open_cursor()
    assert cursor is not None
    return cursor


async def test_every_reader_gets_every_block() -> None:
    """Two readers, one of which starts late; length and digest are of the whole."""
    budget = ByteBudget(1000)
    log = FrameLog(budget)
    first = asyncio.create_task(read(begin(log)))
    blocks = [os.urandom(size) for size in (1, 50, 100)]
    for block in blocks:
        await put(log, block)
        await settle()
    second = asyncio.create_task(read(begin(log)))
    log.close()
    assert await first == await second == b"".join(blocks)
    assert log.length == 151
    assert log.digest == crc64nvme(b"".join(blocks)).to_bytes(8, "big")
    log.discard()
    assert budget.held_bytes == 0


async def test_the_window_holds_the_producer_back() -> None:
    """Only for what the slowest reader has not taken."""
    log = FrameLog(ByteBudget(1000), window_bytes_max=100)
    quick, slow = begin(log), begin(log)
    await put(log, bytes(60))
    waiting = asyncio.create_task(log.reserve(60))
    await settle()
    assert not waiting.done()
    await anext(quick)
    quick_next = asyncio.ensure_future(anext(quick))
    await settle()
    assert not waiting.done(), "the slow reader has not taken the first block"
    await anext(slow)
    await settle()
    assert not waiting.done(), "it holds the block still"
    slow_next = asyncio.ensure_future(anext(slow))
    await waiting
    log.append(bytes(60))
    assert len(await quick_next) == len(await slow_next) == 60


async def test_a_reader_that_leaves_lets_the_producer_on() -> None:
    """A dropped replica holds nobody back."""
    log = FrameLog(ByteBudget(1000), window_bytes_max=100)
    cursor, stuck = begin(log), begin(log)
    await put(log, bytes(80))
    waiting = asyncio.create_task(log.reserve(80))
    await settle()
    await anext(cursor)
    following = asyncio.ensure_future(anext(cursor))
    await settle()
    assert not waiting.done()
    stuck.close()
    await waiting
    following.cancel()


async def test_a_block_above_the_window_passes_alone() -> None:
    """The window never blocks for ever."""
    log = FrameLog(ByteBudget(1000), window_bytes_max=100)
    begin(log)
    await put(log, bytes(500))


async def test_the_start_is_kept_up_to_its_bound() -> None:
    """Up to the bound a new reader can begin; above it taken blocks are gone, and their bytes are back."""
    budget = ByteBudget(1000)
    log = FrameLog(budget, window_bytes_max=200, kept_bytes_max=100)
    reader = asyncio.create_task(read(begin(log)))
    await put(log, bytes(100))
    await settle()
    assert log.is_whole
    assert budget.held_bytes == 100
    late = begin(log)
    assert len(await anext(late)) == 100
    late.close()
    await put(log, bytes(1))
    await settle()
    assert not log.is_whole
    assert log.open_cursor() is None
    assert budget.held_bytes == 0
    log.close()
    await reader


async def test_the_kept_start_is_only_lent() -> None:
    """When somebody needs the bytes, they come back, and a new reader comes too late."""
    budget = ByteBudget(100)
    log = FrameLog(budget)
    reader = asyncio.create_task(read(begin(log)))
    await put(log, bytes(80))
    await settle()
    await budget.acquire(100)
    assert log.open_cursor() is None
    log.close()
    assert len(await reader) == 80


async def test_untaken_bytes_are_not_lent() -> None:
    """A loan gives back only what every reader has taken."""
    budget = ByteBudget(100)
    log = FrameLog(budget)
    cursor = begin(log)
    await put(log, bytes(80))
    waiting = asyncio.create_task(budget.acquire(100))
    await settle()
    assert not waiting.done()
    assert len(await anext(cursor)) == 80
    log.close()
    with pytest.raises(StopAsyncIteration):
        await anext(cursor)
    await waiting


async def test_failure_reaches_the_producer_and_the_readers() -> None:
    """Whoever waits is woken with the error."""
    log = FrameLog(ByteBudget(1000), window_bytes_max=10)
    begin(log)
    waiting_reader = begin(log)
    await put(log, bytes(10))
    await anext(waiting_reader)
    reading = asyncio.ensure_future(anext(waiting_reader))
    producing = asyncio.create_task(log.reserve(10))
    await settle()
    log.fail(Unavailable("all gone"))
    for task in (reading, producing):
        with pytest.raises(Unavailable, match="all gone"):
            await task


async def test_discard_gives_back_what_was_only_reserved() -> None:
    """A producer that dies between reserve and append loses nothing."""
    budget = ByteBudget(100)
    log = FrameLog(budget)
    await put(log, bytes(30))
    await log.reserve(20)
    assert budget.held_bytes == 50
    log.discard()
    assert budget.held_bytes == 0
    await budget.acquire(100)


async def test_the_timeout_rests_while_the_reader_waits_for_the_producer() -> None:
    """It runs again when a block is in the reader's hands."""
    log = FrameLog(ByteBudget(1000))
    cursor = begin(log)
    async with asyncio.timeout(60) as timeout:
        cursor.hurry(timeout, Deadlines(stall_s=7, durable_s=99))
        waiting = asyncio.ensure_future(anext(cursor))
        await settle()
        assert timeout.when() is None
        await put(log, b"x")
        await waiting
        now = asyncio.get_running_loop().time()
        when = timeout.when()
        assert when is not None
        assert when - now <= 7
        log.close()
        with pytest.raises(StopAsyncIteration):
            await anext(cursor)
        when = timeout.when()
        assert when is not None
        assert when - now > 7
        cursor.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    window=st.integers(1, 100),
    kept=st.integers(0, 200),
    paces=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    quits=st.integers(0, 20),
)
def test_any_readers_at_any_pace(sizes: list[int], window: int, kept: int, paces: list[int], quits: int) -> None:
    """Whole and in order for each that stays, the budget bounded and given back."""

    async def run() -> None:
        budget = ByteBudget(150)
        log = FrameLog(budget, window_bytes_max=window, kept_bytes_max=kept)

        async def reader(cursor: Cursor, pace: int, quit_after: int | None) -> bytes:
            got = []
            async for block in cursor:
                got.append(bytes(block))
                for _ in range(pace):
                    await asyncio.sleep(0)
                if quit_after is not None and len(got) > quit_after:
                    break
            cursor.close()
            return b"".join(got)

        tasks = [asyncio.create_task(reader(begin(log), pace, None)) for pace in paces]
        quitter = asyncio.create_task(reader(begin(log), 1, quits))
        blocks = [bytes([index]) * size for index, size in enumerate(sizes)]
        for block in blocks:
            await put(log, block)
        log.close()
        for task in tasks:
            assert await task == b"".join(blocks)
        await quitter
        log.discard()
        assert budget.held_bytes == 0
        assert budget.held_bytes_peak <= 150

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await run()

    asyncio.run(bounded())
