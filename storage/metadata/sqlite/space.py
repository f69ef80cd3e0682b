"""The reserve of the metadata's disk: new objects stop before it is full, so that deletes still work then."""

from __future__ import annotations

import os
import time
from pathlib import Path

RESERVE_BYTES = 128 << 20
"""twice the bound of the write-ahead log: room for it to grow, and for the deletes that make room"""

_LOOK_EVERY_S = 1.0


class SpaceReserve:
    """Looks at the file system at most once a second."""

    def __init__(self, directory: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._next_look_s = 0.0
        self._is_low = False

    def is_low(self) -> bool:
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_EVERY_S
            status = os.statvfs(self._directory)
            self._is_low = status.f_bavail * status.f_frsize < self._reserve_bytes
        return self._is_low
