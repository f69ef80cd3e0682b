"""Group commit of small chunks: who comes meanwhile shares a batch, and each is told its own outcome."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, NodeFull, Unavailable
from storage.base.files import AnyPath, DiskFiles, OpenFile
from storage.chunks import small_puts
from storage.chunks.chunk_directory import ChunkDirectory
from storage.chunks.footer import digest_of
from storage.chunks.small_puts import BATCH_ITEMS_MAX, BATCHES_AT_ONCE, SmallPuts
from storage.chunks.worker_pool import WorkerPool
from tests.storage.chunks.chunk_files import FILES_ONLY
from tests.storage.chunks.conformance import chunk_id, some_bytes
from tests.storage.crash_files import CrashFiles

DIRECTORY = "/data/node"


class HeldFiles(CrashFiles):
    """A twin that makes no file while `going` is cleared; `named` counts the syncs of directories of chunks, `held` are
    the files that were to be made."""

    def __init__(self) -> None:
        super().__init__()
        self.going = threading.Event()
        self.going.set()
        self.named = 0
        self.held: list[str] = []

    def create(self, path: AnyPath, mode: int = 0o600) -> OpenFile:
        self.held.append(f"{str(path).split('.')[0]}/held")
        assert self.going.wait(30)
        return super().create(path, mode)

    def fsync_directory(self, path: AnyPath) -> None:
        self.named += str(path).startswith(f"{DIRECTORY}/chunks/")
        super().fsync_directory(path)


@contextmanager
def putting(files: HeldFiles) -> Iterator[tuple[ChunkDirectory, SmallPuts]]:
    """Over an empty directory of files."""
    directory = ChunkDirectory(files, DIRECTORY, ManualClock(), FILES_ONLY)
    pool = WorkerPool(4, "chunks")
    try:
        yield directory, SmallPuts(directory, pool)
    finally:
        files.going.set()
        pool.close()
        directory.close()


async def test_who_waits_shares_a_batch() -> None:
    """One sync of the directory for all who came meanwhile, up to the bound of a batch; each has its own receipt."""
    files = HeldFiles()
    with putting(files) as (directory, puts):
        await puts.put(chunk_id(1), [b"first"])
        alone = files.named
        files.going.clear()
        count = 1 + BATCH_ITEMS_MAX + 5
        contents = {chunk_id(2 + n): some_bytes(100 + n, seed=n) for n in range(count)}
        settled = [puts.put(of, [data[:50], data[50:]]) for of, data in contents.items()]
        files.going.set()
        assert await asyncio.gather(*settled) == [digest_of(data) for data in contents.values()]
        assert (alone, files.named - alone) == (1, 3)
        assert [directory.verify(of) for of in contents] == [digest_of(data) for data in contents.values()]


async def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the chunk that reaches beyond."""
    monkeypatch.setattr(small_puts, "BATCH_BYTES_MAX", 1000)
    files = HeldFiles()
    with putting(files) as (_, puts):
        await puts.put(chunk_id(1), [b"first"])
        before = files.named
        files.going.clear()
        settled = [puts.put(chunk_id(2 + n), [bytes(600)]) for n in range(5)]
        files.going.set()
        assert await asyncio.gather(*settled) == [digest_of(bytes(600))] * 5
        assert files.named - before == 3, "one that came first, and two times two"


async def test_groups_are_written_side_by_side() -> None:
    """One batch of each at a time, and of so many at once."""
    files = HeldFiles()
    with putting(files) as (_, puts):
        files.going.clear()
        settled = [puts.put(chunk_id(4096 * n), [b"x"]) for n in range(BATCHES_AT_ONCE + 1) for _ in range(2)]
        async with asyncio.timeout(20):
            while sum(text.endswith("/held") for text in files.held) < BATCHES_AT_ONCE:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(files.held) == BATCHES_AT_ONCE
        files.going.set()
        assert await asyncio.gather(*settled) == [digest_of(b"x")] * len(settled)


