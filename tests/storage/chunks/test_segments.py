"""Small chunks in segments: what lies where, what is given back, what goes into files all the same, what is closed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.base.clock import ManualClock, SystemClock
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, Corrupt
from storage.base.files import DiskFile, DiskFiles
from storage.chunks import segment, segments, small_puts
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.segment import Segment
from storage.chunks.segment_format import (
    BLOCK_BYTES,
    BODIES_OFFSET,
    EMPTY_SLOT,
    HEADER_BYTES,
    RECORD_BYTES_MAX,
    SLOT_BYTES,
    format_header,
    parse_header,
    parse_slot,
    slot_number,
    slot_offset,
)
from tests.storage.chunks.chunk_files import (
    FILES_ONLY,
    damage_chunk,
    find_chunk,
    list_chunks,
    path_of,
    read_chunk,
    segment_of,
    shorten_chunk,
    write_over,
)
from tests.storage.chunks.conformance import chunk_id, put, read, some_bytes
from tests.storage.crash_files import CrashFiles

DATA = some_bytes(65_616)


def open_store(root: Path, **options: int) -> DiskChunkStore:
    return DiskChunkStore(DiskFiles(), root, reserve_bytes=0, **options)  # type: ignore[arg-type]


@pytest.fixture
def store(root: Path) -> Iterator[DiskChunkStore]:
    """With segments, as in production."""
    made = open_store(root)
    yield made
    made.close()


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def open_files(root: Path) -> int:
    """Of the store's chunks, those that have no name any more too."""
    fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(fd).startswith(f"{root}/chunks") for fd in fds if os.path.lexists(fd))


async def listed(store: DiskChunkStore) -> list[bytes]:
    return [entry.chunk_id for entry in await store.inventory(None, 1000)]


