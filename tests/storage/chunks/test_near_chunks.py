"""Chunks of a directory that a store owns, read by somebody else: out of their own files, and out of a segment."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from storage.base import cached_files
from storage.base.errors import Corrupt, Unavailable
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.chunks import near_chunks
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import FOOTER_BYTES
from storage.chunks.near_chunks import FAILURES, NearChunks
from tests.storage.chunks.chunk_files import FILES_ONLY, damage_chunk, find_chunk, segment_of, shorten_chunk

CHUNK = ChunkId(b"session+" + bytes(8), 3)
DATA = os.urandom(300_000)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DiskChunkStore]:
    """The owner, with one chunk in a file."""
    made = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0, record_bytes_max=FILES_ONLY)
    await made.put_many([(CHUNK, DATA)])
    yield made
    made.close()


@pytest.fixture
async def near(tmp_path: Path, store: DiskChunkStore) -> AsyncIterator[NearChunks]:
    """Who reads past it."""
    made = NearChunks(tmp_path)
    yield made
    made.close()


def chunk_file(directory: Path, chunk_id: ChunkId = CHUNK) -> Path:
    """Where it lies."""
    return next(directory.glob(f"chunks/*/{chunk_id}"))


async def open_files(directory: Path) -> int:
    """Files below the directory that this process has open, those of the store aside."""
    await asyncio.sleep(0)  # the loop refers to what it called last, and so to an exception and its frames
    gc.collect()
    links = (Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))
    targets = [os.readlink(link) for link in links if link.is_symlink()]
    return sum(target.startswith(f"{directory}/chunks/") for target in targets)


async def read(near: NearChunks, offset: int, length: int, chunk_id: ChunkId = CHUNK) -> bytes:
    """In a thread."""
    target = bytearray(length)
    await near.read(chunk_id, offset, target)
    return bytes(target)


def read_cached(near: NearChunks, offset: int, length: int, chunk_id: ChunkId = CHUNK) -> bytes | None:
    """At once; None when that is not possible."""
    target = bytearray(length)
    return bytes(target) if near.read_cached(chunk_id, offset, target) else None


@pytest.mark.parametrize("span", [(0, 1), (0, len(DATA)), (70_000, 65_552), (len(DATA) - 1, 1)])
async def test_any_span(near: NearChunks, span: tuple[int, int]) -> None:
    """Both ways give the same bytes."""
    offset, length = span
    wanted = DATA[offset : offset + length]
    assert await read(near, offset, length) == wanted
    assert read_cached(near, offset, length) == wanted


async def test_nothing_behind_the_chunk_is_given(near: NearChunks) -> None:
    """The footer is not the chunk's."""
    for start in (near.forget, lambda _: None):
        start(CHUNK)
        with pytest.raises(Corrupt):
            await read(near, len(DATA) - 10, 11)
        with pytest.raises(Corrupt):
            read_cached(near, len(DATA) - 10, 11)


async def test_what_is_not_in_memory_is_not_waited_for(
    near: NearChunks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither the bytes nor the file itself; a thread reads both."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    monkeypatch.setattr(near_chunks, "open_cached", lambda _: None)
    assert read_cached(near, 0, 10) is None
    assert await read(near, 0, 10) == DATA[:10]
    assert read_cached(near, 0, 10) == DATA[:10], "the file is open now"
    monkeypatch.setattr(cached_files.CachedFile, "read_cached", lambda *_: False)
    assert read_cached(near, 0, 10) is None
    near.forget(CHUNK)
    monkeypatch.undo()
    monkeypatch.setattr(cached_files.CachedFile, "read_cached", lambda *_: False)
    assert read_cached(near, 0, 10) is None, "the footer would have to be waited for"
    assert await read(near, 5, 10) == DATA[5:15]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rot_in_footer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-FOOTER_BYTES + 6] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [cut, lengthen, rot_in_footer, empty, Path.unlink])
