"""One shape for everything that a process does again and again beside its requests.

A loop has a name, an interval with jitter (so that many nodes do not call at once), the time and outcome of its last
run, and a stop. A run that fails is logged and tried again after a back-off that doubles up to a bound; nothing that a
run raises ends the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from storage.base.clock import Clock, SystemClock

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 30.0
EAGER_PAUSE_S = 0.05
EAGER_S = 5.0
"""for a loop whose work needs another process of the cluster: both may be starting"""
JITTER_SHARE = 0.1
"""each pause is drawn from interval · (1 ± this)"""
_JITTER = random.Random()  # noqa: S311 - spreads load, guards nothing
"""of its own: whoever seeds the shared generator, as property tests do, is not disturbed"""

_log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


class LoopStatus(NamedTuple):
    """For status pages and metrics."""

    name: str
    runs: int
    failures_in_a_row: int
    last_run_ms: int
    """when the last run ended; 0 before the first"""
    last_error: str
    """of the last run; empty when it succeeded"""
    counts: Mapping[str, int] = {}
    """what the runs of this process did together, by name, where the work counts it; `done` and `total` of them say
    how far the work under way is, or how far the last one came"""
    started_ms: int = 0
    """when the run under way began; 0 between runs"""


class BackgroundLoop:
    """Runs `work` at once and then every interval, until stopped. `interval_s` may be changed at any time."""

    def __init__(
        self,
        name: str,
        interval_s: float,
        work: Work,
        *,
        backoff_max_s: float = BACKOFF_MAX_S,
        clock: Clock | None = None,
        counts: Callable[[], Mapping[str, int]] = dict,
        on_order: Callable[[], None] | None = None,
        eager_s: float = 0.0,
    ) -> None:
        """counts: asked what the runs did so far. on_order: told before a run that was ordered, where such a run does
        more than others. eager_s: for so long after `start` a failure is followed by EAGER_PAUSE_S, not by a back-off,
        and is not worth a warning: what the work needs may be starting as well."""
        self.name = name
        self.interval_s = interval_s
        self._work = work
        self._backoff_max_s = backoff_max_s
        self._clock = clock or SystemClock()
        self._counts = counts
        self._on_order = on_order
        self._eager_s = eager_s
        self._eager_until_s = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._runs = 0
        self._failures = 0
        self._late_failures = 0
        """of them, those after the eager time"""
        self._last_run_ms = 0
        self._last_error = ""
        self._started_ms: int | None = None

    @property
    def status(self) -> LoopStatus:
        """As of the last finished run, and whether one is under way."""
        counts = dict(self._counts())
        last = (self._runs, self._failures, self._last_run_ms, self._last_error)
        return LoopStatus(self.name, *last, counts, self._started_ms or 0)

    def start(self) -> None:
        """Begin on the running event loop; a second call changes nothing."""
        if self._task is None:
            self._eager_until_s = self._clock.monotonic_s() + self._eager_s
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)

    def wake(self) -> None:
        """Run again now instead of at the end of the pause; right after the run under way, if there is one."""
        self._wake.set()

    def order(self) -> int:
        """Wake it for somebody who waits. → how many runs there will have been when a whole one has ended that began
        after this. At any time; before `start` it is the first run."""
        if self._on_order is not None:
            self._on_order()
        self.wake()
        return self._runs + (1 if self._started_ms is None else 2)

    async def stop(self) -> None:
        """Cancel the run under way, if any, and wait until it is gone."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._run_once()
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _run_once(self) -> None:
        self._started_ms = self._clock.now_ms()
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - the edge of a background job: whatever fails is told and tried again
            self._failures += 1
            self._last_error = f"{type(error).__name__}: {error}"
            self._late_failures += not self._is_eager
            # The first failure and then every power of two: a dependency that is away for hours must not fill the log.
            if self._late_failures and self._late_failures & (self._late_failures - 1) == 0:
                _log.warning("%s failed (%d in a row): %s", self.name, self._failures, self._last_error)
            _log.debug("%s failed", self.name, exc_info=error)
        else:
            if self._late_failures:
                _log.info("%s works again after %d failures", self.name, self._failures)
            self._failures = self._late_failures = 0
            self._last_error = ""
        finally:
            self._started_ms = None
        self._runs += 1
        self._last_run_ms = self._clock.now_ms()

    @property
    def _is_eager(self) -> bool:
        return self._clock.monotonic_s() < self._eager_until_s

    def _pause_s(self) -> float:
        pause_s = self.interval_s
        if self._failures and self._is_eager:
            pause_s = EAGER_PAUSE_S
        elif self._failures:
            # The exponent is bounded so that a long outage cannot overflow a float.
            pause_s = min(BACKOFF_FIRST_S * 2 ** min(max(self._late_failures - 1, 0), 16), self._backoff_max_s)
        return pause_s * (1 + _JITTER.uniform(-JITTER_SHARE, JITTER_SHARE))
