"""A chunk that is being written: a file under tmp/ with no name that a reader could find."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from storage.base.clock import Clock
from storage.base.errors import ChunkError, ChunkTruncated
from storage.base.files import FileSystem, OpenFile
from storage.base.ids import ChunkId
from storage.chunks.footer import FOOTER_BYTES, Footer, RunningDigest, format_footer
from storage.chunks.store import Buffer, ChunkReceipt
from storage.chunks.times import stored_times

PREALLOCATE_FROM_BYTES = 1 << 20
"""below, taking the room first costs more than it saves; above, it makes a write a tenth faster"""


class Draft:
    """One chunk on its way to the medium. Its steps may come from different threads, and discard at any time."""

    def __init__(self, files: FileSystem, clock: Clock, path: str, chunk_id: ChunkId, length: int) -> None:
        self.chunk_id = chunk_id
        self.path = path
        self._files = files
        self._clock = clock
        self._length = length
        self._digest = RunningDigest()
        self._file: OpenFile | None = None
        self._over = False
        self._lock = threading.Lock()

    @property
    def receipt(self) -> ChunkReceipt:
        """Of the bytes written so far."""
        return self._digest.receipt()

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Write the next bytes; the file is made with the first. OSError as the medium gives it."""
        with self._lock:
            self._take(buffers)
            self._opened().write(buffers)

    def complete(self, buffers: Sequence[Buffer]) -> None:
        """Write the last bytes and the footer. ChunkTruncated when they do not add up to the announced length."""
        with self._lock:
            self._take(buffers)
            length, digest = self._digest.length, self._digest.receipt().digest
            if length != self._length:
                raise ChunkTruncated(f"{length} bytes of a chunk announced with {self._length}")
            stored_ms = self._clock.now_ms()
            file = self._opened()
            file.write([*buffers, format_footer(Footer(length, digest, stored_ms))])
            file.set_times(*stored_times(stored_ms))

    def sync(self) -> None:
        """Make the bytes durable. What failed here is never tried again: the system may have dropped the bytes."""
        with self._lock:
            self._opened().fdatasync()
            self._close()

    def moved(self) -> None:
        """The file has its final name: nothing is left to discard."""
        self._over = True

    def discard(self) -> None:
        """Leave nothing behind, unless the chunk has its name already. Waits for a step under way in another thread."""
        with self._lock:
            self._close()
            if not self._over:
                self._over = True
                with suppress(OSError):
                    self._files.unlink(self.path)

    def _take(self, buffers: Sequence[Buffer]) -> None:
        for data in buffers:
            self._digest.update(data)

    def _opened(self) -> OpenFile:
        if self._over:
            raise ChunkError("the write was given up")
        if self._file is None:
            self._file = self._files.create(self.path)
            if self._length >= PREALLOCATE_FROM_BYTES:
                self._file.preallocate(self._length + FOOTER_BYTES)
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
