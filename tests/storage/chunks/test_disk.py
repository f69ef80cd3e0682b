"""DiskChunkStore on a real directory and over the crash twin: the contract, and what is only true of a disk."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from storage.base.clock import ManualClock, SystemClock
from storage.base.errors import ChunkNotFound, Corrupt, NodeFull, Unavailable
from storage.base.files import DiskFiles, DiskSpace, FileSystem, OpenFile
from storage.base.ids import ChunkId
from storage.chunks.disk import HOP_BYTES, DiskChunkStore
from storage.chunks.footer import FOOTER_BYTES, digest_of, parse_footer
from storage.chunks.room import FREE_KEPT_S
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import Buffer
from storage.chunks.times import VERIFIED_MARK_NS
from storage.chunks.worker_pool import WorkerPool
from tests.storage.chunks.chunk_files import FILES_ONLY, damage_chunk, find_chunk, path_of, shorten_chunk
from tests.storage.chunks.conformance import (
    LARGE_BYTES,
    SESSION,
    StoreUnderTest,
    chunk_id,
    cut,
    pieces,
    put,
    read,
    some_bytes,
)
from tests.storage.chunks.own_conformance import OwnChunkStoreConformance
from tests.storage.crash_files import CrashFiles


class MeteredFiles(DiskFiles):
    """The machine's files with a free space that a test can set."""

    def __init__(self) -> None:
        self.free_bytes = 1 << 40

    def space(self, path: str | os.PathLike[str]) -> DiskSpace:
        return DiskSpace(1 << 40, self.free_bytes)


@pytest.fixture
def disk(root: Path) -> Iterator[DiskChunkStore]:
    """A store on the machine's disk, of files only: of segments see test_segments.py."""
    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    yield store
    store.close()


class TestDiskChunkStore(OwnChunkStoreConformance):
    """The suite over a real directory, whose small chunks lie in segments."""

    record_bytes_max = RECORD_BYTES_MAX

    @pytest.fixture
    def subject(self, root: Path) -> Iterator[StoreUnderTest]:
        """With two threads, so that calls wait for each other."""
        files = MeteredFiles()
        record_bytes_max = self.record_bytes_max
        store = DiskChunkStore(files, root, reserve_bytes=1000, threads=2, record_bytes_max=record_bytes_max)

        def damage(of: ChunkId) -> None:
            damage_chunk(root, of)

        def shorten(of: ChunkId) -> None:
            shorten_chunk(root, of)

        def fill_up() -> None:
            files.free_bytes = 1500
            time.sleep(FREE_KEPT_S)

        yield StoreUnderTest(store, damage, shorten, fill_up, lambda: os.listdir(root / "tmp"), SystemClock().now_ms)
        store.close()


class TestDiskChunkStoreOfFiles(TestDiskChunkStore):
    """The same, each chunk in a file of its own."""

    record_bytes_max = FILES_ONLY


class TestDiskChunkStoreOfBoth(TestDiskChunkStore):
    """The same, with chunks of a few KiB in segments beside files for the others."""

    record_bytes_max = 4999


class TestDiskChunkStoreInMemory(OwnChunkStoreConformance):
    """The suite over the crash twin, to show that the twin is a file system like any other."""

    @pytest.fixture
    def subject(self) -> Iterator[StoreUnderTest]:
        """With a clock that stands still."""
        files = CrashFiles(capacity_bytes=1 << 40)
        clock = ManualClock()
        root = Path("/node")
        store = DiskChunkStore(files, root, reserve_bytes=1000, clock=clock)

        def damage(of: ChunkId) -> None:
            damage_chunk(root, of, files=files)

        def shorten(of: ChunkId) -> None:
            shorten_chunk(root, of, files)

        def fill_up() -> None:
            space = files.space("/")
            files.capacity_bytes = space.capacity_bytes - space.free_bytes + 1500
            clock.advance(FREE_KEPT_S)

        def leftovers() -> list[str]:
            return list(files.list_directory("/node/tmp"))

        yield StoreUnderTest(store, damage, shorten, fill_up, leftovers, clock.now_ms)
        store.close()


