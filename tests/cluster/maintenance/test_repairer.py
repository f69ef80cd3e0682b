"""Repair of one chunk against datanodes that fail as told: replicas and fragments, hinted at by reads or asked for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.maintenance.hint_repairs import HintRepairs
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.pieces import stored_id_of
from cluster.maintenance.repairer import Repairer
from cluster.maintenance.throttle import Throttle
from cluster.redundancy import parse_redundancy
from storage.base.clock import SystemClock
from storage.base.errors import Corrupt, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.metadata.commands import Command, DeleteTarget, SetReplicas
from storage.model import Chunk, NodeState
from tests.cluster.maintenance.scene import Scene as MasterScene
from tests.cluster.maintenance.scene import open_scene
from tests.cluster.world import QUICK, SETTINGS, World, open_world

# ------------------------------------------------------------------ its execution


class Scene:
    """One object of one chunk, and a repairer that runs when told."""

    def __init__(self, world: World, data: bytes) -> None:
        self.world = world
        self.data = data
        services = world.objects._writer._services
        self.hints = services.hints
        self.chunks = Repairer(
            world.metadata,
            services.nodes,
            PieceCopier(services.nodes, Throttle(1 << 30, SystemClock()), QUICK),
            lambda: world.map.cluster_map,
            NodeSlots(),
        )
        self.hinted = HintRepairs(self.chunks, services.hints)

    async def repair(self) -> int:
        """The pieces that a repair of the chunk made."""
        return (await self.chunks.repair((await self.chunk_id()).blob_id, 0, deep=True)).pieces

    async def row(self) -> Chunk:
        """The chunk's row."""
        read = await self.world.metadata.read_version(self.world.bucket.bucket_id, b"key")
        return read.blobs[0].chunks[0]

    async def chunk_id(self) -> ChunkId:
        """Its id."""
        read = await self.world.metadata.read_version(self.world.bucket.bucket_id, b"key")
        return ChunkId(read.blobs[0].blob_id, 0)

    async def damage(self, number: int) -> None:
        """One byte of a node's copy, on its medium."""
        chunk_id = await self.chunk_id()
        chunks = self.world.nodes[number].chunks
        chunks[chunk_id] = chunks[chunk_id][:-1] + bytes([chunks[chunk_id][-1] ^ 1])

    async def lose(self, number: int) -> None:
        """A node's copy."""
        await self.world.nodes[number].inner.delete_many([await self.chunk_id()])

    async def read_until_noticed(self) -> None:
        """Replicas are asked in a random order: until the bad one was."""
        for _ in range(100):
            assert await self.world.get(b"key") == self.data
            if len(self.hints):
                return
        raise AssertionError("the bad replica was never asked")

    async def require_two_good(self) -> Chunk:
        """The row names two nodes, and both have the same good bytes."""
        row, chunk_id = await self.row(), await self.chunk_id()
        assert len(set(row.nodes)) == 2
        for number in row.nodes:
            assert (await self.world.nodes[number].verify(chunk_id)).digest == row.digest
        assert await self.world.get(b"key") == self.data
        return row


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Four nodes."""
    async with open_world(tmp_path, node_count=4, deadlines=QUICK) as world:
        data = os.urandom(100_000)
        await world.put(b"key", data)
        yield Scene(world, data)


@pytest.mark.parametrize("how", ["lose", "damage"])
async def test_a_read_heals_what_it_found(scene: Scene, how: str) -> None:
    """The bad copy is replaced on another node, and the hint is gone."""
    first = await scene.row()
    await getattr(scene, how)(first.nodes[0])
    await scene.read_until_noticed()
    assert len(scene.hints) == 1
    await scene.hinted.run()
    row = await scene.require_two_good()
    assert first.nodes[0] not in row.nodes
    assert first.nodes[1] in row.nodes
    assert len(scene.hints) == 0
    assert scene.world.copies == 2, "what was damaged is set aside"


@pytest.mark.parametrize("doubtful", [0, 1])
async def test_the_node_that_lost_it_takes_it_back_when_no_other_can(scene: Scene, doubtful: int) -> None:
    """One more copy on a doubtful disk is better than none."""
    first = await scene.row()
    for number, other in scene.world.nodes.items():
        other.full = number not in first.nodes
    await scene.damage(first.nodes[doubtful])
    assert await scene.repair()
    assert set((await scene.require_two_good()).nodes) == set(first.nodes)


async def test_a_silent_node_is_waited_for(scene: Scene) -> None:
    """Nothing is copied and nothing forgotten: it may be back in a moment."""
    first = await scene.row()
    scene.world.nodes[first.nodes[0]].down = True
    await scene.read_until_noticed()
    await scene.hinted.run()
    assert (await scene.row()).nodes == first.nodes
    assert not any(node.pulls for node in scene.world.nodes.values())


async def test_without_a_good_copy_nothing_is_touched(scene: Scene) -> None:
    """Two bad copies are kept as they are; one bad and one silent as well."""
    first = await scene.row()
    await scene.damage(first.nodes[0])
    scene.world.nodes[first.nodes[1]].down = True
    with pytest.raises(Unavailable):
        await scene.repair()
    scene.world.nodes[first.nodes[1]].down = False
    await scene.damage(first.nodes[1])
    with pytest.raises(Corrupt):
        await scene.repair()
    assert scene.world.copies == 2


async def test_no_room_keeps_the_hint(scene: Scene) -> None:
    """It is tried again later, and the bad copy is named no more."""
    first = await scene.row()
    await scene.lose(first.nodes[0])
    await scene.read_until_noticed()
    for other in scene.world.nodes.values():
        other.pull_fails = True
    await scene.hinted.run()
    assert (await scene.row()).nodes == (first.nodes[1],)
    assert len(scene.hints) == 1
    with pytest.raises(NotEnoughNodes):
        await scene.repair()
    for other in scene.world.nodes.values():
        other.pull_fails = False
    await scene.hinted.run()
    await scene.require_two_good()


async def test_a_row_that_changed_meanwhile_wins(scene: Scene) -> None:
    """A copy that lost its race is not named and stays: another worker may be about to name it."""
    first, chunk_id = await scene.row(), await scene.chunk_id()
    await scene.lose(first.nodes[0])
    apply = scene.world.metadata.apply

    async def overtaken(command: Command) -> object:
        if isinstance(command, SetReplicas) and command.nodes != (first.nodes[1],):
            await apply(SetReplicas(chunk_id.blob_id, 0, first.nodes, (first.nodes[1],)))
        return await apply(command)

    scene.world.metadata.apply = overtaken  # type: ignore[method-assign]
    assert not await scene.repair()
    assert (await scene.row()).nodes == (first.nodes[1],)
    assert scene.world.copies == 2
    scene.world.metadata.apply = apply  # type: ignore[method-assign]
    assert await scene.repair()
    await scene.require_two_good()
    await scene.world.objects.delete(scene.world.bucket, [DeleteTarget(b"key")])
    assert (await scene.chunks.repair(bytes(16), 0)).pieces == 0


async def test_a_write_with_too_few_copies_is_healed(tmp_path: Path) -> None:
    """Where the operator accepts fewer copies, the missing one is made afterwards."""
    settings = replace(SETTINGS, copies_before_ack_min=1)
    async with open_world(tmp_path, node_count=3, deadlines=QUICK, settings=settings) as world:
        for number in (2, 3):
            world.nodes[number].full = True
        await world.put(b"key", data := os.urandom(100_000))
        scene = Scene(world, data)
        assert (await scene.row()).nodes == (1,)
        assert len(scene.hints) == 1
        for number in (2, 3):
            world.nodes[number].full = False
        await scene.hinted.run()
        await scene.require_two_good()


# ------------------------------------------------------------------ fragments, and what the master asks for


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[MasterScene]:
    """Seven nodes, no gateway."""
    async with open_scene(tmp_path, 7) as scene:
        yield scene


def repairer_of(scene: MasterScene) -> Repairer:
    """As the master has one."""
    copier = PieceCopier(scene.pool, Throttle(1 << 40, scene.clock), QUICK)
    return Repairer(scene.metadata, scene.pool, copier, lambda: scene.cluster_map, NodeSlots())


@pytest.mark.parametrize("redundancy", ["replica:3", "ec:2+1", "ec:3+2"])
@pytest.mark.parametrize("how", ["lost", "damaged", "dead", "draining"])
async def test_every_piece_is_replaced(cluster: MasterScene, redundancy: str, how: str) -> None:
    """Whatever becomes of one piece, at any position: there is a good one on another node, and the row names it."""
    width = parse_redundancy(redundancy).width
    for position in range(width):
        (place,) = await cluster.put(b"key", redundancy, range(1, width + 1))
        number = place.nodes[position]
        if how == "lost":
            await cluster.lose(number, place)
        elif how == "damaged":
            cluster.damage(number, place)
        else:
            await cluster.change(number, NodeState.DEAD if how == "dead" else NodeState.DRAINING)
        repaired = await repairer_of(cluster).repair(place.blob_id, 0, deep=how == "damaged")
        assert repaired.pieces == 1
        (after,) = await cluster.require_whole(place.blob_id)
        assert number not in after.nodes
        assert len(set(after.nodes) & set(place.nodes)) == width - 1
        if how in ("dead", "draining"):
            await cluster.change(number, NodeState.UP)


async def test_a_silent_draining_node_is_not_waited_for(cluster: MasterScene) -> None:
    """Its piece is made out of the others."""
    (place,) = await cluster.put(b"key", "ec:3+2", [1, 2, 3, 4, 5])
    await cluster.change(2, NodeState.DRAINING)
    cluster.nodes[2].down = True
    assert (await repairer_of(cluster).repair(place.blob_id, 0)).pieces == 1
    assert 2 not in (await cluster.require_whole(place.blob_id))[0].nodes


async def test_as_many_losses_as_there_is_parity(cluster: MasterScene) -> None:
    """Two of five at once; with three it is lost, and nothing is touched."""
    (place,) = await cluster.put(b"key", "ec:3+2", [1, 2, 3, 4, 5])
    for number in (1, 4):
        await cluster.lose(number, place)
    assert (await repairer_of(cluster).repair(place.blob_id, 0)).pieces == 2
    (whole,) = await cluster.require_whole(place.blob_id)
    for number in whole.nodes[:3]:
        await cluster.lose(number, whole)
    with pytest.raises(Corrupt):
        await repairer_of(cluster).repair(place.blob_id, 0)
    assert await cluster.place(place.blob_id) == whole
    cluster.nodes[whole.nodes[3]].down = True
    with pytest.raises(Unavailable):
        await repairer_of(cluster).repair(place.blob_id, 0)


async def test_rot_that_nobody_noticed_is_no_source(cluster: MasterScene) -> None:
    """A source whose digest is right and whose bytes are not: found while it is read, and replaced as well."""
    for redundancy in ("replica:3", "ec:3+2"):
        width = parse_redundancy(redundancy).width
        (place,) = await cluster.put(b"key", redundancy, range(1, width + 1))
        await cluster.lose(place.nodes[0], place)
        cluster.damage(place.nodes[1], place)
        repairer = repairer_of(cluster)
        for _ in range(2):  # the rotten one may not have been among the sources of the first
            await repairer.repair(place.blob_id, 0)
            await repairer.repair(place.blob_id, 0, deep=True)
        await cluster.require_whole(place.blob_id)


async def test_nowhere_to_go_keeps_what_may_come_back(tmp_path: Path) -> None:
    """As many nodes as pieces: the dead one stays named, and counts again when it returns."""
    async with open_scene(tmp_path, 5) as scene:
        (place,) = await scene.put(b"key", "ec:3+2", [1, 2, 3, 4, 5])
        await scene.change(3, NodeState.DEAD)
        with pytest.raises(NotEnoughNodes):
            await repairer_of(scene).repair(place.blob_id, 0)
        assert await scene.place(place.blob_id) == place
        await scene.change(3, NodeState.UP)
        assert (await repairer_of(scene).repair(place.blob_id, 0)).pieces == 0
        await scene.require_whole(place.blob_id)


async def test_a_piece_that_was_made_and_not_named_is_used(cluster: MasterScene) -> None:
    """A repair that stopped before it was named costs no second copy."""
    (place,) = await cluster.put(b"key", "replica:2", [1, 2])
    await cluster.lose(2, place)

    async def fail(command: Command) -> object:
        raise Unavailable("cut off")

    apply, cluster.metadata.apply = cluster.metadata.apply, fail  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await repairer_of(cluster).repair(place.blob_id, 0)
    cluster.metadata.apply = apply  # type: ignore[method-assign]
    pulls = sum(node.pulls for node in cluster.nodes.values())
    assert (await repairer_of(cluster).repair(place.blob_id, 0)).pieces == 1
    assert sum(node.pulls for node in cluster.nodes.values()) == pulls
    await cluster.require_whole(place.blob_id)


async def test_a_stray_saves_a_chunk_without_named_pieces(cluster: MasterScene) -> None:
    """Both replicas are lost; a node that the row does not name has one: read from the medium before it counts."""
    (place,) = await cluster.put(b"key", "replica:2", [1, 2])
    await cluster.nodes[5].inner.put_many([(stored_id_of(place), cluster.nodes[1].chunks[stored_id_of(place)])])
    await cluster.nodes[6].inner.put_many([(stored_id_of(place), b"other bytes")])
    for number in (1, 2):
        await cluster.lose(number, place)
    with pytest.raises(Corrupt):
        await repairer_of(cluster).repair(place.blob_id, 0, strays=[6])
    assert (await repairer_of(cluster).repair(place.blob_id, 0, strays=[5, 6])).pieces == 2
    assert 5 in (await cluster.require_whole(place.blob_id))[0].nodes


async def test_another_fragment_in_the_way_goes(tmp_path: Path) -> None:
    """The only node that is left holds another fragment of the chunk, which no row names."""
    async with open_scene(tmp_path, 4) as scene:
        (place,) = await scene.put(b"key", "ec:2+1", [1, 2, 3])
        await scene.nodes[4].inner.put_many([(stored_id_of(place), scene.nodes[1].chunks[stored_id_of(place)])])
        await scene.change(2, NodeState.DEAD)
        assert (await repairer_of(scene).repair(place.blob_id, 0)).pieces == 1
        (after,) = await scene.require_whole(place.blob_id)
        assert after.nodes == (1, 4, 3)


async def test_repairs_read_from_every_survivor(cluster: MasterScene) -> None:
    """The pieces of a dead node's chunks are made from all others alike."""
    places = [
        (await cluster.put(b"key-%d" % number, "replica:3", [1, 2 + number % 2, 4 + number % 4]))[0]
        for number in range(24)
    ]
    await cluster.change(1, NodeState.DEAD)
    repairer = repairer_of(cluster)
    for place in places:
        await repairer.repair(place.blob_id, 0)
        await cluster.require_whole(place.blob_id)
    survivors = [repairer.read_bytes[number] for number in range(2, 8)]
    assert max(survivors) <= 2 * min(survivors)
