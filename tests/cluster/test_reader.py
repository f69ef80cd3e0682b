"""The read side against replicas that are missing, damaged, cut short or silent, and against clients that are slow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.chunk_writes import BUDGET_BYTES_MIN
from cluster.read_run import SLOW_AFTER_S
from storage.base.clock import ManualClock
from storage.base.errors import Corrupt, InvalidPart, NoSuchKey, SealBroken, Unavailable
from storage.crypto.envelope import FRAME_BYTES
from storage.metadata.commands import SetReplicas
from storage.metadata.interface import CHUNK_PAGE_ROWS, VersionRead
from storage.model import ByteRange, Chunk
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.near import only_by_wire
from tests.cluster.world import QUICK, SETTINGS, World, open_world

CHUNK = SETTINGS.chunk_bytes
DATA = os.urandom(CHUNK * 3 + 1000)


@pytest.fixture
async def world(tmp_path: Path, is_near: bool) -> AsyncIterator[World]:
    """One object of four chunks under b"key"."""
    async with open_world(tmp_path, deadlines=QUICK, near=is_near) as opened:
        await opened.put(b"key", DATA)
        yield opened


async def rows(world: World) -> list[Chunk]:
    """Of the object."""
    read = await world.metadata.read_version(world.bucket.bucket_id, b"key")
    return list(read.blobs[0].chunks)


async def break_one(world: World, chunk: Chunk, how: str) -> FaultyDatanode:
    """One replica of the chunk is bad from now on."""
    node = world.nodes[chunk.nodes[0]]
    if how == "missing":
        await node.inner.delete_many(list(node.chunks))
    else:
        setattr(node, how, True)
    return node


@pytest.mark.parametrize("how", ["missing", "down", "get_corrupts", "get_ends_early"])
async def test_a_bad_replica_is_passed_over(world: World, how: str) -> None:
    """The bytes come from the other one, and a hint says which was bad."""
    (chunk, *_) = await rows(world)
    node = await break_one(world, chunk, how)
    for _ in range(100):  # replicas are asked in a random order
        assert await world.get(b"key") == DATA
        if hints := world.cluster.operations.repair_hints():
            break
    assert {hint.node for hint in hints} == {node.number}
    assert (await world.cluster.operations.health()).hints == len(hints)


@only_by_wire
async def test_a_bad_node_is_asked_last(world: World) -> None:
    """It is not tried again for every span."""
    (chunk, *_) = await rows(world)
    node = await break_one(world, chunk, "down")
    await world.get(b"key")
    tried = node.gets
    for _ in range(5):
        await world.get(b"key")
    assert node.gets <= tried + 1


async def test_no_good_replica_is_corrupt(world: World) -> None:
    """Missing or damaged everywhere: the bytes are gone, which is not the same as 'try again'."""
    (chunk, *_) = await rows(world)
    await break_one(world, chunk, "missing")
    for node in world.nodes.values():
        node.get_corrupts = True
    with pytest.raises(Corrupt):
        await world.get(b"key")


async def test_no_reachable_replica_is_unavailable(world: World) -> None:
    """A node that is down may still have the bytes."""
    for node in world.nodes.values():
        node.down = True
    with pytest.raises(Unavailable):
        await world.get(b"key")
    for node in world.nodes.values():
        node.down = False
    assert await world.get(b"key") == DATA


async def test_replicas_that_moved_are_found(world: World) -> None:
    """A read that holds an old row asks for the new one before it gives up."""
    (chunk, *_) = await rows(world)
    other = next(number for number in world.nodes if number not in chunk.nodes)
    read = await world.metadata.read_version(world.bucket.bucket_id, b"key")
    blob_id = read.blobs[0].blob_id
    async with world.objects.open(world.bucket, b"key", byte_range=ByteRange(0, 99)) as reading:
        for number in chunk.nodes:
            node = world.nodes[number]
            moved = next(chunk_id for chunk_id in node.chunks if chunk_id.chunk_index == chunk.index)
            await world.nodes[other].inner.put_many([(moved, node.chunks[moved])])
            await node.inner.delete_many([moved])
        assert await world.metadata.apply(SetReplicas(blob_id, chunk.index, chunk.nodes, (other,)))
        assert b"".join([bytes(block) async for block in reading]) == DATA[:100]


@only_by_wire
async def test_only_the_frames_of_a_range_are_fetched(world: World) -> None:
    """A small range is one request for one frame."""
    before = sum(node.gets for node in world.nodes.values())
    assert await world.get(b"key", ByteRange(70_000, 70_009)) == DATA[70_000:70_010]
    assert sum(node.gets for node in world.nodes.values()) == before + 1


@only_by_wire
async def test_readers_spread_over_the_replicas(world: World) -> None:
    """Both nodes of a chunk are asked first, by chance."""
    (chunk, *_) = await rows(world)
    for _ in range(100):
        await world.get(b"key", ByteRange(0, 9))
    assert all(world.nodes[number].gets >= 20 for number in chunk.nodes)


async def test_chunk_rows_are_paged(tmp_path: Path) -> None:
    """More chunks than one read brings along."""
    settings = replace(SETTINGS, chunk_bytes=64 << 10)
    data = os.urandom((CHUNK_PAGE_ROWS * 2 + 3) * (64 << 10))
    async with open_world(tmp_path, settings=settings) as world:
        await world.put(b"key", data)
        assert await world.get(b"key") == data
        assert await world.get(b"key", ByteRange(3 << 20, None)) == data[3 << 20 :]


async def test_a_changed_record_does_not_open(world: World) -> None:
    """Another size, another blob: the version's MAC tells."""

    class Tampering:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.metadata, name)

        async def read_version(self, *args: Any, **kwargs: Any) -> VersionRead:
            read = await world.metadata.read_version(*args, **kwargs)
            (extent,) = read.extents
            return read._replace(extents=(msgspec.structs.replace(extent, blob_id=bytes(16)),))

    world.objects._reader._metadata = Tampering()  # type: ignore[assignment]
    with pytest.raises(SealBroken):
        await world.get(b"key")


