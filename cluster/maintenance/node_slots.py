"""How many copies each node takes part in at once, so that repair leaves it time for everybody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

PER_NODE_MAX = 2


class NodeSlots:
    """A copy holds one slot of every node that it reads from or writes to, all of them or none while it waits."""

    def __init__(self, per_node_max: int = PER_NODE_MAX) -> None:
        self._per_node_max = per_node_max
        self._held: Counter[int] = Counter()
        self._freed = asyncio.Event()

    def held(self, number: int) -> int:
        """Slots of a node in use."""
        return self._held[number]

    @asynccontextmanager
    async def hold(self, numbers: Collection[int]) -> AsyncIterator[None]:
        """Wait until each of these (different) nodes has a free slot, and take them."""
        while any(self._held[number] >= self._per_node_max for number in numbers):
            await self._freed.wait()
        self._held.update(numbers)
        try:
            yield
        finally:
            self._held.subtract(numbers)
            self._freed.set()
            self._freed = asyncio.Event()
