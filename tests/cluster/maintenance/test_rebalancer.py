"""The rebalancer over real metadata: nodes become even, every object stays readable, whatever fails on the way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cluster.maintenance import rebalancer as rebalancer_module
from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.rebalancer import CENSUS_AGE_S_MAX, Rebalancer
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from storage.base.clock import ManualClock
from storage.base.errors import NotActiveMaster, Unavailable
from storage.metadata.commands import AcquireMasterLease, Command, DeleteTarget, SetReplicas
from storage.metadata.interface import ChunkPlace
from storage.model import NodeState
from tests.cluster.world import INTERNAL_KEY, QUICK, SETTINGS, World, open_world

OBJECTS = 120
SIZE = 20_000
"""bytes: one chunk, not inline"""
PAGE_PLACES = 32


class Watched:
    """Real metadata that counts the walks, and does as told before a command."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata
        self.pages = 0
        self.before: Any = None

    async def apply(self, command: Command) -> Any:
        if self.before is not None:
            await self.before(command)
        return await self._metadata.apply(command)

    async def list_chunk_places(self, after: tuple[bytes, int] | None, limit: int) -> list[ChunkPlace]:
        self.pages += 1
        found: list[ChunkPlace] = await self._metadata.list_chunk_places(after, limit)
        return found


