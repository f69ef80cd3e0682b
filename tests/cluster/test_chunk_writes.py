"""Erasure-coded writes against datanodes that fail: the same rules as for replicas, and every fragment where it is said
to be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.byte_budget import ByteBudget
from cluster.chunk_writes import BUDGET_BYTES_MIN, ChunkWrites
from cluster.deadlines import Deadlines
from cluster.nodes import NodePool
from storage.base.clock import SystemClock
from storage.base.errors import NoSuchKey, NotEnoughNodes, Unavailable
from storage.base.ids import stored_chunk_id
from storage.chunks.erasure import Striping, parse_fragment_header
from storage.chunks.footer import digest_of
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import REDUNDANCY_SETTING
from storage.model import Blob, Bucket, Chunk
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import QUICK, SETTINGS, BlocksBody, World, open_world
from tests.storage.chunks.fragments import join_chunk, split_chunk

NEEDED, WIDTH = 4, 6
CODED = replace(SETTINGS, redundancy="ec:4+2", chunk_bytes=1 << 20)
LARGE = replace(SETTINGS, redundancy="ec:4+2", chunk_bytes=8 << 20)
"""chunks of which a fragment is above what is held whole"""


def world_of(tmp_path: Path, node_count: int = 8, large: bool = False) -> AbstractAsyncContextManager[World]:
    """With short deadlines."""
    return open_world(tmp_path, node_count=node_count, deadlines=QUICK, settings=LARGE if large else CODED)


async def blob_of(world: World, bucket: Bucket | None = None, key: bytes = b"key") -> Blob:
    """The only blob of an object."""
    read = await world.metadata.read_version((bucket or world.bucket).bucket_id, key)
    (blob,) = read.blobs
    return blob


def fragments_of(world: World, blob: Blob, chunk: Chunk) -> Mapping[int, bytes]:
    """What the nodes hold that the row names."""
    chunk_id = stored_chunk_id(blob.blob_id, chunk.index, blob.generation)
    return {place: world.nodes[number].chunks[chunk_id] for place, number in enumerate(chunk.nodes) if number}


async def require_fragments(world: World, data: bytes, missing: int = 0) -> Blob:
    """The object reads back, every row names a node for each fragment, and each holds the right one."""
    assert await world.get(b"key") == data
    blob = await blob_of(world)
    assert blob.redundancy == "ec:4+2"
    for chunk in blob.chunks:
        fragments = fragments_of(world, blob, chunk)
        assert len(chunk.nodes) == WIDTH
        assert len(fragments) == WIDTH - missing
        assert len({number for number in chunk.nodes if number}) == len(fragments)
        striping = Striping(NEEDED, WIDTH, sealed_length(chunk.length))
        expected = split_chunk(join_chunk(fragments, striping), NEEDED, WIDTH)
        assert fragments == {place: expected[place] for place in fragments}
        assert chunk.digest == b"".join(digest_of(fragment).digest for fragment in expected)
        assert {parse_fragment_header(fragment).number for fragment in fragments.values()} == set(fragments)
    assert world.cluster.operations.budget.held_bytes == 0
    return blob


async def require_nothing_stays(world: World) -> None:
    """No visible object, no fragment, no byte of the budget."""
    with pytest.raises(NoSuchKey):
        await world.get(b"key")
    assert world.copies == 0
    assert world.cluster.operations.budget.held_bytes == 0


def column(world: World) -> list[FaultyDatanode]:
    """The nodes that the next blob's first chunk prefers, then those that stand in for them."""
    services = world.objects._writer._services
    counter = services.session.enter().counter + 1
    choice = services.placer.choose(services.session.session_id + counter.to_bytes(8, "big"), 0, WIDTH)
    return [world.nodes[node.number] for node in [*choice.column, *choice.stand_ins()]]


# ------------------------------------------------------------------ all is well