async def test_each_has_its_own_outcome() -> None:
    """In one batch: stored, taken already by other bytes, the same twice, and what does not fit."""
    files = HeldFiles()
    with putting(files) as (directory, puts):
        await puts.put(chunk_id(1), [b"first"])
        files.going.clear()
        ahead = puts.put(chunk_id(10), [b"ahead"])
        files.capacity_bytes = 100_000
        together = [
            puts.put(chunk_id(2), [b"second"]),
            puts.put(chunk_id(1), [b"other bytes"]),
            puts.put(chunk_id(2), [b"second"]),
            puts.put(chunk_id(3), [bytes(200_000)]),
            puts.put(chunk_id(4), [b"fourth"]),
        ]
        files.going.set()
        stored, conflict, again, full, fourth = await asyncio.gather(*together, return_exceptions=True)
        assert stored == again == digest_of(b"second")
        assert isinstance(conflict, ChunkConflict)
        assert isinstance(full, NodeFull)
        assert fourth == digest_of(b"fourth")
        await ahead
        assert directory.stat(chunk_id(1)) == digest_of(b"first")
        assert list(files.list_directory(f"{DIRECTORY}/tmp")) == []


async def test_what_was_given_up_before_its_batch_is_not_written() -> None:
    """Nobody waits for it any more; the others of its batch are stored."""
    files = HeldFiles()
    with putting(files) as (directory, puts):
        files.going.clear()
        ahead = puts.put(chunk_id(10), [b"ahead"])
        given_up, kept = puts.put(chunk_id(1), [b"given up"]), puts.put(chunk_id(2), [b"kept"])
        given_up.cancel()
        ahead.cancel()  # its batch has begun: it runs to its end, for nobody
        files.going.set()
        assert await kept == digest_of(b"kept")
        assert directory.stat(chunk_id(10)) == digest_of(b"ahead")
        with pytest.raises(ChunkNotFound):
            directory.stat(chunk_id(1))


async def test_what_fails_for_all_is_told_to_all() -> None:
    """A directory that cannot be synced; and the next batch is a new one."""
    files = HeldFiles()
    with putting(files) as (_, puts):
        await puts.put(chunk_id(1), [b"first"])
        before = files.steps
        await puts.put(chunk_id(2), [b"second"])
        files.fail_before(files.steps + (files.steps - before) - 1, OSError(5, "Input/output error"))
        with pytest.raises(ChunkError):
            await puts.put(chunk_id(3), [b"third"])
        assert await puts.put(chunk_id(4), [b"fourth"]) == digest_of(b"fourth")


async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits without a bound; and a pool that takes no more fails those of the batch alone."""
    monkeypatch.setattr(small_puts, "CALLS_WAITING_MAX", 3)
    files = HeldFiles()
    with putting(files) as (_, puts):
        files.going.clear()
        waiting = [puts.put(chunk_id(n), [b"x"]) for n in range(1 + 3)]
        with pytest.raises(Unavailable):
            puts.put(chunk_id(99), [b"x"])
        files.going.set()
        assert await asyncio.gather(*waiting) == [digest_of(b"x")] * len(waiting)
        puts._pool.close()
        with pytest.raises(Unavailable):
            await puts.put(chunk_id(99), [b"x"])


class Writable(DiskFiles):
    """Counts what is open for writing."""

    def __init__(self) -> None:
        self.opened = 0

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        self.opened += writable
        return super().open(path, writable=writable)


def open_for_writing(root: Path) -> int:
    """Segments that this process has so open now."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            is_segment = str(entry.readlink()).startswith(str(root)) and ".segment" in str(entry.readlink())
            flags = (Path("/proc/self/fdinfo") / entry.name).read_text().partition("flags:")[2].split()[0]
            found += is_segment and bool(int(flags, 8) & os.O_RDWR)
    return found


async def test_a_segment_stays_open_for_writing_while_batches_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is closed once none does, for as long as none does."""
    monkeypatch.setattr(small_puts, "KEPT_OPEN_S", 0.05)
    files = Writable()
    directory = ChunkDirectory(files, tmp_path / "node", ManualClock())
    pool = WorkerPool(2, "chunks")
    puts = SmallPuts(directory, pool)
    for turn in range(2):
        for n in range(5):
            await puts.put(chunk_id(10 * turn + n), [b"x"])
        async with asyncio.timeout(20):
            while open_for_writing(tmp_path):
                await asyncio.sleep(0.01)
    assert files.opened < 10
    pool.close()
    directory.close()
