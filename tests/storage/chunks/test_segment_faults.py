"""Segments on a medium that fails: what is refused, what counts as not there, and where chunks go then."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from storage.base.errors import ChunkError, Corrupt, NodeFull
from storage.base.files import AnyPath, DiskFile, DiskFiles, OpenFile
from storage.base.ids import ChunkId
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.layout import QUARANTINE
from storage.chunks.segment_format import slot_number, slot_offset
from tests.storage.chunks.chunk_files import damage_chunk, find_chunk, segment_of
from tests.storage.chunks.conformance import chunk_id, put, read, some_bytes
from tests.storage.crash_files import CrashFiles

DATA = some_bytes(5000)
ROOT = Path("/node")


def open_store(files: CrashFiles) -> DiskChunkStore:
    return DiskChunkStore(files, ROOT, reserve_bytes=0, threads=1)


async def listed(store: DiskChunkStore) -> list[bytes]:
    return [entry.chunk_id for entry in await store.inventory(None, 100)]


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NodeFull), (errno.EDQUOT, NodeFull), (errno.EIO, ChunkError)]
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_a_put_that_fails_midway(number: int, expected: type[ChunkError], is_first: bool) -> None:
    """At whichever step: an error of the tree, nothing of it, what was stored before stays, and the store goes on. What
    is answered after it survives a power cut."""
    for step in range(100):
        files = CrashFiles()
        store = open_store(files)
        before = [] if is_first else [chunk_id(1)]
        for of in before:
            await put(store, of, DATA)
        begin = files.steps
        files.fail_before(begin + step, failing(number))
        try:
            await put(store, chunk_id(2), DATA)
        except expected:
            assert await listed(store) == [of.to_bytes() for of in before], step
        else:
            assert step == files.steps - begin
            assert step >= 3 + is_first
            break
        await put(store, chunk_id(2), DATA)
        await put(store, chunk_id(3), DATA)
        survivors = files.survivors()
        store.close()
        again = open_store(survivors)
        for of in [*before, chunk_id(2), chunk_id(3)]:
            assert await again.verify(of) == digest_of(DATA), step
        again.close()


async def test_a_failed_sync_is_never_made_good_by_a_later_one() -> None:
    """The system forgets what it could not write: the chunk that was refused must not be answered for when it is put
    again, unless it was written again."""
    for step in range(100):
        files = CrashFiles()
        store = open_store(files)
        await put(store, chunk_id(1), DATA)
        begin = files.steps
        files.fail_before(begin + step, failing(errno.EIO))
        outcomes = await store.put_many([(chunk_id(n), DATA) for n in (2, 3)])
        if not any(isinstance(outcome, ChunkError) for outcome in outcomes):
            assert step >= 5
            break
        again = await store.put_many([(chunk_id(n), DATA) for n in (2, 3, 4)])
        assert again == [digest_of(DATA)] * 3
        for survivors in (files.survivors(), files.survivors(seed=step)):
            late = open_store(survivors)
            for n in (1, 2, 3, 4):
                assert await late.verify(chunk_id(n)) == digest_of(DATA), step
            assert await listed(late) == [chunk_id(n).to_bytes() for n in (1, 2, 3, 4)]
            late.close()
        store.close()


async def test_a_poisoned_segment_is_read_and_deleted_from_and_takes_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """Until the next start; chunks go into files meanwhile."""
    files = CrashFiles()
    store = open_store(files)
    await put(store, chunk_id(1), DATA)
    await put(store, chunk_id(2), DATA)
    begin = files.steps
    await put(store, chunk_id(3), DATA)
    syncs = [n for n, text in enumerate(files.log[begin:]) if text.startswith("fdatasync")]
    files.fail_before(files.steps + syncs[0], failing(errno.EIO))
    with pytest.raises(ChunkError):
        await put(store, chunk_id(4), DATA)
    assert "takes no more chunks" in caplog.text
    await put(store, chunk_id(5), DATA)
    assert find_chunk(ROOT, chunk_id(5), files).slot_at is None
    assert await read(store, chunk_id(1)) == DATA
    assert await store.delete_many([chunk_id(2), chunk_id(4)]) == [True, False]
    assert await store.quarantine_many([chunk_id(3)]) == [True]
    assert await listed(store) == [chunk_id(n).to_bytes() for n in (1, 5)]
    await store.purge_quarantine(0)
    survivors = files.survivors()
    store.close()
    again = open_store(survivors)
    assert await listed(again) == [chunk_id(n).to_bytes() for n in (1, 5)]
    await put(again, chunk_id(6), DATA)
    assert find_chunk(ROOT, chunk_id(6), survivors).slot_at is not None
    again.close()


async def test_a_delete_whose_sync_failed_is_made_good_by_the_next() -> None:
    """Though it finds nothing to delete any more."""
    for step in range(20):
        files = CrashFiles()
        store = open_store(files)
        await put(store, chunk_id(1), DATA)
        files.fail_before(files.steps + step, failing(errno.EIO))
        try:
            outcome = await store.delete_many([chunk_id(1)])
        except ChunkError:
            await store.delete_many([chunk_id(1)])
        else:
            assert outcome == [True]
        survivors = files.survivors()
        store.close()
        again = open_store(survivors)
        assert await listed(again) == []
        again.close()


async def test_setting_aside_that_fails_midway_loses_nothing() -> None:
    """The chunk is where it was, or in the quarantine; asking again sets it aside."""
    for step in range(20):
        files = CrashFiles()
        store = open_store(files)
        await put(store, chunk_id(1), DATA)
        begin = files.steps
        files.fail_before(begin + step, failing(errno.EIO))
        try:
            assert await store.quarantine_many([chunk_id(1)]) == [True]
        except ChunkError:
            kept = files.survivors()
            there = open_store(kept)
            aside = list(kept.list_directory("/node/quarantine"))
            assert await listed(there) == [chunk_id(1).to_bytes()] or aside
            there.close()
            await store.quarantine_many([chunk_id(1)])
            assert list(files.list_directory("/node/tmp")) == []
        assert await listed(store) == []
        assert list(files.list_directory("/node/quarantine"))
        if step >= files.steps - begin:
            break
        store.close()


class UnreadableFile(DiskFile):
    """Some of whose bytes the medium lost."""

    lost: list[tuple[int, int]] = []

    def pread(self, length: int, offset: int) -> bytes:
        if any(offset < end and begin < offset + length for begin, end in self.lost):
            raise failing(errno.EIO)
        return super().pread(length, offset)

    def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
        if any(offset < end and begin < offset + len(target) for begin, end in self.lost):
            raise failing(errno.EIO)
        return super().pread_into(target, offset)


class UnreadableFiles(DiskFiles):
    """Whose files are such."""

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        flags = os.O_RDWR if writable else os.O_RDONLY
        return UnreadableFile(os.open(path, flags | os.O_CLOEXEC))

    def create(self, path: AnyPath, mode: int = 0o600) -> OpenFile:
        return UnreadableFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))


async def test_slots_that_cannot_be_read_hide_no_others(root: Path) -> None:
    """They are not listed, to be read is Corrupt, and a chunk that belongs there is stored in a file."""
    UnreadableFile.lost = []
    store = DiskChunkStore(UnreadableFiles(), root, reserve_bytes=0)
    await store.put_many([(chunk_id(n), DATA) for n in (1, 2, 100, 200)])
    store.close()
    store = DiskChunkStore(UnreadableFiles(), root, reserve_bytes=0)
    at = slot_offset(slot_number(chunk_id(100))) // 4096 * 4096
    UnreadableFile.lost = [(at, at + 4096)]
    assert await listed(store) == [chunk_id(n).to_bytes() for n in (1, 2, 200)]
    with pytest.raises(Corrupt):
        await read(store, chunk_id(100))
    assert await store.delete_many([chunk_id(2), chunk_id(100), chunk_id(200)]) == [True, False, True]
    await put(store, chunk_id(101), DATA)
    assert await listed(store) == [chunk_id(n).to_bytes() for n in (1, 101)]
    UnreadableFile.lost = []
    store.close()


async def test_a_body_that_cannot_be_read_is_set_aside_with_what_is_left(root: Path) -> None:
    """A block that the medium lost is zeros in the copy."""
    UnreadableFile.lost = []
    store = DiskChunkStore(UnreadableFiles(), root, reserve_bytes=0)
    data = some_bytes(20_000)
    await put(store, chunk_id(1), data)
    offset = find_chunk(root, chunk_id(1)).offset
    UnreadableFile.lost = [(offset + 8192, offset + 12_288)]
    assert not await store.check(chunk_id(1))
    [name] = os.listdir(root / "quarantine")
    raw = (root / "quarantine" / name).read_bytes()
    assert raw[:20_000] == data[:8192] + bytes(4096) + data[12_288:]
    UnreadableFile.lost = []
    store.close()


async def test_an_error_that_is_gone_the_second_time_is_not_rot(root: Path) -> None:
    """As of a file."""
    UnreadableFile.lost = []
    store = DiskChunkStore(UnreadableFiles(), root, reserve_bytes=0)
    await put(store, chunk_id(1), DATA)
    reads = 0
    found = find_chunk(root, chunk_id(1))
    pread_into = UnreadableFile.pread_into

    def once(file: UnreadableFile, target: bytearray | memoryview, offset: int) -> int:
        nonlocal reads
        reads += 1
        if reads == 1:
            raise failing(errno.EIO)
        return pread_into(file, target, offset)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UnreadableFile, "pread_into", once)
        assert await store.check(chunk_id(1))
    assert reads > 1
    assert find_chunk(root, chunk_id(1)) == found
    store.close()


async def test_a_medium_that_became_read_only_is_read(root: Path) -> None:
    """A verification is not remembered, and nothing is stored."""

    class ReadOnlyFiles(DiskFiles):
        def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
            if writable:
                raise failing(errno.EROFS)
            return super().open(path)

    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    await put(store, chunk_id(1), DATA)
    store.close()
    store = DiskChunkStore(ReadOnlyFiles(), root, reserve_bytes=0)
    assert await read(store, chunk_id(1)) == DATA
    assert await store.verify(chunk_id(1)) == digest_of(DATA)
    assert (await store.inventory(None, 1))[0].verified_ms == 0
    with pytest.raises(ChunkError):
        await put(store, chunk_id(2), DATA)
    store.close()
    assert segment_of(root, chunk_id(1)).exists()


async def test_a_mark_that_is_looked_at_while_its_chunk_is_set_aside_stays(root: Path) -> None:
    """For a moment the chunk is under its mark and still in its segment, as one that was healed is."""
    loop = asyncio.get_running_loop()
    found: list[list[tuple[ChunkId, int]]] = []

    class WatchedFiles(DiskFiles):
        def fsync_directory(self, path: AnyPath) -> None:
            super().fsync_directory(path)
            if Path(path).name == QUARANTINE and not found:
                found.append(asyncio.run_coroutine_threadsafe(store.list_damaged(None, 10), loop).result(30))

    store = DiskChunkStore(WatchedFiles(), root, reserve_bytes=0)
    await put(store, chunk_id(1), some_bytes(5000))
    damage_chunk(root, chunk_id(1), 2000)
    assert not await store.check(chunk_id(1))
    assert [[of for of, _ in listed] for listed in found] == [[chunk_id(1)]]
    assert await store.list_damaged(None, 10) == found[0]
    store.close()
