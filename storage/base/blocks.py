"""Memory for large blocks, used again and again.

What is allocated anew is cleared, and touched for the first time, before anything is written into it: for a block of a
MiB that costs as much as sealing it (measured: 22 % of the time that a gateway's loop takes for an upload in parts).
So a pool keeps its blocks, and gives one out again once nobody refers to it any more, by itself or by a view. CPython's
count of references says so: the reader of a socket, a thread that hashes, the log of a chunk and a transport that has
not sent everything need not agree on who is the last.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

BLOCK_BYTES = (1 << 20) + (4 << 10)
"""a MiB of plaintext, sealed or not"""
WORTH_BYTES_MIN = 256 * 1024
"""smaller ones are made anew"""
FILLING_BYTES_MIN = 15 * 64 * 1024
"""what nearly fills a block"""


class BlockPool:
    """Its blocks are taken and let go by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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
        with self._lock:
            return memoryview(self._find())[:size_bytes]

    def take_filling(self, size_bytes: int) -> memoryview:
        """The same, of the pool only what nearly fills a block: for who is counted by size, and may hold it long."""
        return self.take(size_bytes) if size_bytes >= FILLING_BYTES_MIN else memoryview(bytearray(size_bytes))

    def shed(self) -> None:
        """To be called every few seconds: when none was taken since the last call, give back those not in use."""
        with self._lock:
            while not self._was_used and (index := _find_idle(self._blocks)) is not None:
                del self._blocks[index]
            self._was_used = False

    def _find(self) -> bytearray:
        self._was_used = True
        index = _find_idle(self._blocks)  # of those that are idle the first: it was in use a moment ago, and is cached
        if index is not None:
            return self._blocks[index]
        block = bytearray(BLOCK_BYTES)
        if len(self._blocks) < self._kept_max:
            self._blocks.append(block)
        return block


def _find_idle(blocks: Sequence[bytearray], references: int | None = None) -> int | None:
    """The first block that only the list refers to. references: how many that makes."""
    wanted = _IDLE_REFERENCES if references is None else references
    for index, block in enumerate(blocks):
        if sys.getrefcount(block) == wanted:
            return index
    return None


_IDLE_REFERENCES = next(count for count in range(1, 10) if _find_idle([bytearray()], count) is not None)
"""the list's, and those of looking itself, which are not the same in every version of Python"""

BLOCKS = BlockPool()
"""of the process"""
