"""The sweeper over real metadata: what died is removed, what may be in use stays, through every fault on the way."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from cluster.maintenance import orphans
from cluster.maintenance.sweep import SweepSettings
from cluster.maintenance.sweeper import Sweeper, SweepReport
from cluster.nodes import NodePool
from storage.base.clock import ManualClock
from storage.base.ids import ChunkId
from storage.metadata.commands import CloseSession, DeleteTarget
from storage.model import NodeState
from tests.cluster.world import INTERNAL_KEY, SETTINGS, BlocksBody, World, open_world

AGES = SweepSettings(
    lease_ttl_ms=30_000,
    read_margin_ms=15_000,
    orphan_age_ms=60_000,
    unknown_age_ms=600_000,
    passes_apart_ms=10_000,
    quarantine_ms=120_000,
)


class Scene:
    """A world, its clock and a sweeper."""

    def __init__(self, world: World, clock: ManualClock, settings: SweepSettings = AGES) -> None:
        self.world = world
        self.clock = clock
        pool = NodePool(INTERNAL_KEY, clock, lambda node: world.nodes[node.number])
        self.sweeper = Sweeper(world.metadata, pool, lambda: world.map.cluster_map, clock, settings, pause_s=0)

    async def pass_time(self, seconds: float) -> None:
        """With the worker alive: its session is renewed at the end."""
        self.clock.advance(seconds)
        await self.session.renew()

    async def sweep_on(self) -> SweepReport:
        """Runs with the worker alive, as many as it takes until what was released before is held by nobody in the
        sweeper's eyes; what they did together."""
        reports = []
        for _ in range(5):
            await self.pass_time(20)
            reports.append(await self.sweep())
        sums = [sum(values) for values in zip(*(report[:-1] for report in reports), strict=True)]
        return SweepReport(*sums, reports[-1].unreachable)

    async def sweep(self) -> SweepReport:
        """One whole run."""
        return await self.sweeper.run_once(whole_pass=True)

    @property
    def session(self):  # type: ignore[no-untyped-def]
        """Of the one worker."""
        return self.world.objects._writer._services.session

    async def leave_orphans(
        self, node_numbers: Sequence[int] = (1, 2), session_id: bytes = b"deadbeef"
    ) -> list[ChunkId]:
        """Chunks as a write leaves them that died before its commit."""
        ids = [ChunkId(session_id + index.to_bytes(8, "big"), 0) for index in range(3)]
        for number in node_numbers:
            await self.world.nodes[number].inner.put_many([(chunk_id, b"sealed") for chunk_id in ids])
        return ids


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Three nodes whose clocks are the scene's."""
    clock = ManualClock()
    async with open_world(tmp_path, clock=clock, settings=SETTINGS) as world:
        for node in world.nodes.values():
            node.inner._clock = clock
        yield Scene(world, clock)


async def delete(world: World, key: bytes = b"key") -> None:
    """Delete an object."""
    await world.objects.delete(world.bucket, [DeleteTarget(key)])


# ------------------------------------------------------------------ released


async def test_deleted_objects_are_swept(scene: Scene) -> None:
    """Their chunks and rows go, after the margin; nothing else does."""
    world = scene.world
    await world.put(b"key", os.urandom(600_000))
    await world.put(b"kept", kept := os.urandom(600_000))
    await delete(world)
    assert (await scene.sweep()).deleted == 0, "a read may have begun just before"
    report = await scene.sweep_on()
    assert (report.deleted, report.forgotten_blobs) == (6, 1)
    assert world.copies == 6
    assert await world.get(b"kept") == kept
    assert (await scene.sweep()).deleted == 0


async def test_deleted_objects_are_kept_for_the_history(scene: Scene) -> None:
    """As long as an earlier moment of the records is to be of use."""
    world = scene.world
    patient = Scene(world, scene.clock, AGES._replace(history_ms=3_600_000))
    await world.put(b"key", os.urandom(600_000))
    await delete(world)
    await patient.sweep()
    assert (await patient.sweep_on()).deleted == 0
    scene.clock.advance(3_600)
    await world.objects._writer._services.session.renew()
    assert (await patient.sweep_on()).deleted == 6


async def test_a_running_read_holds_the_sweep_back(scene: Scene) -> None:
    """An object deleted under a reader is read to its end, however long that takes; then it goes."""
    world = scene.world
    await world.put(b"key", data := os.urandom(600_000))
    async with world.objects.open(world.bucket, b"key") as reading:
        blocks = aiter(reading)
        got = bytes(await anext(blocks))
        await delete(world)
        for _ in range(10):
            await scene.pass_time(20)
            assert (await scene.sweep()).deleted == 0
        async for block in blocks:
            got += block
        assert got == data
    assert (await scene.sweep_on()).deleted == 6


