"""What happened in a run, one line an event: hashed as it goes, so that two runs of a seed can be compared; the last
lines are kept for whoever looks for a cause."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Callable

LINES_KEPT_MAX = 200_000


class Trace:
    """now_s: virtual time. show: print every line at once."""

    def __init__(self, now_s: Callable[[], float], *, show: bool = False) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT_MAX)
        self.counts: dict[str, int] = {}
        """faults and operations by kind"""
        self._now_s = now_s
        self._show = show
        self._digest = hashlib.blake2b(digest_size=16)

    def note(self, who: str, text: str) -> None:
        """An event. text: the same in every run of the seed."""
        line = f"{self._now_s():10.3f} {who:>9} {text}"
        self.lines.append(line)
        self._digest.update(line.encode() + b"\n")
        if self._show:
            print(line, file=sys.stderr)

    def count(self, kind: str) -> None:
        """One more of a kind."""
        self.counts[kind] = self.counts.get(kind, 0) + 1

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()
