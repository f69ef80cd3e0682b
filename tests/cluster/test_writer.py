"""The write side against datanodes that fail: every rule of the route of a PUT, and nothing stays of what failed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.redundancy import INLINE
from storage.base.errors import (
    ChunkTruncated,
    NodeUnreachable,
    NoSuchKey,
    NotEnoughNodes,
    PreconditionFailed,
    SessionFenced,
    Unavailable,
)
from storage.base.ids import ChunkId
from storage.metadata.commands import Command, CommitVersion, Conditions, FenceSessions, SetReplicas
from storage.model import Bucket, Chunk
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import QUICK, SETTINGS, BlocksBody, World, open_world

CHUNK = SETTINGS.chunk_bytes
LARGE = replace(SETTINGS, chunk_bytes=4 << 20)
"""chunks above what is held whole"""


def world_of(tmp_path: Path, node_count: int = 3, large: bool = False) -> AbstractAsyncContextManager[World]:
    """With short deadlines."""
    return open_world(tmp_path, node_count=node_count, deadlines=QUICK, settings=LARGE if large else SETTINGS)


async def rows(world: World, bucket: Bucket | None = None, key: bytes = b"key") -> list[Chunk]:
    """The chunk rows of an object."""
    read = await world.metadata.read_version((bucket or world.bucket).bucket_id, key)
    return [chunk for blob in read.blobs for chunk in blob.chunks]


async def require_nothing_stays(world: World) -> None:
    """No visible object, no chunk, no byte of the budget."""
    with pytest.raises(NoSuchKey):
        await world.get(b"key")
    assert world.copies == 0
    assert world.cluster.operations.budget.held_bytes == 0


async def require_copies(world: World, data: bytes, copies: int = 2) -> list[Chunk]:
    """The object reads back, and every chunk is on as many nodes as it should be, the same bytes on each."""
    assert await world.get(b"key") == data
    found = await rows(world)
    for chunk in found:
        holders = {
            number for number, node in world.nodes.items() if any(it.chunk_index == chunk.index for it in node.chunks)
        }
        assert len(chunk.nodes) == copies
        assert set(chunk.nodes) <= holders
        sealed = {
            data
            for number in chunk.nodes
            for it, data in world.nodes[number].chunks.items()
            if it.chunk_index == chunk.index
        }
        assert len(sealed) == 1
    assert world.cluster.operations.budget.held_bytes == 0
    return found


def first_choice(world: World) -> FaultyDatanode:
    """The node that the next blob's first chunk prefers."""
    session = world.objects._writer._services.session
    counter = session.enter().counter + 1
    blob_id = session.session_id + counter.to_bytes(8, "big")
    return world.nodes[world.objects._writer._services.placer.choose(blob_id, 0, 2).column[0].number]


# ------------------------------------------------------------------ nodes that do not begin


@pytest.mark.parametrize("size", [50_000, 200_000, CHUNK * 3 + 5])
async def test_a_full_node_is_replaced_by_another(tmp_path: Path, size: int) -> None:
    """507 before the first frame: the chunk goes elsewhere, and nothing is pulled."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.full = True
        await world.put(b"key", data)
        assert node.puts
        assert not node.chunks
        assert not any(it.pulls for it in world.nodes.values())
        await require_copies(world, data)


async def test_a_refusing_node_is_replaced_and_avoided(tmp_path: Path) -> None:
    """Who just refused is left out for a while, as long as others can take the chunk."""
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.down = True
        await world.put(b"key", os.urandom(100_000))
        tried = node.puts
        for _ in range(6):
            await world.put(b"key", os.urandom(100_000))
        assert node.puts == tried


@pytest.mark.parametrize("size", [50_000, 200_000])
async def test_a_node_that_never_takes_a_byte_is_replaced(tmp_path: Path, size: int) -> None:
    """Its deadline passes, the chunk goes to another."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.put_stalls_after_bytes = 0
        await world.put(b"key", data)
        await require_copies(world, data)