async def test_what_is_not_whole_is_not_read(near: NearChunks, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """Whatever part of it is asked for; the owner would not either."""
    path = chunk_file(tmp_path)
    harm(path)
    with pytest.raises(FAILURES):
        await read(near, 0, 10)
    with suppress(*FAILURES):
        assert read_cached(near, 0, 10) is None
    async with asyncio.timeout(20):
        while await open_files(tmp_path):
            await asyncio.sleep(0.02)


async def test_what_became_shorter_while_it_was_open(
    near: NearChunks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not filled up with zeros."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    assert await read(near, 0, 10) == DATA[:10]
    os.truncate(chunk_file(tmp_path), 100)
    assert read_cached(near, 90, 20) is None
    with pytest.raises(Corrupt):
        await read(near, 90, 20)


async def test_a_deleted_chunk_is_read_on(
    near: NearChunks, store: DiskChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who has its file open; nobody else finds it."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    assert await read(near, 0, 10) == DATA[:10]
    await store.delete_many([CHUNK])
    assert await read(near, 200_000, 10) == DATA[200_000:200_010]
    near.forget(CHUNK)
    with pytest.raises(FileNotFoundError):
        await read(near, 0, 10)


async def test_a_file_is_let_go_of_after_a_moment(
    near: NearChunks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nobody asks for anything: the room of a deleted chunk is free then."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 0.01)
    assert await read(near, 0, 10) == DATA[:10]
    async with asyncio.timeout(20):
        while await open_files(tmp_path):
            await asyncio.sleep(0.02)


async def test_letting_go_does_not_keep_the_loop_busy(near: NearChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of milliseconds may stand a hair before the moment; a timer for that hair fires at once, again and
    again."""
    assert await read(near, 0, 10) == DATA[:10]
    ((of, opened),) = near._open.items()
    opened_s = next(moment / 1000 for moment in range(10**6) if moment / 1000 + 2.0 > (moment + 2000) / 1000)
    near._open[of] = opened._replace(opened_s=opened_s)
    waits: list[float] = []

    class Loop:
        """Its clock."""

        now_s = round(opened_s * 1000 + 1500) / 1000

        def time(self) -> float:
            """In whole milliseconds."""
            return self.now_s

        def call_later(self, delay_s: float, _: object) -> None:
            """Noted."""
            waits.append(delay_s)

    loop = Loop()
    monkeypatch.setattr("storage.chunks.near_chunks.asyncio.get_running_loop", lambda: loop)
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 2.0)
    near._forget_old()
    loop.now_s = round(opened_s * 1000 + 2000) / 1000
    near._forget_old()
    assert waits == [pytest.approx(0.5)]
    assert not near._open


async def test_what_was_stored_anew_is_found_when_the_old_file_is_forgotten(
    near: NearChunks, store: DiskChunkStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The damaged one was set aside meanwhile."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    path = chunk_file(tmp_path)
    path.write_bytes(bytes(1000) + path.read_bytes()[1000:])
    assert await read(near, 0, 10) == bytes(10)
    await store.put_many([(CHUNK, DATA)])
    assert await read(near, 0, 10) == bytes(10)
    near.forget(CHUNK)
    assert await read(near, 0, 10) == DATA[:10]


async def test_few_files_are_open(
    near: NearChunks, store: DiskChunkStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many chunks are read, and by whatever way."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    chunk_ids = [ChunkId(CHUNK.blob_id, index) for index in range(10, 10 + 2 * near_chunks.OPEN_CHUNKS_MAX)]
    await store.put_many([(chunk_id, DATA[:100]) for chunk_id in chunk_ids])
    for number, chunk_id in enumerate(chunk_ids):
        if number % 2 or read_cached(near, 0, 100, chunk_id) is None:
            assert await read(near, 0, 100, chunk_id) == DATA[:100]
    assert await open_files(tmp_path) == near_chunks.OPEN_CHUNKS_MAX
    near.close()
    assert await open_files(tmp_path) == 0


async def test_a_medium_that_does_not_answer_collects_no_queue(
    near: NearChunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound reads are refused at once; those that wait may be given up, and harm nobody later."""
    go_on = threading.Event()
    target = bytearray(10)
    await near.read(CHUNK, 0, target)

    def hang(*_: object) -> bool:
        return go_on.wait(60)

    monkeypatch.setattr(cached_files.CachedFile, "read", hang)
    most = near_chunks.THREADS + near_chunks.READS_WAITING_MAX
    waiting = [asyncio.ensure_future(near.read(CHUNK, 0, bytearray(10))) for _ in range(most + 10)]
    async with asyncio.timeout(20):
        while sum(task.done() for task in waiting) < 10:
            await asyncio.sleep(0.01)
    refused = [task for task in waiting if task.done()]
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    for task in waiting:
        task.cancel()
    go_on.set()
    await asyncio.gather(*waiting, return_exceptions=True)


# --- of a segment


@pytest.fixture
async def packed(tmp_path: Path) -> AsyncIterator[DiskChunkStore]:
    """An owner with the chunk in a segment, between two others."""
    made = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    before, behind = (ChunkId(b"session+" + bytes(7) + bytes([n]), 0) for n in (7, 8))
    await made.put_many([(before, b"x" * 5000), (CHUNK, DATA), (behind, b"y" * 5000)])
    yield made
    made.close()


@pytest.fixture
async def beside(tmp_path: Path, packed: DiskChunkStore) -> AsyncIterator[NearChunks]:
    """Who reads past it."""
    made = NearChunks(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("span", [(0, 1), (0, len(DATA)), (70_000, 65_552), (len(DATA) - 1, 1)])
async def test_any_span_of_a_segment(beside: NearChunks, span: tuple[int, int]) -> None:
    """Both ways give the same bytes, whichever comes first."""
    offset, length = span
    wanted = DATA[offset : offset + length]
    assert read_cached(beside, offset, length) in (wanted, None)
    assert await read(beside, offset, length) == wanted
    assert read_cached(beside, offset, length) == wanted


async def test_nothing_beside_the_chunk_is_given(beside: NearChunks) -> None:
    """Neither padding nor the next body."""
    for _ in range(2):
        with pytest.raises(Corrupt):
            await read(beside, len(DATA) - 10, 11)
        with pytest.raises(Corrupt):
            read_cached(beside, len(DATA) - 10, 11)


async def test_what_a_segment_does_not_have_may_be_in_a_file(
    beside: NearChunks, packed: DiskChunkStore, tmp_path: Path
) -> None:
    """Another chunk of the same blob, or a large one; else there is none."""
    second, large = ChunkId(CHUNK.blob_id, 4), ChunkId(CHUNK.blob_id, 5)
    await packed.put_many([(second, b"second"), (large, bytes(2 << 20))])
    assert find_chunk(tmp_path, second).slot_at is None
    for of, length in ((second, 6), (large, 1000)):
        assert await read(beside, 0, length, of) == (b"second" if of == second else bytes(1000))
        assert read_cached(beside, 0, length, of) == (b"second" if of == second else bytes(1000))
    for missing in (ChunkId(CHUNK.blob_id, 9), ChunkId(b"session+" + bytes(7) + b"9", 0)):
        with pytest.raises(FileNotFoundError):
            await read(beside, 0, 1, missing)


async def test_what_was_not_in_memory_is_read_by_a_thread(beside: NearChunks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment itself, its slots, or the bytes."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    with monkeypatch.context() as patched:
        patched.setattr(near_chunks, "open_cached", lambda _: None)
        assert read_cached(beside, 0, 10) is None
        assert await read(beside, 0, 10) == DATA[:10]
        assert read_cached(beside, 0, 10) == DATA[:10], "the segment is open now"
    read_file = cached_files.CachedFile.read_cached
    for passes in range(3):
        calls = iter([True] * passes)

        def sometimes(file: cached_files.CachedFile, target: bytearray, at: int, calls: object = calls) -> bool:
            return bool(next(calls, False)) and read_file(file, target, at)  # type: ignore[call-overload]

        with monkeypatch.context() as patched:
            patched.setattr(cached_files.CachedFile, "read_cached", sometimes)
            assert read_cached(beside, 0, 10) is None
            assert await read(beside, 5, 10) == DATA[5:15]


@pytest.mark.parametrize("harm", [shorten_chunk, lambda root, of: os.truncate(segment_of(root, of), 300_000)])
async def test_a_damaged_record_is_not_read(
    beside: NearChunks, tmp_path: Path, harm: Callable[[Path, ChunkId], None]
) -> None:
    """Its slot, or the end of the file that it reached to."""
    harm(tmp_path, CHUNK)
    with pytest.raises(FAILURES):
        await read(beside, len(DATA) - 10, 10)
    with suppress(*FAILURES):
        assert read_cached(beside, len(DATA) - 10, 10) is None


async def test_a_hole_is_never_given(
    beside: NearChunks, packed: DiskChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a chunk that is deleted before the body is read or while it is; both ways."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    assert await read(beside, 0, 10) == DATA[:10]
    deleted: list[bool] = []
    for name in ("read_cached", "read"):
        read_file = getattr(cached_files.CachedFile, name)

        def racing(
            file: cached_files.CachedFile, target: bytearray, at: int, read_file: Callable[..., bool] = read_file
        ) -> bool:
            if len(target) == 10:  # between the slot and the body
                deleted.extend(packed._directory.delete([CHUNK]))
            return bool(read_file(file, target, at))

        with monkeypatch.context() as patched:
            patched.setattr(cached_files.CachedFile, name, racing)
            with pytest.raises(Corrupt, match="meanwhile"):
                if name == "read":
                    await read(beside, 0, 10)
                else:
                    read_cached(beside, 0, 10)
        with pytest.raises(FileNotFoundError):
            await read(beside, 0, 10)
        await packed.put_many([(CHUNK, DATA)])
        assert await read(beside, 0, 10) == DATA[:10], "what was stored anew is found at once"
    assert deleted == [True, True]


async def test_a_new_segment_is_found(
    beside: NearChunks, packed: DiskChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the old one, which became empty, is forgotten."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 3600.0)
    assert await read(beside, 0, 10) == DATA[:10]
    ids = [ChunkId(b"session+" + bytes(7) + bytes([n]), 0) for n in (7, 8)]
    await packed.delete_many([CHUNK, *ids])
    await packed.purge_quarantine(0)
    await packed.put_many([(CHUNK, DATA[::-1])])
    with pytest.raises(FileNotFoundError):
        await read(beside, 0, 10)
    beside.forget(CHUNK)
    assert await read(beside, 0, 10) == DATA[::-1][:10]


async def test_rot_is_given_for_what_it_is(beside: NearChunks, tmp_path: Path) -> None:
    """Nobody sums here: frames are authenticated by whoever opens them."""
    damage_chunk(tmp_path, CHUNK, 5)
    assert (await read(beside, 0, 10))[5] == DATA[5] ^ 1