async def test_the_file_is_the_documented_format(store: DiskChunkStore, root: Path) -> None:
    """Slots by number, bodies from whole blocks on, in the order in which they came; private to the owner."""
    before_ms = SystemClock().now_ms()
    contents = {chunk_id(0x12345, 7): DATA, chunk_id(0x12FFF): b"x", chunk_id(0x12000): some_bytes(BLOCK_BYTES)}
    for of, data in contents.items():
        await put(store, of, data)
    path = root / "chunks" / "73657373696f6e310000000000012.segment"
    raw = path.read_bytes()
    position = BODIES_OFFSET
    for of, data in contents.items():
        at = 4096 + 64 * int(str(of)[29:32], 16)
        slot = parse_slot(raw[at : at + SLOT_BYTES], of.blob_id)
        assert slot is not None
        assert not slot.is_damaged
        assert (slot.chunk_id, slot.offset, slot.footer.receipt) == (of, position, digest_of(data))
        assert before_ms <= slot.footer.stored_ms <= SystemClock().now_ms()
        assert raw[position : position + len(data)] == data
        position += -(-len(data) // 4096) * 4096
    assert len(raw) == position
    assert path.stat().st_mode & 0o077 == 0
    assert os.listdir(root / "chunks") == [path.name]
    store.close()
    assert parse_header(path.read_bytes()[:HEADER_BYTES], path.name[:29]) == position, "all of it was synced"


async def test_how_large_a_record_is(store: DiskChunkStore, root: Path) -> None:
    """A sealed MiB lies in a segment; more has a file."""
    await put(store, chunk_id(1), bytes((1 << 20) + 320))
    await put(store, chunk_id(2), bytes(RECORD_BYTES_MAX))
    await put(store, chunk_id(3), bytes(RECORD_BYTES_MAX + 1))
    assert [find_chunk(root, chunk_id(n)).slot_at is None for n in (1, 2, 3)] == [False, False, True]
    assert await listed(store) == [chunk_id(n).to_bytes() for n in (1, 2, 3)]


async def test_a_second_chunk_of_a_blob_has_a_file(store: DiskChunkStore, root: Path) -> None:
    """One slot is for each blob: its other chunks, and other layouts, lie beside; all of them are whole chunks."""
    ids = [chunk_id(1, index) for index in (1, 0, 1 << 17)]
    for number, of in enumerate(ids):
        await put(store, of, some_bytes(5000 + number))
    assert [find_chunk(root, of).slot_at is None for of in ids] == [False, True, True]
    assert await listed(store) == sorted(of.to_bytes() for of in ids)
    for number, of in enumerate(ids):
        assert await read(store, of) == some_bytes(5000 + number)
        with pytest.raises(ChunkConflict):
            await put(store, of, b"other bytes")
    assert await store.delete_many(ids[:2]) == [True, True]
    assert await listed(store) == [ids[2].to_bytes()]
    await put(store, ids[1], b"again")
    assert find_chunk(root, ids[1]).slot_at is not None, "the slot is free"


async def test_what_has_a_file_keeps_it(root: Path) -> None:
    """A directory of before there were segments: everything in it is found, compared, verified and deleted."""
    old = open_store(root, record_bytes_max=FILES_ONLY)
    for n in range(4):
        await put(old, chunk_id(n), DATA)
    old.close()
    store = open_store(root)
    for n in range(4):
        await put(store, chunk_id(n), DATA)
    assert not segment_of(root, chunk_id(0)).exists() or list_chunks(root) == [chunk_id(n) for n in range(4)]
    assert all(path_of(root, chunk_id(n)).exists() for n in range(4))
    with pytest.raises(ChunkConflict):
        await put(store, chunk_id(0), b"other bytes")
    await put(store, chunk_id(4), DATA)
    assert await listed(store) == [chunk_id(n).to_bytes() for n in range(5)]
    assert await store.check(chunk_id(2))
    assert await store.quarantine_many([chunk_id(1), chunk_id(4)]) == [True, True]
    assert await store.delete_many([chunk_id(n) for n in range(5)]) == [True, False, True, True, False]
    assert await listed(store) == []
    store.close()


async def test_a_name_is_in_one_place_only(root: Path) -> None:
    """A file is not made for a chunk that has a slot, whoever asks for it."""
    both = open_store(root)
    await put(both, chunk_id(1), DATA)
    both.close()
    files = open_store(root, record_bytes_max=FILES_ONLY)
    await put(files, chunk_id(1), DATA)
    with pytest.raises(ChunkConflict):
        await put(files, chunk_id(1), some_bytes(3 << 20))
    assert not path_of(root, chunk_id(1)).exists()
    files.close()


async def test_a_chunk_that_is_there_twice_is_one(root: Path) -> None:
    """As a poisoned segment may leave it: listed once, deleted from both."""
    store = open_store(root, record_bytes_max=FILES_ONLY)
    await put(store, chunk_id(1), DATA)
    store.close()
    hidden = path_of(root, chunk_id(1)).read_bytes()
    path_of(root, chunk_id(1)).unlink()
    store = open_store(root)
    await put(store, chunk_id(1), DATA)
    path_of(root, chunk_id(1)).write_bytes(hidden)
    assert await listed(store) == [chunk_id(1).to_bytes()]
    assert await store.delete_many([chunk_id(1)]) == [True]
    with pytest.raises(ChunkNotFound):
        await read(store, chunk_id(1))
    assert await listed(store) == []
    store.close()


async def test_room_is_given_back(store: DiskChunkStore, root: Path) -> None:
    """Of what is deleted or set aside; what is between stays."""
    await store.put_many([(chunk_id(n), DATA) for n in range(10)])
    path = segment_of(root, chunk_id(0))
    full = allocated(path)
    await store.delete_many([chunk_id(n) for n in range(0, 10, 2)])
    if allocated(path) == full:
        pytest.skip("the file system punches no holes")
    assert full - allocated(path) >= 5 * len(DATA)
    await store.quarantine_many([chunk_id(1)])
    assert full - allocated(path) >= 6 * len(DATA)
    for n in range(3, 10, 2):
        assert await store.verify(chunk_id(n)) == digest_of(DATA)
    assert path.read_bytes()[BODIES_OFFSET:][: len(DATA)] == bytes(len(DATA))


async def test_where_no_holes_are_punched_room_comes_back_with_the_last_chunk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else is different."""
    monkeypatch.setattr(DiskFile, "punch", lambda *_: False)
    store = open_store(root)
    await store.put_many([(chunk_id(n), DATA) for n in range(4)])
    path = segment_of(root, chunk_id(0))
    full = allocated(path)
    assert await store.delete_many([chunk_id(n) for n in range(3)]) == [True] * 3
    await store.purge_quarantine(0)
    assert allocated(path) == full
    assert await read(store, chunk_id(3)) == DATA
    await store.delete_many([chunk_id(3)])
    await store.purge_quarantine(0)
    assert not path.exists()
    store.close()


async def test_blocks_that_no_slot_names_are_given_back(root: Path) -> None:
    """As a power cut between freeing a slot and its blocks leaves them; also those of a failed write at the end."""
    store = open_store(root)
    await store.put_many([(chunk_id(n), DATA) for n in range(4)])
    store.close()
    path = segment_of(root, chunk_id(0))
    full = allocated(path)
    with path.open("r+b") as file:
        for n in (0, 2):
            file.seek(slot_offset(slot_number(chunk_id(n))))
            file.write(EMPTY_SLOT)
        file.seek(0, os.SEEK_END)
        file.write(bytes(range(1, 256)) * 100)
        file.flush()
        os.fsync(file.fileno())
    store = open_store(root)
    await store.purge_quarantine(0)
    if allocated(path) >= full:
        pytest.skip("the file system punches no holes")
    assert full - allocated(path) >= 2 * len(DATA)
    for n in (1, 3):
        assert await store.verify(chunk_id(n)) == digest_of(DATA)
    await put(store, chunk_id(5), DATA)
    assert await read(store, chunk_id(5)) == DATA
    store.close()


async def test_an_empty_segment_goes_and_comes_back(store: DiskChunkStore, root: Path) -> None:
    """With the pass that removes empty directories; no descriptor of it stays open."""
    for _ in range(2):
        await store.put_many([(chunk_id(1), DATA), (chunk_id(5000), DATA)])
        await store.delete_many([chunk_id(1)])
        await store.purge_quarantine(0)
        assert os.listdir(root / "chunks") == [segment_of(root, chunk_id(5000)).name]
        assert open_files(root) <= 1


async def test_few_segments_are_open(store: DiskChunkStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; those that were closed are found again, and go on where they ended. For a moment those
    that were written to are open for that too."""
    monkeypatch.setattr(segments, "OPEN_SEGMENTS_MAX", 3)
    monkeypatch.setattr(small_puts, "KEPT_OPEN_S", 0.1)
    for turn in range(2):
        for n in range(8):
            await put(store, chunk_id(4096 * n + turn), some_bytes(100, n + turn))
            assert open_files(root) <= 2 * 3
    async with asyncio.timeout(20):
        while open_files(root) > 3:
            await asyncio.sleep(0.01)
    for turn in range(2):
        for n in range(8):
            assert await read(store, chunk_id(4096 * n + turn)) == some_bytes(100, n + turn)
    assert open_files(root) <= 3
    assert len(await listed(store)) == 16


# --- damage


@pytest.mark.parametrize("at", [0, len(DATA) - 1])
async def test_rot_is_set_aside_as_it_is(store: DiskChunkStore, root: Path, at: int) -> None:
    """With the footer that it had, so that it is still known for damage."""
    await put(store, chunk_id(1), DATA)
    damage_chunk(root, chunk_id(1), at)
    rotten = read_chunk(root, chunk_id(1))
    assert not await store.check(chunk_id(1))
    [name] = os.listdir(root / "quarantine")
    raw = (root / "quarantine" / name).read_bytes()
    assert raw[: len(DATA)] == rotten
    assert name.endswith(".damaged")
    with pytest.raises(ChunkNotFound):
        await store.check(chunk_id(1))
    await put(store, chunk_id(1), DATA)
    assert await store.check(chunk_id(1))


@pytest.mark.parametrize("byte", [0, 5, 9, 13, 17, 25, 33])
async def test_a_damaged_slot(store: DiskChunkStore, root: Path, byte: int) -> None:
    """Of whichever byte: never taken for a chunk, nor for none; the check sets it aside, and the id is free again."""
    await put(store, chunk_id(1), DATA)
    await put(store, chunk_id(2), DATA)
    at = slot_offset(slot_number(chunk_id(1))) + byte
    with segment_of(root, chunk_id(1)).open("r+b") as file:
        file.seek(at)
        [old] = file.read(1)
        file.seek(at)
        file.write(bytes([old ^ 0x10]))
    for attempt in (read(store, chunk_id(1)), store.stat(chunk_id(1)), store.verify(chunk_id(1))):
        with pytest.raises(Corrupt):
            await attempt
    assert await store.inspect_many([chunk_id(1), chunk_id(2)]) != [None, None]
    assert (await store.inspect_many([chunk_id(1)])) == [None]
    assert not await store.check(chunk_id(1))
    with pytest.raises(ChunkNotFound):
        await store.stat(chunk_id(1))
    await put(store, chunk_id(1), DATA)
    assert [await store.verify(chunk_id(n)) for n in (1, 2)] == [digest_of(DATA)] * 2


async def test_nothing_is_written_over_though_the_end_was_lost(root: Path) -> None:
    """A file that somebody cut: what its slots lead to stays damaged, and is not what comes next."""
    store = open_store(root)
    await store.put_many([(chunk_id(n), some_bytes(9000, n)) for n in range(3)])
    store.close()
    os.truncate(segment_of(root, chunk_id(0)), BODIES_OFFSET + 100)
    store = open_store(root)
    await put(store, chunk_id(3), some_bytes(9000, 3))
    assert await store.verify(chunk_id(3)) == digest_of(some_bytes(9000, 3))
    for n in range(3):
        with pytest.raises(Corrupt):
            await store.verify(chunk_id(n))
        assert not await store.check(chunk_id(n))
    assert await store.verify(chunk_id(3)) == digest_of(some_bytes(9000, 3))
    store.close()


async def test_an_unknown_format_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said of what a later program wrote, and nothing is written to it."""
    store = open_store(root)
    await put(store, chunk_id(1), DATA)
    store.close()
    path = segment_of(root, chunk_id(1))
    with monkeypatch.context() as patched:
        patched.setattr("storage.chunks.segment_format.FORMAT_VERSION", 2)
        header = format_header(path.name[:29], path.stat().st_size)
    with path.open("r+b") as file:
        file.write(header)
    before = path.read_bytes()
    store = open_store(root)
    for attempt in (read(store, chunk_id(1)), put(store, chunk_id(2), DATA), store.delete_many([chunk_id(1)])):
        with pytest.raises(ChunkError, match="format 2"):
            await attempt
    store.close()
    assert path.read_bytes() == before


# --- races


async def test_a_chunk_that_goes_while_it_is_read_is_not_found(store: DiskChunkStore, root: Path) -> None:
    """Its blocks read as zeros by then; nobody is given those, and nobody calls them rot."""
    await put(store, chunk_id(1), DATA)
    chunk = store._directory.open(chunk_id(1))
    assert chunk.read(0, 10) == DATA[:10]
    await store.delete_many([chunk_id(1)])
    with pytest.raises(ChunkNotFound):
        chunk.read(0, 10)
    with pytest.raises(ChunkNotFound):
        chunk.verify()
    await put(store, chunk_id(1), some_bytes(200))
    with pytest.raises(ChunkNotFound):
        chunk.read(0, 10)
    chunk.note_verified(1)
    chunk.close()
    [entry] = await store.inventory(None, 10)
    assert entry.verified_ms == 0, "the new one never was"


async def test_a_good_copy_that_came_meanwhile_is_not_set_aside(store: DiskChunkStore, root: Path) -> None:
    """Somebody else found the damage too, and healed it."""
    await put(store, chunk_id(1), DATA)
    damage_chunk(root, chunk_id(1))
    directory = store._directory
    with directory._locate(chunk_id(1)) as place:
        await put(store, chunk_id(1), DATA)
        assert not directory._set_aside_place(chunk_id(1), place, is_damaged=True)
    assert await store.check(chunk_id(1))
    assert len(os.listdir(root / "quarantine")) == 1, "what the put had set aside"


async def test_writing_over_is_no_verification(store: DiskChunkStore, root: Path) -> None:
    """Nor does reading or verifying change anything else of the slot."""
    await put(store, chunk_id(1), DATA)
    await store.verify(chunk_id(1))
    before = await store.inspect_many([chunk_id(1)])
    write_over(root, chunk_id(1), b"rot")
    with pytest.raises(Corrupt):
        await store.verify(chunk_id(1))
    assert await store.inspect_many([chunk_id(1)]) == before
    shorten_chunk(root, chunk_id(1))
    assert (await store.inventory(None, 1))[0].verified_ms == 0


async def test_a_kill_leaves_what_was_written_whole(root: Path) -> None:
    """Nobody cut the power: what lies behind the mark is whole, and is there at the next start."""
    store = open_store(root)
    await store.put_many([(chunk_id(n), DATA) for n in range(3)])
    store._directory._held.close()  # as the system does for the dead
    again = open_store(root)
    assert len(await listed(again)) == 3
    for n in range(3):
        assert await again.verify(chunk_id(n)) == digest_of(DATA)
    again.close()
    store.close()


async def test_what_is_torn_behind_the_mark_is_nobodys() -> None:
    """A slot that reached the medium before its body did."""
    files = CrashFiles()
    store = DiskChunkStore(files, "/node", reserve_bytes=0, clock=ManualClock(), threads=1)
    await put(store, chunk_id(1), DATA)
    await put(store, chunk_id(2), DATA)
    survivors = files.survivors()
    write_over(Path("/node"), chunk_id(2), bytes(10), files=survivors)
    again = DiskChunkStore(survivors, "/node", reserve_bytes=0, clock=ManualClock(), threads=1)
    assert await listed(again) == [chunk_id(1).to_bytes()]
    await put(again, chunk_id(2), DATA)
    again.close()
    store.close()


@pytest.mark.parametrize(("behind_bytes_max", "more"), [(0, 1), (1 << 20, 2)])
async def test_what_is_damaged_before_the_mark_is_damage(
    monkeypatch: pytest.MonkeyPatch, behind_bytes_max: int, more: int
) -> None:
    """It was answered for: a scrub is to find it. The mark is so far behind at most, and a batch."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", behind_bytes_max)
    files = CrashFiles()
    store = DiskChunkStore(files, "/node", reserve_bytes=0, clock=ManualClock(), threads=1)
    await put(store, chunk_id(0), DATA)
    for n in range(more):
        await put(store, chunk_id(1 + n), some_bytes(behind_bytes_max or 1000))
    survivors = files.survivors()
    write_over(Path("/node"), chunk_id(0), bytes(10), files=survivors)
    again = DiskChunkStore(survivors, "/node", reserve_bytes=0, clock=ManualClock(), threads=1)
    assert len(await listed(again)) == 1 + more
    assert not await again.check(chunk_id(0))
    assert [of for of, _ in await again.list_damaged(None, 10)] == [chunk_id(0)]
    again.close()
    store.close()


