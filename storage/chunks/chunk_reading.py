"""One read of a stored chunk, block by block, whose steps may come from different threads."""

from __future__ import annotations

import threading

from storage.base.errors import ChunkError
from storage.base.ids import ChunkId
from storage.chunks.chunk_directory import ChunkDirectory
from storage.chunks.open_chunk import OpenChunk


class ChunkReading:
    """The span [offset, offset + length) of a chunk (to its end for None), opened by the first block."""

    def __init__(
        self, directory: ChunkDirectory, chunk_id: ChunkId, offset: int, length: int | None, block_bytes: int
    ) -> None:
        self.is_over = False
        """everything was read, or the read was given up: no file is open"""
        self._directory = directory
        self._chunk_id = chunk_id
        self._span = (offset, length)
        self._block_bytes = block_bytes
        self._chunk: OpenChunk | None = None
        self._position = 0
        self._end = 0
        self._lock = threading.Lock()

    def next_block(self) -> bytes:
        """The next bytes, `block_bytes` or what is left; none at the end. ChunkNotFound, Corrupt."""
        with self._lock:
            if self.is_over:
                raise ChunkError("the read is over")
            if self._chunk is None:
                self._chunk = self._directory.open(self._chunk_id)
                self._position, self._end = self._chunk.clamp(*self._span)
            start, self._position = self._position, min(self._position + self._block_bytes, self._end)
            block = self._chunk.read(start, self._position)
            if self._position == self._end:
                self._close()
            return block

    def close(self) -> None:
        """Give the read up; waits for a block under way in another thread. Twice is no error."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self.is_over = True
        if self._chunk is not None:
            self._chunk.close()
            self._chunk = None
