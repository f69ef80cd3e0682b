"""How much each node copies at once, so that repair leaves it time for others: few large pieces or many small ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

PER_NODE_BYTES_MAX = 16 << 20
"""two whole chunks of the usual size"""
COPY_BYTES_MIN = PER_NODE_BYTES_MAX // 32
"""what the smallest copy counts for"""


class NodeSlots:
    """A copy holds its bytes at every node that it reads from or writes to, at all of them or at none while it waits.
    Two copies at one node always fit, however large they are."""

    def __init__(self, per_node_bytes_max: int = PER_NODE_BYTES_MAX) -> None:
        self._per_node_bytes_max = per_node_bytes_max
        self._held: Counter[int] = Counter()
        self._freed = asyncio.Event()

    def held(self, number: int) -> int:
        """What copies at a node count for now, in bytes."""
        return self._held[number]

    def weigh(self, size_bytes: int) -> int:
        """What a copy of this size counts for."""
        return min(max(size_bytes, COPY_BYTES_MIN), self._per_node_bytes_max // 2)

    @asynccontextmanager
    async def hold(self, numbers: Collection[int], size_bytes: int) -> AsyncIterator[None]:
        """Wait until each of these (different) nodes has room for a copy of this size, and take it."""
        weight = self.weigh(size_bytes)
        while any(self._held[number] + weight > self._per_node_bytes_max for number in numbers):
            await self._freed.wait()
        self._held.update(dict.fromkeys(numbers, weight))
        try:
            yield
        finally:
            self._held.subtract(dict.fromkeys(numbers, weight))
            self._freed.set()
            self._freed = asyncio.Event()