async def test_nothing_of_a_single_frame_is_held_before_it_is_whole(tmp_path: Path) -> None:
    """A client that stalls in the middle of it holds no memory of the budget and no node; one that goes away leaves
    nothing."""
    stalled = asyncio.Event()

    async def stall(index: int) -> None:
        if index == 1:
            stalled.set()
            await asyncio.Event().wait()

    async with world_of(tmp_path) as world:
        body = BlocksBody([os.urandom(30_000), os.urandom(30_000)], before_block=stall)
        putting = asyncio.ensure_future(world.objects.put(world.bucket, b"key", body, world.request()))
        await stalled.wait()
        assert world.cluster.operations.budget.held_bytes == 0
        assert not any(node.puts for node in world.nodes.values())
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await require_nothing_stays(world)


async def test_a_held_chunk_is_resent_identically(tmp_path: Path) -> None:
    """A node that dies in the middle of a chunk of up to 1 MiB is replaced too: the chunk is held whole."""
    data = os.urandom(CHUNK)
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.put_dies_after_bytes = 150_000
        await world.put(b"key", data, block_bytes=65_536)
        assert not any(it.pulls for it in world.nodes.values())
        await require_copies(world, data)


# ------------------------------------------------------------------ nodes that do not end


@pytest.mark.parametrize("how", ["put_dies_after_bytes", "put_stalls_after_bytes"])
async def test_a_node_lost_midway_is_dropped_and_its_copy_pulled(tmp_path: Path, how: str) -> None:
    """Past what is held, the write goes on with the others; the missing copy is made from node to node."""
    data = os.urandom(4 << 20)
    async with world_of(tmp_path, large=True) as world:
        node = first_choice(world)
        setattr(node, how, 2 << 20)
        await world.put(b"key", data, block_bytes=65_536)
        assert sum(it.pulls for it in world.nodes.values()) == 1
        (chunk,) = await require_copies(world, data)
        assert node.number not in chunk.nodes


@pytest.mark.parametrize("size", [50_000, 4 << 20])
async def test_a_node_that_is_never_durable_is_dropped(tmp_path: Path, size: int) -> None:
    """All bytes taken and no answer: it does not count, and what it has is left to the survey."""
    data = os.urandom(size)
    async with world_of(tmp_path, large=True) as world:
        node = first_choice(world)
        node.put_is_never_durable = True
        await world.put(b"key", data)
        (chunk,) = await require_copies(world, data)
        assert node.number not in chunk.nodes


async def test_no_late_delete_takes_a_piece_that_a_repair_named(tmp_path: Path) -> None:
    """A node answers too late, is repaired onto, and only then carries out what it was asked meanwhile."""
    data = os.urandom(4 << 20)
    async with world_of(tmp_path, large=True) as world:
        node = first_choice(world)
        node.put_is_never_durable = True
        asked: list[ChunkId] = []

        async def stall(chunk_ids: Sequence[ChunkId]) -> list[bool]:
            asked.extend(chunk_ids)
            raise NodeUnreachable("too late")

        node.delete_many = stall  # type: ignore[method-assign]
        await world.put(b"key", data)
        (chunk,) = await require_copies(world, data)
        (stored_id,) = node.chunks
        repaired = (chunk.nodes[0], node.number)
        assert await world.metadata.apply(SetReplicas(stored_id.blob_id, 0, chunk.nodes, repaired))
        await node.inner.delete_many(asked)
        assert set((await require_copies(world, data))[0].nodes) == set(repaired)


