"""What the survey finds too much of: it goes last, and only while everything else of its blob is whole."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from cluster.maintenance.pieces import stored_id_of
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.store import ChunkReceipt
from storage.metadata.commands import ChunkLayout, Relayout, RenewSession, SetReplicas
from storage.metadata.interface import ChunkPlace
from storage.model import NodeState
from tests.cluster.maintenance.scene import Scene
from tests.cluster.maintenance.survey_master import SETTINGS, Master


async def leave_surplus(scene: Scene, place: ChunkPlace, number: int, source: int) -> None:
    """A copy of a piece on a node that the row does not name."""
    await scene.nodes[number].inner.put_many([(stored_id_of(place), scene.nodes[source].chunks[stored_id_of(place)])])


async def test_surplus_waits_for_reads_that_may_have_an_older_row(master: Master) -> None:
    """A read that runs for long holds it back; and when it is over it goes."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    began_s = scene.clock.monotonic_s()
    for _ in range(60):
        scene.clock.advance(5)
        age_ms = round((scene.clock.monotonic_s() - began_s) * 1000)
        await scene.worker.apply(RenewSession(scene.worker.session_id, age_ms))
        await master.surveyor.run()
    await master.walk()
    assert scene.holders(place) == {1, 2, 3}
    await master.settle(60)
    await master.walk()
    assert scene.holders(place) == {1, 2}


@pytest.mark.parametrize("how", ["lost", "rotten", "silent", "claimed", "draining"])
async def test_surplus_stays_while_anything_is_wrong(master: Master, how: str) -> None:
    """With a named piece missing, rotten (which is read for this), or silent, or another job at the blob."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    await master.settle(30)
    if how == "lost":
        await scene.lose(1, place)
    elif how == "rotten":
        scene.damage(1, place)
    elif how == "silent":
        scene.nodes[1].down = True
    elif how == "draining":
        await scene.change(1, NodeState.DRAINING)
    with ExitStack() as held:
        if how == "claimed":
            held.enter_context(master.claims.claim(place.blob_id))
        for _ in range(40):
            scene.clock.advance(5)
            await scene.worker.apply(RenewSession(scene.worker.session_id, 0))
            await master.surveyor.run()
        assert 3 in scene.holders(place)


async def test_surplus_stays_when_the_row_changes_in_the_last_moment(master: Master) -> None:
    """It is named while the other pieces are verified."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    verify = scene.nodes[2].verify

    async def rename(chunk_id: ChunkId) -> ChunkReceipt:
        if (await scene.place(place.blob_id)).nodes == place.nodes:
            await scene.metadata.apply(SetReplicas(place.blob_id, 0, place.nodes, (2, 3), place.generation))
        return await verify(chunk_id)

    scene.nodes[2].verify = rename  # type: ignore[method-assign]
    for _ in range(40):
        scene.clock.advance(5)
        await scene.worker.apply(RenewSession(scene.worker.session_id, 0))
        await master.surveyor.run()
        if (await scene.place(place.blob_id)).nodes != place.nodes:
            break
    assert (await scene.place(place.blob_id)).nodes == (2, 3)
    await scene.require_whole(place.blob_id)


async def test_an_order_that_comes_again_leaves_what_is_named_since(master: Master) -> None:
    """The surplus went; then the node got the piece anew, and the row names it."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    await master.settle(300)
    assert scene.holders(place) == {1, 2}
    await leave_surplus(scene, place, 3, 1)
    assert await scene.metadata.apply(SetReplicas(place.blob_id, 0, place.nodes, (2, 3), place.generation))
    assert await scene.nodes[3].repeat_orders() == 1
    await scene.require_whole(place.blob_id)


@pytest.mark.parametrize("takes_over", [False, True])
async def test_what_came_back_is_read_before_surplus_goes(master: Master, takes_over: bool) -> None:
    """Also by a master that took over after the return: a piece that was right once is not taken for right now."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    scene.clock.advance(1)
    for number in (1, 2):
        await scene.nodes[number].verify(stored_id_of(place))
    scene.clock.advance(1)
    await scene.change(1, NodeState.DEAD)
    await master.walk()
    scene.damage(1, place)
    await scene.change(1, NodeState.UP)
    await master.walk()
    master.registry.term += takes_over
    for _ in range(200):
        scene.clock.advance(5)
        await scene.worker.apply(RenewSession(scene.worker.session_id, 0))
        await master.surveyor.run()
    assert 3 in scene.holders(place)


async def test_surplus_of_other_layouts_goes_too(master: Master) -> None:
    """A generation that is not the row's, older or newer, on a node that the row names as well."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    other = stored_chunk_id(place.blob_id, 0, place.generation + 3)
    await scene.nodes[1].inner.put_many([(other, b"of another layout")])
    await master.settle(300)
    assert other not in scene.nodes[1].chunks
    await scene.require_whole(place.blob_id)


async def test_an_earlier_layout_is_kept_for_the_history(master: Master) -> None:
    """As the sweep keeps it: the records of an earlier moment name it."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    before, after = stored_id_of(place), stored_chunk_id(place.blob_id, 0, 5)
    for number in (3, 4):
        await scene.nodes[number].inner.put_many([(after, scene.nodes[1].chunks[before])])
    layout = ChunkLayout(0, place.digest, (3, 4))
    assert await scene.metadata.apply(Relayout(place.blob_id, 0, "replica:2", (layout,), 0, 5))
    master.surveyor._settings = SETTINGS._replace(history_s=3_600)
    await master.settle(3_000, step_s=20)
    assert before in scene.nodes[1].chunks
    await master.settle(2_000, step_s=20)
    assert before not in scene.nodes[1].chunks
    await scene.require_whole(place.blob_id)


async def test_what_has_no_row_is_none_of_its_business(master: Master) -> None:
    """It may be of a write under way, or an orphan for the sweep."""
    scene = master.scene
    await scene.put(b"key", "replica:2", [1, 2])
    strange = stored_chunk_id(scene.worker.blob_id(), 0)
    await scene.nodes[3].inner.put_many([(strange, b"sealed")])
    status = await master.settle(900)
    assert strange in scene.nodes[3].chunks
    assert status.surplus_pieces == 0


async def test_a_stray_is_put_to_use_before_anything_is_copied(master: Master) -> None:
    """A node came back with the only piece that is left."""
    scene = master.scene
    (place,) = await scene.put(b"key", "replica:2", [1, 2])
    await leave_surplus(scene, place, 3, 1)
    for number in (1, 2):
        await scene.lose(number, place)
    status = await master.settle(10)
    assert status.lost == 0
    assert 3 in (await scene.require_whole(place.blob_id))[0].nodes
