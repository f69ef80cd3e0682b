"""Bodies of one chunk that are held whole: sent in one go where all goes well, written anew in pieces where not, and
nothing stays of what was tried."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

import cluster.writer
from cluster.blob_write import BlobWrite
from cluster.body import BodyDigests, HeldBody
from cluster.chunk_writes import BUDGET_BYTES_MIN
from cluster.objectstore import PutResult
from cluster.survival import make_survive_min
from cluster.whole_write import WHOLE_BYTES_MAX
from storage.base.errors import NoSuchKey, NotEnoughNodes, SessionFenced, Unavailable
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import Command, Conditions
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.test_writer import CHUNK, require_copies, require_nothing_stays, world_of
from tests.cluster.world import SETTINGS, World, open_world

SIZES = [(16 << 10) + 1, 65_536, 65_537, CHUNK]
WAIT_S = 20


class Anew:
    """How many bodies were written in pieces."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Anew:
    """Counts them."""
    counted = Anew()

    class Counted(BlobWrite):
        def __init__(self, *arguments: object) -> None:
            counted.count += 1
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cluster.writer, "BlobWrite", Counted)
    return counted


async def put(world: World, data: bytes, conditions: Conditions | None = None) -> PutResult:
    """A body that is held."""
    digests = BodyDigests(hashlib.md5(data, usedforsecurity=False).digest(), None)
    request = world.request()
    if conditions is not None:
        request = request._replace(conditions=conditions)
    return await world.objects.put(world.bucket, b"key", HeldBody(memoryview(data), digests), request)


async def settle(is_settled: Callable[[], bool]) -> None:
    """Clean-ups go on beside the answer."""
    async with asyncio.timeout(WAIT_S):
        while not is_settled():
            await asyncio.sleep(0.005)


def test_the_largest_fits_a_segment() -> None:
    """Else a datanode would want to be asked first."""
    assert sealed_length(WHOLE_BYTES_MAX) <= RECORD_BYTES_MAX


@pytest.mark.parametrize("redundancy", ["replica:1", "replica:2", "replica:3", "ec:2+1"])
@pytest.mark.parametrize("size", SIZES)
async def test_what_is_held_is_sent_in_one_go(tmp_path: Path, anew: Anew, redundancy: str, size: int) -> None:
    """It reads back, with as many copies as it should have; what would be fragments is not for this way."""
    data = os.urandom(size)
    async with open_world(tmp_path, settings=replace(SETTINGS, redundancy=redundancy)) as world:
        result = await put(world, data)
        assert result.committed.etag == hashlib.md5(data).hexdigest() and result.size == size
        is_whole = redundancy != "ec:2+1" or size < 2 * (65_536 + 16)
        assert anew.count == (not is_whole)
        assert (world.objects.held.find_redundancy(world.bucket, size) is not None) == is_whole
        if is_whole:
            await require_copies(world, data, 2 if redundancy == "ec:2+1" else int(redundancy[-1]))
        assert await world.get(b"key") == data
        assert all(node.puts == len(node.chunks) for node in world.nodes.values())


async def test_more_than_one_chunk_is_written_in_pieces(tmp_path: Path, anew: Anew) -> None:
    """And says so beforehand."""
    data = os.urandom(CHUNK + 1)
    async with world_of(tmp_path) as world:
        assert world.objects.held.find_redundancy(world.bucket, len(data)) is None
        await put(world, data)
        assert anew.count == 1
        await require_copies(world, data)


def fill(node: FaultyDatanode) -> None:
    """No room."""
    node.full = True


def stop(node: FaultyDatanode) -> None:
    """Refuses everything."""
    node.down = True


def die(node: FaultyDatanode) -> None:
    """In the middle of the chunk."""
    node.put_dies_after_bytes = 1000


def stall(node: FaultyDatanode) -> None:
    """Takes all and never answers."""
    node.put_is_never_durable = True


def lie(node: FaultyDatanode) -> None:
    """Has stored something else."""
    node.put_stores_other_bytes = True


