"""Ends waits that last too long, as asyncio.timeout does: many of one length under way, and one timer for all of them.

Setting a timer for each wait and taking it back costs as much as a small chunk's seal. The waits of a guard are all
allowed the same time, so they are over in the order in which they began, and only the oldest is watched.
"""

from __future__ import annotations

import asyncio


class Wait:
    """One wait of a task, from StallGuard.begin to `end`."""

    __slots__ = ("_cancelling", "_guard", "is_late", "task", "until_s")

    def __init__(self, guard: StallGuard, task: asyncio.Task[object], until_s: float) -> None:
        self.task = task
        self.until_s = until_s
        """by the loop's clock"""
        self.is_late = False
        """the task was cancelled for it"""
        self._guard = guard
        self._cancelling = task.cancelling()

    def end(self) -> bool:
        """It is over, one way or another. Called once, in the task. Whether a CancelledError that ended it is of this
        wait alone: then it stands for a TimeoutError."""
        self._guard.forget(self)
        return self.is_late and self.task.uncancel() <= self._cancelling


class StallGuard:
    """Used on one event loop."""

    def __init__(self, stall_s: float) -> None:
        """stall_s: how long each wait may last."""
        self._stall_s = stall_s
        self._waits: dict[Wait, None] = {}
        """oldest first; each is of a request that is under way"""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Wait:
        """Of the current task, which is cancelled when it is late."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "somebody waits"
        wait = Wait(self, task, loop.time() + self._stall_s)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.until_s, self._look)
        return wait

    def forget(self, wait: Wait) -> None:
        """It has ended."""
        del self._waits[wait]

    def _look(self) -> None:
        """Cancel what is late, and come back for the next one."""
        self._timer = None
        loop = self._loop
        assert loop is not None, "a wait has begun"
        now_s = loop.time()
        for wait in list(self._waits):
            if wait.is_late:
                continue
            if wait.until_s > now_s:
                self._timer = loop.call_at(wait.until_s, self._look)
                return
            wait.is_late = True
            wait.task.cancel()
