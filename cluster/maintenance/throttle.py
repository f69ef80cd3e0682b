"""How many bytes a second a job may move: a token bucket that fills with the clock, up to one burst.

Bytes are taken in the order of asking. More than there are at the moment may be taken: the taker waits until the bucket
has made up for them, so that one piece larger than the burst passes as well, and costs those behind it the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from storage.base.clock import Clock

BURST_S = 0.25
"""what was not used of this much time may be used at once"""

Sleep = Callable[[float], Awaitable[None]]


class Throttle:
    """`take` before bytes are moved."""

    def __init__(self, bytes_per_s: float, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        """bytes_per_s: at least 1. sleep: waits for so many seconds of the clock."""
        self.taken_bytes = 0
        """by everybody, ever"""
        self._clock = clock
        self._sleep = sleep
        self._bytes_per_s = bytes_per_s
        self._filled_s = clock.monotonic_s()
        self._available = bytes_per_s * BURST_S

    @property
    def bytes_per_s(self) -> float:
        """The rate; who waits already waits as long as the rate was when it began."""
        return self._bytes_per_s

    @bytes_per_s.setter
    def bytes_per_s(self, bytes_per_s: float) -> None:
        self._fill()
        self._bytes_per_s = bytes_per_s

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be moved. A taker that is cancelled while it waits gives them back."""
        self._fill()
        self._available -= size_bytes
        self.taken_bytes += size_bytes
        if self._available >= 0:
            return
        try:
            await self._sleep(-self._available / self._bytes_per_s)
        except asyncio.CancelledError:
            self._available += size_bytes
            self.taken_bytes -= size_bytes
            raise

    def _fill(self) -> None:
        now_s = self._clock.monotonic_s()
        gained = (now_s - self._filled_s) * self._bytes_per_s
        self._filled_s = now_s
        self._available = min(self._available + gained, self._bytes_per_s * BURST_S)
