"""The scrub at work: what a pass reads, where it goes on, what it finds, and what it never sets aside."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.base.clock import Clock, ManualClock
from storage.base.errors import ChunkError
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import FOOTER_BYTES, digest_of
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.scrub import ScrubPass
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.datanode import scrubber as scrubber_module
from storage.datanode.scrubber import Scrubber, ScrubFile, ScrubSettings
from storage.datanode.wire import ScrubOrder
from tests.storage.chunks.chunk_files import FILES_ONLY, find_chunk
from tests.storage.chunks.conformance import chunk_id, some_bytes
from tests.storage.crash_files import CrashFiles, PowerCut

QUICK = ScrubSettings(pace=1 << 60, interval_s=100.0)
COUNT = 6


class WatchedStore(MemoryChunkStore):
    """Remembers what was checked; `before_check` may fail or wait."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.checked: list[ChunkId] = []
        self.before_check: Callable[[ChunkId], None] = lambda _: None
        self.stalls_at: ChunkId | None = None
        self.stalled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def check(self, chunk_id: ChunkId) -> bool:
        self.before_check(chunk_id)
        if chunk_id == self.stalls_at:
            self.stalled.set()
            await self.go_on.wait()
        self.checked.append(chunk_id)
        return await super().check(chunk_id)

    def flip(self, of: ChunkId) -> None:
        """One bit of a chunk."""
        data = self.chunks[of]
        self.chunks[of] = bytes([data[0] ^ 1]) + data[1:]

    def taken(self) -> list[ChunkId]:
        """What was checked since this was asked last."""
        found, self.checked = self.checked, []
        return found


