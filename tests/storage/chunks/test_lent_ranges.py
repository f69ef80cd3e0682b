"""Chunks that another process writes into a segment: chunks like all others, for readers, counts, deletes and the next
start; and what becomes of a borrower that dies, fails, or stops in the middle."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, Corrupt, NodeFull, NodeUnreachable
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.chunks import segment
from storage.chunks.disk import RANGES_SPARE, DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.layout import group_name
from storage.chunks.lent_range import Ending, require_length
from storage.chunks.near_chunks import NearChunks
from storage.chunks.near_drafts import NotLent
from storage.chunks.near_range import NewBody
from storage.chunks.segment_format import (
    BLOCK_BYTES,
    BODIES_OFFSET,
    HEADER_BYTES,
    SLOT_BYTES,
    parse_header,
    slot_number,
    slot_offset,
)
from tests.storage.chunks.borrowers import LENGTH, StoppingFiles, borrowing, open_near, stop_before_slots
from tests.storage.chunks.chunk_files import damage_chunk, find_chunk, list_chunks, segment_of
from tests.storage.chunks.conformance import chunk_id, put, read, some_bytes
from tests.storage.crash_files import CrashFiles

DATA = {chunk_id(n): some_bytes(5000 + n, seed=n) for n in range(1, 8)}
ONE, TWO, THREE, FOUR, FIVE = (chunk_id(n) for n in range(1, 6))
CRASH_ROOT = Path("/node")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "node"


@pytest.fixture
def store(root: Path) -> Iterator[DiskChunkStore]:
    opened = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    yield opened
    opened.close()


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def mark_of(path: Path) -> int:
    """0 for a header that was never written."""
    with path.open("rb") as file:
        return parse_header(file.read(HEADER_BYTES), path.name[:29]) or 0


def items(*ids: ChunkId) -> list[tuple[ChunkId, bytes]]:
    return [(of, DATA[of]) for of in ids]


# ------------------------------------------------------------------ what it is to the owner


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_chunk_like_any_other(store: DiskChunkStore, root: Path, is_over: bool) -> None:
    """Found, read, listed, verified, set aside and deleted by the owner, while the range is lent and after it."""
    near_chunks = NearChunks(root)
    await put(store, ONE, DATA[ONE])
    async with borrowing(store, root, TWO) as borrower:
        assert borrower.put(*items(TWO, THREE)) == [digest_of(DATA[TWO]), digest_of(DATA[THREE])]
        assert borrower.put(*items(FOUR, FIVE)) == [digest_of(DATA[FOUR]), digest_of(DATA[FIVE])]
        if not is_over:
            await look(store, near_chunks)
    if is_over:
        await look(store, near_chunks)
    near_chunks.close()
    assert list_chunks(root) == [ONE, TWO]
    assert (store.figures.chunk_count, store.figures.stored_bytes) == (2, len(DATA[ONE]) + len(DATA[TWO]))


async def look(store: DiskChunkStore, near_chunks: NearChunks) -> None:
    """At chunks one to five, of which three to five go."""
    for of in (ONE, TWO, THREE, FOUR, FIVE):
        assert await read(store, of) == DATA[of]
        assert await store.verify(of) == digest_of(DATA[of])
        assert await store.check(of)
        target = bytearray(len(DATA[of]))
        await near_chunks.read(of, 0, target)
        assert target == DATA[of]
    assert [entry.chunk_id for entry in await store.inventory(None, 9)] == [
        of.to_bytes() for of in (ONE, TWO, THREE, FOUR, FIVE)
    ]
    states = await store.inspect_many([TWO, FOUR])
    assert all(state is not None and state.verified_ms for state in states)
    assert await store.quarantine_many([THREE]) == [True]
    assert await store.delete_many([FOUR, FIVE]) == [True, True]
    with pytest.raises(ChunkNotFound):
        await read(store, FOUR)


async def test_damage_is_set_aside(store: DiskChunkStore, root: Path) -> None:
    """While the range is lent; the mark says so."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE, TWO))
        damage_chunk(root, ONE, at=77)
        assert not await store.check(ONE)
        assert [of for of, _ in await store.list_damaged(None, 9)] == [ONE]
    assert await store.verify(TWO) == digest_of(DATA[TWO])
    assert store.figures.chunk_count == 1


