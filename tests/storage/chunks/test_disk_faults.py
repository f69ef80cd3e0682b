"""DiskChunkStore on a medium that fails: what is refused, what is rot, what hides nothing else, and what is neither.

Of files of their own, where nothing else is said; of segments see also test_segment_faults.py."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, NodeFull
from storage.base.files import AnyPath, DiskFile, DiskFiles, FileStat, OpenFile
from storage.base.ids import ChunkId
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import Footer, digest_of, format_footer
from storage.chunks.open_chunk import OpenChunk
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import ChunkReceipt
from tests.storage.chunks.chunk_files import FILES_ONLY, damage_chunk, path_of
from tests.storage.chunks.conformance import LARGE_BYTES, chunk_id, cut, put, read, some_bytes
from tests.storage.crash_files import CrashFiles


async def test_times_that_cannot_be_set_fail_no_verification(root: Path) -> None:
    """On a medium that became read-only the chunk is right all the same; it only is not remembered."""

    class ReadOnlyFile(DiskFile):
        def set_times(self, accessed_ns: int, modified_ns: int) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    class ReadOnlyFiles(DiskFiles):
        def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
            return ReadOnlyFile(os.open(path, os.O_RDONLY))

    store = DiskChunkStore(ReadOnlyFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), b"x")
    assert await store.verify(chunk_id(1)) == digest_of(b"x")
    assert (await store.inventory(None, 1))[0].verified_ms == 0
    store.close()


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NodeFull), (errno.EDQUOT, NodeFull), (errno.EIO, ChunkError)]
)
async def test_a_medium_that_fails_midway(number: int, expected: type[ChunkError]) -> None:
    """At whichever step: an error of the tree, nothing half, and the store goes on."""
    steps_of_a_first_put = 11
    for step in range(steps_of_a_first_put + 1):
        files = CrashFiles()
        store = DiskChunkStore(files, "/node", reserve_bytes=0, threads=1)
        files.fail_before(files.steps + step, OSError(number, os.strerror(number)))
        if step < steps_of_a_first_put:
            with pytest.raises(expected):
                await store.put(chunk_id(1), LARGE_BYTES, cut(some_bytes(LARGE_BYTES), 1 << 20))
        assert list(files.list_directory("/node/tmp")) == []
        await put(store, chunk_id(1), some_bytes(LARGE_BYTES))
        store.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
async def test_a_probe_finds_a_medium_that_fails(number: int) -> None:
    """At whichever step; and that it works again. A full one is not wrong."""
    files = CrashFiles()
    store = DiskChunkStore(files, "/node", reserve_bytes=0, threads=1)
    before = files.steps
    await store.probe()
    steps_of_a_probe = files.steps - before
    assert steps_of_a_probe >= 4
    for step in range(steps_of_a_probe):
        files.fail_before(files.steps + step, OSError(number, os.strerror(number)))
        with pytest.raises(ChunkError, match=os.strerror(number)):
            await store.probe()
        await store.probe()
        assert list(files.list_directory("/node/tmp")) == []
    files.fail_before(files.steps + 1, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    await store.probe()
    store.close()


async def test_one_item_of_a_batch_fails_alone() -> None:
    """A write that fails takes only its own chunk with it."""
    files = CrashFiles()
    store = DiskChunkStore(files, "/node", reserve_bytes=0, record_bytes_max=FILES_ONLY)
    files.fail_before(files.steps + 4, OSError(errno.EIO, "broken"))
    outcomes = await store.put_many([(chunk_id(n), some_bytes(100)) for n in range(3)])
    assert [isinstance(outcome, ChunkError) for outcome in outcomes] == [False, True, False]
    assert [entry.chunk_id for entry in await store.inventory(None, 9)] == [chunk_id(n).to_bytes() for n in (0, 2)]
    assert list(files.list_directory("/node/tmp")) == []
    store.close()


async def test_an_unreadable_medium_is_corrupt(root: Path) -> None:
    """EIO while reading is the chunk's fault, running out of descriptors is not."""

    class FailingFiles(DiskFiles):
        error: OSError | None = None

        def open(self, path: str | os.PathLike[str], *, writable: bool = False) -> OpenFile:
            if self.error is not None:
                raise self.error
            return super().open(path, writable=writable)

    files = FailingFiles()
    store = DiskChunkStore(files, root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), b"x")
    files.error = OSError(errno.EIO, "bad sector")
    with pytest.raises(Corrupt):
        await read(store, chunk_id(1))
    files.error = OSError(errno.EMFILE, "too many open files")
    with pytest.raises(ChunkError):
        await store.verify(chunk_id(1))
    store.close()


async def test_what_cannot_be_opened_is_set_aside_as_unreadable(root: Path) -> None:
    """By an order that says so of it, and by a put of the same chunk."""

    class FailingFiles(DiskFiles):
        failures = 0

        def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
            if self.failures and os.fspath(path).endswith(str(chunk_id(1))):
                self.failures -= 1
                raise OSError(errno.EIO, "bad sector")
            return super().open(path, writable=writable)

    files = FailingFiles()
    store = DiskChunkStore(files, root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), b"x")
    judged = list(zip([chunk_id(1)], await store.inspect_many([chunk_id(1)]), strict=True))
    files.failures = 2
    assert await store.quarantine_judged(judged) == [False]
    assert await store.quarantine_judged([(chunk_id(1), None)]) == [True]
    await put(store, chunk_id(1), b"x")
    files.failures = 1
    await put(store, chunk_id(1), b"x")
    assert await store.verify(chunk_id(1)) == digest_of(b"x")
    assert await store.purge_quarantine(1 << 60) == 2
    store.close()


