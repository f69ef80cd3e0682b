"""The only place that reads time, so that tests and the simulator can hold it still."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for deadlines."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch (UTC)."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, from an arbitrary start."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both times forward."""
        self._now_ms += round(seconds * 1000)
        self._monotonic_s += seconds

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the clock: wall time jumps by so much, either way; steady time does not."""
        self._now_ms += round(seconds * 1000)
