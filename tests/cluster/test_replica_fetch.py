"""Replicas that do not begin: another is asked, the first that answers wins, and no cluster is asked twice as much."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cluster.deadlines import Deadlines
from cluster.hedging import BURST_ASKS, HEDGED_SHARE, STALLED_AFTER
from cluster.nodes import FAILURE_MEMORY_S
from storage.base.clock import ManualClock
from storage.model import ByteRange
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import World, open_world

PATIENT = Deadlines(first_byte_s=3600, read_stall_s=3600)
"""nothing is given up: a read that comes back did not wait for a stalled node"""
DATA = os.urandom(200_000)
RANGE = ByteRange(70_000, 70_099)
WANTED = DATA[70_000:70_100]
READS = 120


@pytest.fixture
def clock() -> ManualClock:
    """Of the failure memory; delays are of the event loop."""
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    """One object of one chunk, with two replicas."""
    async with open_world(tmp_path, deadlines=PATIENT, clock=clock) as opened:
        await opened.put(b"key", DATA)
        yield opened


def holders(world: World) -> list[FaultyDatanode]:
    """The nodes that have the chunk."""
    return [node for node in world.nodes.values() if node.chunks]


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_stalled_replica_costs_a_few_reads_a_delay_and_later_ones_nothing(
    world: World, clock: ManualClock
) -> None:
    """It is asked last until the memory of it fades, and then until it is late once more."""
    stalled, _ = holders(world)
    stalled.get_stalls = True
    for _ in range(30):
        assert await world.get(b"key", RANGE) == WANTED
    assert stalled.gets == STALLED_AFTER
    assert stalled.waiting == 0, "who lost was cancelled"
    clock.advance(FAILURE_MEMORY_S)
    for _ in range(30):
        assert await world.get(b"key", RANGE) == WANTED
    assert stalled.gets == STALLED_AFTER + 1
    assert world.cluster.operations.repair_hints() == [], "a stall is nothing to repair"
    counts = world.cluster.operations.reads
    assert counts.served_degraded == stalled.gets * len(WANTED), "hedged reads are told apart"
    stalled.go_on()
    clock.advance(FAILURE_MEMORY_S)
    for _ in range(30):
        assert await world.get(b"key", RANGE) == WANTED
    assert stalled.gets > STALLED_AFTER + 2, "it is asked as before"


async def test_the_first_good_answer_wins(world: World) -> None:
    """The late one is as welcome as its successor, and what the successor sends does not matter then."""
    first, second = holders(world)
    first.get_stalls = second.get_stalls = True
    reading = asyncio.create_task(world.get(b"key", RANGE))
    await until(lambda: first.waiting == second.waiting == 1)
    first.go_on()
    assert await reading == WANTED
    await until(lambda: second.waiting == 0)


@pytest.mark.parametrize("how", ["down", "get_corrupts", "missing"])
async def test_a_successor_that_fails_leaves_the_late_one(world: World, how: str) -> None:
    """It is waited for, as there is nobody else."""
    first, second = holders(world)
    first.get_stalls = True
    if how == "missing":
        await second.inner.delete_many(list(second.chunks))
    else:
        setattr(second, how, True)
    reading = asyncio.create_task(world.get(b"key", RANGE))
    await until(lambda: first.waiting == 1 and second.gets >= 1)
    first.go_on()
    assert await reading == WANTED


async def test_a_cluster_that_is_slow_is_not_asked_twice_as_much(world: World) -> None:
    """Every node keeps everybody waiting: there is a burst of hedges, and no more than their share after it."""
    nodes = holders(world)
    for node in nodes:
        node.get_stalls = True
    budget = world.cluster.operations.budget
    reading = [asyncio.create_task(world.get(b"key", RANGE)) for _ in range(READS)]
    await until(lambda: sum(node.waiting for node in nodes) >= READS + int(BURST_ASKS))
    for _ in range(30):  # of chances to ask more
        await asyncio.sleep(0.02)
    asked = sum(node.gets for node in nodes)
    assert READS + int(BURST_ASKS) <= asked <= READS + BURST_ASKS + (READS + BURST_ASKS) * HEDGED_SHARE + 1
    for node in nodes:
        node.go_on()
    assert await asyncio.gather(*reading) == [WANTED] * READS
    assert budget.held_bytes == 0
    assert not any(node.waiting for node in nodes)