async def test_the_owner_writes_beside(store: DiskChunkStore, root: Path) -> None:
    """Into the same segment, and nowhere that was ever lent."""
    async with borrowing(store, root, ONE) as first, borrowing(store, root, ONE) as second:
        assert first.lent.end == second.lent.begin
        await put(store, ONE, DATA[ONE])
        first.put(*items(TWO))
        second.put(*items(THREE))
        await put(store, FOUR, DATA[FOUR])
    await put(store, FIVE, DATA[FIVE])
    offsets = [find_chunk(root, of).offset for of in (TWO, THREE, ONE, FOUR, FIVE)]
    assert offsets == sorted(offsets)
    assert offsets[2] >= second.lent.end
    for of in (ONE, TWO, THREE, FOUR, FIVE):
        assert find_chunk(root, of).slot_at is not None
        assert await store.verify(of) == digest_of(DATA[of])


async def test_the_same_chunk_by_the_other_way(store: DiskChunkStore, root: Path) -> None:
    """The same bytes are stored already, others are a conflict; a sync makes sure before that is said."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE))
        await put(store, ONE, DATA[ONE])
        with pytest.raises(ChunkConflict):
            await put(store, ONE, DATA[TWO])


async def test_a_slot_that_is_not_synced_yet_is_not_vouched_for() -> None:
    """Another writer of the chunk is told that it is there only once it is durable."""
    files = CrashFiles()
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0)
    async with borrowing(store, CRASH_ROOT, ONE, files) as borrower:
        file = borrower.near._file
        sync = file.fdatasync
        file.fdatasync = lambda: None  # type: ignore[method-assign]
        borrower.put(*items(ONE))
        await put(store, ONE, DATA[ONE])
        file.fdatasync = sync  # type: ignore[method-assign]
        survivors = files.survivors()
    store.close()
    again = DiskChunkStore(survivors, CRASH_ROOT, reserve_bytes=0)
    assert await again.verify(ONE) == digest_of(DATA[ONE])
    again.close()


# ------------------------------------------------------------------ counts


async def test_counts_while_a_range_is_lent(store: DiskChunkStore, root: Path) -> None:
    """A count and what is deleted and stored around it add up, whenever the slots are looked at."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE, TWO, THREE))
        assert store.figures.chunk_count == 0
        await store.delete_many([ONE])  # never counted
        assert store.figures.chunk_count == 0
        assert (await store.count()).chunk_count == 2
        await store.delete_many([TWO])
        assert store.figures.chunk_count == 1
        borrower.put(*items(FOUR, FIVE))
        await store.inventory(None, 9)
        assert store.figures.chunk_count == 3
        await store.delete_many([FOUR])
    figures = store.figures
    assert (figures.chunk_count, figures.stored_bytes) == (2, len(DATA[THREE]) + len(DATA[FIVE]))
    assert await store.count() == figures


# ------------------------------------------------------------------ the mark, and tidying


async def test_the_mark_stays_before_a_range(
    store: DiskChunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is given back, whatever the owner syncs behind it."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", 0)
    await put(store, ONE, DATA[ONE])
    async with borrowing(store, root, ONE) as borrower:
        for of in (TWO, THREE):
            await put(store, of, DATA[of])
        borrower.put(*items(FOUR))
        assert 0 < mark_of(segment_of(root, ONE)) <= borrower.lent.begin
    await put(store, FIVE, DATA[FIVE])
    assert mark_of(segment_of(root, ONE)) > borrower.lent.end


async def test_the_mark_stays_before_a_range_that_was_lost(
    store: DiskChunkStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as the segment is open: who was stopped may write a slot when nobody counts on it."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", 0)
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE))
        borrower.ending = None
    await put(store, TWO, DATA[TWO])
    assert mark_of(segment_of(root, ONE)) <= borrower.lent.begin


async def test_nothing_is_tidied_while_it_is_lent(store: DiskChunkStore, root: Path) -> None:
    """The file stays though no slot is taken, and so do bodies that no slot names yet; both go with a later pass."""
    path = segment_of(root, ONE)
    async with borrowing(store, root, ONE, StoppingFiles()) as borrower:
        await store.purge_quarantine(0)
        assert path.exists()

        def purge() -> None:
            before = allocated(path)
            store._directory.prune()
            assert allocated(path) == before > 0

        stop_before_slots(borrower.near, purge)
        borrower.put(*items(TWO))
    assert await store.verify(TWO) == digest_of(DATA[TWO])
    await store.delete_many([TWO])
    await store.purge_quarantine(0)
    assert not path.exists()


