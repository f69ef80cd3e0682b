"""Memory of this process that takes none until it is written to: a large buffer that is made long before its first use,
or that never comes to it.

bytearray(n) writes zeros to every page. A mapping that is private stays one process's own after a fork.
"""

from __future__ import annotations

import mmap


def untouched_memory(length: int) -> memoryview:
    """`length` writable zero bytes, from 1."""
    return memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
