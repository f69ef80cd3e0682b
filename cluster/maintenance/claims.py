"""Which blobs a job of the active master has in hand, so that no two jobs move or delete pieces of one blob at once.

The jobs run in one process. What an earlier active master left under way is refused by its term or by the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BlobClaims:
    """A set of blob ids, each claimed by one job at a time."""

    def __init__(self) -> None:
        self._claimed: set[bytes] = set()

    def __contains__(self, blob_id: bytes) -> bool:
        return blob_id in self._claimed

    @contextmanager
    def claim(self, blob_id: bytes) -> Iterator[bool]:
        """Whether the blob is the caller's until the end of the block; False: another job has it, leave it alone."""
        if blob_id in self._claimed:
            yield False
            return
        self._claimed.add(blob_id)
        try:
            yield True
        finally:
            self._claimed.discard(blob_id)