class Scene:
    """Four nodes, the last of which joins when told."""

    def __init__(self, world: World, clock: ManualClock, moves_per_run: int = 1_000) -> None:
        self.world = world
        self.clock = clock
        self.metadata = Watched(world.metadata)
        self.claims = BlobClaims()
        self.term = 0
        pool = NodePool(INTERNAL_KEY, clock, lambda node: world.nodes[node.number])

        async def wait(seconds: float) -> None:
            clock.advance(seconds)

        copier = PieceCopier(pool, Throttle(1 << 20, clock, wait), QUICK)
        self.rebalancer = Rebalancer(
            self.metadata,  # type: ignore[arg-type]
            pool,
            copier,
            self.claims,
            lambda: world.map.cluster_map,
            lambda: self.term,
            clock,
            page_places=PAGE_PLACES,
            moves_per_run=moves_per_run,
            pause_s=0,
        )
        self.bodies: dict[bytes, bytes] = {}

    async def fill(self) -> None:
        """Objects on the first three nodes."""
        await self.world.map.change(self.world.nodes[number].node() for number in (1, 2, 3))
        for number in range(OBJECTS):
            key = b"key-%d" % number
            self.bodies[key] = os.urandom(SIZE)
            await self.world.put(key, self.bodies[key])

    async def join(self) -> None:
        """The fourth node is there."""
        await self.world.map.change(node.node() for node in self.world.nodes.values())

    async def named(self) -> Counter[int]:
        """Pieces by node, as the records have them."""
        places = await self.world.metadata.list_chunk_places(None, 10_000)
        return Counter(number for place in places for number in place.nodes)

    async def verify(self) -> None:
        """Every object reads back, every chunk is on two nodes that hold it."""
        for place in await self.world.metadata.list_chunk_places(None, 10_000):
            assert len(set(place.nodes)) == 2
            for number in place.nodes:
                assert any(held.blob_id == place.blob_id for held in self.world.nodes[number].chunks)
        for key, body in self.bodies.items():
            assert await self.world.get(key) == body

    async def run_to_the_end(self) -> int:
        """How many runs until one moves nothing."""
        for count in range(1, 100):
            before = self.rebalancer.totals["moved"]
            await self.rebalancer.run()
            if self.rebalancer.totals["moved"] == before:
                return count
        raise AssertionError("it never comes to rest")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Filled; the fourth node has not joined."""
    clock = ManualClock()
    async with open_world(tmp_path, clock=clock, settings=SETTINGS, node_count=4) as world:
        made = Scene(world, clock)
        await made.fill()
        yield made


async def test_a_node_that_joins_gets_its_share(scene: Scene) -> None:
    """From all the others; objects stay as they are. The old copies stay where they were, for the survey to remove."""
    before = await scene.named()
    await scene.rebalancer.run()
    assert await scene.named() == before, "even nodes are left alone"
    await scene.join()
    await scene.run_to_the_end()
    after = await scene.named()
    assert max(after.values()) <= 1.1 * min(after.values())
    assert all(before[number] > after[number] for number in (1, 2, 3))
    assert scene.world.copies == 2 * OBJECTS + after[4]
    await scene.verify()
    counts = scene.rebalancer.counts
    assert counts["moved"] == after[4]
    assert counts["done"] == counts["total"] == counts["moved_bytes"] > after[4] * SIZE
    assert counts.get("failed", 0) == 0


async def test_bytes_move_at_the_pace_of_the_throttle(scene: Scene) -> None:
    """1 MiB a second, and a burst of a quarter."""
    await scene.join()
    began_s = scene.clock.monotonic_s()
    await scene.rebalancer.run()
    moved = scene.rebalancer.counts["moved_bytes"]
    assert scene.clock.monotonic_s() - began_s >= (moved - (1 << 18)) / (1 << 20)


async def test_short_runs_go_on_where_the_last_one_stopped(scene: Scene) -> None:
    """Each moves no more than it may; together they move no more than one long run would."""
    scene.rebalancer._moves_per_run = 10
    await scene.join()
    for run in range(1, 4):
        await scene.rebalancer.run()
        assert scene.rebalancer.counts["moved"] == 10 * run
        assert scene.rebalancer.counts["done"] < scene.rebalancer.counts["total"]
    await scene.run_to_the_end()
    after = await scene.named()
    assert max(after.values()) <= 1.1 * min(after.values())
    assert scene.rebalancer.counts["moved"] == after[4]
    await scene.verify()


async def test_what_rests_is_counted_again_only_for_a_reason(scene: Scene) -> None:
    """A change of nodes, ten minutes, an order."""
    pages = -(-OBJECTS // PAGE_PLACES)

    async def counted() -> int:
        before = scene.metadata.pages
        await scene.rebalancer.run()
        return scene.metadata.pages - before

    assert await counted() == pages
    assert await counted() == 0
    scene.clock.advance(CENSUS_AGE_S_MAX)
    assert await counted() == pages
    scene.rebalancer.order()
    assert await counted() >= pages
    assert await counted() == 0
    await scene.join()
    assert await counted() > pages
    assert scene.rebalancer.counts["moved"]


async def test_an_order_evens_out_what_would_be_left(scene: Scene) -> None:
    """A little uneven is not worth a run by itself."""
    places = await scene.world.metadata.list_chunk_places(None, 10_000)
    source, target = 1, 2
    shifted = [place for place in places if source in place.nodes and target not in place.nodes][:3]
    for place in shifted:
        nodes = tuple(target if number == source else number for number in place.nodes)
        await scene.world.nodes[target].inner.put_many(
            [(held, data) for held, data in scene.world.nodes[source].chunks.items() if held.blob_id == place.blob_id]
        )
        assert await scene.world.metadata.apply(SetReplicas(place.blob_id, 0, place.nodes, nodes))
    await scene.rebalancer.run()
    assert scene.rebalancer.counts.get("moved", 0) == 0
    scene.rebalancer.order()
    await scene.rebalancer.run()
    assert 0 < scene.rebalancer.counts["moved"] <= 3
    after = await scene.named()
    assert max(after.values()) <= 1.04 * min(after.values())
    await scene.verify()


async def test_nothing_moves_while_a_node_is_silent_for_a_moment(scene: Scene) -> None:
    """It is back soon, or its pieces are made anew: either way this is not the time."""
    await scene.world.map.change(
        node.node(NodeState.SUSPECT if node.number == 2 else NodeState.UP) for node in scene.world.nodes.values()
    )
    await scene.rebalancer.run()
    assert scene.metadata.pages == 0
    await scene.join()
    await scene.rebalancer.run()
    assert scene.rebalancer.counts["moved"]


async def test_a_target_that_takes_nothing_is_left_alone(scene: Scene) -> None:
    """Nothing is named there, and it is tried less and less often."""
    await scene.join()
    scene.world.nodes[4].full = True
    before = await scene.named()
    assert await scene.run_to_the_end() == 1
    assert await scene.named() == before
    assert scene.rebalancer.counts["failed"]
    waits, since_s = [], 0
    for _ in range(200):
        pages = scene.metadata.pages
        scene.clock.advance(60)
        since_s += 60
        await scene.rebalancer.run()
        if scene.metadata.pages > pages:
            waits.append(since_s)
            since_s = 0
    assert waits[:6] == [60, 120, 240, 480, 960, 1800]
    assert set(waits[6:]) == {1800}
    await scene.verify()
    scene.world.nodes[4].full = False
    scene.clock.advance(1800)
    await scene.rebalancer.run()
    assert scene.rebalancer.counts["moved"]


async def test_a_row_that_changed_meanwhile_keeps_its_nodes(scene: Scene) -> None:
    """Somebody else's change wins: the copy that was made is named by nobody."""
    await scene.join()
    changed: dict[bytes, tuple[int, ...]] = {}

    async def race(command: Command) -> None:
        assert isinstance(command, SetReplicas)
        if len(changed) < 5:
            nodes = command.expected[::-1]
            changed[command.blob_id] = nodes
            await scene.world.metadata.apply(SetReplicas(command.blob_id, 0, command.expected, nodes))

    scene.metadata.before = race
    await scene.rebalancer.run()
    places = {place.blob_id: place for place in await scene.world.metadata.list_chunk_places(None, 10_000)}
    assert len(changed) == 5
    assert {blob_id: places[blob_id].nodes for blob_id in changed} == changed
    assert scene.rebalancer.counts["failed"] == 5
    await scene.verify()


