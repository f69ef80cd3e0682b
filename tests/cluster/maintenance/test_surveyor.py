"""The survey over real metadata and nodes in memory: what fails is found and repaired, what is lost is told by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cluster.maintenance import walk
from cluster.maintenance.pieces import stored_id_of
from cluster.maintenance.surveyor import NODES_POLL_S
from cluster.registry.state import Holdings
from storage.base.errors import Unavailable
from storage.base.ids import ChunkId
from storage.metadata.commands import SetNodeClosed
from storage.model import NodeState
from tests.cluster.maintenance.scene import open_scene
from tests.cluster.maintenance.survey_master import Master, fill, require_whole

# ------------------------------------------------------------------ what it tells


async def test_a_healthy_cluster_is_told_healthy(master: Master) -> None:
    """Every figure: chunks, pieces and bytes of each node, what is survived; and nothing is touched."""
    placed = await fill(master.scene)
    status = await master.walk()
    chunks = sum(map(len, placed))
    assert (status.walks, status.chunks, status.healthy) == (1, chunks, chunks)
    assert status.degraded == status.endangered == status.unavailable == status.lost == status.queued == 0
    held = {number: len(node.chunks) for number, node in master.scene.nodes.items()}
    assert {node.number: node.named_pieces for node in status.nodes} == held
    assert {node.number: node.listed_pieces for node in status.nodes} == held
    stored = {number: sum(map(len, node.chunks.values())) for number, node in master.scene.nodes.items()}
    assert {node.number: node.named_bytes for node in status.nodes} == stored
    assert {node.number: node.listed_bytes for node in status.nodes} == stored
    assert sum(status.losses["disks"].values()) == chunks
    assert set(status.losses["disks"]) == {1, 2}
    await master.repairs.run()
    assert await require_whole(master.scene, placed) == {1, 2, 3, 4, 5, 6}


async def test_a_lost_node_of_small_pieces_costs_few_calls(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """What many repairs ask the records or a node at the same time goes in one call; and all of them are done."""
    scene = master.scene
    placed = [await scene.put(b"key-%d" % number, "replica:2", [1, 2 + number % 5], length=900) for number in range(60)]
    calls: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        call = getattr(owner, name)

        async def counted(*arguments: Any) -> Any:
            calls[name] += 1
            return await call(*arguments)

        monkeypatch.setattr(owner, name, counted)

    await scene.change(1, NodeState.DEAD)
    await master.walk()
    count(scene.metadata, "find_chunk_places")
    for node in scene.nodes.values():
        count(node, "inspect_many")
        count(node, "pull_many")
    await master.repairs.run()
    assert master.repairs.totals["pieces"] == 60
    assert calls.total() < 60, calls
    assert 1 not in await require_whole(scene, placed)


async def test_pages_of_any_size_find_the_same(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of whole blobs, whatever the pages: nothing is missing, nothing counted twice."""
    await fill(master.scene, count=9)
    await master.scene.nodes[1].inner.delete_many([next(iter(master.scene.nodes[1].chunks))])
    tellings = []
    for rows, entries in ((1000, 1000), (1, 1), (2, 3), (3, 2), (7, 1)):
        monkeypatch.setattr(walk.Walk.__init__, "__defaults__", (rows, entries))
        fresh = Master(master.scene)
        status = await fresh.walk()
        tellings.append((status.chunks, status.healthy, status.missing_pieces, status.nodes, status.losses))
    assert tellings[0][2] == 1
    assert all(telling == tellings[0] for telling in tellings)


async def test_what_is_lost_is_told_by_name(master: Master) -> None:
    """Lost where all nodes answer, unavailable where one that is silent may have it; nothing of it is touched."""
    scene = master.scene
    (lost,) = await scene.put(b"lost", "replica:2", [1, 2])
    (silent,) = await scene.put(b"silent", "ec:3+2", [1, 2, 3, 4, 5])
    await scene.put(b"fine", "replica:2", [3, 4])
    for number in (1, 2):
        await scene.lose(number, lost)
        await scene.lose(number, silent)
    scene.nodes[5].down = True
    status = await master.walk()
    assert (status.lost, status.unavailable, status.healthy) == (1, 1, 1)
    assert [(it.state, it.object_key) for it in status.affected] == [("lost", "lost"), ("unavailable", "silent")]
    assert status.silent_nodes == (5,)
    assert status.queued == 0
    assert await scene.place(lost.blob_id) == lost
    assert await scene.place(silent.blob_id) == silent
    scene.nodes[5].down = False
    status = await master.settle(80)
    assert (status.lost, status.unavailable, status.healthy) == (1, 0, 2)