async def test_what_is_not_there(world: World) -> None:
    """Unknown keys and parts are refused on entry; a range beyond the end is not satisfiable."""
    with pytest.raises(NoSuchKey):
        await world.get(b"nothing")
    with pytest.raises(InvalidPart):
        await world.objects.head(world.bucket, b"key", part_number=2)
    async with world.objects.open(world.bucket, b"key", byte_range=ByteRange(len(DATA), None)) as reading:
        assert not reading.satisfiable
        assert [block async for block in reading] == []


async def test_head_gives_the_whole_and_part_one(world: World) -> None:
    """Of a version that was not made by multipart, part 1 is everything."""
    for part_number in (None, 1):
        reading = await world.objects.head(world.bucket, b"key", part_number=part_number)
        assert (reading.start, reading.end, reading.is_current) == (0, len(DATA), True)


def slow_world(tmp_path: Path, clock: ManualClock) -> AbstractAsyncContextManager[World]:
    """Time stands still unless a test moves it."""
    return open_world(tmp_path, clock=clock, settings=replace(SETTINGS, chunk_bytes=8 << 20))


async def test_a_quick_client_gets_growing_blocks_and_a_slow_one_single_frames(tmp_path: Path) -> None:
    """A slow client holds 64 KiB and nothing is fetched ahead for it."""
    clock = ManualClock()
    data = os.urandom(6 << 20)
    async with slow_world(tmp_path, clock) as world:
        await world.put(b"key", data)
        sizes: list[int] = []
        async with world.objects.open(world.bucket, b"key") as reading:
            async for block in reading:
                sizes.append(len(block))
                if sum(sizes) > 3 << 20:
                    clock.advance(SLOW_AFTER_S * 2)
        assert sum(sizes) == len(data)
        assert max(sizes) > 900_000
        assert set(sizes[-10:]) == {65_536}
        assert world.cluster.operations.budget.held_bytes == 0


async def test_readers_that_stop_reading_starve_nobody(tmp_path: Path) -> None:
    """Thirty open reads that nobody continues leave the whole budget to others."""
    settings = replace(SETTINGS, budget_bytes=BUDGET_BYTES_MIN, chunk_bytes=8 << 20)
    data = os.urandom(4 << 20)
    async with open_world(tmp_path, settings=settings) as world:
        await world.put(b"key", data)
        stopped = []
        for _ in range(30):
            opened = world.objects.open(world.bucket, b"key")
            reading = await opened.__aenter__()
            blocks = aiter(reading)
            for _ in range(3):
                await anext(blocks)
            stopped.append(opened)
        async with asyncio.timeout(60):
            assert await world.get(b"key") == data
            await world.put(b"other", data)
        assert world.objects._reader._reads.running == 30
        for opened in stopped:
            await opened.__aexit__(None, None, None)
        assert world.objects._reader._reads.running == 0
        assert world.cluster.operations.budget.held_bytes == 0


async def test_what_all_senders_hold_together_is_bounded(tmp_path: Path) -> None:
    """A block asked to be followed may still be in its transport. Above the bound everybody gets single frames, from
    the first on."""
    settings = replace(SETTINGS, chunk_bytes=4 << 20)
    async with open_world(tmp_path, settings=settings) as world, AsyncExitStack() as stopped:
        await world.put(b"key", os.urandom(4 << 20))
        runs = world.objects._reader._runs
        runs._sending_bytes_max = 1 << 20
        for _ in range(20):
            blocks = aiter(await stopped.enter_async_context(world.objects.open(world.bucket, b"key")))
            sizes = [len(await anext(blocks)) for _ in range(4)]
        assert sizes == [FRAME_BYTES] * 4
        assert 1 << 20 <= runs.sending_bytes <= (3 << 20) + 20 * 2 * FRAME_BYTES
        await stopped.aclose()
        assert runs.sending_bytes == 0


async def test_a_read_that_is_left_early_gives_everything_back(world: World) -> None:
    """Leaving the context ends what was fetched ahead."""
    async with world.objects.open(world.bucket, b"key") as reading:
        await anext(aiter(reading))
    assert world.cluster.operations.budget.held_bytes == 0
    assert world.objects._reader._runs.sending_bytes == 0


async def test_a_failure_midway_is_raised_and_never_a_short_end(world: World) -> None:
    """Whoever iterates sees the error after the blocks that were good."""
    chunks = await rows(world)
    got = b""
    with pytest.raises(Unavailable):
        async with world.objects.open(world.bucket, b"key") as reading:
            async for block in reading:
                got += block
                for number in chunks[-1].nodes:
                    world.nodes[number].down = True
    assert DATA.startswith(got)
    assert len(got) < len(DATA)
