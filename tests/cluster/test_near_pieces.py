"""Reads of directories on this machine, past their datanodes: of whose they are, and of none that is not theirs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.near_pieces import NearPieces
from cluster.read_counts import ReadCounts
from storage.base.cached_files import CachedFile, open_file
from storage.base.errors import Corrupt
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.chunks.disk import DiskChunkStore
from storage.chunks.near_chunks import NearChunks
from storage.crypto.envelope import sealed_length
from storage.datanode.identity import IDENTITY_FILE, store_identity
from storage.model import ByteRange, ClusterMap
from tests.cluster.nodes import CLUSTER_ID, make_node
from tests.cluster.world import SETTINGS, World, open_world

CHUNK = ChunkId(b"b" * 16, 3)
LARGE = os.urandom(7 << 20)
OTHER_CLUSTER = "d1" * 16
DATA = os.urandom(SETTINGS.chunk_bytes + 100_000)
SEALED = sealed_length(SETTINGS.chunk_bytes) + sealed_length(100_000) - 2 * 64  # no read needs the headers


@pytest.fixture(params=["replica:2", "ec:2+1"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """One object of two chunks."""
    async with open_world(tmp_path, settings=replace(SETTINGS, redundancy=request.param), near=True) as opened:
        await opened.put(b"key", DATA)
        yield opened


def asked(world: World) -> int:
    """Reads that datanodes were asked for."""
    return sum(node.gets for node in world.nodes.values())


async def test_no_datanode_is_asked(world: World) -> None:
    """Whole and in ranges, for what its directory gives."""
    assert await world.get(b"key") == DATA
    assert await world.get(b"key", ByteRange(70_000, 270_000)) == DATA[70_000:270_001]
    assert asked(world) == 0
    counts = world.cluster.operations.reads
    assert counts.near_bytes == counts.stored_whole > SEALED
    assert counts.near_refused == counts.stored_degraded == 0
    assert world.cluster.operations.budget.held_bytes == 0


async def test_what_is_not_in_memory_is_read_in_threads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No datanode is asked for it either."""
    monkeypatch.setattr(CachedFile, "read_cached", lambda *_: False)
    assert await world.get(b"key") == DATA
    assert asked(world) == 0
    assert world.cluster.operations.reads.near_bytes == SEALED
    assert world.cluster.operations.budget.held_bytes == 0


@pytest.fixture
async def large_world(tmp_path: Path) -> AsyncIterator[World]:
    """One object of two chunks that are several blocks each, on one node."""
    settings = replace(SETTINGS, chunk_bytes=4 << 20, redundancy="replica:1")
    async with open_world(tmp_path, settings=settings, near=True) as opened:
        await opened.put(b"key", LARGE)
        yield opened


