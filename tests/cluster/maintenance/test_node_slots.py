"""Slots of nodes: never more than allowed at once, and everybody gets his turn."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.maintenance.node_slots import COPY_BYTES_MIN, PER_NODE_BYTES_MAX, NodeSlots

_COPIES = st.tuples(st.sets(st.integers(1, 4), min_size=1), st.integers(0, 2 * PER_NODE_BYTES_MAX))


@settings(deadline=None)
@given(
    st.lists(_COPIES, max_size=20),
    st.integers(2 * COPY_BYTES_MIN, PER_NODE_BYTES_MAX),
    st.integers(0, 20),
)
async def test_never_more_than_allowed(wanted: list[tuple[set[int], int]], bytes_max: int, cancelled: int) -> None:
    """All of the nodes of a copy or none; one that is cancelled while it waits leaves nothing behind."""
    slots, running, done = NodeSlots(bytes_max), [], []

    async def copy(number: int, nodes: set[int], size: int) -> None:
        async with slots.hold(nodes, size):
            running.append((nodes, size))
            try:
                for node in nodes:
                    at_node = sum(slots.weigh(bytes_) for them, bytes_ in running if node in them)
                    assert at_node == slots.held(node) <= bytes_max
                for _ in range(number % 3):
                    await asyncio.sleep(0)
            finally:
                running.remove((nodes, size))
        done.append(number)

    tasks = [asyncio.create_task(copy(number, *it)) for number, it in enumerate(wanted)]
    if cancelled < len(tasks):
        await asyncio.sleep(0)
        tasks[cancelled].cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(done) >= len(wanted) - 1
    assert not any(slots.held(node) for node in range(5))


async def test_many_small_copies_or_two_large_ones() -> None:
    """At one node; however large, two of them always fit."""
    for size, expected in ((17_000, 32), (1 << 20, 16), (8 << 20, 2), (64 << 20, 2)):
        slots, gone_on = NodeSlots(), asyncio.Event()

        async def copy(size: int = size, slots: NodeSlots = slots, gone_on: asyncio.Event = gone_on) -> None:
            async with slots.hold([1], size):
                await gone_on.wait()

        tasks = [asyncio.create_task(copy()) for _ in range(40)]
        await asyncio.sleep(0)
        assert slots.held(1) // slots.weigh(size) == expected
        gone_on.set()
        await asyncio.gather(*tasks)
        assert slots.held(1) == 0