async def test_a_node_that_is_away_keeps_the_blob_on_record(scene: Scene) -> None:
    """Deleted elsewhere, tried again there; when it is declared dead the blob is forgotten."""
    world = scene.world
    await world.put(b"key", os.urandom(100_000))
    (holder, *_) = [number for number, node in world.nodes.items() if node.chunks]
    await delete(world)
    world.nodes[holder].down = True
    report = await scene.sweep_on()
    assert (report.deleted, report.forgotten_blobs, report.unreachable) == (1, 0, (holder,))
    await world.map.change(
        node.node(NodeState.DEAD if number == holder else NodeState.UP) for number, node in world.nodes.items()
    )
    assert (await scene.sweep()).forgotten_blobs == 1


async def test_a_silent_draining_node_holds_nothing_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may never come back, and be drained for ever: what is on other nodes goes all the same."""
    monkeypatch.setattr("cluster.maintenance.sweeper.RELEASED_BATCH_BLOBS", 2)
    world = scene.world
    for number in range(12):
        await world.put(b"key-%d" % number, os.urandom(100_000))
        await delete(world, b"key-%d" % number)
    await world.map.change(
        node.node(NodeState.DRAINING if number == 1 else NodeState.UP) for number, node in world.nodes.items()
    )
    world.nodes[1].down = True
    assert (await scene.sweep_on()).forgotten_blobs == 12
    assert not any(node.chunks for number, node in world.nodes.items() if number != 1)


async def test_what_comes_back_with_a_dead_node_is_an_orphan(scene: Scene) -> None:
    """Its blob was forgotten meanwhile: it goes through the passes, once the session that wrote it is over."""
    world = scene.world
    await world.put(b"key", os.urandom(100_000))
    (holder, *_) = [number for number, node in world.nodes.items() if node.chunks]
    await delete(world)
    await world.map.change(
        node.node(NodeState.DEAD if number == holder else NodeState.UP) for number, node in world.nodes.items()
    )
    await scene.sweep_on()
    await world.map.change(node.node() for node in world.nodes.values())
    assert world.copies == 1
    await world.metadata.apply(CloseSession(scene.session.session_id))
    for _ in range(3):
        scene.clock.advance(61)
        await scene.sweep()
    assert world.copies == 0


async def test_many_released_blobs_go_in_batches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one batch in one run."""
    monkeypatch.setattr("cluster.maintenance.sweeper.RELEASED_BATCH_BLOBS", 3)
    for index in range(10):
        await scene.world.put(b"key-%d" % index, os.urandom(20_000))
        await delete(scene.world, b"key-%d" % index)
    report = await scene.sweep_on()
    assert (report.deleted, report.forgotten_blobs) == (20, 10)
    assert scene.world.copies == 0


async def test_a_clock_that_is_set_forward_costs_nobody_anything(scene: Scene) -> None:
    """Two hours at once: no worker is fenced, and a read of a deleted object goes on to its end."""
    world = scene.world
    await world.put(b"key", data := os.urandom(600_000))
    async with world.objects.open(world.bucket, b"key") as reading:
        blocks = aiter(reading)
        got = bytes(await anext(blocks))
        await delete(world)
        await scene.sweep_on()
        scene.clock.set_wall(7200)
        report = await scene.sweep()
        assert (report.fenced, report.deleted) == (0, 0)
        await world.put(b"other", data)
        assert (await scene.sweep_on()).deleted == 0
        async for block in blocks:
            got += block
        assert got == data
    assert (await scene.sweep_on()).deleted == 6