@pytest.mark.parametrize("size", [4 * 65_552, 300_000, 1 << 20, (1 << 20) + 1, (3 << 20) + 70_000])
@pytest.mark.parametrize("block_bytes", [65_536, 100_000, 1 << 20])
async def test_fragments_are_written_in_order(tmp_path: Path, size: int, block_bytes: int) -> None:
    """One node for each, in the order of the fragments, and nothing anywhere else."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        first = column(world)[:WIDTH]
        await world.put(b"key", data, block_bytes=block_bytes)
        blob = await require_fragments(world, data)
        assert blob.chunks[0].nodes == tuple(node.number for node in first)
        assert world.copies == WIDTH * len(blob.chunks)


async def test_small_bodies_are_replicated_as_often(tmp_path: Path) -> None:
    """Below a stripe: as many losses are survived by replicas."""
    async with world_of(tmp_path) as world:
        await world.put(b"key", bytes(4 * 65_552 - 1))
        blob = await blob_of(world)
        assert blob.redundancy == "replica:3"
        assert len(blob.chunks[0].nodes) == 3


async def test_a_bucket_has_a_redundancy_of_its_own(tmp_path: Path) -> None:
    """From the next write on; what was written before stays as it is, and stays readable."""
    data = os.urandom(400_000)
    async with open_world(tmp_path, node_count=6) as world:
        await world.put(b"before", data)
        await world.cluster.directory.put_setting(world.bucket, REDUNDANCY_SETTING, b"ec:2+3")
        await world.cluster.directory.refresh()
        bucket = await world.cluster.directory.bucket("bucket")
        await world.put(b"after", data, bucket=bucket)
        assert (await blob_of(world, key=b"before")).redundancy == "replica:2"
        blob = await blob_of(world, key=b"after")
        assert blob.redundancy == "ec:2+3"
        assert all(len(chunk.nodes) == 5 for chunk in blob.chunks)
        assert await world.get(b"before") == await world.get(b"after") == data


# ------------------------------------------------------------------ nodes that do not begin


@pytest.mark.parametrize("how", ["full", "down"])
async def test_a_node_that_refuses_is_replaced_from_the_first_byte(tmp_path: Path, how: str) -> None:
    """Another node gets the same fragment; nothing is rebuilt."""
    data = os.urandom(1 << 20)
    async with world_of(tmp_path) as world:
        node = column(world)[2]
        setattr(node, how, True)
        await world.put(b"key", data)
        blob = await require_fragments(world, data)
        assert node.number not in blob.chunks[0].nodes
        assert not any(it.rebuilds for it in world.nodes.values())


async def test_two_nodes_that_never_take_a_byte_are_replaced(tmp_path: Path) -> None:
    """Their deadline passes, their fragments go to others."""
    data = os.urandom(600_000)
    async with world_of(tmp_path) as world:
        for node in column(world)[1:3]:
            node.put_stalls_after_bytes = 0
        await world.put(b"key", data)
        await require_fragments(world, data)


async def test_too_few_nodes_at_all(tmp_path: Path) -> None:
    """Refused before a byte is sent."""
    async with world_of(tmp_path, node_count=5) as world:
        with pytest.raises(NotEnoughNodes):
            await world.put(b"key", os.urandom(1 << 20))
        assert not any(node.puts for node in world.nodes.values())


# ------------------------------------------------------------------ nodes that do not end


@pytest.mark.parametrize("how", ["put_dies_after_bytes", "put_stalls_after_bytes"])
@pytest.mark.parametrize("place", [0, 5])
async def test_a_node_lost_midway_is_dropped_and_its_fragment_rebuilt(tmp_path: Path, how: str, place: int) -> None:
    """A fragment of frames and one of parity: made on another node out of four others."""
    data = os.urandom(6 << 20)
    async with world_of(tmp_path, large=True) as world:
        node = column(world)[place]
        setattr(node, how, 800_000)
        await world.put(b"key", data, block_bytes=65_536)
        assert sum(it.rebuilds for it in world.nodes.values()) == 1
        blob = await require_fragments(world, data)
        assert node.number not in blob.chunks[0].nodes


@pytest.mark.parametrize("how", ["put_is_never_durable", "put_stores_other_bytes"])
async def test_a_node_that_does_not_confirm_does_not_count(tmp_path: Path, how: str) -> None:
    """And what it may have kept is the survey's surplus."""
    data = os.urandom(6 << 20)
    async with world_of(tmp_path, large=True) as world:
        node = column(world)[1]
        setattr(node, how, True)
        await world.put(b"key", data)
        blob = await require_fragments(world, data)
        assert node.number not in blob.chunks[0].nodes


async def test_a_rebuild_that_fails_goes_to_the_next_node(tmp_path: Path) -> None:
    """As long as there is one."""
    data = os.urandom(6 << 20)
    async with world_of(tmp_path, large=True) as world:
        candidates = column(world)
        candidates[3].put_dies_after_bytes = 800_000
        candidates[WIDTH].pull_fails = True
        await world.put(b"key", data, block_bytes=65_536)
        blob = await require_fragments(world, data)
        assert blob.chunks[0].nodes[3] == candidates[WIDTH + 1].number
        assert not candidates[WIDTH].chunks


