"""The health of one object, asked of nodes that lost, damaged or keep to themselves what they should have."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.chunk_health import ChunkHealth, ObjectHealth, PieceState
from cluster.domains import SurvivableLosses
from cluster.maintenance.survey import Health
from storage.base.clock import ManualClock
from storage.base.errors import NoSuchKey, NoSuchVersion
from storage.crypto.envelope import FRAME_BYTES
from storage.metadata.commands import DeleteTarget, SetReplicas
from storage.metadata.interface import CHUNK_PAGE_ROWS
from storage.model import NodeState, Versioning
from tests.cluster.layouts import lay_out, piece_of, read_blobs
from tests.cluster.world import SETTINGS, World, open_world

CHUNK = SETTINGS.chunk_bytes
DATA = os.urandom(CHUNK * 3 + 1000)
GOOD, MISSING, DAMAGED, AWAY = PieceState.GOOD, PieceState.MISSING, PieceState.DAMAGED, PieceState.UNREACHABLE


@pytest.fixture
def clock() -> ManualClock:
    """Of the metadata."""
    return ManualClock()


@pytest.fixture
async def world(tmp_path: Path, clock: ManualClock) -> AsyncIterator[World]:
    """One object of four chunks in ec:2+1 on five nodes, under b"key"."""
    async with open_world(tmp_path, node_count=5, clock=clock) as opened:
        await opened.put(b"key", DATA)
        await lay_out(opened, b"key", "ec:2+1")
        yield opened


async def examine(
    world: World, key: bytes = b"key", version_id: str | None = None, *, verify: bool = False
) -> tuple[list[ChunkHealth], ObjectHealth]:
    """All of it."""
    examination = await world.cluster.operations.examine_object(world.bucket, key, version_id, verify=verify)
    chunks = [chunk async for chunk in examination]
    return chunks, examination.summary


def states(chunk: ChunkHealth) -> list[PieceState]:
    """Of the pieces, in their order."""
    return [piece.state for piece in chunk.pieces]


async def test_a_whole_object(world: World) -> None:
    """Every chunk with its fragments, where they are, and what it survives."""
    chunks, summary = await examine(world)
    assert [(chunk.chunk_index, chunk.offset, chunk.length) for chunk in chunks] == [
        (at, at * CHUNK, min(CHUNK, len(DATA) - at * CHUNK)) for at in range(4)
    ]
    (blob,) = await read_blobs(world, b"key")
    for row, chunk in zip(blob.chunks, chunks, strict=True):
        assert [(piece.position, piece.node) for piece in chunk.pieces] == list(enumerate(row.nodes))
        assert [piece.failure_domain for piece in chunk.pieces] == [f"zone/host-{it}/disk" for it in row.nodes]
        assert (chunk.health, chunk.redundancy) == (Health.HEALTHY, "ec:2+1")
        assert chunk.losses == SurvivableLosses(0, 1, 1, 1)
    assert summary.health is Health.HEALTHY
    assert (summary.size, summary.blobs, summary.pieces) == (len(DATA), {"ec:2+1": 1}, {GOOD: 12})
    assert summary.losses == SurvivableLosses(0, 1, 1, 1)
    assert summary.unverified == 12


@pytest.mark.parametrize(("how", "state"), [("missing", MISSING), ("down", AWAY), ("rotten", DAMAGED)])
async def test_a_piece_that_is_not_good(world: World, how: str, state: PieceState) -> None:
    """Missing, on a node that does not answer, or rotten, which only a read from the medium shows."""
    (blob,) = await read_blobs(world, b"key")
    node, chunk_id = world.nodes[blob.chunks[0].nodes[1]], piece_of(blob, blob.chunks[0])
    if how == "missing":
        await node.inner.delete_many([chunk_id])
    elif how == "down":
        node.down = True
    else:
        node.chunks[chunk_id] = node.chunks[chunk_id][:-1] + bytes([node.chunks[chunk_id][-1] ^ 1])
        chunks, _ = await examine(world)
        assert states(chunks[0]) == [GOOD, GOOD, GOOD]
    chunks, summary = await examine(world, verify=True)
    assert states(chunks[0]) == [GOOD, state, GOOD]
    assert chunks[0].losses is not None
    assert chunks[0].losses.nodes == 0
    assert chunks[0].health is summary.health is Health.ENDANGERED
    assert summary.chunks[Health.ENDANGERED] == (1 if how != "down" else sum(state in states(it) for it in chunks))


async def test_lost_and_unavailable(world: World) -> None:
    """Too few pieces: whether there is hope depends on why."""
    (blob,) = await read_blobs(world, b"key")
    first, second, _ = (world.nodes[number] for number in blob.chunks[0].nodes)
    await first.inner.delete_many([piece_of(blob, blob.chunks[0])])
    second.down = True
    chunks, summary = await examine(world)
    assert chunks[0].health is summary.health is Health.UNAVAILABLE
    second.down = False
    await second.inner.delete_many([piece_of(blob, blob.chunks[0])])
    chunks, summary = await examine(world)
    assert chunks[0].health is summary.health is Health.LOST
    assert chunks[0].losses is not None
    assert chunks[0].losses.nodes == -1


async def test_nodes_that_are_away(world: World) -> None:
    """A dead one is not asked and may come back, one that left will not; a fragment can be nowhere."""
    (blob,) = await read_blobs(world, b"key")
    row = blob.chunks[0]
    dead, gone, _ = row.nodes
    found = {dead: NodeState.DEAD, gone: NodeState.GONE}
    nodes = [it.node(found.get(number, NodeState.UP)) for number, it in world.nodes.items()]
    await world.map.change(nodes)
    chunks, _ = await examine(world)
    assert states(chunks[0]) == [AWAY, MISSING, GOOD]
    await world.map.change(node for node in nodes if node.number not in found)
    nowhere = (0, *row.nodes[1:])
    assert await world.metadata.apply(SetReplicas(blob.blob_id, 0, row.nodes, nowhere, blob.generation))
    chunks, _ = await examine(world)
    assert states(chunks[0])[:2] == [MISSING, MISSING]
    assert (chunks[0].pieces[0].node, chunks[0].pieces[1].failure_domain) == (0, "")


async def test_replicas_and_times_of_verification(world: World) -> None:
    """Verified is what was read from the medium, and nothing else."""
    await world.put(b"copies", DATA[:CHUNK])
    chunks, summary = await examine(world, b"copies")
    assert [(piece.position, piece.state, piece.verified_ms) for piece in chunks[0].pieces] == [(0, GOOD, 0)] * 2
    assert (summary.unverified, summary.oldest_verified_ms) == (2, 0)
    assert summary.blobs == {"replica:2": 1}
    chunks, summary = await examine(world, b"copies", verify=True)
    assert all(piece.verified_ms for piece in chunks[0].pieces)
    assert summary.unverified == 0
    assert summary.oldest_verified_ms == min(piece.verified_ms for piece in chunks[0].pieces)


async def test_inline_and_empty_objects(world: World) -> None:
    """They live in the metadata."""
    await world.put(b"small", b"x" * 1000)
    await world.put(b"empty", b"")
    (chunk,), summary = await examine(world, b"small")
    assert (chunk.redundancy, chunk.pieces, chunk.losses, chunk.length) == ("inline", (), None, 1000)
    assert (summary.health, summary.blobs, summary.losses) == (Health.HEALTHY, {"inline": 1}, None)
    chunks, summary = await examine(world, b"empty")
    assert (chunks, summary.health, summary.size) == ([], Health.HEALTHY, 0)


async def test_what_is_not_there(world: World) -> None:
    """Unknown keys and versions, and delete markers."""
    with pytest.raises(NoSuchKey):
        await examine(world, b"nothing")
    with pytest.raises(NoSuchVersion):
        await examine(world, version_id="0" * 32)
    bucket = await world.make_bucket("versioned", Versioning.ENABLED)
    put = await world.put(b"key", DATA, bucket=bucket)
    (deleted,) = await world.objects.delete(bucket, [DeleteTarget(b"key")])
    for version_id in (None, deleted.version_id):
        with pytest.raises(NoSuchKey):
            await world.cluster.operations.examine_object(bucket, b"key", version_id)
    examination = await world.cluster.operations.examine_object(bucket, b"key", put.committed.version_id)
    assert [chunk.health async for chunk in examination] == [Health.HEALTHY] * 4


async def test_a_layout_made_meanwhile_is_no_loss(world: World) -> None:
    """Pieces that are gone because they are elsewhere by now."""
    places = await world.metadata.list_chunk_places(None, 100)
    await lay_out(world, b"key", "ec:3+1")

    class Behind:
        """Answers the first question as before."""

        def __getattr__(self, name: str) -> object:
            return getattr(world.metadata, name)

        async def list_chunk_places(self, after: object, limit: int) -> object:
            return places

    world.cluster.operations._metadata = Behind()  # type: ignore[assignment]
    chunks, summary = await examine(world)
    assert [chunk.redundancy for chunk in chunks] == ["ec:3+1"] * 4
    assert summary.health is Health.HEALTHY


async def test_many_chunks_in_pages(tmp_path: Path) -> None:
    """All of them, in order, over pages and batches; a few looks at each node."""
    settings = replace(SETTINGS, chunk_bytes=FRAME_BYTES)
    count = 2 * CHUNK_PAGE_ROWS + 5
    async with open_world(tmp_path, settings=settings) as world:
        await world.put(b"key", os.urandom(count * FRAME_BYTES))
        chunks, summary = await examine(world)
        assert [chunk.chunk_index for chunk in chunks] == list(range(count))
        assert summary.pieces == {GOOD: 2 * count}
        examination = await world.cluster.operations.examine_object(world.bucket, b"key")
        await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
        assert len([chunk async for chunk in examination]) == count, "a released object is there until it is swept"
