"""Following up what nodes report as damaged: what is queued, what may be forgotten, and how often is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.maintenance import damage
from cluster.maintenance.damage import DamageReports
from cluster.maintenance.pieces import stored_id_of
from cluster.maintenance.repair_queue import RepairQueue
from storage.base.ids import ChunkId, stored_chunk_id
from storage.datanode.wire import DamagedChunk
from storage.metadata.commands import SetReplicas
from tests.cluster.maintenance.scene import Scene, open_scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Five nodes."""
    async with open_scene(tmp_path, 5) as opened:
        yield opened


def reports_of(scene: Scene, queue: RepairQueue) -> DamageReports:
    """As the master has them."""
    return DamageReports(scene.metadata, scene.pool, queue, lambda: scene.cluster_map, scene.clock)


async def rot(scene: Scene, number: int, place) -> None:  # type: ignore[no-untyped-def]
    """A node's piece rots and its scrub finds it."""
    scene.damage(number, place)
    await scene.nodes[number].scrub()


async def test_as_endangered_as_without_the_piece(scene: Scene) -> None:
    """Queued under what the chunk survives with the others."""
    (two,) = await scene.put(b"two", "replica:2", [1, 2])
    (many,) = await scene.put(b"many", "ec:2+3", [1, 2, 3, 4, 5])
    await rot(scene, 1, two)
    await rot(scene, 1, many)
    queue = RepairQueue()
    await reports_of(scene, queue).run()
    first, second = queue.take(0), queue.take(0)
    assert first is not None
    assert second is not None
    assert (first.blob_id, first.losses_left) == (two.blob_id, 0)
    assert (second.blob_id, second.losses_left) == (many.blob_id, 2)
    assert len(scene.nodes[1].damaged) == 2


async def test_what_the_records_do_not_count_on_is_forgotten(scene: Scene) -> None:
    """Repaired elsewhere, made good in place, another layout, no such row."""
    (moved,) = await scene.put(b"moved", "replica:2", [1, 2])
    (in_place,) = await scene.put(b"in-place", "replica:2", [1, 2])
    good = scene.nodes[1].chunks[stored_id_of(in_place)]
    for place in (moved, in_place):
        await rot(scene, 1, place)
    await scene.metadata.apply(SetReplicas(moved.blob_id, 0, (1, 2), (2, 3)))
    await scene.nodes[1].inner.put_many([(stored_id_of(in_place), good)])
    scene.nodes[1].damaged[stored_chunk_id(moved.blob_id, 0, 3)] = 1
    scene.nodes[1].damaged[ChunkId(bytes(16), 0)] = 1
    queue = RepairQueue()
    await reports_of(scene, queue).run()
    assert scene.nodes[1].damaged == {}
    assert len(queue) == 0


async def test_pages_are_gone_through(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the end of a long list, whatever of it stays on it."""
    monkeypatch.setattr(damage, "PAGE_CHUNKS", 2)
    places = [(await scene.put(b"key-%d" % number, "replica:2", [1, 2]))[0] for number in range(7)]
    for place in places:
        await rot(scene, 1, place)
    queue = RepairQueue()
    await reports_of(scene, queue).run()
    assert len(queue) == 7


async def test_what_cannot_be_made_good_is_asked_about_less_and_less(scene: Scene) -> None:
    """A node that keeps reporting the same is not asked every second; a new report is followed at once."""
    (place,) = await scene.put(b"key", "replica:1", [1])
    await rot(scene, 1, place)
    asked: list[float] = []
    listing = scene.nodes[1].list_damaged

    async def count(after: ChunkId | None, limit: int) -> Sequence[DamagedChunk]:
        asked.append(scene.clock.monotonic_s())
        return await listing(after, limit)

    scene.nodes[1].list_damaged = count  # type: ignore[method-assign, assignment]
    reports = reports_of(scene, RepairQueue())
    for _ in range(200):
        await reports.run()
        scene.clock.advance(1)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == [5, 10, 20, 40, 80]
    (other,) = await scene.put(b"other", "replica:2", [1, 2])
    await rot(scene, 1, other)
    await reports.run()
    assert asked[-1] == scene.clock.monotonic_s()
