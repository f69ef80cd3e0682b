"""The chunks of a directory that another process of this machine owns, read past that process. Nothing is written.

It needs no agreement with the owner. A name under chunks/ leads to bytes that are whole and never change, deleting and
setting aside take the name away, and who has the file open reads on. Files are kept open so that the spans of one chunk
need one opening, and for OPEN_S_MAX at most: the room of a deleted chunk is free, and what was stored anew in place of
a damaged file is found, only after that.

Of a segment the slot is read first, then the body, then the slot again: a slot is freed before the room of its body is
given back, so a slot that is the same is one of bytes that were there. A chunk that its owner was not yet told is
durable may be read, as it may of a file.

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
from storage.chunks.layout import CHUNKS, group_name, segment_name
from storage.chunks.segment_format import IDENTITY_BYTES, SLOT_BYTES, Slot, parse_slot, slot_number, slot_offset
from storage.chunks.worker_pool import WorkerPool

FAILURES = (OSError, Corrupt, Unavailable)
"""there is no such file, it cannot be read, it is not whole or shorter than what is asked for; too many reads wait"""

OPEN_CHUNKS_MAX = 32
"""files, be they chunks or segments"""
OPEN_S_MAX = 2.0
CLOCK_TICK_S = 0.001
"""of the event loop's clock. A timer for less fires in the next turn, again and again until the clock has moved"""
THREADS = 4
"""of one directory: a medium that does not answer any more keeps no other waiting"""
READS_WAITING_MAX = 64
"""for these threads"""


class _Opened(NamedTuple):
    file: CachedFile
    length: int
    """of the sealed bytes; of a segment nothing"""
    opened_s: float
    """by the event loop's clock"""