async def test_too_few_fragments_fail_the_write(tmp_path: Path) -> None:
    """No node for the missing one: 503, and nothing stays."""
    async with world_of(tmp_path, node_count=6, large=True) as world:
        column(world)[4].put_dies_after_bytes = 800_000
        with pytest.raises(NotEnoughNodes):
            await world.put(b"key", os.urandom(6 << 20), block_bytes=65_536)
        await require_nothing_stays(world)


async def test_fewer_are_enough_where_the_operator_says_so(tmp_path: Path) -> None:
    """Acknowledged with a fragment that is nowhere, which a repair is told of."""
    data = os.urandom(6 << 20)
    settings = replace(LARGE, copies_before_ack_min=5)
    async with open_world(tmp_path, node_count=6, deadlines=QUICK, settings=settings) as world:
        column(world)[1].put_dies_after_bytes = 800_000
        await world.put(b"key", data, block_bytes=65_536)
        blob = await require_fragments(world, data, missing=1)
        assert blob.chunks[0].nodes[1] == 0
        assert len(world.cluster.operations.repair_hints()) == 1


async def test_all_nodes_dead_stops_the_producer(tmp_path: Path) -> None:
    """As soon as fewer are left than bring a chunk back; those that were stopped are not blamed."""
    read: list[int] = []

    async def count(index: int) -> None:
        read.append(index)
        await asyncio.sleep(0)

    async with world_of(tmp_path, node_count=6, large=True) as world:
        nodes = column(world)
        for node in nodes[:3]:
            node.put_dies_after_bytes = 500_000
        blocks = [os.urandom(65_536)] * 120
        with pytest.raises(Unavailable):
            await world.objects.put(world.bucket, b"key", BlocksBody(blocks, before_block=count), world.request())
        assert len(read) < 100
        await require_nothing_stays(world)
        failed = world.objects._writer._services.chunks._nodes.failed_numbers()
        assert failed == {node.number for node in nodes[:3]}


# ------------------------------------------------------------------ what stays of writes that fail


async def test_a_body_that_does_not_verify_leaves_nothing(tmp_path: Path) -> None:
    """What finish() raises comes out, after every fragment was deleted."""
    async with world_of(tmp_path) as world:
        body = BlocksBody([os.urandom(1 << 20)] * 3, failure=ZeroDivisionError("BadDigest"))
        with pytest.raises(ZeroDivisionError):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await require_nothing_stays(world)


@pytest.mark.parametrize("at", [3, 17, 20])
async def test_a_cancelled_write_leaves_nothing(tmp_path: Path, at: int) -> None:
    """In the first stripe, in the second chunk, between stripes."""
    reached = asyncio.Event()

    async def wait(index: int) -> None:
        if index == at:
            reached.set()
            await asyncio.Event().wait()

    async with world_of(tmp_path) as world:
        body = BlocksBody([os.urandom(65_536)] * 40, before_block=wait)
        writing = asyncio.create_task(world.objects.put(world.bucket, b"key", body, world.request()))
        await reached.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await world.objects._writer._services.cleanup.close()
        await require_nothing_stays(world)


async def test_what_cannot_be_deleted_is_recorded_by_its_places(tmp_path: Path) -> None:
    """A roll-back meets two nodes that do not answer, one of which stood in for another."""
    async with world_of(tmp_path) as world:
        candidates = column(world)
        candidates[0].full = True
        left = [candidates[2], candidates[WIDTH]]
        for node in left:
            node.delete_fails = True
        body = BlocksBody([os.urandom(1 << 20)], failure=ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await world.objects._writer._services.cleanup.close()
        (blob,) = await world.metadata.list_released_blobs(2**62, 10)
        (chunk,) = blob.chunks
        assert {node.number for node in left} == set(chunk.nodes)
        assert world.copies == 2


def test_a_budget_holds_the_widest_stripe() -> None:
    """Or there is no writing at all."""
    nodes = NodePool(bytes(32), SystemClock(), lambda node: FaultyDatanode(node.number, {}))
    with pytest.raises(ValueError, match="at least"):
        ChunkWrites(ByteBudget(BUDGET_BYTES_MIN - 1), nodes, Deadlines())