async def test_what_is_at_hand_is_opened_as_it_is_asked_for(
    large_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched ahead or held of the budget for it, and a block stays as it is while somebody has it. Between
    two blocks the others have their turn, though no step of the reader waits for anything."""
    budget, turns, blocks = large_world.cluster.operations.budget, [0], []
    monkeypatch.setattr(CachedFile, "read_cached", CachedFile.read)
    monkeypatch.setattr("storage.chunks.near_chunks.open_cached", open_file)
    monkeypatch.setattr("cluster.chunk_read.ChunkReader.fetch", None)
    loop = asyncio.get_running_loop()

    def count_turns() -> None:
        turns[0] += 1
        loop.call_soon(count_turns)

    async with large_world.objects.open(large_world.bucket, b"key") as reading:
        tasks = len(asyncio.all_tasks())
        count_turns()
        async for block in reading:
            blocks.append(block)
            assert turns[0] >= len(blocks)
            assert len(asyncio.all_tasks()) == tasks
            assert budget.held_bytes == 0
    assert b"".join(blocks) == LARGE
    assert max(map(len, blocks)) == 1 << 20


async def test_what_is_not_at_hand_is_fetched_ahead_until_it_is(
    large_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that comes into memory on the way."""
    budget, seen, got = large_world.cluster.operations.budget, [], b""
    cached = [False]
    monkeypatch.setattr(CachedFile, "read_cached", lambda *arguments: cached[0] and CachedFile.read(*arguments))
    monkeypatch.setattr("storage.chunks.near_chunks.open_cached", open_file)
    async with large_world.objects.open(large_world.bucket, b"key") as reading:
        async for block in reading:
            got += block
            seen.append(budget.held_bytes > 0)
            cached[0] = len(got) > 2 << 20
    assert got == LARGE
    assert all(seen[:4]), "a span is on its way while the one before it is taken"
    assert seen == sorted(seen, reverse=True)
    assert not seen[-2]


@pytest.mark.parametrize("error", [PermissionError, OSError(5, "EIO"), OSError(117, "EUCLEAN")])
async def test_a_directory_that_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """Every piece is asked of its datanode, whose word on it counts: there is nothing to repair."""

    def refuse(*_: object) -> Any:
        raise error

    monkeypatch.setattr("storage.chunks.near_chunks.open_cached", refuse)
    monkeypatch.setattr("storage.chunks.near_chunks.open_file", refuse)
    assert await world.get(b"key") == DATA
    counts = world.cluster.operations.reads
    assert counts.near_refused == asked(world) > 0
    assert counts.near_bytes == 0
    assert counts.stored_whole == SEALED
    assert world.cluster.operations.repair_hints() == []


async def test_a_disk_that_does_not_answer_is_done_without(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like a stalled datanode: others are asked in its place after a moment."""
    stalled = world.near._by_number[1]
    read = NearChunks.read

    async def hang(near: NearChunks, *arguments: Any) -> None:
        await (asyncio.Event().wait() if near is stalled else read(near, *arguments))

    monkeypatch.setattr(CachedFile, "read_cached", lambda *_: False)
    monkeypatch.setattr(NearChunks, "read", hang)
    async with asyncio.timeout(60):
        for _ in range(5):
            assert await world.get(b"key") == DATA
    assert world.cluster.operations.repair_hints() == []
    assert world.cluster.operations.budget.held_bytes == 0


async def test_deleted_while_it_is_read(world: World) -> None:
    """Chunks that are gone from every node: never a wrong byte, never a clean short end."""
    got = b""
    with pytest.raises(Corrupt):
        async with world.objects.open(world.bucket, b"key") as reading:
            async for block in reading:
                got += block
                for node in world.nodes.values():
                    await node.inner.delete_many(list(node.chunks))
                await asyncio.sleep(0.01)
                for number in world.nodes:
                    for chunk_id in list(world.near._by_number[number]._open):
                        world.near.forget(number, chunk_id)
    assert DATA.startswith(got)
    assert len(got) < len(DATA)


# ------------------------------------------------------------------ whose directories


async def make_directory(directory: Path, node_id: str = f"{7:032x}", cluster_id: str = CLUSTER_ID) -> None:
    """With one chunk."""
    store = DiskChunkStore(DiskFiles(), directory, reserve_bytes=0)
    await store.put_many([(CHUNK, b"sealed")])
    store.close()
    store_identity(DiskFiles(), directory, cluster_id, node_id)


async def found(near: NearPieces, number: int) -> bytes | None:
    """The chunk, of a node's directory, once the directories were looked at."""
    if near._identifying is not None:
        await near._identifying
    got = await near.read(number, CHUNK, 0, 6)
    return None if got is None else bytes(got)


@pytest.fixture
async def near(tmp_path: Path) -> AsyncIterator[NearPieces]:
    """Of one directory, that is not there yet."""
    made = NearPieces(bytes.fromhex(CLUSTER_ID), ReadCounts(), [tmp_path / "node"])
    yield made
    await made.close()


async def test_a_directory_is_of_the_node_that_it_names(near: NearPieces, tmp_path: Path) -> None:
    """By the number that the map has for that node now."""
    await make_directory(tmp_path / "node")
    near.adopt(ClusterMap(1, (make_node(6), make_node(7))))
    assert await found(near, 7) == b"sealed"
    assert await found(near, 6) is None
    assert (7 in near, 6 in near) == (True, False)
    near.adopt(ClusterMap(2, (make_node(6),)))
    assert not near
    assert await found(near, 7) is None
    renumbered = make_node(7)
    near.adopt(ClusterMap(3, (replace_number(renumbered, 9),)))
    assert await found(near, 9) == b"sealed"


def replace_number(node: Any, number: int) -> Any:
    return type(node)(number, node.report, node.state, 0)


async def test_a_directory_that_is_made_later(near: NearPieces, tmp_path: Path) -> None:
    """When its datanode joins, the map is another one."""
    near.adopt(ClusterMap(1, ()))
    assert await found(near, 7) is None
    await make_directory(tmp_path / "node")
    near.adopt(ClusterMap(2, (make_node(7),)))
    assert await found(near, 7) == b"sealed"


@pytest.mark.parametrize("how", ["another cluster", "another node", "damaged", "of another user"])
async def test_a_directory_that_is_not_theirs(
    near: NearPieces, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not read."""
    directory = tmp_path / "node"
    if how == "another cluster":
        await make_directory(directory, cluster_id=OTHER_CLUSTER)
    elif how == "another node":
        await make_directory(directory, node_id="e" * 32)
    else:
        await make_directory(directory)
    if how == "damaged":
        (directory / IDENTITY_FILE).write_text(json.dumps({"format_version": 1}))
    if how == "of another user":

        def forbid(*_: object, **__: object) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(DiskFiles, "open", forbid)
    near.adopt(ClusterMap(1, (make_node(7),)))
    assert await found(near, 7) is None
    assert not near
