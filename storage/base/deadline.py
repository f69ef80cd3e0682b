"""A moment that moves often and strikes seldom: for whoever sets a limit to every step and hardly ever reaches one.

Setting a timer for each step and taking it back costs more than the steps. Here the timer that is set stays, and looks
when it fires whether the moment has moved on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `strike` once the moment has come; used on one event loop."""

    __slots__ = ("_fires_s", "_loop", "_moment_s", "_strike", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, strike: Callable[[], None]) -> None:
        self._loop = loop
        self._strike = strike
        self._moment_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._fires_s = 0.0

    def move(self, within_s: float | None) -> None:
        """So many seconds from now; None: not for now."""
        if within_s is None:
            self._moment_s = None
            return
        self._moment_s = moment_s = self._loop.time() + within_s
        if self._timer is None or self._fires_s > moment_s:
            self._set_timer(moment_s)

    def close(self) -> None:
        """Nothing strikes any more."""
        self._moment_s = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, moment_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_s = moment_s
        self._timer = self._loop.call_at(moment_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._moment_s is None:
            return
        if self._loop.time() < self._moment_s:
            self._set_timer(self._moment_s)
            return
        self._moment_s = None
        self._strike()