def next_node(world: World) -> FaultyDatanode:
    """The one that the next body goes to first."""
    placer = world.objects._writer._services.placer
    return world.nodes[placer._choose(copy(placer._runs).enter(1), 0, 2).column[0].number]


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("harm", [fill, stop, die, stall, lie])
async def test_a_node_that_fails_is_replaced(
    tmp_path: Path, anew: Anew, harm: Callable[[FaultyDatanode], None], size: int
) -> None:
    """The body is written anew elsewhere, the node is avoided for a while, and no piece of the first attempt stays
    where it can be deleted."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        node = next_node(world)
        harm(node)
        await put(world, data)
        assert anew.count == 1 and node.puts == 1
        chunks = await require_copies(world, data)
        assert node.number not in chunks[0].nodes
        await settle(lambda: world.copies - len(node.chunks if node.down else ()) == 2)
        await put(world, data)
        assert node.puts == 1


async def test_too_few_nodes(tmp_path: Path, anew: Anew) -> None:
    """It ends as it would in pieces, and nothing stays."""
    async with world_of(tmp_path, node_count=2) as world:
        next_node(world).full = True
        with pytest.raises(NotEnoughNodes):
            await put(world, os.urandom(100_000))
        assert anew.count == 1
        await settle(lambda: world.copies == 0)
        await require_nothing_stays(world)


async def test_what_would_not_survive_is_not_sent(tmp_path: Path, anew: Anew) -> None:
    """Three nodes on one disk, where the loss of a host must be survived."""
    settings = replace(SETTINGS, survive_min=make_survive_min("host", 1))
    async with open_world(tmp_path, settings=settings, failure_domain="zone/host/disk") as world:
        with pytest.raises(NotEnoughNodes):
            await put(world, os.urandom(100_000))
        assert not any(node.puts for node in world.nodes.values())
        await require_nothing_stays(world)


async def test_without_memory_it_waits_in_pieces(tmp_path: Path, anew: Anew) -> None:
    """The budget is passed by nobody, and is whole again afterwards."""
    data = os.urandom(100_000)
    async with world_of(tmp_path) as world:
        budget = world.cluster.operations.budget
        assert budget.try_acquire(budget.capacity_bytes)
        putting = asyncio.ensure_future(put(world, data))
        await settle(lambda: budget.waiting == 1)
        assert not world.copies
        budget.release(budget.capacity_bytes)
        await putting
        assert anew.count == 1
        await require_copies(world, data)


async def test_the_budget_bounds_what_is_sent(tmp_path: Path) -> None:
    """However many come at once."""
    bodies = [os.urandom(CHUNK) for _ in range(40)]
    settings = replace(SETTINGS, budget_bytes=BUDGET_BYTES_MIN)
    async with open_world(tmp_path, settings=settings) as world:
        for node in world.nodes.values():
            node.slow_by_steps = 20
        await asyncio.gather(*(put(world, data) for data in bodies))
        budget = world.cluster.operations.budget
        assert budget.held_bytes_peak <= budget.capacity_bytes and budget.held_bytes == 0
        await settle(lambda: world.copies == 2 * len(bodies))


async def test_a_cancelled_one_leaves_nothing(tmp_path: Path, anew: Anew) -> None:
    """It was on its nodes already."""
    async with world_of(tmp_path) as world:
        for node in world.nodes.values():
            node.put_is_never_durable = True
        putting = asyncio.ensure_future(put(world, os.urandom(100_000)))
        await settle(lambda: world.copies == 2)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert anew.count == 0
        await require_nothing_stays(world)


async def test_a_refused_commit_takes_the_pieces_back(tmp_path: Path, anew: Anew) -> None:
    """As in pieces; it is not tried anew."""
    async with world_of(tmp_path) as world:
        with pytest.raises(NoSuchKey):
            await put(world, os.urandom(100_000), Conditions(if_match="no such etag"))
        assert anew.count == 0
        await require_nothing_stays(world)


@pytest.mark.parametrize("error", [Unavailable("gone", outcome="unknown"), SessionFenced()])
async def test_an_unknown_outcome_deletes_nothing(
    tmp_path: Path, anew: Anew, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The pieces stay for whoever can tell."""
    data = os.urandom(100_000)
    async with world_of(tmp_path) as world:
        apply: Callable[[Command], Awaitable[object]] = world.metadata.apply

        async def lose_the_answer(command: Command) -> object:
            if type(command).__name__ != "CommitVersion":
                return await apply(command)
            await apply(command)
            raise error

        monkeypatch.setattr(world.metadata, "apply", lose_the_answer)
        with pytest.raises(type(error)):
            await put(world, data)
        monkeypatch.undo()
        assert await world.get(b"key") == data
        assert world.copies == 2 and anew.count == 0
