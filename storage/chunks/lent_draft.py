"""A draft whose bytes another process of this machine writes into the file itself (near_drafts.py).

The owner makes the file and takes room for it, so that a full medium says so before the first byte; it completes the
draft with its footer when it is told that the bytes are there, and syncs, names and removes it like any other. What it
cannot know is the digest of bytes that it never saw: that is of the writer, who computed it from what it wrote.
"""

from __future__ import annotations

from storage.base.clock import Clock
from storage.base.errors import ChunkTruncated
from storage.base.files import FileSystem
from storage.base.ids import ChunkId
from storage.chunks.draft import Draft
from storage.chunks.footer import Footer, format_footer
from storage.chunks.store import DIGEST_BYTES, ChunkReceipt
from storage.chunks.times import stored_times


class LentDraft(Draft):
    """`make` it, then `accept` what was written, and sync."""

    def __init__(self, files: FileSystem, clock: Clock, path: str, chunk_id: ChunkId, length: int) -> None:
        super().__init__(files, clock, path, chunk_id, length)
        self._accepted = ChunkReceipt(0, bytes(DIGEST_BYTES))

    @property
    def receipt(self) -> ChunkReceipt:
        """As it was accepted."""
        return self._accepted

    @property
    def is_over(self) -> bool:
        """Whether there is nothing of it that could be left behind: it became a chunk, or was discarded."""
        return self._over

    def make(self) -> None:
        """The file, with room for all of it. OSError."""
        with self._lock:
            try:
                self._opened()
            except FileExistsError:
                self._over = True  # not ours to remove
                raise

    def accept(self, receipt: ChunkReceipt) -> None:
        """Write the footer behind the bytes that were written. ChunkTruncated when they are not as many as announced.
        OSError."""
        with self._lock:
            if receipt.length != self._length:
                raise ChunkTruncated(f"{receipt.length} bytes of a chunk announced with {self._length}")
            self._accepted = receipt
            stored_ms = self._clock.now_ms()
            file = self._opened()
            file.pwrite(format_footer(Footer(receipt.length, receipt.digest, stored_ms)), receipt.length)
            file.set_times(*stored_times(stored_ms))