def test_passes_go_round(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks at a few segments that nobody touched, so that all of them come to their turn."""
    monkeypatch.setattr(segments, "TIDIED_AT_ONCE", 2)
    root.mkdir(parents=True)
    made = segments.Segments(DiskFiles(), str(root))
    groups = [str(chunk_id(4096 * n))[:29] for n in range(5)]
    for group in groups:
        made.release(made.make(group))
    for expected in (3, 1, 0):
        made.prune()
        assert len(os.listdir(root)) == expected
    made.close()


def test_a_segment_is_one_to_all_threads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that write to one file would write over each other. Between any two steps of who opens it, somebody else
    looks."""
    root.mkdir(parents=True)
    made = segments.Segments(DiskFiles(), str(root))
    group = str(chunk_id(0))[:29]
    seen: list[Segment] = []
    looking = threading.local()

    def look() -> None:
        looking.busy = True
        seen.append(made.make(group))

    def watched(segment: Segment, name: str, value: object) -> None:
        object.__setattr__(segment, name, value)
        if not getattr(looking, "busy", False) and segment in made._open.values():
            thread = threading.Thread(target=look)
            thread.start()
            thread.join(0.2)
            threads.append(thread)

    threads: list[threading.Thread] = []
    with monkeypatch.context() as patched:
        patched.setattr(Segment, "__setattr__", watched)
        seen.append(made.make(group))
    for thread in threads:
        thread.join(30)
    assert len(threads) > 3
    assert len(set(map(id, seen))) == 1
    made.close()
