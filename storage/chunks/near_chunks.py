"""The chunks of a directory that another process of this machine owns, read past that process. Nothing is written.

It needs no agreement with the owner: a name under chunks/ leads to bytes that are whole and never change, deleting and
setting aside take the name away, and who has the file open reads on. Files are kept open so that the spans of one chunk
need one opening, and for OPEN_S_MAX at most: the room of a deleted chunk is free, and what was stored anew in place of
a damaged file is found, only after that.

Whatever goes wrong, the owner is to be asked instead: it knows what is to be done and said about it. So the errors are
told apart no further than `FAILURES`.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

from storage.base.cached_files import CachedFile, open_cached, open_file
from storage.base.errors import Corrupt, Unavailable
from storage.base.ids import ChunkId
from storage.chunks.footer import FOOTER_BYTES, parse_footer
from storage.chunks.layout import CHUNKS, group_name
from storage.chunks.worker_pool import WorkerPool

FAILURES = (OSError, Corrupt, Unavailable)
"""there is no such file, it cannot be read, it is not whole or shorter than what is asked for; too many reads wait"""

OPEN_CHUNKS_MAX = 32
OPEN_S_MAX = 2.0
THREADS = 4
"""of one directory: a medium that does not answer any more keeps no other waiting"""
READS_WAITING_MAX = 64
"""for these threads"""


class _Opened(NamedTuple):
    file: CachedFile
    length: int
    """of the sealed bytes"""
    opened_s: float
    """by the event loop's clock"""


class NearChunks:
    """Of one directory. Used from one event loop; closed once."""

    def __init__(self, directory: Path) -> None:
        """directory: a datanode's. Touches nothing yet."""
        self._chunks = os.fsencode(directory / CHUNKS)
        self._open: dict[ChunkId, _Opened] = {}
        """the oldest first"""
        self._pool: WorkerPool | None = None
        self._timer: asyncio.TimerHandle | None = None

    def read_cached(self, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> bool:
        """Fill the target with sealed bytes of the chunk, from an offset; False, with the target undefined, if that
        would have to wait for the medium. FAILURES."""
        opened = self._open.get(chunk_id) or self._open_cached(chunk_id)
        if opened is None:
            return False
        _require_span(opened, offset, len(target))
        return opened.file.read_cached(target, offset)

    async def read(self, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> None:
        """The same, in a thread, however long it takes. A thread may go on filling the target when nobody waits for
        it any more. FAILURES."""
        if self._pool is None:
            self._pool = WorkerPool(THREADS, "near-chunks", READS_WAITING_MAX)
        opened = self._open.get(chunk_id)
        if opened is None:
            opened = self._remember(chunk_id, *await self._pool.run(_open_waiting, self._path(chunk_id)))
        _require_span(opened, offset, len(target))
        if not await self._pool.run(opened.file.read, target, offset):
            raise Corrupt("the file became shorter")

    def forget(self, chunk_id: ChunkId) -> None:
        """Let the next read open the chunk anew."""
        self._open.pop(chunk_id, None)

    def close(self) -> None:
        """Let go of all files and threads."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._pool is not None:
            self._pool.close()

    def _open_cached(self, chunk_id: ChunkId) -> _Opened | None:
        file = open_cached(self._path(chunk_id))
        if file is None:
            return None
        size, footer = file.size(), bytearray(FOOTER_BYTES)
        if not file.read_cached(footer, max(0, size - FOOTER_BYTES)):
            return None
        return self._remember(chunk_id, file, parse_footer(footer, size).length)

    def _remember(self, chunk_id: ChunkId, file: CachedFile, length: int) -> _Opened:
        loop = asyncio.get_running_loop()
        self._open.pop(chunk_id, None)
        if len(self._open) >= OPEN_CHUNKS_MAX:
            del self._open[next(iter(self._open))]
        opened = self._open[chunk_id] = _Opened(file, length, loop.time())
        if self._timer is None:
            self._timer = loop.call_later(OPEN_S_MAX, self._forget_old)
        return opened

    def _forget_old(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._open:
            chunk_id, oldest = next(iter(self._open.items()))
            left_s = oldest.opened_s + OPEN_S_MAX - now_s
            if left_s > 0:
                self._timer = loop.call_later(left_s, self._forget_old)
                return
            del self._open[chunk_id]
        self._timer = None

    def _path(self, chunk_id: ChunkId) -> bytes:
        name = str(chunk_id)
        return b"%b/%b/%b" % (self._chunks, group_name(name).encode("ascii"), name.encode("ascii"))


def _open_waiting(path: bytes) -> tuple[CachedFile, int]:
    """→ the file, and how many sealed bytes it has."""
    file = open_file(path)
    size, footer = file.size(), bytearray(FOOTER_BYTES)
    if not file.read(footer, max(0, size - FOOTER_BYTES)):
        raise Corrupt("the file is too short for a footer")
    return file, parse_footer(footer, size).length


def _require_span(opened: _Opened, offset: int, length: int) -> None:
    if offset + length > opened.length:
        raise Corrupt(f"the chunk has {opened.length} bytes")
