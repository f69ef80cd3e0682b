"""A walk's windows: whole blobs, each beside what nodes list of them, and again when they were not dealt with."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.maintenance.survey import Standing
from cluster.maintenance.walk import Walk, Window
from storage.base.errors import Unavailable
from storage.base.ids import stored_chunk_id
from storage.model import NodeState
from tests.cluster.maintenance.scene import Scene, open_scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Three nodes with blobs of one to four chunks, chunks of another layout, and chunks without a row."""
    async with open_scene(tmp_path, 3) as opened:
        for number in range(8):
            places = await opened.put(b"key-%d" % number, "replica:2", [1, 2, 3][number % 2 :][:2], 1 + number % 4)
            other = stored_chunk_id(places[0].blob_id, 0, 5)
            strange = stored_chunk_id(opened.worker.blob_id(), 0)
            await opened.nodes[3].inner.put_many([(other, b"of another layout"), (strange, b"of no blob")])
        yield opened


def describe(window: Window) -> object:
    """Everything in it."""
    return window.places, {number: (it.found, it.pieces) for number, it in window.listed.items()}, window.standings


@pytest.mark.parametrize(("rows", "entries"), [(1000, 1000), (1, 1), (2, 2), (3, 1), (1, 7), (5, 3)])
async def test_windows_cover_everything_once(scene: Scene, rows: int, entries: int) -> None:
    """Whatever the pages; a blob is never in two windows, and its pieces are in the same as its rows."""
    walk, places, listed = Walk(scene.metadata, scene.pool, rows, entries), [], Counter[int]()
    blobs: Counter[bytes] = Counter()
    while not walk.is_over:
        window = await walk.next_window(scene.cluster_map)
        walk.accept()
        places += window.places
        here = {place.blob_id for place in window.places}
        blobs.update(here)
        for number, listing in window.listed.items():
            listed[number] += listing.pieces
            expected = {chunk_id for chunk_id in scene.nodes[number].chunks if chunk_id.blob_id in here}
            assert set(listing.found) == expected
    assert places == await scene.metadata.list_chunk_places(None, 10_000)
    assert set(blobs.values()) == {1}
    assert listed == {number: len(node.chunks) for number, node in scene.nodes.items()}


async def test_a_window_that_was_not_accepted_comes_again(scene: Scene) -> None:
    """The same rows and the same listings, however far the pages had been read ahead; also after a failure."""
    once, twice = Walk(scene.metadata, scene.pool, 3, 2), Walk(scene.metadata, scene.pool, 3, 2)
    method = scene.metadata.list_chunk_places

    async def fail(*_: object) -> object:
        raise Unavailable("away")

    while not once.is_over:
        window = await once.next_window(scene.cluster_map)
        once.accept()
        for _ in range(2):
            assert describe(await twice.next_window(scene.cluster_map)) == describe(window)
        scene.metadata.list_chunk_places = fail  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await twice.next_window(scene.cluster_map)
        scene.metadata.list_chunk_places = method  # type: ignore[method-assign]
        assert describe(await twice.next_window(scene.cluster_map)) == describe(window)
        twice.accept()
    assert twice.is_over


async def test_where_nodes_stand(scene: Scene) -> None:
    """By their state and by whether they answered; one that failed once is left alone for the walk, one that comes back
    is looked through from there on."""
    await scene.change(1, NodeState.DEAD)
    scene.nodes[2].down = True
    walk = Walk(scene.metadata, scene.pool, 3, 2)
    window = await walk.next_window(scene.cluster_map)
    walk.accept()
    assert window.standings == {1: Standing.DEAD, 2: Standing.SILENT, 3: Standing.HERE}
    assert set(window.listed) == {3}
    scene.nodes[2].down = False
    await scene.change(1, NodeState.UP)
    await scene.change(2, NodeState.DRAINING)
    await scene.change(3, NodeState.DRAINING)
    window = await walk.next_window(scene.cluster_map)
    walk.accept()
    assert window.standings == {1: Standing.HERE, 2: Standing.LEFT, 3: Standing.LEAVING}
    here = {place.blob_id for place in window.places}
    assert set(window.listed[1].found) == {it for it in scene.nodes[1].chunks if it.blob_id in here}
    await scene.change(3, NodeState.GONE)
    window = await walk.next_window(scene.cluster_map)
    assert window.standings[3] is Standing.GONE
    assert 3 not in window.listed
