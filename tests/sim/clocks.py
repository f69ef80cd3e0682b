"""What a simulated process takes for the time."""

from __future__ import annotations

from tests.sim.loop import VirtualLoop

BEGIN_MS = 1_700_000_000_000


class SimClock:
    """The loop's virtual time; the wall clock of one machine may be set, its steady clock may not."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.set_by_ms = 0
        self.was_set = False
        self._loop = loop

    def now_ms(self) -> int:
        return BEGIN_MS + self.set_by_ms + int(self._loop.time() * 1000)

    def monotonic_s(self) -> float:
        return self._loop.time()

    def set_by(self, seconds: float) -> None:
        """Somebody sets it."""
        self.set_by_ms += round(seconds * 1000)
        self.was_set = True

    def set_right(self) -> None:
        """As if it had never been set."""
        self.set_by_ms = 0