async def test_the_file_is_the_documented_format(disk: DiskChunkStore, root: Path) -> None:
    """Sealed bytes, then the footer, under a directory named by the id's first 29 digits; private to the owner."""
    data = some_bytes(5000)
    before_ms = SystemClock().now_ms()
    await put(disk, chunk_id(0x12345, 7), data)
    path = root / "chunks" / (SESSION.hex() + "0000000000012") / (SESSION.hex() + "0000000000012345" + "00000007")
    times_ns = {path.stat().st_mtime_ns, path.stat().st_atime_ns}
    raw = path.read_bytes()
    footer = parse_footer(raw[-FOOTER_BYTES:], len(raw))
    assert raw[:-FOOTER_BYTES] == data
    assert footer.receipt == digest_of(data)
    assert before_ms <= footer.stored_ms <= SystemClock().now_ms()
    assert times_ns == {footer.stored_ms * 1_000_000}
    assert path.stat().st_mode & 0o077 == 0


async def test_verified_times_are_in_the_files_own(disk: DiskChunkStore, root: Path) -> None:
    """Accessed when it was stored, modified when it was verified. Readers leave both alone."""
    await put(disk, chunk_id(1), some_bytes(5000))
    path = path_of(root, chunk_id(1))
    stored_ns = path.stat().st_atime_ns
    os.utime(path, ns=(stored_ns + 5_000_000, stored_ns))
    before_ms = SystemClock().now_ms()
    await disk.verify(chunk_id(1))
    found = path.stat()
    assert found.st_atime_ns == stored_ns
    assert found.st_mtime_ns % 1_000_000 == VERIFIED_MARK_NS
    assert before_ms <= found.st_mtime_ns // 1_000_000 <= SystemClock().now_ms()
    await read(disk, chunk_id(1))
    await disk.inspect_many([chunk_id(1)])
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (found.st_atime_ns, found.st_mtime_ns)


async def test_a_write_from_outside_is_not_a_verification(disk: DiskChunkStore, root: Path) -> None:
    """Though it moves the time that verifications are kept in; before one and after."""
    await put(disk, chunk_id(1), some_bytes(5000))
    path = path_of(root, chunk_id(1))
    for _ in range(2):
        with path.open("r+b") as file:
            file.write(some_bytes(5000)[:1])
        [entry] = await disk.inventory(None, 10)
        assert entry.verified_ms == 0
        assert entry.stored_ms == path.stat().st_atime_ns // 1_000_000
        await disk.verify(chunk_id(1))
        [entry] = await disk.inventory(None, 10)
        assert entry.verified_ms > 0


async def test_a_moved_access_time_makes_a_chunk_younger_and_no_more(disk: DiskChunkStore, root: Path) -> None:
    """Whoever reads the directory from outside may set it."""
    await put(disk, chunk_id(1), some_bytes(5000))
    await disk.verify(chunk_id(1))
    path = path_of(root, chunk_id(1))
    [before] = await disk.inventory(None, 10)
    os.utime(path, ns=(path.stat().st_atime_ns + 10**15, path.stat().st_mtime_ns))
    [entry] = await disk.inventory(None, 10)
    assert entry.verified_ms == before.verified_ms
    assert before.stored_ms <= entry.stored_ms <= before.verified_ms
    [state] = await disk.inspect_many([chunk_id(1)])
    assert state is not None
    assert (state.stored_ms, state.verified_ms) == (before.stored_ms, before.verified_ms)


@pytest.mark.parametrize("record_bytes_max", [FILES_ONLY, RECORD_BYTES_MAX])
async def test_a_verification_asks_for_the_medium(record_bytes_max: int) -> None:
    """The page cache is dropped before the chunk is read; other reads leave it alone."""
    files = CrashFiles()
    store = DiskChunkStore(files, "/node", reserve_bytes=0, threads=1, record_bytes_max=record_bytes_max)
    await put(store, chunk_id(1), some_bytes(5000))
    await read(store, chunk_id(1))
    assert files.dropped == []
    await store.verify(chunk_id(1))
    assert set(files.dropped) == {str(find_chunk(Path("/node"), chunk_id(1), files).path)}
    store.close()


async def test_a_verification_reads_from_the_medium(disk: DiskChunkStore, root: Path) -> None:
    """As the kernel counts what this process made it fetch from block devices."""

    def fetched_bytes() -> int:
        counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counts["read_bytes"])

    await put(disk, chunk_id(1), some_bytes(LARGE_BYTES))
    path = path_of(root, chunk_id(1))
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    before = fetched_bytes()
    os.pread(fd, LARGE_BYTES, 0)
    os.close(fd)
    if fetched_bytes() - before < LARGE_BYTES:
        pytest.skip("the temporary directory is on no block device")
    before = fetched_bytes()
    await disk.verify(chunk_id(1))
    assert fetched_bytes() - before >= LARGE_BYTES


