"""Reads of erasure-coded objects: the right bytes whatever k fragments are left, no more cells than needed, and never a
wrong byte."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.deadlines import Deadlines
from cluster.hedging import STALLED_AFTER
from cluster.read_counts import ReadCounts
from cluster.repair_hints import RepairHint
from storage.base.errors import Corrupt, Unavailable
from storage.base.ids import split_stored_index
from storage.chunks.erasure import FRAGMENT_HEADER_BYTES
from storage.crypto.envelope import FRAME_BYTES, SEALED_FRAME_BYTES
from storage.metadata.commands import SetReplicas
from storage.metadata.interface import CHUNK_PAGE_ROWS
from storage.model import Blob, ByteRange, Chunk
from tests.cluster.layouts import lay_out, piece_of, read_blobs
from tests.cluster.near import only_by_wire
from tests.cluster.world import QUICK, SETTINGS, World, open_world

FRAMES = 13
CHUNK = FRAMES * FRAME_BYTES
"""three stripes of 4+2 and one that is short"""
DATA = os.urandom(CHUNK * 2 + 70_000)
PATIENT = Deadlines(first_byte_s=3600, read_stall_s=3600)
"""a stalled node is not given up: a read that comes back did not wait for it"""


@pytest.fixture
async def world(tmp_path: Path, is_near: bool) -> AsyncIterator[World]:
    """One object in ec:4+2 on seven nodes, under b"key"."""
    settings = replace(SETTINGS, chunk_bytes=CHUNK)
    async with open_world(tmp_path, node_count=7, settings=settings, deadlines=QUICK, near=is_near) as opened:
        await opened.put(b"key", DATA)
        await lay_out(opened, b"key", "ec:4+2")
        yield opened


async def first_chunk(world: World) -> tuple[Blob, Chunk]:
    """Of the object."""
    (blob,) = await read_blobs(world, b"key")
    return blob, blob.chunks[0]


async def break_fragment(world: World, fragment: int, how: str) -> int:
    """Of the first chunk. → its node."""
    blob, chunk = await first_chunk(world)
    node, chunk_id = world.nodes[chunk.nodes[fragment]], piece_of(blob, chunk)
    if how == "missing":
        await node.inner.delete_many([chunk_id])
    elif how == "rotten":
        rotten = bytearray(node.chunks[chunk_id])
        rotten[FRAGMENT_HEADER_BYTES + SEALED_FRAME_BYTES + 100] ^= 1  # in its second cell
        node.chunks[chunk_id] = bytes(rotten)
    else:
        setattr(node, how, True)
    return node.number


def counts(world: World) -> ReadCounts:
    """Copied: they go on. By whichever road."""
    return replace(world.cluster.operations.reads, near_bytes=0, near_refused=0)


def nothing_held(world: World) -> bool:
    """Every byte was given back."""
    return world.cluster.operations.budget.held_bytes == 0


async def test_whole_and_ranges(world: World) -> None:
    """Any range, over stripes and chunks; only data fragments are asked while they are fine."""
    assert await world.get(b"key") == DATA
    chance = random.Random(7)
    for _ in range(60):
        start, end = sorted(chance.sample(range(len(DATA)), 2))
        assert await world.get(b"key", ByteRange(start, end)) == DATA[start : end + 1]
    assert counts(world).stored_degraded == 0
    assert nothing_held(world)


@only_by_wire
async def test_a_healthy_range_costs_its_frames(world: World) -> None:
    """One frame is one cell of one node; frames of several stripes are one span of each fragment."""
    assert await world.get(b"key", ByteRange(FRAME_BYTES, FRAME_BYTES + 9)) == DATA[FRAME_BYTES : FRAME_BYTES + 10]
    assert counts(world) == ReadCounts(SEALED_FRAME_BYTES, 0, 10, 0)
    assert sum(node.gets for node in world.nodes.values()) == 1
    await world.get(b"key", ByteRange(2 * FRAME_BYTES, 5 * FRAME_BYTES))
    assert counts(world).stored_whole == 5 * SEALED_FRAME_BYTES


@pytest.mark.parametrize("frame", range(FRAMES))
async def test_a_degraded_range_costs_the_cells_of_its_stripe(world: World, frame: int) -> None:
    """k of them, frames that the chunk does not have excepted."""
    await break_fragment(world, frame % 4, "missing")
    start = frame * FRAME_BYTES + 5
    assert await world.get(b"key", ByteRange(start, start + 9)) == DATA[start : start + 10]
    cells = 1 if frame == FRAMES - 1 else 4
    assert counts(world) == ReadCounts(0, cells * SEALED_FRAME_BYTES, 0, 10)
    before = counts(world)
    assert await world.get(b"key", ByteRange(start, start + 9)) == DATA[start : start + 10]
    assert counts(world).stored_degraded - before.stored_degraded == cells * SEALED_FRAME_BYTES


async def test_a_degraded_object_costs_no_more_than_k_cells_a_stripe(world: World) -> None:
    """Read from end to end, whichever fragment is gone: nothing is read for two slices."""
    await break_fragment(world, 2, "missing")
    assert await world.get(b"key") == DATA
    read = counts(world)
    frames = -(-len(DATA) // FRAME_BYTES)
    assert read.served_whole + read.served_degraded == len(DATA)
    # Stripes of full frames cost what they would cost anyhow; the short one has a frame of fragment 0 only.
    assert read.stored_whole + read.stored_degraded <= frames * SEALED_FRAME_BYTES


BROKEN = ["missing", "rotten", "down", "get_corrupts", "get_ends_early", "get_stalls"]


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("fragments", [(0,), (3,), (5,), (1, 2), (0, 4), (4, 5)])
async def test_broken_fragments_are_done_without(world: World, how: str, fragments: tuple[int, ...]) -> None:
    """As many as there is parity; hints name the nodes that have something to repair."""
    nodes = {await break_fragment(world, fragment, how) for fragment in fragments}
    for _ in range(3):
        assert await world.get(b"key") == DATA
        assert await world.get(b"key", ByteRange(CHUNK - 5, CHUNK + 4)) == DATA[CHUNK - 5 : CHUNK + 5]
    assert {hint.node for hint in world.cluster.operations.repair_hints()} <= nodes
    assert nothing_held(world)


@only_by_wire
@pytest.mark.parametrize(("how", "error"), [("missing", "ChunkNotFound"), ("rotten", "SealBroken")])
async def test_a_hint_names_the_fragment(world: World, how: str, error: str) -> None:
    """Its node, and the id that it is stored under, generation and all. Until somebody looks after it, it is asked for
    last; its node is not, for other chunks."""
    number = await break_fragment(world, 1, how)
    assert await world.get(b"key") == DATA
    blob, chunk = await first_chunk(world)
    assert blob.generation == 1
    assert world.cluster.operations.repair_hints() == [RepairHint(piece_of(blob, chunk), number, error)]
    asked = world.nodes[number].gets
    assert await world.get(b"key", ByteRange(FRAME_BYTES, FRAME_BYTES + 5)) == DATA[FRAME_BYTES : FRAME_BYTES + 6]
    assert world.nodes[number].gets == asked
    assert await world.get(b"key", ByteRange(CHUNK, CHUNK + FRAME_BYTES)) == DATA[CHUNK : CHUNK + FRAME_BYTES + 1]
    assert world.nodes[number].gets == asked + 1


@pytest.mark.parametrize("how", ["missing", "rotten"])
async def test_too_many_losses_are_corrupt(world: World, how: str) -> None:
    """For certain; the stripes that are whole can still be read."""
    for fragment in (0, 1, 4):
        await break_fragment(world, fragment, how)
    with pytest.raises(Corrupt):
        await world.get(b"key")
    assert (
        await world.get(b"key", ByteRange(2 * FRAME_BYTES, 3 * FRAME_BYTES))
        == DATA[2 * FRAME_BYTES : 3 * FRAME_BYTES + 1]
    )
    assert nothing_held(world)


@pytest.mark.parametrize("how", ["down", "get_stalls"])
async def test_too_many_unreachable_is_unavailable(world: World, how: str) -> None:
    """They may come back, and then everything is read; also beside losses that leave enough with them."""
    nodes = [await break_fragment(world, fragment, how) for fragment in (0, 1)]
    await break_fragment(world, 4, "missing")
    with pytest.raises(Unavailable):
        await world.get(b"key")
    await break_fragment(world, 5, "missing")
    with pytest.raises(Unavailable):
        await world.get(b"key")
    for number in nodes:
        setattr(world.nodes[number], how, False)
    assert await world.get(b"key") == DATA


async def test_unreachable_fragments_that_cannot_help_are_corrupt(world: World) -> None:
    """Three are gone for certain: whoever else comes back brings back nothing."""
    for fragment in (0, 1, 2):
        await break_fragment(world, fragment, "missing")
    await break_fragment(world, 5, "down")
    with pytest.raises(Corrupt):
        await world.get(b"key", ByteRange(0, 9))


async def test_fragments_with_a_rotten_cell_each_bring_everything_back(world: World) -> None:
    """More fragments than there is parity, but never more than that in one stripe."""
    blob, chunk = await first_chunk(world)
    chunk_id = piece_of(blob, chunk)
    for fragment in (0, 1, 2, 4):
        store = world.nodes[chunk.nodes[fragment]]
        rotten = bytearray(store.chunks[chunk_id])
        rotten[FRAGMENT_HEADER_BYTES + (fragment % 3) * SEALED_FRAME_BYTES] ^= 1
        store.chunks[chunk_id] = bytes(rotten)
    for _ in range(2):
        assert await world.get(b"key") == DATA


async def test_a_fragment_that_is_nowhere(world: World) -> None:
    """Node 0 is asked by nobody, and no hint is needed of what the record says."""
    blob, chunk = await first_chunk(world)
    nodes = (0, *chunk.nodes[1:])
    assert await world.metadata.apply(SetReplicas(blob.blob_id, 0, chunk.nodes, nodes, blob.generation))
    assert await world.get(b"key") == DATA
    assert world.cluster.operations.repair_hints() == []


async def test_fragments_that_moved_are_found(world: World) -> None:
    """A read that holds an old row looks at the new one before it gives up."""
    blob, chunk = await first_chunk(world)
    chunk_id, spare = piece_of(blob, chunk), ({*world.nodes} - {*chunk.nodes}).pop()
    async with world.objects.open(world.bucket, b"key", byte_range=ByteRange(0, 99)) as reading:
        await world.nodes[spare].inner.put_many([(chunk_id, world.nodes[chunk.nodes[0]].chunks[chunk_id])])
        for number in chunk.nodes[:3]:
            await world.nodes[number].inner.delete_many([chunk_id])
        nodes = (spare, *chunk.nodes[1:])
        assert await world.metadata.apply(SetReplicas(blob.blob_id, 0, chunk.nodes, nodes, blob.generation))
        assert b"".join([bytes(block) async for block in reading]) == DATA[:100]


@pytest.mark.parametrize("redundancy", ["replica:2", "ec:2+1", "ec:5+2"])
async def test_a_layout_made_while_reading_is_followed(world: World, redundancy: str) -> None:
    """From fragments to replicas and to other fragments, when the old pieces are gone; nothing of them is hinted at."""
    async with world.objects.open(world.bucket, b"key") as reading:
        got = bytearray()
        async for block in reading:
            if not got:
                await lay_out(world, b"key", redundancy)
            got += block
    assert got == DATA
    assert {split_stored_index(hint.chunk_id.chunk_index)[0] for hint in world.cluster.operations.repair_hints()} <= {2}
    assert await world.get(b"key") == DATA
    await lay_out(world, b"key", "ec:4+2")
    assert await world.get(b"key") == DATA


async def test_rows_of_later_pages_are_of_the_layout_of_then(tmp_path: Path) -> None:
    """A page that is read after the blob was laid out anew is fetched by the new layout at once."""
    settings = replace(SETTINGS, chunk_bytes=FRAME_BYTES)
    data = os.urandom((CHUNK_PAGE_ROWS + 20) * FRAME_BYTES)
    async with open_world(tmp_path, node_count=4, settings=settings) as world:
        await world.put(b"key", data)
        async with world.objects.open(world.bucket, b"key") as reading:
            got = bytearray()
            async for block in reading:
                if not got:
                    await lay_out(world, b"key", "ec:2+1", keep_old=True)
                got += block
        assert got == data
        assert world.cluster.operations.repair_hints() == []
        assert counts(world).stored_degraded == 0


# ------------------------------------------------------------------ hedges


async def test_a_stalled_node_is_waited_for_a_few_times(tmp_path: Path) -> None:
    """Its fragments are done without after a delay, and soon it is not asked at all."""
    settings = replace(SETTINGS, chunk_bytes=CHUNK)
    async with open_world(tmp_path, node_count=7, settings=settings, deadlines=PATIENT) as world:
        await world.put(b"key", DATA)
        await lay_out(world, b"key", "ec:4+2")
        _, chunk = await first_chunk(world)
        stalled = world.nodes[chunk.nodes[1]]
        stalled.get_stalls = True
        for _ in range(12):
            start = FRAME_BYTES + 3
            assert await world.get(b"key", ByteRange(start, start + 9)) == DATA[start : start + 10]
        assert stalled.gets <= STALLED_AFTER
        assert await world.get(b"key") == DATA
        assert stalled.gets <= STALLED_AFTER
        assert world.cluster.operations.repair_hints() == [], "a stall is nothing to repair"
        assert nothing_held(world)


async def test_two_stalled_nodes_of_one_stripe(tmp_path: Path) -> None:
    """As many as there is parity; the others are enough."""
    settings = replace(SETTINGS, chunk_bytes=CHUNK)
    async with open_world(tmp_path, node_count=7, settings=settings, deadlines=PATIENT) as world:
        await world.put(b"key", DATA)
        await lay_out(world, b"key", "ec:4+2")
        _, chunk = await first_chunk(world)
        for fragment in (0, 4):
            world.nodes[chunk.nodes[fragment]].get_stalls = True
        for _ in range(4):
            assert await world.get(b"key") == DATA