async def test_a_range_takes_no_room_before_it_is_used(store: DiskChunkStore, root: Path) -> None:
    """And what stays unused of it is a hole; the file has its length from the beginning."""
    async with borrowing(store, root, ONE, length=16 << 20) as borrower:
        assert segment_of(root, ONE).stat().st_size == borrower.lent.end == BODIES_OFFSET + (16 << 20)
        borrower.put(*items(ONE))
    assert allocated(segment_of(root, ONE)) < 1 << 20


async def test_the_room_of_a_range_is_promised_to_nobody_else(root: Path) -> None:
    """While it is lent, and no longer; where there is little nothing is lent."""
    files = CrashFiles(capacity_bytes=RANGES_SPARE * LENGTH + (300 << 10))
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0)
    async with borrowing(store, CRASH_ROOT, ONE, files):
        assert store._room.promised_bytes == LENGTH
        with pytest.raises(NodeFull):
            await store.put_whole(ONE, [bytes(RANGES_SPARE * LENGTH)])
        with pytest.raises(NodeFull):
            async with borrowing(store, CRASH_ROOT, ONE, files, length=2 * LENGTH):
                raise AssertionError("lent though there is little")
    assert store._room.promised_bytes == 0
    store.close()


# ------------------------------------------------------------------ borrowers that go wrong


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_borrower_that_is_stopped_between_body_and_slot(root: Path, is_restarted: bool) -> None:
    """Its range is taken back, what no slot names is given back to the medium, and only then it goes on: it must not
    count on its chunk. Without the last look it would have."""
    store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    await put(store, ONE, DATA[ONE])
    lending = store.lend_range(group_name(str(ONE)), LENGTH)
    lent = (await lending.__aenter__()).lent
    looks: list[bool] = []
    is_lent = True

    def look() -> bool:
        looks.append(is_lent)
        return is_lent

    near = open_near(StoppingFiles(), root, group_name(str(ONE)), lent.inode, look)
    loop, is_stopped, going_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        loop.call_soon_threadsafe(is_stopped.set)
        asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(60)

    stop_before_slots(near, stop)
    writing = asyncio.create_task(asyncio.to_thread(near.write, [NewBody(TWO, lent.begin, (DATA[TWO],))]))
    await is_stopped.wait()
    is_lent = False  # the owner closes the connection, and then takes it back
    if is_restarted:
        store.close()
        store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
    else:
        await lending.__aexit__(None, None, None)
    await store.purge_quarantine(0)
    await put(store, THREE, DATA[THREE])
    going_on.set()
    with pytest.raises(NodeUnreachable):
        await writing
    assert looks == [True, False]
    with pytest.raises(Corrupt):
        await store.verify(TWO)  # what it would have acknowledged
    for of in (ONE, THREE):
        assert await store.verify(of) == digest_of(DATA[of])
    near.close()
    store.close()


async def test_a_range_that_was_taken_back_is_left_alone(store: DiskChunkStore, root: Path) -> None:
    """Nothing is written into it any more: the chunk can be sent."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.is_lent = False
        with pytest.raises(NotLent):
            borrower.put(*items(ONE))
        assert list_chunks(root) == []
        await put(store, ONE, DATA[ONE])


async def test_a_borrower_that_dies_leaves_its_chunks(store: DiskChunkStore, root: Path) -> None:
    """Those that it counted on, and perhaps others; a power cut after it takes none of them."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE, TWO))
        borrower.ending = None
    await put(store, THREE, DATA[THREE])
    for of in (ONE, TWO, THREE):
        assert find_chunk(root, of).slot_at is not None
        assert await store.verify(of) == digest_of(DATA[of])
    assert store.figures.chunk_count == 3


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("step", ["slot", "sync"])
async def test_a_sync_that_fails_poisons_the_segment(step: str, caplog: pytest.LogCaptureFixture) -> None:
    """The batch is nowhere, whatever its slots say; what was durable before is there; chunks go into files until the
    next start; and nothing of the segment is lent."""
    files = CrashFiles()
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0, threads=1)
    async with borrowing(store, CRASH_ROOT, ONE, files) as borrower:
        borrower.put(*items(ONE))
        files.fail_before(files.steps + ("body", "slot", "sync").index(step), failing(errno.EIO))
        with pytest.raises(ChunkError):
            borrower.put(*items(TWO, THREE))
        assert set(borrower.near.failed) == {slot_number(of) for of in (TWO, THREE)}
        borrower.ending = Ending(borrower.near.failed)
    assert "takes no more chunks" in caplog.text
    assert [entry.chunk_id for entry in await store.inventory(None, 9)] == [ONE.to_bytes()]
    with pytest.raises(ChunkError):
        async with borrowing(store, CRASH_ROOT, ONE, files):
            raise AssertionError("lent though it is poisoned")
    await put(store, TWO, DATA[TWO])
    assert find_chunk(CRASH_ROOT, TWO, files).slot_at is None
    for survivors in (files.survivors(), files.survivors(seed=1)):
        again = DiskChunkStore(survivors, CRASH_ROOT, reserve_bytes=0)
        for of in (ONE, TWO):
            assert await again.verify(of) == digest_of(DATA[of])
        assert [entry.chunk_id for entry in await again.inventory(None, 9)] == [ONE.to_bytes(), TWO.to_bytes()]
        again.close()
    store.close()