class Scene:
    """A store of a few chunks, its scrubber, and a clock that stands still."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.store = WatchedStore(self.clock)
        self.ids = [chunk_id(n) for n in range(COUNT)]
        self.file = ScrubFile(DiskFiles(), path / "scrub.json")
        self.scrubber = self.make_scrubber()

    def make_scrubber(self, settings: ScrubSettings = QUICK) -> Scrubber:
        """As after a restart."""
        return Scrubber(self.store, self.clock, settings, self.file)

    async def fill(self) -> None:
        """A second before now."""
        await self.store.put_many([(of, some_bytes(100)) for of in self.ids])
        self.clock.advance(1)


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    """Filled."""
    scene = Scene(tmp_path)
    await scene.fill()
    return scene


async def test_a_pass_reads_everything_in_order(scene: Scene) -> None:
    """Once an interval; the status tells of it."""
    assert scene.scrubber.status.pass_started_ms == 0
    await scene.scrubber.run()
    assert scene.store.taken() == scene.ids
    status, now_ms = scene.scrubber.status, scene.clock.now_ms()
    assert (status.pass_started_ms, status.pass_ended_ms, status.is_running) == (now_ms, now_ms, False)
    assert (status.checked_chunks, status.checked_bytes, status.damaged) == (COUNT, 100 * COUNT, 0)
    assert (status.total_chunks, status.total_bytes, status.pace_bytes_per_s) == (COUNT, 100 * COUNT, QUICK.pace)
    scene.clock.advance(99)
    await scene.scrubber.run()
    assert scene.store.taken() == []
    scene.clock.advance(1)
    await scene.scrubber.run()
    assert scene.store.taken() == scene.ids


async def test_damage_is_set_aside(scene: Scene) -> None:
    """The others stay; the next pass has fewer to read."""
    scene.store.flip(scene.ids[2])
    await scene.scrubber.run()
    assert scene.scrubber.status.damaged == 1
    assert [of for of, _ in await scene.store.list_damaged(None, 10)] == [scene.ids[2]]
    assert scene.ids[2] not in scene.store.chunks
    assert scene.store.figures.unverified_count == 0
    scene.store.taken()
    await scene.scrubber.order(ScrubOrder(begin=True))
    scene.clock.advance(1)
    await scene.scrubber.run()
    assert (scene.scrubber.status.damaged, scene.scrubber.status.total_chunks) == (0, COUNT - 1)


async def test_what_was_verified_since_the_begin_is_not_read_again(scene: Scene) -> None:
    """By whomever; nor what was stored since."""
    scene.store.before_check = lambda of: scene.store.flip(scene.ids[3]) if of == scene.ids[2] else None
    await scene.scrubber.order(ScrubOrder(begin=True))
    scene.clock.advance(1)
    await scene.store.verify(scene.ids[3])
    await scene.store.put_many([(chunk_id(90), b"new")])
    scene.clock.advance(1)
    await scene.scrubber.run()
    assert scene.store.taken() == [of for of in scene.ids if of != scene.ids[3]]
    assert scene.scrubber.status.checked_chunks == COUNT + 1


async def test_a_restart_goes_on_where_it_was(scene: Scene) -> None:
    """With the same figures; the chunk that was being read is read again."""
    scene.store.flip(scene.ids[1])
    scene.store.stalls_at = scene.ids[3]
    scene.scrubber.start()
    await scene.store.stalled.wait()
    await scene.scrubber.close()
    assert scene.store.taken() == scene.ids[:3]
    before = scene.scrubber.status
    scene.store.stalls_at = None
    scene.clock.advance(10)
    again = scene.make_scrubber()
    await again.run()
    assert scene.store.taken() == scene.ids[3:]
    status = again.status
    assert (status.pass_started_ms, status.damaged) == (before.pass_started_ms, 1)
    assert (status.checked_chunks, status.total_chunks) == (COUNT, COUNT)
    assert (status.pass_ended_ms, status.is_running) == (scene.clock.now_ms(), False)


async def test_a_lost_place_reads_only_what_was_not_read(scene: Scene) -> None:
    """The file says where the pass was a while ago; the chunks themselves know what was verified since."""
    scene.store.stalls_at = scene.ids[3]
    scene.scrubber.start()
    await scene.store.stalled.wait()
    await scene.scrubber.close()
    started_ms = scene.scrubber.status.pass_started_ms
    scene.file.save(ScrubPass(started_ms=started_ms, is_running=True))
    scene.store.taken()
    scene.store.stalls_at = None
    scene.clock.advance(10)
    await scene.make_scrubber().run()
    assert scene.store.taken() == scene.ids[3:]


@pytest.mark.parametrize("content", [None, b"", b"{", b"x" * 10_000], ids=["none", "empty", "damaged", "huge"])
async def test_without_its_file_a_pass_begins(scene: Scene, tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, damaged or huge."""
    path = tmp_path / "scrub.json"
    if content is not None:
        path.write_bytes(content)
    await scene.scrubber.run()
    assert scene.store.taken() == scene.ids
    assert scene.file.load().started_ms == scene.clock.now_ms()


async def test_an_order_begins_at_once(scene: Scene) -> None:
    """In the middle of a pass; the answer is of the new pass, which reads from the start."""
    scene.store.stalls_at = scene.ids[3]
    scene.scrubber.start()
    await scene.store.stalled.wait()
    scene.clock.advance(5)
    status = await scene.scrubber.order(ScrubOrder(7 << 50, begin=True))
    assert (status.is_running, status.checked_chunks, status.pace_bytes_per_s) == (True, 0, 7 << 50)
    assert status.pass_started_ms == scene.clock.now_ms()
    await scene.scrubber.close()
    scene.store.taken()
    scene.store.stalls_at = None
    scene.clock.advance(1)
    await scene.scrubber.run()
    assert scene.store.taken() == scene.ids
    assert (await scene.scrubber.order(ScrubOrder())).pace_bytes_per_s == QUICK.pace


async def test_an_order_during_a_read(scene: Scene) -> None:
    """The chunk that was being read belongs to the pass of before: the new one begins at the start all the same."""
    scene.store.stalls_at, scene.store.go_on = scene.ids[3], asyncio.Event()
    scene.scrubber.start()
    await scene.store.stalled.wait()
    scene.clock.advance(1)
    await scene.scrubber.order(ScrubOrder(begin=True))
    scene.clock.advance(1)
    scene.store.taken()
    scene.store.stalls_at = None
    scene.store.go_on.set()
    async with asyncio.timeout(60):
        while scene.scrubber.status.is_running:
            await asyncio.sleep(0.001)
    await scene.scrubber.close()
    assert scene.store.taken() == [scene.ids[3], *[of for of in scene.ids if of != scene.ids[3]]]
    assert scene.scrubber.status.checked_chunks == COUNT


