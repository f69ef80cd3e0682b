"""Chunks that are written into a directory which another process of this machine owns, instead of being sent to it.

The owner makes the draft, takes room for it, and gives it its name when its bytes are there (lent_draft.py); here is
who writes the bytes. Nothing written here is durable, or visible, before the owner says so.

Blocks are gathered to WRITE_BYTES and copied together in a thread, into memory that is aligned for writing past the
page cache, while the next are gathered. Of one chunk at most two such batches are in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from storage.base.direct_file import ALIGNMENT_BYTES, BUFFER_BYTES, AlignedBuffers, DirectFile, open_direct
from storage.base.errors import ChunkError
from storage.base.ids import ChunkId
from storage.chunks import medium_errors
from storage.chunks.body import hand_over_body
from storage.chunks.footer import RunningDigest
from storage.chunks.layout import TEMPORARY, lent_draft_name
from storage.chunks.store import Buffer, ChunkReceipt
from storage.chunks.worker_pool import WorkerPool

WRITE_BYTES = 512 * 1024
"""from here on a batch is written: what larger ones save is less than what they hold"""
THREADS = 4
"""of one directory: a medium that does not answer any more keeps no other waiting"""
WRITES_WAITING_MAX = 64
"""for these threads"""


class NotLent(ChunkError):
    """The draft cannot be written from here, and nothing of the body was taken: the owner can be sent the bytes."""


class NearDrafts:
    """Of one directory. Used from one event loop; closed once."""

    def __init__(self, directory: Path, buffers: AlignedBuffers) -> None:
        """directory: a datanode's. Touches nothing yet."""
        self._temporary = directory / TEMPORARY
        self._buffers = buffers
        self._pool: WorkerPool | None = None

    async def fill(self, chunk_id: ChunkId, token: str, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        """Write all of a body into the draft that the owner made; the receipt is of the bytes that were written.

        NotLent before the body is touched; ChunkTruncated, NodeFull, ChunkError, and what the body raises, later."""
        if self._pool is None:
            self._pool = WorkerPool(THREADS, "near-drafts", WRITES_WAITING_MAX)
        path = str(self._temporary / lent_draft_name(chunk_id, token))
        try:
            filling = _Filling(await self._pool.run(open_direct, path), self._buffers)
        except OSError as error:
            raise NotLent(f"{path}: {error.strerror}") from error
        pool = self._pool
        try:
            last = await hand_over_body(body, length, WRITE_BYTES, lambda batch: pool.run(filling.append, batch))
            return await pool.run(filling.end, last)
        finally:
            filling.let_go()

    def close(self) -> None:
        """Let go of the threads. Blocking."""
        if self._pool is not None:
            self._pool.close()


class _Filling:
    """The bytes of one draft, in order. Its steps block, and come from one thread at a time."""

    def __init__(self, file: DirectFile, buffers: AlignedBuffers) -> None:
        self._file: DirectFile | None = file
        self._buffers = buffers
        self._digest = RunningDigest()
        self._rest = b""
        """bytes behind the last aligned offset"""

    def let_go(self) -> None:
        """Of the file, which closes now, or when a thread has ended its write. (What waits for a collection of garbage
        keeps the room of a removed draft taken.)"""
        self._file = None

    def append(self, blocks: Sequence[Buffer]) -> None:
        """Write the next bytes, as far as they fill aligned blocks. NodeFull, ChunkError."""
        with self._buffers.borrow() as buffer:
            filled = self._fill(buffer, blocks)
            whole = filled - filled % ALIGNMENT_BYTES
            self._flush(buffer[:whole])
            self._rest = bytes(buffer[whole:filled])

    def end(self, blocks: Sequence[Buffer]) -> ChunkReceipt:
        """Write the last bytes."""
        self.append(blocks)
        with self._buffers.borrow() as buffer:
            rest = buffer[: len(self._rest)]
            rest[:] = self._rest
            self._flush(rest)
        return self._digest.receipt()

    def _fill(self, buffer: memoryview, blocks: Sequence[Buffer]) -> int:
        """Copy the rest and the blocks together, writing whenever the buffer is full; how much is left in it."""
        filled = len(self._rest)
        buffer[:filled] = self._rest
        for block in blocks:
            left = memoryview(block)
            while left:
                count = min(len(left), BUFFER_BYTES - filled)
                buffer[filled : filled + count] = left[:count]
                left = left[count:]
                filled += count
                if filled == BUFFER_BYTES:
                    self._flush(buffer)
                    filled = 0
        return filled

    def _flush(self, data: memoryview) -> None:
        """The digest is of what is written, not of what was to be copied here."""
        if data:
            offset = self._digest.length
            self._digest.update(data)
            file = self._file
            if file is None:
                raise ChunkError("the write was given up")
            with medium_errors.writing():
                file.pwrite(data, offset)