async def test_everything_is_there_after_a_restart(root: Path) -> None:
    """Chunks and quarantine; leftovers in tmp/ are gone."""
    first = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    await first.put_many([(chunk_id(n), some_bytes(100, n)) for n in range(3)])
    await first.quarantine_many([chunk_id(2)])
    first.close()
    (root / "tmp" / "leftover").write_bytes(b"half a chunk")
    second = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    assert [await read(second, chunk_id(n)) for n in range(2)] == [some_bytes(100, n) for n in range(2)]
    assert os.listdir(root / "tmp") == []
    assert await second.purge_quarantine(SystemClock().now_ms() + 1) == 1
    second.close()


async def test_one_process_owns_the_directory(disk: DiskChunkStore, root: Path) -> None:
    """A second store would empty the first one's tmp/: it is refused."""
    with pytest.raises(Unavailable, match="another process"):
        DiskChunkStore(DiskFiles(), root, reserve_bytes=0)


async def test_a_damaged_footer_is_corrupt(disk: DiskChunkStore, root: Path) -> None:
    """For every byte of it, for readers of any span."""
    await put(disk, chunk_id(1), some_bytes(1000))
    path = path_of(root, chunk_id(1))
    good = path.read_bytes()
    for position in range(len(good) - FOOTER_BYTES, len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with pytest.raises(Corrupt):
            await read(disk, chunk_id(1), 0, 1)
    path.write_bytes(b"")
    with pytest.raises(Corrupt):
        await disk.stat(chunk_id(1))


async def test_foreign_names_are_not_chunks(disk: DiskChunkStore, root: Path) -> None:
    """lost+found, editors' backups and chunks in the wrong place are not listed."""
    await put(disk, chunk_id(1), b"x")
    group = path_of(root, chunk_id(1)).parent
    (root / "chunks" / "lost+found").mkdir()
    (group / f"{chunk_id(2)}~").write_bytes(b"")
    (group / str(chunk_id(5000))).write_bytes(b"")
    (root / "quarantine" / "note.txt").write_bytes(b"")
    assert [entry.chunk_id for entry in await disk.inventory(None, 10)] == [chunk_id(1).to_bytes()]
    assert await disk.purge_quarantine(1 << 60) == 0


async def test_inventory_reads_directories_larger_than_its_memory(disk: DiskChunkStore, root: Path) -> None:
    """More names in one directory than are held at once."""
    await put(disk, chunk_id(0), b"x")
    group = path_of(root, chunk_id(0)).parent
    for n in range(1, 2500):
        (group / str(chunk_id(0, n))).touch()
    page = await disk.inventory(None, 5000)
    assert [entry.chunk_id for entry in page] == [chunk_id(0, n).to_bytes() for n in range(2500)]


async def test_empty_directories_go_and_come_back(disk: DiskChunkStore, root: Path) -> None:
    """A purge removes them; a put into one that was removed makes it again."""
    await disk.put_many([(chunk_id(1), b"x"), (chunk_id(5000), b"y")])
    await disk.delete_many([chunk_id(1)])
    await disk.purge_quarantine(0)
    assert os.listdir(root / "chunks") == [str(chunk_id(5000))[:29]]
    await put(disk, chunk_id(2), b"z")
    assert await disk.delete_many([chunk_id(2), chunk_id(9_000_000)]) == [True, False]


async def test_room_is_promised_to_puts_under_way(root: Path) -> None:
    """Two puts that fit alone but not together: the second is refused while the first still receives."""
    files = MeteredFiles()
    files.free_bytes = 100_000
    store = DiskChunkStore(files, root, reserve_bytes=10_000)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[Buffer]:
        await go_on.wait()
        yield some_bytes(60_000)

    first = asyncio.create_task(store.put(chunk_id(1), 60_000, slow()))
    await asyncio.sleep(0)
    with pytest.raises(NodeFull):
        await store.put(chunk_id(2), 60_000, cut(some_bytes(60_000), 1000))
    go_on.set()
    await first
    await put(store, chunk_id(2), some_bytes(60_000))
    one, two = await store.put_many([(chunk_id(3), some_bytes(60_000)), (chunk_id(4), some_bytes(60_000))])
    assert one == digest_of(some_bytes(60_000))
    assert isinstance(two, NodeFull)
    store.close()


async def test_small_chunks_that_are_held_are_bounded_in_bytes(
    disk: DiskChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More are refused before anything is asked of their bodies; there is room again when those before are durable."""
    monkeypatch.setattr("storage.chunks.disk.GATHERED_BYTES_MAX", 250_000)
    go_on = asyncio.Event()
    asked: list[int] = []

    async def slow(number: int) -> AsyncIterator[Buffer]:
        asked.append(number)
        await go_on.wait()
        yield bytes(100_000)

    puts = [asyncio.create_task(disk.put(chunk_id(n), 100_000, slow(n))) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await disk.put(chunk_id(2), 100_000, slow(2))
    go_on.set()
    await asyncio.gather(*puts)
    assert asked == [0, 1]
    await disk.put(chunk_id(2), 100_000, slow(2))


async def test_small_chunks_take_one_hop(disk: DiskChunkStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put or a get of up to a MiB is one hop to a thread; a large one is about one for each MiB."""
    hops: list[object] = []

    def count(pool: WorkerPool) -> None:
        run = pool.run

        def counted(function: Callable[..., object], *args: object) -> asyncio.Future[object]:
            hops.append(function)
            return run(function, *args)

        monkeypatch.setattr(pool, "run", counted)

    count(disk._pool)
    count(disk._batches_pool)
    for length, expected in ((1000, 1), (HOP_BYTES, 1), (8 * HOP_BYTES, 8)):
        data = some_bytes(length)
        hops.clear()
        await disk.put(chunk_id(length), length, cut(data, 65_536))
        assert len(hops) == expected
        hops.clear()
        assert await read(disk, chunk_id(length)) == data
        assert len(hops) == expected


async def test_a_put_holds_two_batches_at_most(root: Path) -> None:
    """A body is not asked for more while two megabytes wait for a slow medium."""
    gate = threading.Event()

    class SlowFiles(DiskFiles):
        def create(self, path: str | os.PathLike[str], mode: int = 0o600) -> OpenFile:
            gate.wait()
            return super().create(path, mode)

    files: FileSystem = SlowFiles()
    store = DiskChunkStore(files, root, reserve_bytes=0)
    asked = 0

    async def body() -> AsyncIterator[Buffer]:
        nonlocal asked
        for _ in range(64):
            asked += 1
            yield bytes(1 << 18)

    task = asyncio.create_task(store.put(chunk_id(1), 64 << 18, body()))
    for _ in range(100):
        await asyncio.sleep(0)
    assert asked == 8
    gate.set()
    await task
    store.close()


async def test_a_cancelled_get_closes_its_file(disk: DiskChunkStore) -> None:
    """Stopped after its first block or before it, a read leaves no descriptor open."""
    await put(disk, chunk_id(1), some_bytes(LARGE_BYTES))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        blocks = disk.get(chunk_id(1))
        await anext(blocks)
        await blocks.aclose()  # type: ignore[attr-defined]
        task = asyncio.create_task(read(disk, chunk_id(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_closed_store_takes_no_calls(root: Path) -> None:
    """Unavailable, and nothing half-written."""
    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    store.close()
    with pytest.raises(Unavailable):
        await store.put(chunk_id(1), 1, pieces([b"x"]))
    with pytest.raises(Unavailable):
        await store.stat(chunk_id(1))
    assert os.listdir(root / "tmp") == []


async def test_negative_spans_are_refused(disk: DiskChunkStore) -> None:
    """A caller's mistake, not the medium's."""
    await put(disk, chunk_id(1), b"abc")
    with pytest.raises(ValueError, match="no span"):
        await read(disk, chunk_id(1), -1, 1)
    with pytest.raises(ChunkNotFound):
        await read(disk, chunk_id(2), 0, 1)


async def test_figures_are_counted_after_a_restart(root: Path) -> None:
    """Damage is known at once, the rest with the first count."""
    first = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    await first.put_many([(chunk_id(n), some_bytes(100)) for n in range(5)])
    await first.verify(chunk_id(2))
    shorten_chunk(root, chunk_id(4))
    assert not await first.check(chunk_id(4))
    expected = await first.count()
    assert (expected.chunk_count, expected.unverified_count, expected.damaged_count) == (4, 3, 1)
    first.close()
    second = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    assert second.figures.damaged_count == 1
    await second.delete_many([chunk_id(0)])
    assert second.figures.chunk_count == 0, "not below, before the first count"
    found = await second.count()
    assert found == expected._replace(chunk_count=3, stored_bytes=300, unverified_count=2)
    second.close()
