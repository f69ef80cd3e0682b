"""Slots of nodes: never more than allowed at once, and everybody gets his turn."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.maintenance.node_slots import NodeSlots


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(1, 4), min_size=1), max_size=20), st.integers(1, 3), st.integers(0, 20))
async def test_never_more_than_allowed(wanted: list[set[int]], per_node_max: int, cancelled: int) -> None:
    """All of the nodes of a copy or none; one that is cancelled while it waits leaves nothing behind."""
    slots, running, done = NodeSlots(per_node_max), [], []

    async def copy(number: int, nodes: set[int]) -> None:
        async with slots.hold(nodes):
            running.append(nodes)
            try:
                for node in nodes:
                    assert sum(node in it for it in running) == slots.held(node) <= per_node_max
                for _ in range(number % 3):
                    await asyncio.sleep(0)
            finally:
                running.remove(nodes)
        done.append(number)

    tasks = [asyncio.create_task(copy(number, nodes)) for number, nodes in enumerate(wanted)]
    if cancelled < len(tasks):
        await asyncio.sleep(0)
        tasks[cancelled].cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(done) >= len(wanted) - 1
    assert not any(slots.held(node) for node in range(5))
