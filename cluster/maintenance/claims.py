"""Which blobs a job of the active master has in hand, so that no two jobs move or delete pieces of one blob at once.

The jobs run in one process. What an earlier active master left under way is refused by its term or by the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class BlobClaims:
    """Blob ids, each claimed by one job at a time."""

    def __init__(self) -> None:
        self._claimed: dict[bytes, list[object]] = {}
        """blob id → who claimed it, once for each claim"""

    def __contains__(self, blob_id: bytes) -> bool:
        return blob_id in self._claimed

    @contextmanager
    def claim(self, blob_id: bytes, sharer: object = None) -> Iterator[bool]:
        """Whether the blob is the caller's until the end of the block; False: another job has it, leave it alone.
        sharer: a job that works on several chunks of a blob at once gives itself."""
        holders = self._claimed.setdefault(blob_id, [])
        if holders and (sharer is None or holders[0] is not sharer):
            yield False
            return
        holders.append(sharer)
        try:
            yield True
        finally:
            holders.pop()
            if not holders:
                del self._claimed[blob_id]
