"""The gaps between the small objects of a process that is about to be forked.

CPython keeps objects of one size (up to 512 bytes, in steps of 16) in pools of 16 KiB, and puts a new one where an old
one has gone. After an import of many modules such gaps are in nearly every pool: the first objects that a child makes
would each copy a page that it shares otherwise. With the gaps filled it begins pools of its own. 0.3 MB of fillers,
once, save 0.4 MiB in each of seven children.
"""

from __future__ import annotations

import sys

SIZES = range(48, 513, 16)
POOL_BYTES = 16 << 10
POOL_HEADER_BYTES = 48
FRESH_MIN = 6
"""that many in a row from the start of a pool: it was begun for them"""
FILLERS_MAX = 3_000
"""of one size; a Python whose pools are others gets none"""


def fill_gaps() -> tuple[bytes, ...]:
    """→ what fills them, to be kept for as long as they should stay filled."""
    return tuple(filler for size in SIZES for filler in _fill(size))


def _fill(size: int) -> list[bytes]:
    length = size - sys.getsizeof(b"")
    fillers: list[bytes] = []
    fresh, last = 0, 0
    while fresh < FRESH_MIN:
        if len(fillers) == FILLERS_MAX:
            return []
        filler = bytes(length)
        fillers.append(filler)
        begins = id(filler) % POOL_BYTES == POOL_HEADER_BYTES
        fresh = 1 if begins else fresh + 1 if fresh and id(filler) == last + size else 0
        last = id(filler)
    return fillers[:-FRESH_MIN]
