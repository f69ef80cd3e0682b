"""Small chunks written straight into a segment of a directory that another process of this machine owns.

The owner lends a range of the segment (segment.py); here is who writes into it. A batch, and what a power cut, the end
of this process, or of the owner, before each step leaves:

    1 write the bodies           nothing, or room that no slot leads to
    2 write their slots          the same, or any of them, torn or whole: the owner's next look at them frees the torn
    3 fdatasync                  the same
    4 is the range still lent?   everything, unless the owner took the range back meanwhile
    5 answer                     everything

Step 4 is what makes an owner free to take a range back from whoever it does not hear of any more, and to give back the
blocks of it that no slot names. It says so, or dies, before it looks at the slots. A writer that was stopped between
steps 1 and 2 and finds its body gone finds the range taken back as well; one that finds it still lent has had its slots
in the file before the owner looked, and they keep their bodies.

Steps 1 to 3 are made by a thread, or by the kernel as one chain (storage/base/uring.py). The kernel goes no further
with a chain once the process that began it ends, and what it has begun of a step is over before the blocks beneath are
given back: punching a hole waits for writes past the page cache. A chain that fails before its sync is written once
more, by a thread, which knows what to make of an error.

Bodies go past the page cache (storage/base/direct_file.py): where it grows, copying a body into it costs a virtual
machine more than all else that writing it does, and only some of what is written is read soon.

Which slots are free need not be asked: a group belongs to one write session, that is to one process, which gives every
blob a number of its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from storage.base.clock import Clock
from storage.base.direct_file import AlignedBuffers
from storage.base.errors import ChunkError, NodeUnreachable
from storage.base.files import AlignedFile, FileSystem, OpenFile
from storage.base.ids import ChunkId
from storage.base.uring import ChainEnd, Write
from storage.chunks import medium_errors
from storage.chunks.footer import Footer, RunningDigest
from storage.chunks.layout import CHUNKS, segment_name
from storage.chunks.near_drafts import NotLent
from storage.chunks.segment_format import (
    BLOCK_BYTES,
    EMPTY_SLOT,
    SLOT_BYTES,
    format_slot,
    padded,
    slot_number,
    slot_offset,
)
from storage.chunks.store import Buffer, ChunkReceipt

_PADDING = bytes(BLOCK_BYTES)
_left_open: list[tuple[OpenFile, AlignedFile | None]] = []


class NewBody(NamedTuple):
    """A chunk, and where its body is to be."""

    chunk_id: ChunkId
    offset: int
    """in the file, in bytes; of a block"""
    blocks: Sequence[Buffer]


class Batch(NamedTuple):
    """Chunks that become durable together, and what their slots say of them."""

    bodies: Sequence[NewBody]
    footers: Sequence[Footer]


class NearRange:
    """Of one segment. Its steps block where nothing else is said; one thread at a time."""

    def __init__(
        self,
        files: FileSystem,
        directory: Path,
        group: str,
        inode: int,
        is_lent: Callable[[], bool],
        clock: Clock,
        buffers: AlignedBuffers,
    ) -> None:
        """directory: the owner's. is_lent: false from before the owner does anything with the range. buffers: one is
        borrowed for each batch. NotLent when the file is not the owner's, or cannot be written."""
        self.failed: tuple[int, ...] = ()
        """numbers of slots whose sync failed: nothing more can be written, and the owner has to know"""
        self._is_lent = is_lent
        self._is_left_open = False
        self._clock = clock
        self._buffers = buffers
        path = directory / CHUNKS / segment_name(group)
        self._bodies: AlignedFile | None
        try:
            self._file, self._bodies = _open(files, path, inode)
        except OSError as error:
            raise NotLent(f"{path}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file."""
        if not self._is_left_open:
            self._file.close()
        self._bodies = None

    def leave_open(self) -> None:
        """The kernel may yet go on with a chain, and takes each step's file by its number: that is nobody else's while
        this process lives, though the range is closed."""
        if not self._is_left_open:
            self._is_left_open = True
            _left_open.append((self._file, self._bodies))

    def write(self, bodies: Sequence[NewBody]) -> list[ChunkReceipt]:
        """Make chunks durable, whose slots are free, in parts of the range that nothing was written to; the receipts
        are of what was written.

        NotLent, with nothing written, where the range was taken back; NodeUnreachable where it was meanwhile: some of
        it may be there, and none of it counts. NodeFull, ChunkError: none of it is there."""
        return self.store(self.begin(bodies))

    def begin(self, bodies: Sequence[NewBody]) -> Batch:
        """What is written of them. Does not block. NotLent."""
        if not self._is_lent():
            raise NotLent("the range was taken back")
        stored_ms = self._clock.now_ms()
        return Batch(bodies, [_sum(body, stored_ms) for body in bodies])

    def store(self, batch: Batch) -> list[ChunkReceipt]:
        """As `write`, of what was begun."""
        with medium_errors.writing():
            self._write_bodies(batch.bodies)
            try:
                for offset, slots in _join_slots(batch):
                    self._file.pwrite(slots, offset)
                self._file.fdatasync()
            except BaseException:
                self._fail(batch)
                raise
        return self.conclude(batch)

    def plan_chain(self, batch: Batch, memory: memoryview) -> tuple[list[Write], int] | None:
        """The writes that `store` makes, from this memory, and the file that is synced behind them; None where they
        need more memory. Does not block. ChunkError."""
        room = len(memory) - padded(len(batch.bodies) * SLOT_BYTES)
        if sum(padded(footer.length) for footer in batch.footers) > room:
            return None
        if self._bodies is None:
            raise ChunkError("the range was given up")
        bodies, slots = self._bodies.fileno(), self._file.fileno()
        writes = [Write(bodies, filled, offset) for offset, filled in gather_bodies(batch.bodies, memory[:room])]
        rest = memory[room:]
        for offset, raw in _join_slots(batch):
            rest[: len(raw)] = raw
            writes.append(Write(slots, rest[: len(raw)], offset))
            rest = rest[len(raw) :]
        return writes, slots

    def mend(self, batch: Batch, end: ChainEnd) -> list[ChunkReceipt]:
        """As `store`, of what a chain was to write that failed."""
        if not end.has_written:
            return self.store(batch)
        self._fail(batch)
        with medium_errors.writing():
            raise OSError(end.error, os.strerror(end.error))

    def conclude(self, batch: Batch) -> list[ChunkReceipt]:
        """The receipts of what was written and synced. Does not block. NodeUnreachable, as `write`."""
        if not self._is_lent():
            raise NodeUnreachable("the range was taken back while it was written into")
        return [footer.receipt for footer in batch.footers]

    def _fail(self, batch: Batch) -> None:
        chunk_ids = [body.chunk_id for body in batch.bodies]
        self.failed = tuple(map(slot_number, chunk_ids))
        self.withdraw(chunk_ids)

    def _write_bodies(self, bodies: Sequence[NewBody]) -> None:
        file = self._bodies
        if file is None:
            raise ChunkError("the range was given up")
        with self._buffers.borrow() as memory:
            for offset, filled in gather_bodies(bodies, memory):
                file.pwrite(filled, offset)

    def withdraw(self, chunk_ids: Sequence[ChunkId]) -> None:
        """Free the slots of chunks that were written here and that nobody was told of, as far as that is possible."""
        with suppress(OSError):
            for chunk_id in chunk_ids:
                self._file.pwrite(EMPTY_SLOT, slot_offset(slot_number(chunk_id)))


def _open(files: FileSystem, path: Path, inode: int) -> tuple[OpenFile, AlignedFile]:
    file = files.open(path, writable=True)
    try:
        if file.stat().inode != inode:
            raise NotLent(f"{path} is not the datanode's")
        return file, file.reopen_direct()
    except BaseException:
        file.close()
        raise


def _sum(body: NewBody, stored_ms: int) -> Footer:
    digest = RunningDigest()
    for block in body.blocks:
        digest.update(block)
    receipt = digest.receipt()
    return Footer(receipt.length, receipt.digest, stored_ms)


def gather_bodies(bodies: Sequence[NewBody], memory: memoryview) -> Iterator[tuple[int, memoryview]]:
    """What is written at once, and where: parts of the memory, filled with bodies that follow upon each other, padded.
    Each is written before the next is asked for, unless the memory is enough for all: no part is filled twice then.
    memory: of whole blocks."""
    offset = begin = end = 0
    for body in bodies:
        if end > begin and body.offset != offset + end - begin:
            yield offset, memory[begin:end]
            begin = end
        if begin == end:
            offset = body.offset
        length = sum(map(len, body.blocks))
        for block in (*body.blocks, _PADDING[: padded(length) - length]):
            rest = memoryview(block)
            while rest:
                part = rest[: len(memory) - end]
                memory[end : end + len(part)] = part
                end, rest = end + len(part), rest[len(part) :]
                if end == len(memory):
                    yield offset, memory[begin:]
                    offset, begin, end = offset + end - begin, 0, 0
    if end > begin:
        yield offset, memory[begin:end]


def _join_slots(batch: Batch) -> Iterator[tuple[int, bytes]]:
    """What is written at once: slots of numbers that follow upon each other."""
    slots = sorted(
        (slot_number(body.chunk_id), format_slot(body.chunk_id, body.offset, footer))
        for body, footer in zip(batch.bodies, batch.footers, strict=True)
    )
    for _, run in itertools.groupby(enumerate(slots), key=lambda entry: entry[1][0] - entry[0]):
        numbers, raw = zip(*(slot for _, slot in run), strict=True)
        yield slot_offset(numbers[0]), b"".join(raw)