async def test_what_moved_during_the_walk_is_not_missing(master: Master) -> None:
    """The listing is older than the row: a second look finds it."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    inventory = scene.nodes[1].inventory

    async def before(after: ChunkId | None, limit: int) -> list[object]:
        return [entry for entry in await inventory(after, limit) if entry.chunk_id != stored_id_of(place).to_bytes()]

    scene.nodes[1].inventory = before  # type: ignore[method-assign, assignment]
    status = await master.walk()
    assert (status.missing_pieces, status.healthy, status.queued) == (0, 1, 0)


# ------------------------------------------------------------------ repair


async def test_a_dead_node_is_replaced_and_its_return_is_surplus(master: Master) -> None:
    """Full redundancy on the others; what comes back goes, last and verified, after its time."""
    scene = master.scene
    placed = await fill(scene)
    await master.settle(10)
    scene.nodes[2].down = True
    await scene.change(2, NodeState.DEAD)
    status = await master.settle(60)
    named = await require_whole(scene, placed)
    assert 2 not in named
    assert (status.healthy, status.queued, status.lost) == (status.chunks, 0, 0)
    scene.nodes[2].down = False
    await scene.change(2, NodeState.UP)
    status = await master.settle(30)
    assert status.surplus_pieces == len(scene.nodes[2].chunks) > 0
    assert status.removed_surplus_pieces == 0
    await master.settle(200)
    assert not scene.nodes[2].chunks
    status = await master.walk()
    assert status.surplus_pieces == 0
    assert 2 not in await require_whole(scene, placed)


async def test_pieces_that_rows_still_name_count_again(tmp_path: Path) -> None:
    """Five nodes for five pieces: the dead one cannot be replaced, and is not."""
    async with open_scene(tmp_path, 5) as scene:
        master = Master(scene)
        placed = [await scene.put(b"key-%d" % number, "ec:3+2", [1, 2, 3, 4, 5]) for number in range(3)]
        await scene.change(4, NodeState.DEAD)
        scene.nodes[4].down = True
        status = await master.settle(60)
        assert (status.degraded, status.queued) == (3, 0)
        await scene.change(4, NodeState.UP)
        scene.nodes[4].down = False
        status = await master.settle(30)
        assert (status.healthy, status.surplus_pieces, status.repaired_pieces) == (3, 0, 0)
        await require_whole(scene, placed)


async def test_a_scrub_that_found_rot_is_followed_up(master: Master) -> None:
    """Repaired elsewhere or on the node itself, and then the node may forget it."""
    scene = master.scene
    placed = await fill(scene)
    for places in placed:
        scene.damage(places[0].nodes[0], places[0])
    for node in scene.nodes.values():
        await node.scrub()
    assert sum(len(node.damaged) for node in scene.nodes.values()) == len(placed)
    status = await master.settle(30)
    assert status.damaged_pieces == 0
    assert not any(node.damaged for node in scene.nodes.values())
    await require_whole(scene, placed)


async def test_damage_without_a_good_piece_stays_on_the_list(master: Master) -> None:
    """The node keeps telling of it until the object is deleted."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    for number in (1, 2):
        scene.damage(number, place)
        await scene.nodes[number].scrub()
    status = await master.settle(60)
    assert (status.lost, status.damaged_pieces) == (1, 2)
    await scene.worker.delete(b"key")
    status = await master.settle(700)
    assert status.damaged_pieces == 0


