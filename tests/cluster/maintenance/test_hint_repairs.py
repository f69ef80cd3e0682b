"""Repair of what a worker's reads and writes noticed, against datanodes that fail as told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.maintenance.hint_repairs import HintRepairs
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.repairer import Repairer
from cluster.maintenance.throttle import Throttle
from storage.base.clock import SystemClock
from storage.base.errors import Corrupt, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.metadata.commands import Command, DeleteTarget, SetReplicas
from storage.model import Chunk
from tests.cluster.world import QUICK, SETTINGS, World, open_world


class Scene:
    """One object of one chunk, and a repairer that runs when told."""

    def __init__(self, world: World, data: bytes) -> None:
        self.world = world
        self.data = data
        nodes = world.cluster.operations._nodes
        self.hints = world.cluster.operations._hints
        self.chunks = Repairer(
            world.metadata,
            nodes,
            PieceCopier(nodes, Throttle(1 << 30, SystemClock()), QUICK),
            lambda: world.map.cluster_map,
            NodeSlots(),
        )
        self.hinted = HintRepairs(self.chunks, self.hints)

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


async def test_who_lost_a_race_looks_once_more(scene: Scene) -> None:
    """It may have put another piece where the winner's was, which no listing would tell."""
    first, chunk_id = await scene.row(), await scene.chunk_id()
    await scene.lose(first.nodes[0])
    await scene.read_until_noticed()
    apply = scene.world.metadata.apply

    async def overtaken(command: Command) -> object:
        if isinstance(command, SetReplicas):
            scene.world.metadata.apply = apply  # type: ignore[method-assign]
            await apply(SetReplicas(chunk_id.blob_id, 0, first.nodes, (first.nodes[1],)))
        return await apply(command)

    scene.world.metadata.apply = overtaken  # type: ignore[method-assign]
    await scene.hinted.run()
    await scene.require_two_good()
    assert len(scene.hints) == 0


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