async def test_a_sync_that_fails_when_the_borrower_is_gone() -> None:
    """The owner syncs what was left, and learns of it: poisoned as well."""
    files = CrashFiles()
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0, threads=1)
    async with borrowing(store, CRASH_ROOT, ONE, files) as borrower:
        borrower.put(*items(ONE))
        borrower.ending = None
        files.fail_before(files.steps, failing(errno.EIO))
    await put(store, TWO, DATA[TWO])
    assert find_chunk(CRASH_ROOT, TWO, files).slot_at is None
    assert await store.verify(ONE) == digest_of(DATA[ONE])
    store.close()


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, NodeFull), (errno.EIO, ChunkError)])
async def test_a_body_that_cannot_be_written(number: int, expected: type[ChunkError]) -> None:
    """No slot leads to it, and the segment goes on."""
    files = CrashFiles()
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0, threads=1)
    async with borrowing(store, CRASH_ROOT, ONE, files) as borrower:
        files.fail_before(files.steps, failing(number))
        with pytest.raises(expected):
            borrower.put(*items(ONE))
        assert borrower.near.failed == ()
    assert await store.inventory(None, 9) == []
    await put(store, ONE, DATA[ONE])
    assert find_chunk(CRASH_ROOT, ONE, files).slot_at is not None
    store.close()


async def test_what_nobody_waits_for_any_more_is_withdrawn(store: DiskChunkStore, root: Path) -> None:
    """Its slot is free again."""
    async with borrowing(store, root, ONE) as borrower:
        borrower.put(*items(ONE, TWO))
        borrower.near.withdraw([ONE])
    assert list_chunks(root) == [TWO]
    assert store.figures.chunk_count == 1


async def test_another_file_of_that_name(store: DiskChunkStore, root: Path, tmp_path: Path) -> None:
    """Of another directory, say, that lies in the same place for this process: it is not written into."""
    async with store.lend_range(group_name(str(ONE)), LENGTH) as borrowed:
        with pytest.raises(NotLent):
            open_near(DiskFiles(), tmp_path, group_name(str(ONE)), borrowed.lent.inode, lambda: True)
        with pytest.raises(NotLent):
            open_near(DiskFiles(), root, group_name(str(ONE)), borrowed.lent.inode + 1, lambda: True)
        borrowed.ending = Ending()


# ------------------------------------------------------------------ what is written at once


async def test_a_batch_takes_three_calls() -> None:
    """Bodies, slots, and a sync; two of each where they do not follow upon each other."""
    files = CrashFiles()
    store = DiskChunkStore(files, CRASH_ROOT, reserve_bytes=0)
    async with borrowing(store, CRASH_ROOT, ONE, files) as borrower:
        begin = files.steps
        borrower.put(*items(THREE, ONE, TWO))
        assert [text.partition(" ")[0] for text in files.log[begin:]] == ["write", "write", "fdatasync"]
        begin = files.steps
        borrower.place([(ONE, bytes(BLOCK_BYTES))])
        first = borrower.place(items(FOUR))
        borrower.place([(ONE, bytes(BLOCK_BYTES))])
        second = borrower.place(items(chunk_id(7)))
        borrower.near.write([*first, *second])
        assert [text.partition(" ")[0] for text in files.log[begin:]] == ["write"] * 4 + ["fdatasync"]
    for of in (ONE, TWO, THREE, FOUR, chunk_id(7)):
        assert await read(store, of) == DATA[of]
    with files.open(segment_of(CRASH_ROOT, ONE)) as file:
        assert file.pread(SLOT_BYTES, slot_offset(slot_number(FIVE))) == bytes(SLOT_BYTES)
    store.close()


@pytest.mark.parametrize("length", [0, BLOCK_BYTES - 1, BLOCK_BYTES * 3 + 1, 1 << 30])
def test_ranges_are_of_whole_blocks_and_bounded(length: int) -> None:
    with pytest.raises(ValueError, match="range"):
        require_length(length)
