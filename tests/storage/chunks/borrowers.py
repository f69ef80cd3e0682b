"""A borrower of ranges for tests: what a gateway does, without the way there."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from storage.base.clock import Clock, SystemClock
from storage.base.direct_file import BUFFER_BYTES, AlignedBuffers
from storage.base.files import Buffer, DiskFile, DiskFiles, FileSystem
from storage.base.ids import ChunkId
from storage.base.uring import ChainEnd
from storage.chunks.disk import DiskChunkStore
from storage.chunks.layout import group_name
from storage.chunks.lent_range import Ending, LentRange
from storage.chunks.near_range import NearRange, NewBody
from storage.chunks.segment_format import padded
from storage.chunks.store import ChunkReceipt
from tests.storage.crash_files import _Handle

LENGTH = 256 << 10
"""of a range, in bytes"""


class StoppingFile(DiskFile):
    """A file whose writer can be stopped before it writes slots."""

    before_slots: Callable[[], None] | None = None

    def pwrite(self, data: Buffer, offset: int) -> None:
        if self.before_slots is not None:
            self.before_slots()
        super().pwrite(data, offset)


class StoppingFiles(DiskFiles):
    """Of such files."""

    file_class = StoppingFile


def stop_before_slots(near: NearRange, step: Callable[[], None]) -> None:
    """Do something between the bodies of a batch and its slots, in the thread that writes; of StoppingFiles."""
    assert isinstance(near._file, StoppingFile)
    near._file.before_slots = step


def write_chained(near: NearRange, bodies: Sequence[NewBody]) -> list[ChunkReceipt]:
    """As NearRange.write, as a worker does where the kernel carries out chains (cluster/near_batches.py); of the
    twin, which does here what the kernel would."""
    batch = near.begin(bodies)
    planned = near.plan_chain(batch, memoryview(bytearray(BUFFER_BYTES)))
    assert planned is not None
    assert isinstance(near._file, _Handle)
    writes, synced = planned
    numbered = near._file._files.numbered
    has_written = False
    try:
        for write in writes:
            numbered[write.fd].pwrite(write.data, write.offset)
        has_written = True
        numbered[synced].fdatasync()
    except OSError as error:
        return near.mend(batch, ChainEnd(1, error.errno or errno.EIO, has_written))
    return near.conclude(batch)


class Borrower:
    """One range; `put` blocks."""

    def __init__(self, lent: LentRange, near: NearRange) -> None:
        self.lent = lent
        self.near = near
        self.is_lent = True
        """what the connection to the owner says"""
        self.ending: Ending | None = None
        self._position = lent.begin

    def place(self, items: Sequence[tuple[ChunkId, bytes]]) -> list[NewBody]:
        """One behind the other."""
        bodies = []
        for of, data in items:
            bodies.append(NewBody(of, self._position, (data,)))
            self._position += padded(len(data))
        assert self._position <= self.lent.end
        return bodies

    def put(self, *items: tuple[ChunkId, bytes]) -> list[ChunkReceipt]:
        """A batch."""
        return self.near.write(self.place(items))


def open_near(
    files: FileSystem, root: Path, group: str, inode: int, is_lent: Callable[[], bool], clock: Clock | None = None
) -> NearRange:
    """With buffers of its own."""
    return NearRange(files, root, group, inode, is_lent, clock or SystemClock(), AlignedBuffers())


@asynccontextmanager
async def borrowing(
    store: DiskChunkStore,
    root: Path,
    of: ChunkId,
    files: FileSystem | None = None,
    clock: Clock | None = None,
    length: int = LENGTH,
) -> AsyncIterator[Borrower]:
    """A range of the group of a chunk. Given back in order, unless `ending` is set to something else or the block
    raises."""
    group = group_name(str(of))
    async with store.lend_range(group, length) as borrowed:
        lent = borrowed.lent
        borrower: Borrower
        near = open_near(files or DiskFiles(), root, group, lent.inode, lambda: borrower.is_lent, clock)
        borrower = Borrower(lent, near)
        borrower.ending = Ending()
        try:
            yield borrower
            borrowed.ending = borrower.ending
        finally:
            near.close()
