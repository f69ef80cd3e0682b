"""PURE. Which column of the rectangle a small blob takes: as many in a row share one as are under way at once.

A node makes what comes together durable with one sync. Blobs that a busy worker writes at the same time would be dealt
out to all nodes one by one, each to be synced alone; dealt out in runs they share their syncs. Written one after the
other each takes the next column, so that shares are exact; with many under way they are exact but for a run.
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
        self._under_way = 0

    def enter(self, length: int) -> int:
        """The column of a blob of so many bytes."""
        if self._blobs_left <= 0 or self._bytes_left < length:
            self._column += 1
            self._blobs_left = min(self._under_way + 1, RUN_BLOBS_MAX)
            self._bytes_left = RUN_BYTES_MAX
        self._blobs_left -= 1
        self._bytes_left -= length
        self._under_way += 1
        return self._column

    def leave(self) -> None:
        """Whether it was written or not."""
        self._under_way -= 1