async def test_a_good_piece_that_turns_up_late_saves_what_could_not_be_repaired(master: Master) -> None:
    """Of a node that comes back with what no row names: the repair that failed again and again tries it."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    piece = scene.nodes[1].chunks[stored_id_of(place)]
    for number in (1, 2):
        scene.damage(number, place)
        await scene.nodes[number].scrub()
    assert (await master.settle(60)).lost == 1
    await scene.nodes[5].inner.put_many([(stored_id_of(place), piece)])
    status = await master.settle(1_200)
    assert (status.lost, status.damaged_pieces) == (0, 0)
    assert 5 in (await scene.require_whole(place.blob_id))[0].nodes


async def test_the_most_endangered_first(tmp_path: Path) -> None:
    """Two dead nodes: chunks that lost two pieces are repaired before those that lost one."""
    async with open_scene(tmp_path, 8) as scene:
        master = Master(scene)
        one = [await scene.put(b"one-%d" % number, "ec:2+2", [1, 3, 4, 5]) for number in range(6)]
        both = [await scene.put(b"two-%d" % number, "ec:2+2", [1, 2, 3, 4]) for number in range(6)]
        for number in (1, 2):
            await scene.change(number, NodeState.DEAD)
        await master.walk()
        order = []
        while (item := master.queue.take(scene.clock.monotonic_s())) is not None:
            order.append(item.blob_id)
        assert order[:6] == sorted(places[0].blob_id for places in both)
        assert set(order[6:]) == {places[0].blob_id for places in one}


# ------------------------------------------------------------------ drains


async def test_a_drained_node_is_closed_looked_for_and_retired(master: Master) -> None:
    """Its pieces move, then nothing can name it, then it is gone; everything is whole on the others."""
    scene = master.scene
    placed = await fill(scene)
    await master.settle(10)
    await scene.change(3, NodeState.DRAINING)
    await master.surveyor.run()
    (drain,) = master.status.drains
    assert drain.pieces_left == len(scene.nodes[3].chunks)
    assert drain.bytes_left == sum(map(len, scene.nodes[3].chunks.values()))
    assert not drain.is_safe
    await master.settle(60)
    assert master.registry.orders == [("close", 3), ("retire", 3)]
    assert 3 not in await require_whole(scene, placed)
    scene.nodes[3].down = True
    status = await master.walk()
    assert status.healthy == status.chunks


async def test_a_commit_just_before_the_closing_is_moved_as_well(master: Master) -> None:
    """It came behind the walk: the last look finds it, and the drain goes on."""
    scene = master.scene
    await scene.change(3, NodeState.DRAINING)
    await master.walk()
    assert master.registry.orders == [("close", 3)]
    scene.closed.clear()  # as a commit that was applied before the closing
    await scene.metadata.apply(SetNodeClosed(scene.nodes[3].node().report.node_id, False))
    late = await scene.put(b"late", "replica:2", [3, 4])
    await master.registry.close(scene.nodes[3].node().report.node_id)
    await master.walk()
    assert ("retire", 3) not in master.registry.orders
    await master.settle(60)
    assert master.registry.orders[-1] == ("retire", 3)
    assert 3 not in await require_whole(scene, [late])


async def test_a_drain_of_what_cannot_be_moved_is_not_safe(tmp_path: Path) -> None:
    """Two nodes for two copies: the drained one is kept, and status says what is left."""
    async with open_scene(tmp_path, 2) as scene:
        master = Master(scene)
        placed = [await scene.put(b"key", "replica:2", [1, 2])]
        await scene.change(2, NodeState.DRAINING)
        status = await master.settle(60)
        assert master.registry.orders == []
        assert [(drain.pieces_left, drain.is_safe) for drain in status.drains] == [(1, False)]
        await require_whole(scene, placed)


# ------------------------------------------------------------------ interruptions


async def test_what_a_node_holds_is_not_known_when_another_one_died_since(tmp_path: Path) -> None:
    """The chunk could be read without it, and cannot any more."""
    async with open_scene(tmp_path, 2) as scene:
        master = Master(scene)
        await scene.put(b"key", "replica:2", [1, 2])
        await scene.change(1, NodeState.DRAINING)
        await master.walk()
        assert master.surveyor.holdings(1) == Holdings(1, 0, is_final=False)
        await scene.change(2, NodeState.DEAD)
        assert master.surveyor.holdings(1) is None
        await master.walk()
        assert master.surveyor.holdings(1) == Holdings(1, 1, is_final=False)


async def test_a_walk_goes_on_where_the_metadata_failed(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows that failed are taken again; in the end every chunk was counted once."""
    monkeypatch.setattr(walk.Walk.__init__, "__defaults__", (2, 2))
    scene = master.scene
    placed = await fill(scene, count=9)
    calls = {"list_chunk_places": 0, "find_chunk_places": 0}
    for name in calls:
        method = getattr(scene.metadata, name)

        async def sometimes(*arguments: object, name: str = name, method: object = method) -> object:
            calls[name] += 1
            if calls[name] % 3 == 2:
                raise Unavailable("away for a moment")
            return await method(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(scene.metadata, name, sometimes)
    await scene.lose(placed[1][0].nodes[0], placed[1][0])
    for _ in range(60):
        try:
            await master.surveyor.run()
        except Unavailable:
            continue
        break
    status = master.status
    assert (status.walks, status.chunks) == (1, sum(map(len, placed)))
    assert status.missing_pieces == 1
    assert sum(node.named_pieces for node in status.nodes) == sum(len(it.nodes) for its in placed for it in its)
    assert {node.number: node.listed_pieces for node in status.nodes} == {
        number: len(node.chunks) for number, node in scene.nodes.items()
    }


async def test_a_node_that_fails_midway_is_unknown(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces are neither good nor missing, and nothing is repaired for it."""
    monkeypatch.setattr(walk.Walk.__init__, "__defaults__", (2, 1))
    scene = master.scene
    placed = await fill(scene, count=9)
    inventory, asked = scene.nodes[2].inventory, []

    async def fails(after: ChunkId | None, limit: int) -> object:
        asked.append(after)
        scene.nodes[2].down = len(asked) > 2
        return await inventory(after, limit)

    scene.nodes[2].inventory = fails  # type: ignore[method-assign, assignment]
    status = await master.walk()
    assert status.chunks == sum(map(len, placed))
    assert status.silent_nodes == (2,)
    assert status.missing_pieces == 0
    assert status.healthy < status.chunks
    assert status.queued == 0


async def test_another_term_begins_with_nothing(master: Master) -> None:
    """What an earlier time as the active master knew is not relied on."""
    await fill(master.scene)
    await master.walk()
    master.registry.term = 7
    assert master.status.walks == 1
    await master.surveyor.run()
    assert master.status.walks == 1
    assert master.surveyor.holdings(1) is not None


async def test_a_map_of_an_epoch_that_came_again_is_followed(tmp_path: Path) -> None:
    """After records were lost: the nodes of the new map are asked."""
    async with open_scene(tmp_path, 3) as scene:
        master = Master(scene)
        await scene.put(b"key", "replica:2", [1, 3])
        unknown = scene.nodes.pop(3)
        assert (await master.walk()).healthy == 0
        scene.nodes[3] = unknown
        assert (await master.walk()).healthy == 1


async def test_the_first_walk_waits_for_nodes_that_may_be_about_to_report(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    """After a recovery, or a start at other addresses: what is on them is unknown, and not called unavailable."""
    scene = master.scene
    placed = await scene.put(b"key", "replica:2", [1, 2])
    for node in (scene.nodes[1], scene.nodes[2]):
        node.down = True
    master.registry.awaited = master.registry.unheard = frozenset({1, 2})
    running = asyncio.create_task(master.surveyor.run())
    done, _ = await asyncio.wait([running], timeout=2.5 * NODES_POLL_S)
    assert not done
    status = master.status
    assert (status.walks, status.is_walking, status.unavailable, status.affected) == (0, False, 0, ())
    for node in (scene.nodes[1], scene.nodes[2]):
        node.down = False
    master.registry.awaited = master.registry.unheard = frozenset()
    await running
    assert (master.status.walks, master.status.healthy) == (1, 1)
    assert "unavailable" not in caplog.text
    await require_whole(scene, [placed])


async def test_a_node_that_was_waited_for_in_vain_is_told_and_looked_at_when_it_reports(master: Master) -> None:
    """Soon, and not again and again when it reports but does not answer."""
    scene = master.scene
    await scene.put(b"key", "replica:2", [1, 2])
    for node in (scene.nodes[1], scene.nodes[2]):
        node.down = True
    master.registry.unheard = frozenset({1, 2})
    await master.surveyor.run()
    assert (master.status.walks, master.status.unavailable, master.status.silent_nodes) == (1, 1, (1, 2))
    status = await master.settle(15)
    assert status.walks == 1
    master.registry.unheard = frozenset({2})
    status = await master.settle(15)
    assert (status.walks, status.unavailable) == (2, 1)
    scene.nodes[2].down = False
    master.registry.unheard = frozenset()
    status = await master.settle(15)
    assert (status.walks, status.endangered, status.silent_nodes) == (3, 1, (1,))


async def test_walks_come_when_there_is_a_reason(master: Master) -> None:
    """At once for a change of a node, otherwise after the interval."""
    scene = master.scene
    await fill(scene)
    await master.settle(30)
    walks = master.status.walks
    await master.settle(300)
    assert master.status.walks == walks
    await scene.change(6, NodeState.SUSPECT)
    await master.settle(5)
    assert master.status.walks == walks, "silence for a moment is no reason"
    await scene.change(6, NodeState.DEAD)
    await master.surveyor.run()
    assert master.status.walks == walks + 1
    await master.settle(30)
    walks = master.status.walks
    await master.settle(605)
    assert master.status.walks == walks + 1


async def test_repairs_go_on_side_by_side_and_stop_when_told(master: Master) -> None:
    """A job that is stopped midway leaves everything readable, and goes on later."""
    scene = master.scene
    placed = await fill(scene, count=12)
    await scene.change(1, NodeState.DEAD)
    await master.walk()
    running = asyncio.create_task(master.repairs.run())
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert master.queue.under_way == 0
    await master.settle(60)
    assert 1 not in await require_whole(scene, placed)