async def test_an_order_interrupts_a_pause(scene: Scene) -> None:
    """A pace of a byte a second would let it wait for a day; so does a suspect."""
    slow = scene.make_scrubber(ScrubSettings(pace=1, interval_s=100.0))
    slow.start()
    while len(scene.store.checked) < 1:
        await asyncio.sleep(0.001)
    scene.store.flip(scene.ids[5])
    slow.suspect(scene.ids[5])
    while scene.ids[5] in scene.store.chunks:
        await asyncio.sleep(0.001)
    await slow.order(ScrubOrder(1 << 60))
    while slow.status.is_running:
        await asyncio.sleep(0.001)
    await slow.close()


async def test_suspects_come_first(scene: Scene) -> None:
    """Also between two passes; a suspect that is right or gone is no harm."""
    for of in (scene.ids[4], chunk_id(99), scene.ids[1]):
        scene.scrubber.suspect(of)
    scene.store.flip(scene.ids[4])
    await scene.scrubber.run()
    assert scene.store.taken()[:3] == [scene.ids[4], chunk_id(99), scene.ids[1]]
    assert scene.scrubber.status.damaged == 0, "what a suspicion found is not this pass's"
    assert [of for of, _ in await scene.store.list_damaged(None, 10)] == [scene.ids[4]]
    scene.scrubber.suspect(scene.ids[2])
    await scene.scrubber.run()
    assert scene.store.taken() == [scene.ids[2]]


async def test_suspects_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass will find the rest."""
    monkeypatch.setattr(scrubber_module, "SUSPECTS_MAX", 2)
    for of in scene.ids:
        scene.scrubber.suspect(of)
        scene.scrubber.suspect(scene.ids[0])
    assert list(scene.scrubber._suspects) == scene.ids[:2]


async def test_a_chunk_that_goes_meanwhile_is_no_matter(scene: Scene) -> None:
    """Deleted after it was listed."""

    def delete_next(of: ChunkId) -> None:
        if of == scene.ids[2]:
            scene.store._remove(scene.ids[3])

    scene.store.before_check = delete_next
    await scene.scrubber.run()
    assert not scene.scrubber.status.is_running
    assert scene.scrubber.status.damaged == 0
    assert await scene.store.list_damaged(None, 10) == []


async def test_a_chunk_of_which_nothing_can_be_said(scene: Scene) -> None:
    """It stays, unverified; the error is told, and the pass goes on behind it."""

    def fail(of: ChunkId) -> None:
        if of == scene.ids[2]:
            raise ChunkError("too many open files")

    scene.store.before_check = fail
    with pytest.raises(ChunkError, match="open files"):
        await scene.scrubber.run()
    await scene.scrubber.run()
    assert scene.store.taken() == [of for of in scene.ids if of != scene.ids[2]]
    assert not scene.scrubber.status.is_running
    assert scene.ids[2] in scene.store.chunks
    assert scene.store.figures.unverified_count == 1


async def test_a_place_that_cannot_be_kept_stops_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is no reason not to look for rot."""

    class FullFile(ScrubFile):
        def save(self, scrub: ScrubPass) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    scene.file = FullFile(DiskFiles(), "/nonexistent/scrub.json")
    full = scene.make_scrubber()
    await full.run()
    await full.close()
    assert scene.store.taken() == scene.ids
    assert "cannot be kept" in caplog.text


async def test_a_clock_that_was_ahead_stops_no_scrub(scene: Scene) -> None:
    """A pass, and verifications, of a time that is to come are not believed."""
    await scene.scrubber.run()
    scene.store.taken()
    scene.clock.set_wall(-1000.0)
    await scene.make_scrubber().run()
    assert scene.store.taken() == scene.ids


# --- over the crash twin

