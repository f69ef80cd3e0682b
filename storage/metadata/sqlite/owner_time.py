"""The time that commands are applied at: wall time that neither goes backwards nor stands still.

Who lives is told by records that change. If time stood still after the wall clock was set back, renewals of a session
would leave its record as it was, and the clock's next jump forwards would fence who had renewed it all the while.
"""

from __future__ import annotations

from storage.base.clock import Clock

BEHIND_PACE = 0.5
"""of the steady clock, while the wall clock is behind: it must catch up some time"""


class OwnerTime:
    """now_ms: milliseconds since the epoch (UTC), at least `begin_ms`."""

    def __init__(self, clock: Clock, begin_ms: int) -> None:
        self._clock = clock
        self._last_ms = begin_ms
        self._last_s = clock.monotonic_s()

    def now_ms(self) -> int:
        """The wall clock's, or, while that is behind, what was told last and about half of the time since."""
        wall_ms, steady_s = self._clock.now_ms(), self._clock.monotonic_s()
        least_ms = self._last_ms + int((steady_s - self._last_s) * 1000 * BEHIND_PACE)
        now_ms = max(wall_ms, least_ms)
        if now_ms > self._last_ms:  # else a fraction of a millisecond is still to be counted
            self._last_ms, self._last_s = now_ms, steady_s
        return self._last_ms

    def skip_to(self, begin_ms: int) -> None:
        """Another owner's records came: what comes now is not older."""
        self._last_ms = max(self._last_ms, begin_ms)
