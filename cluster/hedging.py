"""PURE. When a second node is asked for what the first is late with, and how much may be asked twice.

A node is late when it has not sent the first byte after a delay that most of its recent answers did not need. In a
cluster that is slow because it has too much to do every node is late, and asking twice would make it worse: hedges are
paid from a bucket that fills with a small share of what is asked, so that they stay that share whatever happens.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

WINDOW_SAMPLES = 128
PERCENTILE = 0.95
SAMPLES_MIN = 8
"""fewer, and a node's pace is not known"""
DELAY_UNKNOWN_S = 0.2
DELAY_MIN_S = 0.02
"""below, a hiccup of a process would look like a stall"""
DELAY_MAX_S = 1.0
HEDGED_SHARE = 0.05
BURST_ASKS = 32.0
"""as many as the widest stripe has cells"""
STALLED_AFTER = 3
"""times that a node was late with no answer in between"""


class LatencyWindow:
    """The last `samples` values, in order of arrival and in order of size."""

    def __init__(self, samples: int = WINDOW_SAMPLES) -> None:
        self._samples = samples
        self._arrived: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, value: float) -> None:
        """Forgets the oldest one where there are enough."""
        if len(self._arrived) == self._samples:
            del self._ordered[bisect_left(self._ordered, self._arrived.popleft())]
        self._arrived.append(value)
        insort(self._ordered, value)

    def percentile(self, share: float) -> float:
        """The smallest value that at least this share (above 0, at most 1) of them do not exceed. Not of none."""
        return self._ordered[math.ceil(share * len(self._ordered)) - 1]


class Hedging:
    """Of one worker. Times are seconds, asks are single requests to a node; a hedge may take several."""

    def __init__(self) -> None:
        self._windows: dict[int, LatencyWindow] = {}
        self._late: dict[int, int] = {}
        self._asks = BURST_ASKS

    def delay_s(self, node: int) -> float:
        """How long a first byte of this node is waited for before others are asked."""
        window = self._windows.get(node)
        if window is None or len(window) < SAMPLES_MIN:
            return DELAY_UNKNOWN_S
        return min(max(window.percentile(PERCENTILE), DELAY_MIN_S), DELAY_MAX_S)

    def note_first_byte(self, node: int, waited_s: float) -> None:
        """The node answers."""
        window = self._windows.get(node)
        if window is None:
            window = self._windows[node] = LatencyWindow()
        window.add(waited_s)
        self._late.pop(node, None)

    def note_late(self, node: int) -> bool:
        """Others were done before the node began. → whether that makes it a stalled one: now and then everybody is."""
        self._late[node] = late = self._late.get(node, 0) + 1
        return late >= STALLED_AFTER

    def earn(self) -> None:
        """One ask was made."""
        self._asks = min(BURST_ASKS, self._asks + HEDGED_SHARE)

    def take(self, asks: int) -> bool:
        """Whether a hedge of so many asks may be made; then it counts."""
        if asks > self._asks:
            return False
        self._asks -= asks
        return True
