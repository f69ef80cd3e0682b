"""Writer and reader over real datanode processes and a real metadata owner: bytes, kills, and what is left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from storage.base.errors import FrostbyteError
from storage.base.ids import chunk_id_from_bytes
from storage.datanode.wire import PullRequest
from storage.model import ByteRange
from tests.cluster.processes import open_processes, short_directory
from tests.cluster.world import SETTINGS, BlocksBody, World
from tests.storage.datanode.nodes import NodeProcess

Scene = tuple[World, dict[int, NodeProcess]]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Three datanodes, chunks of 4 MiB."""
    with short_directory() as directory:
        async with open_processes(directory, settings=replace(SETTINGS, chunk_bytes=4 << 20)) as opened:
            yield opened


async def held(world: World) -> dict[int, set[bytes]]:
    """Chunk ids by node."""
    return {
        number: {entry.chunk_id for entry in await store.inventory(None, 10_000)}
        for number, store in world.stores.items()
    }


async def test_bytes_go_round(scene: Scene) -> None:
    """Every size class, whole and by range, two copies of each chunk."""
    world, _ = scene
    for size in (1, 20_000, 65_536, 130_000, 1 << 20, (9 << 20) + 17):
        data = os.urandom(size)
        await world.put(b"key-%d" % size, data, block_bytes=200_000)
        assert await world.get(b"key-%d" % size) == data
        assert await world.get(b"key-%d" % size, ByteRange(size // 2, None)) == data[size // 2 :]
    chunks = [chunk for chunks in (await held(world)).values() for chunk in chunks]
    assert len(chunks) == 2 * len(set(chunks)) == 2 * (1 + 1 + 1 + 1 + 3)


async def test_nothing_on_a_datanode_is_plaintext(scene: Scene) -> None:
    """Not even a line of it."""
    world, nodes = scene
    line = b"a line that is easy to find again in any file\n"
    await world.put(b"key", line * 100_000)
    files = [path for node in nodes.values() for path in node.data.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > len(line) * 200_000
    assert not any(line in path.read_bytes() for path in files)


async def test_a_kill_in_the_middle_of_an_upload(scene: Scene) -> None:
    """kill -9 of one datanode: the write ends on the others, with two copies of every chunk among the living."""
    world, nodes = scene
    data = os.urandom(24 << 20)
    victim = 2

    async def kill(index: int) -> None:
        if index == 40:
            nodes[victim].kill()
        await asyncio.sleep(0)

    blocks = [data[at : at + 262_144] for at in range(0, len(data), 262_144)]
    body = BlocksBody(blocks, before_block=kill)
    async with asyncio.timeout(60):
        await world.objects.put(world.bucket, b"key", body, world.request())
        assert await world.get(b"key") == data
    rows = (await world.metadata.read_version(world.bucket.bucket_id, b"key")).blobs[0].chunks
    assert all(len(chunk.nodes) == 2 for chunk in rows)
    assert all(victim not in chunk.nodes for chunk in rows[3:])


async def test_kills_beyond_the_redundancy_fail_cleanly(scene: Scene) -> None:
    """With two of three nodes gone the write is refused, and nothing stays on the third."""
    world, nodes = scene
    data = os.urandom(12 << 20)

    async def kill(index: int) -> None:
        if index == 20:
            nodes[1].kill()
            nodes[2].kill()
        await asyncio.sleep(0)

    blocks = [data[at : at + 262_144] for at in range(0, len(data), 262_144)]
    with pytest.raises(FrostbyteError):
        await world.objects.put(world.bucket, b"key", BlocksBody(blocks, before_block=kill), world.request())
    assert await world.stores[3].inventory(None, 10) == []
    assert world.cluster.operations.budget.held_bytes == 0


async def test_a_ticket_copies_from_node_to_node(scene: Scene) -> None:
    """The pool makes a ticket that the source accepts; the copy is identical. Without one the source refuses."""
    world, nodes = scene
    await world.put(b"key", os.urandom(300_000))
    (chunk,) = (await world.metadata.read_version(world.bucket.bucket_id, b"key")).blobs[0].chunks
    by_node = await held(world)
    (chunk_id,) = {raw for raws in by_node.values() for raw in raws}
    parsed = chunk_id_from_bytes(chunk_id)
    source = chunk.nodes[0]
    (target,) = set(nodes) - set(chunk.nodes)
    expected = await world.stores[source].stat(parsed)
    pool = world.objects._writer._services.chunks._nodes
    assert await pool.pull(target, source, parsed, expected) == expected
    await world.stores[target].delete_many([parsed])
    forged = PullRequest(str(nodes[source].address), f"{2**50}.{'0' * 64}", expected.length, expected.digest)
    with pytest.raises(FrostbyteError):
        await world.stores[target].pull(parsed, forged)
    assert await world.stores[target].inventory(None, 10) == []