class NearChunks:
    """Of one directory. Used from one event loop; closed once."""

    def __init__(self, directory: Path) -> None:
        """directory: a datanode's. Touches nothing yet."""
        self._chunks = os.fsencode(directory / CHUNKS)
        self._open: dict[ChunkId | str, _Opened] = {}
        """files by chunk and segments by group, the oldest first"""
        self._pool: WorkerPool | None = None
        self._timer: asyncio.TimerHandle | None = None

    def read_cached(self, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> bool:
        """Fill the target with sealed bytes of the chunk, from an offset; False, with the target undefined, if that
        would have to wait for the medium. FAILURES."""
        opened = self._open.get(chunk_id)
        if opened is None:
            outcome = self._read_record_cached(chunk_id, offset, target)
            if outcome is not None:
                return outcome
            opened = self._open_cached(chunk_id)
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
            if await self._read_record(self._pool, chunk_id, offset, target):
                return
            opened = self._remember(chunk_id, *await self._pool.run(_open_waiting, self._path(chunk_id)))
        _require_span(opened, offset, len(target))
        if not await self._pool.run(opened.file.read, target, offset):
            raise Corrupt("the file became shorter")

    def forget(self, chunk_id: ChunkId) -> None:
        """Let the next read open the chunk anew."""
        self._open.pop(chunk_id, None)
        self._open.pop(group_name(str(chunk_id)), None)

    def close(self) -> None:
        """Let go of all files and threads."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._pool is not None:
            self._pool.close()

    def _read_record_cached(self, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> bool | None:
        """As read_cached; None when the chunk is in no segment."""
        group = group_name(str(chunk_id))
        opened = self._open.get(group)
        if opened is None:
            try:
                file = open_cached(self._segment_path(group))
            except FileNotFoundError:
                return None
            if file is None:
                return False
            opened = self._remember(group, file, 0)
        file, raw, at = opened.file, bytearray(SLOT_BYTES), slot_offset(slot_number(chunk_id))
        if not file.read_cached(raw, at):
            return False
        slot = _require_slot(raw, chunk_id, offset, len(target))
        if slot is None:
            return None
        if not file.read_cached(target, slot.offset + offset) or not file.read_cached(raw, at):
            return False
        _require_same(raw, slot)
        return True

    async def _read_record(
        self, pool: WorkerPool, chunk_id: ChunkId, offset: int, target: bytearray | memoryview
    ) -> bool:
        """As read; False when the chunk is in no segment."""
        group = group_name(str(chunk_id))
        opened = self._open.get(group)
        if opened is None:
            try:
                opened = self._remember(group, await pool.run(open_file, self._segment_path(group)), 0)
            except FileNotFoundError:
                return False
        return await pool.run(_read_record_waiting, opened.file, chunk_id, offset, target)

    def _open_cached(self, chunk_id: ChunkId) -> _Opened | None:
        file = open_cached(self._path(chunk_id))
        if file is None:
            return None
        size, footer = file.size(), bytearray(FOOTER_BYTES)
        if not file.read_cached(footer, max(0, size - FOOTER_BYTES)):
            return None
        return self._remember(chunk_id, file, parse_footer(footer, size).length)

    def _remember(self, of: ChunkId | str, file: CachedFile, length: int) -> _Opened:
        loop = asyncio.get_running_loop()
        self._open.pop(of, None)
        if len(self._open) >= OPEN_CHUNKS_MAX:
            del self._open[next(iter(self._open))]
        opened = self._open[of] = _Opened(file, length, loop.time())
        if self._timer is None:
            self._timer = loop.call_later(OPEN_S_MAX, self._forget_old)
        return opened

    def _forget_old(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        while self._open:
            of, oldest = next(iter(self._open.items()))
            left_s = oldest.opened_s + OPEN_S_MAX - now_s
            if left_s > CLOCK_TICK_S:
                self._timer = loop.call_later(left_s, self._forget_old)
                return
            del self._open[of]
        self._timer = None

    def _path(self, chunk_id: ChunkId) -> bytes:
        name = str(chunk_id)
        return b"%b/%b/%b" % (self._chunks, group_name(name).encode("ascii"), name.encode("ascii"))

    def _segment_path(self, group: str) -> bytes:
        return b"%b/%b" % (self._chunks, segment_name(group).encode("ascii"))


def _open_waiting(path: bytes) -> tuple[CachedFile, int]:
    """→ the file, and how many sealed bytes it has."""
    file = open_file(path)
    size, footer = file.size(), bytearray(FOOTER_BYTES)
    if not file.read(footer, max(0, size - FOOTER_BYTES)):
        raise Corrupt("the file is too short for a footer")
    return file, parse_footer(footer, size).length


def _read_record_waiting(file: CachedFile, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> bool:
    """False when the segment does not have the chunk."""
    raw, at = bytearray(SLOT_BYTES), slot_offset(slot_number(chunk_id))
    if not file.read(raw, at):
        return False
    slot = _require_slot(raw, chunk_id, offset, len(target))
    if slot is None:
        return False
    if not file.read(target, slot.offset + offset) or not file.read(raw, at):
        raise Corrupt("the segment became shorter")
    _require_same(raw, slot)
    return True


def _require_slot(raw: bytearray, chunk_id: ChunkId, offset: int, length: int) -> Slot | None:
    """None when it is free or another chunk's. Corrupt."""
    slot = parse_slot(raw, chunk_id.blob_id)
    if slot is None or (slot.chunk_id != chunk_id and not slot.is_damaged):
        return None
    if slot.is_damaged:
        raise Corrupt("the slot is damaged")
    if offset + length > slot.footer.length:
        raise Corrupt(f"the chunk has {slot.footer.length} bytes")
    return slot


def _require_same(raw: bytearray, slot: Slot) -> None:
    if raw[:IDENTITY_BYTES] != slot.identity:
        raise Corrupt("the chunk was removed meanwhile")


def _require_span(opened: _Opened, offset: int, length: int) -> None:
    if offset + length > opened.length:
        raise Corrupt(f"the chunk has {opened.length} bytes")