async def test_a_deleted_object_stays_deleted(scene: Scene) -> None:
    """Released while its piece was copied: no row comes back, and what was copied is named by nobody."""
    await scene.join()
    deleted: list[bytes] = []

    async def delete(command: Command) -> None:
        if isinstance(command, SetReplicas) and not deleted:
            deleted.append(b"key-0")
            await scene.world.objects.delete(scene.world.bucket, [DeleteTarget(b"key-0")])

    scene.metadata.before = delete
    await scene.run_to_the_end()
    assert deleted
    del scene.bodies[b"key-0"]
    await scene.verify()


async def test_a_blob_that_another_job_has_in_hand_is_left_alone(scene: Scene) -> None:
    """Neither moved nor counted as a failure."""
    await scene.join()
    places = await scene.world.metadata.list_chunk_places(None, 10_000)
    blob_ids = {place.blob_id for place in places}
    with ExitStack() as held:
        for blob_id in blob_ids:
            held.enter_context(scene.claims.claim(blob_id))
        await scene.rebalancer.run()
        assert scene.rebalancer.counts.get("moved", 0) == scene.rebalancer.counts["failed"] == 0
    scene.rebalancer.order()
    await scene.rebalancer.run()
    assert scene.rebalancer.counts["moved"]
    assert not any(blob_id in scene.claims for blob_id in blob_ids)


async def test_a_master_whose_term_is_over_names_nothing(scene: Scene) -> None:
    """Another one took over: its records refuse, and the run ends."""
    await scene.join()
    scene.term = (await scene.world.metadata.apply(AcquireMasterLease("a" * 16, "unix:/a", 60_000))).term
    await scene.world.metadata.apply(AcquireMasterLease("b" * 16, "unix:/a", 60_000, True))
    before = await scene.named()
    with pytest.raises(NotActiveMaster):
        await scene.rebalancer.run()
    assert await scene.named() == before
    await scene.verify()


async def test_without_the_metadata_a_run_fails_and_is_taken_again(scene: Scene) -> None:
    """What was due stays due."""
    await scene.join()

    async def away(after: object, limit: int) -> list[ChunkPlace]:
        raise Unavailable("the metadata is away")

    listed, scene.metadata.list_chunk_places = scene.metadata.list_chunk_places, away  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable):
        await scene.rebalancer.run()
    scene.metadata.list_chunk_places = listed  # type: ignore[method-assign]
    await scene.rebalancer.run()
    assert scene.rebalancer.counts["moved"]


async def test_a_walk_sees_every_record_once_wherever_it_begins(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first, between two, after the last; in pages of every size."""
    expected = sorted(
        (place.blob_id, place.chunk_index) for place in await scene.metadata.list_chunk_places(None, 10_000)
    )
    begins = [None, (bytes(16), 0), expected[0], expected[40], expected[-1], (b"\xff" * 16, 0)]
    for page_places in (1, 7, len(expected), 1_000):
        scene.rebalancer._page_places = page_places
        for begin in begins:
            seen = [
                (place.blob_id, place.chunk_index) async for page in scene.rebalancer._walk(begin) for place in page
            ]
            assert sorted(seen) == expected, (page_places, begin)
    assert rebalancer_module.MOVES_AT_ONCE < rebalancer_module.MOVES_PER_RUN_MAX


async def test_crowded_chunks_are_spread_when_a_zone_is_back(tmp_path: Path) -> None:
    """Placed while the third node was away, which alone is in the other zone: soon it has a piece of everything, and
    evenness does not undo that."""
    clock = ManualClock()
    async with open_world(tmp_path, clock=clock, settings=SETTINGS, node_count=3) as world:
        for number, zone in ((1, "a"), (2, "a"), (3, "b")):
            world.nodes[number].failure_domain = f"{zone}/host-{number}/disk"
        made = Scene(world, clock)
        made.rebalancer._moves_per_run = 50
        await world.map.change(world.nodes[number].node() for number in (1, 2))
        for number in range(OBJECTS):
            made.bodies[b"key-%d" % number] = os.urandom(SIZE)
            await world.put(b"key-%d" % number, made.bodies[b"key-%d" % number])
        assert (await made.named())[3] == 0
        await made.rebalancer.run()
        assert made.rebalancer.counts.get("moved", 0) == 0
        await world.map.change(node.node() for node in world.nodes.values())
        await made.run_to_the_end()
        named = await made.named()
        assert named[3] == OBJECTS
        assert made.rebalancer.counts["moved"] >= OBJECTS
        assert max(named[1], named[2]) <= 1.1 * min(named[1], named[2])
        await made.verify()
        before = made.rebalancer.counts["moved"]
        made.rebalancer.order()
        await made.run_to_the_end()
        assert made.rebalancer.counts["moved"] == before, "it rests"