async def test_a_clock_that_is_set_back_harms_nobody(scene: Scene) -> None:
    """Nothing in use goes, nobody is fenced, and what was released goes all the same."""
    world = scene.world
    await world.put(b"key", os.urandom(600_000))
    scene.clock.set_wall(-7200)
    await delete(world)
    await world.put(b"kept", kept := os.urandom(600_000))
    reports = [await scene.sweep_on()]
    for _ in range(7200 // 20):
        await scene.pass_time(20)
    reports.append(await scene.sweep_on())
    assert [report.fenced for report in reports] == [0, 0]
    assert sum(report.deleted for report in reports) == 6
    assert await world.get(b"kept") == kept


# ------------------------------------------------------------------ orphans


async def test_orphans_of_a_fenced_session_pass_two_passes_and_quarantine(scene: Scene) -> None:
    """Fenced, suspected, seen again, set aside, and purged only after the retention."""
    world = scene.world
    session_id = scene.session.session_id
    ids = [ChunkId(session_id + (1000 + index).to_bytes(8, "big"), 0) for index in range(2)]
    await world.nodes[1].inner.put_many([(chunk_id, b"sealed") for chunk_id in ids])

    await scene.sweep()
    scene.clock.advance(61)  # nobody renewed
    report = await scene.sweep()
    assert (report.fenced, report.suspected, report.quarantined) == (1, 2, 0)
    scene.clock.advance(5)
    assert (await scene.sweep()).quarantined == 0, "too soon after the first pass"
    scene.clock.advance(6)
    assert (await scene.sweep()).quarantined == 2
    assert world.copies == 0
    scene.clock.advance(100)
    assert (await scene.sweep()).purged == 0
    scene.clock.advance(30)
    assert (await scene.sweep()).purged == 2


async def test_chunks_of_an_open_session_are_never_orphans(scene: Scene) -> None:
    """However old: their commit may be under way."""
    ids = [ChunkId(scene.session.session_id + (1000).to_bytes(8, "big"), 0)]
    await scene.world.nodes[1].inner.put_many([(chunk_id, b"sealed") for chunk_id in ids])
    for _ in range(5):
        for _ in range(50):
            await scene.pass_time(20)
        report = await scene.sweep()
        assert (report.suspected, report.quarantined) == (0, 0)


async def test_chunks_of_an_unknown_session_wait_longer(scene: Scene) -> None:
    """The metadata may be an older copy that was restored."""
    await scene.leave_orphans()
    for _ in range(8):
        await scene.pass_time(29)
        await scene.sweep()
    assert scene.world.copies == 6
    for _ in range(25):
        await scene.pass_time(29)
        await scene.sweep()
    assert scene.world.copies == 0


async def test_what_is_referenced_again_between_the_passes_stays(scene: Scene) -> None:
    """Right before anything is set aside its rows are looked up once more."""
    world = scene.world
    await world.put(b"key", data := os.urandom(600_000))
    hidden: list[bool] = [True]
    find = world.metadata.find_referenced_blobs

    async def find_late(blob_ids: Sequence[bytes]) -> set[bytes]:
        return set() if hidden and not hidden.pop() else await find(blob_ids)

    session_id = scene.session.session_id
    await world.metadata.apply(CloseSession(session_id))
    world.metadata.find_referenced_blobs = find_late  # type: ignore[method-assign]
    for _ in range(3):
        hidden[:] = [False]  # the first answer of every run is wrong
        scene.clock.advance(61)
        assert (await scene.sweep()).quarantined == 0
    assert await world.get(b"key") == data


async def test_live_objects_of_sessions_that_are_over_stay(scene: Scene) -> None:
    """Most data was written by sessions that ended long ago."""
    world = scene.world
    await world.put(b"key", data := os.urandom(900_000))
    await world.metadata.apply(CloseSession(scene.session.session_id))
    for _ in range(10):
        scene.clock.advance(600)
        report = await scene.sweep()
        assert (report.suspected, report.quarantined, report.forgotten_sessions) == (0, 0, 0)
    assert await world.get(b"key") == data


async def test_sessions_without_chunks_are_forgotten(scene: Scene) -> None:
    """Long after they were closed, and only when every node was looked at."""
    world = scene.world
    await world.put(b"key", os.urandom(100_000))
    await delete(world)
    await scene.sweep_on()
    old = scene.session.session_id
    await world.metadata.apply(CloseSession(old))
    await scene.session.renew()
    scene.clock.advance(200)
    world.nodes[2].down = True
    fresh = Scene(world, scene.clock)
    assert (await fresh.sweep()).forgotten_sessions == 0
    world.nodes[2].down = False
    await scene.session.renew()
    report = await fresh.sweep()
    assert report.forgotten_sessions >= 1
    assert old not in {session.session_id for session in await world.metadata.list_sessions()}


async def test_a_pass_goes_on_where_the_last_run_stopped(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pages a run, and still every orphan is found."""
    monkeypatch.setattr(orphans, "PAGE_ENTRIES", 2)
    monkeypatch.setattr(orphans, "PAGES_MAX", 1)
    ids = [ChunkId(b"deadbeef" + index.to_bytes(8, "big"), 0) for index in range(9)]
    await scene.world.nodes[1].inner.put_many([(chunk_id, b"sealed") for chunk_id in ids])
    scene.clock.advance(601)
    for _ in range(20):
        await scene.pass_time(20)
        await scene.sweeper.run_once()
    assert scene.world.copies == 0


async def test_unfinished_uploads_are_kept_for_ever(scene: Scene) -> None:
    """Parts are referenced data; only an abort releases them."""
    world = scene.world
    owner = world.owner.canonical_id
    upload = await world.objects.create_upload(world.bucket, b"key", owner, world.request().attributes, None, None)
    await world.objects.put_part(world.bucket, upload, 1, BlocksBody([os.urandom(100_000)]))
    await world.metadata.apply(CloseSession(scene.session.session_id))
    for _ in range(5):
        scene.clock.advance(100_000)
        await scene.sweep()
    assert world.copies == 2
    await scene.session.renew()
    await world.objects.abort_upload(world.bucket, b"key", upload.upload_id)
    await scene.sweep_on()
    assert world.copies == 0
