"""PURE. Which column of the rectangle a small blob takes: as many in a row share one as were under way at once.

A node makes what comes together durable with one sync. Blobs that a busy worker writes at the same time would be dealt
out to all nodes one by one, each to be synced alone; dealt out in runs they share their syncs. Written one after the
other each takes the next column, so that shares are exact; with many under way they are exact but for a run. How many
are under way just when a run begins says little: they come and go in batches. So a run is as long as their most was
during the run before.
"""

from __future__ import annotations

RUN_BLOBS_MAX = 16
RUN_BYTES_MAX = 1 << 20
"""so that what is large goes to many nodes at once"""


class ColumnRuns:
    """Of one worker. `enter` for each blob, `leave` when it is written."""

    def __init__(self, start: int = 0) -> None:
        """start: the column before the first."""
        self._column = start
        self._blobs_left = 0
        self._bytes_left = 0
        self._under_way = self._most = 0
        """now, and of this column at most"""

    def enter(self, length: int) -> int:
        """The column of a blob of so many bytes."""
        if self._blobs_left <= 0 or self._bytes_left < length:
            self._column += 1
            self._blobs_left = min(max(self._most, self._under_way + 1), RUN_BLOBS_MAX)
            self._most = 0
            self._bytes_left = RUN_BYTES_MAX
        self._blobs_left -= 1
        self._bytes_left -= length
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        return self._column

    def leave(self) -> None:
        """Whether it was written or not."""
        self._under_way -= 1
