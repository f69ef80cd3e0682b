"""Memory for large blocks, used again and again.

What is allocated anew is cleared, and touched for the first time, before anything is written into it: for a block of a
MiB that costs as much as sealing it (measured: 22 % of the time that a gateway's loop takes for an upload in parts).
So a pool keeps its blocks, and gives one out again once nobody refers to it any more, by itself or by a view. CPython's
count of references says so: the reader of a socket, a thread that hashes, the log of a chunk and a transport that has
not sent everything need not agree on who is the last.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

BLOCK_BYTES = (1 << 20) + (4 << 10)
"""a MiB of plaintext, sealed or not"""
WORTH_BYTES_MIN = 256 * 1024
"""smaller ones are made anew"""


class BlockPool:
    """Its blocks are taken by one thread, and let go by any."""

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []
        self._kept_max = 0
        self._was_used = False

    @property
    def held_bytes(self) -> int:
        """Of all blocks that the pool knows, in use or not."""
        return len(self._blocks) * BLOCK_BYTES

    def keep(self, blocks_max: int) -> None:
        """Keep so many blocks at most; none before this is called, as somebody has to call `shed` from then on."""
        self._kept_max = blocks_max
        del self._blocks[blocks_max:]

    def take(self, size_bytes: int) -> memoryview:
        """Writable memory of this size, with anything in it, for as long as somebody refers to it or to a part."""
        if not WORTH_BYTES_MIN <= size_bytes <= BLOCK_BYTES:
            return memoryview(bytearray(size_bytes))
        self._was_used = True
        counts = _count_references(self._blocks)
        if _IDLE in counts:
            block = self._blocks[counts.index(_IDLE)]
        else:
            block = bytearray(BLOCK_BYTES)
            if len(self._blocks) < self._kept_max:
                self._blocks.append(block)
        return memoryview(block)[:size_bytes]

    def shed(self) -> None:
        """To be called every few seconds: when none was taken since the last call, give back those not in use."""
        if not self._was_used:
            counts = _count_references(self._blocks)
            self._blocks = [block for block, count in zip(self._blocks, counts, strict=True) if count != _IDLE]
        self._was_used = False


def _count_references(blocks: Sequence[bytearray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


_IDLE = _count_references([bytearray()])[0]
"""of a block that only the pool has"""

BLOCKS = BlockPool()
"""of the process"""
