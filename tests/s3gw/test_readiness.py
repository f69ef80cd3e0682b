"""When a worker begins to accept, and what it says of the workers beside it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw import readiness as module
from s3gw.acceptor import Board, open_board
from s3gw.readiness import Readiness

WAIT_S = 50.0


class Operations:
    """Ready when the test says so; tells who asks."""

    def __init__(self, *, is_ready: bool = False) -> None:
        self.is_ready = is_ready
        self.asked = asyncio.Event()
        self.reads = ReadCounts()
        self.writes = WriteCounts()

    async def ready(self) -> bool:
        """As the test says."""
        self.asked.set()
        return self.is_ready


@pytest.fixture
def board_fd() -> Iterator[int]:
    """A board for two."""
    made = open_board(2)
    yield made
    os.close(made)


async def until_asked(operations: Operations) -> None:
    """Somebody has asked since."""
    operations.asked.clear()
    await asyncio.wait_for(operations.asked.wait(), WAIT_S)


async def test_a_worker_waits_until_it_is_ready(board_fd: int) -> None:
    """And says so to the others. All are ready only when each has begun to accept."""
    operations, board = Operations(), Board(board_fd, 0)
    readiness = Readiness(operations, board)
    waiting = asyncio.create_task(readiness.wait())
    await until_asked(operations)
    await until_asked(operations)
    assert not waiting.done()
    operations.is_ready = True
    await asyncio.wait_for(waiting, WAIT_S)
    assert not await readiness.all_ready()
    await Readiness(operations, Board(board_fd, 1)).wait()
    assert await readiness.all_ready()
    operations.is_ready = False
    assert not await readiness.all_ready()
    await readiness.close()


async def test_it_does_not_wait_for_ever(board_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads go on without most of the cluster. The others say that one is not ready, until it is."""
    monkeypatch.setattr(module, "ACCEPT_WAIT_S", 0.01)
    monkeypatch.setattr(module, "LATE_POLL_S", 0.001)
    here, there = Board(board_fd, 0), Board(board_fd, 1)
    other = Readiness(Operations(is_ready=True), there)
    await other.wait()
    operations = Operations()
    late = Readiness(operations, here)
    await asyncio.wait_for(late.wait(), WAIT_S)
    await until_asked(operations)
    assert not await other.all_ready()
    operations.is_ready = True
    async with asyncio.timeout(WAIT_S):
        while not await other.all_ready():
            await asyncio.sleep(0.001)
    await late.close()


async def test_a_lone_worker_speaks_for_itself() -> None:
    """Without a board."""
    operations = Operations(is_ready=True)
    readiness = Readiness(operations, None)
    await readiness.wait()
    assert await readiness.all_ready()
    operations.is_ready = False
    assert not await readiness.all_ready()
    await readiness.close()
