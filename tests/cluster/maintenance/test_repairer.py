"""Repair of one chunk as the master asks for it: replicas and fragments, on nodes that fail, die and are drained."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.deadlines import Deadlines
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.pieces import stored_id_of
from cluster.maintenance.repairer import Repairer
from cluster.maintenance.throttle import Throttle
from cluster.redundancy import parse_redundancy
from storage.base.errors import Corrupt, NodeUnreachable, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt
from storage.metadata.commands import Command
from storage.model import NodeState
from tests.cluster.maintenance.scene import Scene, open_scene


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Scene]:
    """Seven nodes, no gateway."""
    async with open_scene(tmp_path, 7) as scene:
        yield scene


def repairer_of(scene: Scene) -> Repairer:
    """As the master has one."""
    copier = PieceCopier(scene.pool, Throttle(1 << 40, scene.clock), Deadlines())
    return Repairer(scene.metadata, scene.pool, copier, lambda: scene.cluster_map, NodeSlots())


@pytest.mark.parametrize("redundancy", ["replica:3", "ec:2+1", "ec:3+2"])
@pytest.mark.parametrize("how", ["lost", "damaged", "dead", "draining"])
async def test_every_piece_is_replaced(cluster: Scene, redundancy: str, how: str) -> None:
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


async def test_a_silent_draining_node_is_not_waited_for(cluster: Scene) -> None:
    """Its piece is made out of the others."""
    (place,) = await cluster.put(b"key", "ec:3+2", [1, 2, 3, 4, 5])
    await cluster.change(2, NodeState.DRAINING)
    cluster.nodes[2].down = True
    assert (await repairer_of(cluster).repair(place.blob_id, 0)).pieces == 1
    assert 2 not in (await cluster.require_whole(place.blob_id))[0].nodes


async def test_as_many_losses_as_there_is_parity(cluster: Scene) -> None:
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


async def test_rot_that_nobody_noticed_is_no_source(cluster: Scene) -> None:
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


async def test_a_node_that_has_room_again_is_used(tmp_path: Path) -> None:
    """Though the map with its newer figures has the epoch of the one before."""
    async with open_scene(tmp_path, 6) as scene:
        (place,) = await scene.put(b"key", "ec:3+2", [1, 2, 3, 4, 5])
        scene.nodes[6].free_bytes = 0
        await scene.change(3, NodeState.DRAINING)
        repairer = repairer_of(scene)
        with pytest.raises(NotEnoughNodes):
            await repairer.repair(place.blob_id, 0)
        scene.nodes[6].free_bytes = 1 << 40
        assert (await repairer.repair(place.blob_id, 0)).pieces == 1
        (after,) = await scene.require_whole(place.blob_id)
        assert 6 in after.nodes


async def test_a_piece_that_was_made_and_not_named_is_used(cluster: Scene) -> None:
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


async def test_a_stray_saves_a_chunk_without_named_pieces(cluster: Scene) -> None:
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
        assert await scene.nodes[4].repeat_orders() == 1
        await scene.require_whole(place.blob_id)


@pytest.mark.parametrize("how", ["rotten", "cut off", "other bytes"])
async def test_an_order_that_comes_again_leaves_the_good_piece(tmp_path: Path, how: str) -> None:
    """The node whose piece was bad is the only one that may take a good one, and hears the order twice."""
    async with open_scene(tmp_path, 3) as scene:
        (place,) = await scene.put(b"key", "replica:3", [1, 2, 3])
        chunk_id, node = stored_id_of(place), scene.nodes[2]
        if how == "rotten":
            scene.damage(2, place)
        elif how == "cut off":
            node.chunks[chunk_id] = node.chunks[chunk_id][:-1]
        else:
            await scene.lose(2, place)
            await node.inner.put_many([(chunk_id, b"other bytes")])
        scene.clock.advance(1)
        assert (await repairer_of(scene).repair(place.blob_id, 0, deep=True)).pieces == 1
        assert await node.repeat_orders() == 1
        await scene.require_whole(place.blob_id)


async def test_a_piece_that_was_made_good_meanwhile_is_not_set_aside(tmp_path: Path) -> None:
    """By another repairer, after this one had read the bad one."""
    async with open_scene(tmp_path, 3) as scene:
        (place,) = await scene.put(b"key", "replica:3", [1, 2, 3])
        chunk_id, node = stored_id_of(place), scene.nodes[2]
        good = node.chunks[chunk_id]
        scene.damage(2, place)
        scene.clock.advance(1)
        reads, verify = 0, node.verify

        async def verify_late(of: ChunkId) -> ChunkReceipt:
            nonlocal reads
            reads += 1
            try:
                return await verify(of)
            finally:
                if reads == 2:
                    await node.inner.put_many([(of, good)])

        node.verify = verify_late  # type: ignore[method-assign]
        await repairer_of(scene).repair(place.blob_id, 0, deep=True)
        assert len(node.orders) == 1
        await scene.require_whole(place.blob_id)
        assert await node.purge_quarantine(1 << 60) == 1


@pytest.mark.parametrize("redundancy", ["replica:3", "ec:2+1"])
async def test_a_piece_that_was_made_good_meanwhile_stays_named(
    tmp_path: Path, redundancy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another repairer, in its place, while this one waited for a piece that did not come."""
    async with open_scene(tmp_path, 3) as scene:
        (place,) = await scene.put(b"key", redundancy, [1, 2, 3])
        chunk_id, node = stored_id_of(place), scene.nodes[2]
        good = node.chunks[chunk_id]
        await scene.lose(2, place)

        async def fail_late(of: ChunkId, _: object) -> ChunkReceipt:
            await node.inner.put_many([(of, good)])
            raise NodeUnreachable("too late")

        monkeypatch.setattr(node, "pull", fail_late)
        monkeypatch.setattr(node, "rebuild", fail_late)
        repairer = repairer_of(scene)
        assert not (await repairer.repair(place.blob_id, 0)).is_settled
        assert await scene.require_whole(place.blob_id) == [place]
        assert (await repairer.repair(place.blob_id, 0)).is_settled


async def test_repairs_read_from_every_survivor(cluster: Scene) -> None:
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