@pytest.mark.parametrize("size", [50_000, 200_000])
async def test_a_node_that_stores_other_bytes_does_not_count(tmp_path: Path, size: int) -> None:
    """Its digest is not the digest of what was sent."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.put_stores_other_bytes = True
        await world.put(b"key", data)
        (chunk,) = await require_copies(world, data)
        assert node.number not in chunk.nodes


async def test_a_pull_that_fails_goes_to_the_next_node(tmp_path: Path) -> None:
    """Every eligible node is asked before the write fails."""
    data = os.urandom(4 << 20)
    async with world_of(tmp_path, node_count=4, large=True) as world:
        choice = world.objects._writer._services.placer.choose(
            world.objects._writer.session_id + (1).to_bytes(8, "big"), 0, 2
        )
        candidates = [*choice.column, *choice.stand_ins()]
        world.nodes[candidates[0].number].put_dies_after_bytes = 2 << 20
        world.nodes[candidates[2].number].pull_fails = True
        await world.put(b"key", data, block_bytes=65_536)
        (chunk,) = await require_copies(world, data)
        assert set(chunk.nodes) == {candidates[1].number, candidates[3].number}


async def test_too_few_copies_fail_the_write(tmp_path: Path) -> None:
    """No eligible node for the missing copy: 503, and nothing stays."""
    async with world_of(tmp_path, node_count=2, large=True) as world:
        first_choice(world).put_dies_after_bytes = 2 << 20
        with pytest.raises(NotEnoughNodes):
            await world.put(b"key", os.urandom(4 << 20), block_bytes=65_536)
        await require_nothing_stays(world)


async def test_fewer_copies_are_enough_where_the_operator_says_so(tmp_path: Path) -> None:
    """copies_before_ack_min below the redundancy: acknowledged with what is durable."""
    data = os.urandom(4 << 20)
    settings = replace(LARGE, copies_before_ack_min=1)
    async with open_world(tmp_path, node_count=2, deadlines=QUICK, settings=settings) as world:
        first_choice(world).put_dies_after_bytes = 2 << 20
        await world.put(b"key", data, block_bytes=65_536)
        await require_copies(world, data, copies=1)


async def test_all_nodes_dead_stops_the_producer(tmp_path: Path) -> None:
    """The body is not read to its end when nobody takes it."""
    read: list[int] = []

    async def count(index: int) -> None:
        read.append(index)
        await asyncio.sleep(0)

    async with world_of(tmp_path, large=True) as world:
        for node in world.nodes.values():
            node.put_dies_after_bytes = 1 << 20
        blocks = [os.urandom(65_536)] * 640
        with pytest.raises(Unavailable):
            await world.objects.put(world.bucket, b"key", BlocksBody(blocks, before_block=count), world.request())
        assert len(read) < 64
        await require_nothing_stays(world)


async def test_too_few_nodes_at_all(tmp_path: Path) -> None:
    """Refused before a byte is sent."""
    async with world_of(tmp_path, node_count=1) as world:
        with pytest.raises(NotEnoughNodes):
            await world.put(b"key", os.urandom(100_000))
        assert world.nodes[1].puts == 0
        await world.put(b"key", b"small enough to be inline")


# ------------------------------------------------------------------ bodies and commits that fail


@pytest.mark.parametrize("size", [100, 50_000, 100_000, CHUNK * 4])
async def test_a_body_that_does_not_verify_leaves_nothing(tmp_path: Path, size: int) -> None:
    """What finish() raises comes out unchanged, after everything was deleted."""
    async with world_of(tmp_path) as world:
        body = BlocksBody([os.urandom(size)], failure=ZeroDivisionError("BadDigest"))
        with pytest.raises(ZeroDivisionError):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await require_nothing_stays(world)


@pytest.mark.parametrize(
    ("came", "announced"),
    [(100, 101), (101, 100), (50_000, 50_001), (50_001, 50_000), (300_000, 300_001), (300_001, 300_000), (0, 5)],
)
async def test_a_body_of_another_length_leaves_nothing(tmp_path: Path, came: int, announced: int) -> None:
    """Shorter and longer than announced, inline and in chunks, even when finish() lets it pass."""
    async with world_of(tmp_path) as world:
        body = BlocksBody([os.urandom(came)] if came else [], announced)
        with pytest.raises(ChunkTruncated):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await require_nothing_stays(world)


async def test_a_refused_commit_leaves_nothing(tmp_path: Path) -> None:
    """If-Match on another ETag: the chunks go, the object there stays."""
    async with world_of(tmp_path) as world:
        await world.put(b"key", b"first")
        request = world.request()._replace(conditions=Conditions(if_match="no"))
        with pytest.raises(PreconditionFailed):
            await world.objects.put(world.bucket, b"key", BlocksBody([os.urandom(300_000)]), request)
        assert world.copies == 0
        assert await world.get(b"key") == b"first"


async def test_a_cancelled_write_leaves_nothing(tmp_path: Path) -> None:
    """The client went away in the middle of the second chunk."""
    reached = asyncio.Event()

    async def wait(index: int) -> None:
        if index == 5:
            reached.set()
            await asyncio.Event().wait()

    async with world_of(tmp_path) as world:
        blocks = [os.urandom(100_000)] * 8
        body = BlocksBody(blocks, before_block=wait)
        writing = asyncio.create_task(world.objects.put(world.bucket, b"key", body, world.request()))
        await reached.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await world.objects._writer._services.cleanup.close()
        await require_nothing_stays(world)


async def test_what_cannot_be_deleted_is_recorded_as_released(tmp_path: Path) -> None:
    """A roll-back meets a node that does not answer: the sweeper learns of its chunks, and of no others."""
    async with world_of(tmp_path) as world:
        node = first_choice(world)
        node.delete_fails = True
        body = BlocksBody([os.urandom(CHUNK * 3)], failure=ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await world.objects._writer._services.cleanup.close()
        (blob,) = await world.metadata.list_released_blobs(2**62, 10)
        recorded = {(chunk.index, number) for chunk in blob.chunks for number in chunk.nodes}
        assert recorded == {(chunk_id.chunk_index, node.number) for chunk_id in node.chunks}
        assert world.copies == len(node.chunks)


class _LosesAnswers:
    """Metadata whose answers to commits are lost, after or before they were applied."""

    def __init__(self, world: World, applied: bool) -> None:
        self._inner = world.metadata
        self._applied = applied

    async def apply(self, command: Command) -> object:
        if isinstance(command, CommitVersion):
            if self._applied:
                await self._inner.apply(command)
            raise Unavailable("lost", outcome="unknown")
        return await self._inner.apply(command)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.mark.parametrize("applied", [True, False])
async def test_an_unknown_outcome_deletes_nothing_that_may_be_committed(tmp_path: Path, applied: bool) -> None:
    """Applied: the object is whole. Not applied: its blob is released, and a late commit of it is refused."""
    data = os.urandom(300_000)
    async with world_of(tmp_path) as world:
        writer = world.objects._writer
        writer._services = writer._services._replace(metadata=_LosesAnswers(world, applied))
        with pytest.raises(Unavailable):
            await world.put(b"key", data)
        assert world.copies == 4, "the chunks are still there"
        await world.objects._writer._services.cleanup.close()
        released = await world.metadata.list_released_blobs(2**62, 10)
        if applied:
            assert await world.get(b"key") == data
            assert released == []
        else:
            (blob,) = released
            assert len(blob.chunks) == 2


async def test_a_fenced_session_fails_its_writes_and_is_replaced(tmp_path: Path) -> None:
    """What was being written fails with SessionFenced; the next write has a new session."""
    async with world_of(tmp_path) as world:
        session = world.objects._writer._services.session
        old = session.session_id

        async def fence(index: int) -> None:
            if index == 2:
                await world.metadata.apply(FenceSessions(-1))

        body = BlocksBody([os.urandom(100_000)] * 4, before_block=fence)
        with pytest.raises(SessionFenced):
            await world.objects.put(world.bucket, b"key", body, world.request())
        await session.renew()
        assert session.session_id != old
        await world.put(b"key", b"x" * 100_000)
        assert await world.get(b"key") == b"x" * 100_000


# ------------------------------------------------------------------ placement


async def test_small_bodies_ask_no_datanode(tmp_path: Path) -> None:
    """They are part of the commit, sealed."""
    async with world_of(tmp_path) as world:
        await world.put(b"key", b"plaintext that is easy to find" * 10)
        read = await world.metadata.read_version(world.bucket.bucket_id, b"key")
        (blob,) = read.blobs
        assert blob.redundancy == INLINE
        assert blob.inline is not None
        assert b"easy to find" not in blob.inline
        assert not any(node.puts for node in world.nodes.values())


async def test_copies_are_in_different_failure_domains_when_a_node_fails(tmp_path: Path) -> None:
    """The stand-in is of a domain that holds no copy yet, if there is one."""
    async with world_of(tmp_path, node_count=4) as world:
        for number, domain in {1: "z/a/1", 2: "z/a/1", 3: "z/b/1", 4: "z/b/1"}.items():
            world.nodes[number].failure_domain = domain
        await world.map.change(node.node() for node in world.nodes.values())
        for index in range(12):
            key = b"key-%d" % index
            node = first_choice(world)
            node.full = True
            await world.put(key, os.urandom(100_000))
            node.full = False
            (chunk,) = await rows(world, key=key)
            assert {world.nodes[number].failure_domain for number in chunk.nodes} == {"z/a/1", "z/b/1"}
