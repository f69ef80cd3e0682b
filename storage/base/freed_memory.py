"""What becomes of memory that this process frees: the C library's allocator gives the end of its heap back to the
system as soon as 128 KiB of it are free (mallopt(3), M_TRIM_THRESHOLD), and asks for it again with the next body.

Each page that comes back is cleared and mapped at its first touch: in a gateway whose PUTs have 64 KiB 6 to 12 pages a
PUT, and up to 20, where nothing above them keeps the end of the heap in place (216 in place of 166 µs from a request's
bytes to its answer's). So a process that handles bodies keeps what it freed while it works, and gives it back when it
rests. Where the allocator is another one than glibc's, nothing happens.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

KEPT_BYTES_MAX = 32 << 20
"""free memory at the end of the heap"""
HEAP_BYTES_MAX = 4 << 20
"""what is larger is no part of the heap: it comes from the system, and goes back when it is freed"""
RESTING_SHARE = 0.05
"""of one processor; who uses less has no bodies, or few"""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


class FreedMemory:
    """Of this process: `keep` once, then `shed` every few seconds."""

    def __init__(
        self, processor_s: Callable[[], float] = time.process_time, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._processor_s = processor_s
        self._clock_s = clock_s
        self._looked_s = clock_s()
        self._used_s = processor_s()
        self._has_worked = False
        self._libc = _find_glibc()

    def keep(self) -> None:
        """From now on."""
        if self._libc is not None:
            self._libc.mallopt(_M_MMAP_THRESHOLD, HEAP_BYTES_MAX)
            self._libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX)

    def shed(self) -> bool:
        """Give back what is free when this process has worked and rests since the last call; whether it was."""
        now_s, used_s = self._clock_s(), self._processor_s()
        is_resting = used_s - self._used_s < RESTING_SHARE * (now_s - self._looked_s)
        self._looked_s, self._used_s = now_s, used_s
        is_due = is_resting and self._has_worked
        self._has_worked = not is_resting
        if is_due and self._libc is not None:
            self._libc.malloc_trim(0)
        return is_due


def _find_glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