@pytest.mark.parametrize("record_bytes_max", [FILES_ONLY, RECORD_BYTES_MAX])
async def test_a_writer_sets_aside_the_rot_that_it_read(
    root: Path, record_bytes_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what another writer of the same chunk stored in its place, who was told that it is there."""
    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0, record_bytes_max=record_bytes_max)
    await put(store, chunk_id(1), b"good")
    damage_chunk(root, chunk_id(1))
    directory = store._directory
    verify = directory._verify

    def verify_late(of: ChunkId, chunk: OpenChunk) -> ChunkReceipt:
        monkeypatch.undo()
        try:
            return verify(of, chunk)
        finally:
            assert directory.store_many([(of, [b"good"])]) == [digest_of(b"good")]

    monkeypatch.setattr(directory, "_verify", verify_late)
    await put(store, chunk_id(1), b"good")
    assert await store.verify(chunk_id(1)) == digest_of(b"good")
    assert await store.purge_quarantine(1 << 60) == 1
    store.close()


async def test_an_inode_that_cannot_be_read_hides_no_other_chunk(root: Path) -> None:
    """It is not listed, and deleting it with others fails none of these; a medium that refuses everything is told."""

    class FailingFiles(DiskFiles):
        error = OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))

        def stat(self, path: AnyPath) -> FileStat:
            if os.fspath(path).endswith(str(chunk_id(2))):
                raise self.error
            return super().stat(path)

    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    ids = [chunk_id(number) for number in (1, 2, 3)]
    for of in ids:
        await put(store, of, b"x")
    store.close()
    store = DiskChunkStore(FailingFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    assert [entry.chunk_id for entry in await store.inventory(None, 9)] == [ids[0].to_bytes(), ids[2].to_bytes()]
    assert await store.delete_many(ids) == [True, False, True]
    assert path_of(root, ids[1]).exists()
    FailingFiles.error = OSError(errno.EACCES, os.strerror(errno.EACCES))
    with pytest.raises(ChunkError):
        await store.inventory(None, 9)
    with pytest.raises(ChunkError):
        await store.delete_many(ids)
    store.close()


class FlakyFile(DiskFile):
    """Fails to read as often as told."""

    failures: list[OSError] = []

    def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
        if self.failures:
            raise self.failures.pop()
        return super().pread_into(target, offset)


class FlakyFiles(DiskFiles):
    """Whose reads fail as often as told, for whoever opens them read-only."""

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        return FlakyFile(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODATA, errno.EUCLEAN, errno.EBADMSG])
async def test_an_error_that_is_gone_the_second_time_is_not_rot(
    root: Path, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """One that stays is, whatever the medium calls it."""
    store = DiskChunkStore(FlakyFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), some_bytes(5000))
    error = OSError(number, os.strerror(number))
    FlakyFile.failures[:] = [error]
    assert await store.check(chunk_id(1))
    assert "is read again" in caplog.text
    assert await store.list_damaged(None, 10) == []
    FlakyFile.failures[:] = [error, error]
    assert not await store.check(chunk_id(1))
    assert [of for of, _ in await store.list_damaged(None, 10)] == [chunk_id(1)]
    store.close()


async def test_an_error_of_this_process_is_not_rot(root: Path) -> None:
    """Nothing is said of the chunk, and it stays."""
    store = DiskChunkStore(FlakyFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), some_bytes(5000))
    FlakyFile.failures[:] = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))]
    with pytest.raises(ChunkError):
        await store.check(chunk_id(1))
    assert await store.check(chunk_id(1))
    store.close()


async def test_a_good_copy_that_came_meanwhile_is_not_set_aside(root: Path) -> None:
    """Somebody else found the damage too, and healed it, between the second read and the setting aside."""
    good = some_bytes(5000)

    class HealedFile(DiskFile):
        reads = 0

        def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
            HealedFile.reads += 1
            found = super().pread_into(target, offset)
            if HealedFile.reads == 2:
                path = path_of(root, chunk_id(1))
                healed = path.with_suffix(".healed")
                healed.write_bytes(good + format_footer(Footer(5000, digest_of(good).digest, 1)))
                healed.replace(path)
            return found

    class HealedFiles(DiskFiles):
        def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
            return HealedFile(os.open(path, os.O_RDONLY))

    store = DiskChunkStore(HealedFiles(), root, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), good)
    with path_of(root, chunk_id(1)).open("r+b") as file:
        file.write(b"rot")
    with pytest.raises(ChunkNotFound, match="meanwhile"):
        await store.check(chunk_id(1))
    assert await store.list_damaged(None, 10) == []
    assert await read(store, chunk_id(1)) == good
    store.close()
