"""A moment that moves often and strikes seldom: for whoever sets a limit to every step and hardly ever reaches one.

Setting a timer for each step and taking it back costs more than the steps. Here the timer that is set stays, and looks
when it fires whether the moment has moved on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


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


class StepLimit:
    """`with limit:` around each of a long row of steps that one task takes: what asyncio.timeout says of one that takes
    too long, by a timer that stays. Closed once, when no more steps follow."""

    __slots__ = ("_deadline", "_is_struck", "_task", "_within_s")

    def __init__(self, within_s: float) -> None:
        """within_s: for each step. To be made in the task that takes them."""
        task = asyncio.current_task()
        assert task is not None, "a step is a task's"
        self._task = task
        self._within_s = within_s
        self._is_struck = False
        self._deadline = Deadline(task.get_loop(), self._strike)

    def __enter__(self) -> None:
        self._deadline.move(self._within_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """TimeoutError in place of the cancellation that ended the step."""
        self._deadline.move(None)
        if self._is_struck:
            self._is_struck = False
            if self._task.uncancel() <= 0 and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error

    def close(self) -> None:
        """Nothing is limited any more."""
        self._deadline.close()

    def _strike(self) -> None:
        self._is_struck = True
        self._task.cancel()