DIRECTORY = "/data/node"
GOOD, FLIPPED, CUT, GROWN, BARE = (chunk_id(n) for n in range(1, 6))
DATA = some_bytes(1500)
KINDS = pytest.mark.parametrize("record_bytes_max", [FILES_ONLY, RECORD_BYTES_MAX])


async def damaged_medium(record_bytes_max: int) -> CrashFiles:
    """One good chunk, and one of each kind of damage, all of it durable. In a segment a length is a word of a slot."""
    files = CrashFiles()
    store = DiskChunkStore(
        files, DIRECTORY, reserve_bytes=0, clock=ManualClock(), threads=1, record_bytes_max=record_bytes_max
    )
    await store.put_many([(of, DATA) for of in (GOOD, FLIPPED, CUT, GROWN, BARE)])
    store.close()
    for of in (FLIPPED, CUT, GROWN, BARE):
        found = find_chunk(Path(DIRECTORY), of, files)
        with files.open(found.path, writable=True) as file:
            if of == FLIPPED:
                file.pwrite(b"\x00\x00\x00\x00", found.offset + 700)
            elif found.slot_at is not None:
                file.pwrite({CUT: 900, GROWN: 1504, BARE: 0}[of].to_bytes(4, "big"), found.slot_at + 12)
            elif of == CUT:
                file.truncate(900)
            elif of == GROWN:
                file.pwrite(b"more", file.size())
            else:
                file.truncate(file.size() - FOOTER_BYTES)
            file.fsync()
    return files.survivors()


async def scrub(files: CrashFiles) -> DiskChunkStore:
    """A start, and everything that is due; the store is the caller's to close."""
    clock = ManualClock(1_800_000_000_000)
    store = DiskChunkStore(files, DIRECTORY, reserve_bytes=0, clock=clock, threads=1)
    try:
        await Scrubber(store, clock, QUICK, ScrubFile(files, f"{DIRECTORY}/scrub.json")).run()
    except BaseException:
        store.close()
        raise
    return store


async def check_found(store: DiskChunkStore) -> None:
    """All damage is set aside and listed, and nothing else."""
    assert [of for of, _ in await store.list_damaged(None, 10)] == [FLIPPED, CUT, GROWN, BARE]
    assert [chunk_id_from_bytes(entry.chunk_id) for entry in await store.inventory(None, 10)] == [GOOD]
    assert await store.verify(GOOD) == digest_of(DATA)
    assert store.figures.damaged_count >= 4


@KINDS
async def test_every_kind_of_damage_is_found(record_bytes_max: int) -> None:
    """And stays listed after a restart, until it is forgotten; that survives too."""
    files = await damaged_medium(record_bytes_max)
    store = await scrub(files)
    await check_found(store)
    assert store.figures.damaged_count == 4
    store.close()
    again = DiskChunkStore(files.survivors(), DIRECTORY, reserve_bytes=0, threads=1)
    await check_found(again)
    again.close()
    store = DiskChunkStore(files, DIRECTORY, reserve_bytes=0, threads=1)
    assert await store.forget_damaged([FLIPPED, CUT, GROWN, BARE]) == [True] * 4
    store.close()
    again = DiskChunkStore(files.survivors(), DIRECTORY, reserve_bytes=0, threads=1)
    assert await again.list_damaged(None, 10) == []
    assert again.figures.damaged_count == 0
    assert await again.purge_quarantine(1 << 60) == 4
    again.close()


@KINDS
async def test_a_cut_before_every_step_of_a_scrub(record_bytes_max: int) -> None:
    """What survives is scrubbed to the same end: damage is under one of its two names, a good chunk is never lost, and
    the file of the place is whole or not there."""
    for step in range(200):
        files = await damaged_medium(record_bytes_max)
        files.cut_before(step)
        try:
            (await scrub(files)).close()
        except PowerCut:
            pass
        else:
            assert step > 20
            return
        for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=step)):
            ScrubFile(survivors, f"{DIRECTORY}/scrub.json").load()
            store = await scrub(survivors)
            await check_found(store)
            store.close()
    raise AssertionError("the scrub never ends")
