"""Small chunks that are written into a datanode's segments: objects like any other, and writes that fail like any."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import near_lane, near_ranges
from cluster.assembly import ClusterSettings
from cluster.body import BodyDigests, HeldBody
from cluster.deadlines import Deadlines
from cluster.near_small_puts import NearSmallPuts
from cluster.objectstore import PutRequest
from storage.base import uring
from storage.base.direct_file import DirectFile
from storage.base.errors import ChunkNotFound
from storage.base.files import Buffer, DiskFile
from storage.base.ids import chunk_id_from_bytes
from storage.base.uring import ChainEnd, Uring, Write
from storage.chunks.lent_range import Ending
from storage.chunks.near_drafts import NotLent
from storage.chunks.near_range import NearRange, NewBody
from storage.chunks.store import INVENTORY_ENTRIES_MAX, ChunkReceipt
from storage.datanode.range_client import RangeClient, RangeLoan
from storage.model import Attributes, NodeState
from tests.cluster.served import ServedNode, ServedWorld, served_world
from tests.cluster.world import SETTINGS
from tests.storage.base.rings import require_chains
from tests.storage.chunks.chunk_files import find_chunk

ONE_COPY = replace(SETTINGS, chunk_bytes=4 << 20, redundancy="replica:1")
TWO_COPIES = replace(ONE_COPY, redundancy="replica:2")
SETTLE_TIMEOUT_S = 60.0
SIZES = [17_000, 65_536, 200_001, 1 << 20]


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first chunk asks for a range."""
    monkeypatch.setattr(near_lane, "ASKED_AFTER_PUTS", 1)


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are given back soon."""
    monkeypatch.setattr(near_ranges, "RESTED_S", 0.2)
    monkeypatch.setattr(near_lane, "RESTED_S", 0.2)


def near_to(tmp_path: Path, settings: ClusterSettings, node_count: int) -> ClusterSettings:
    """A worker that knows all of the directories."""
    directories = tuple(tmp_path / f"node-{number}" for number in range(1, node_count + 1))
    return replace(settings, datanode_directories=directories, deadlines=Deadlines(stall_s=3, durable_s=6))


@pytest.fixture
async def chained(tmp_path: Path) -> AsyncIterator[ServedWorld]:
    """Three nodes, one copy, by chains of the kernel."""
    require_chains()
    async with served_world(tmp_path, near_to(tmp_path, ONE_COPY, 3)) as opened:
        yield opened


@pytest.fixture
async def threaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServedWorld]:
    """Three nodes, two copies, by threads, as where the system has no chains."""

    def refuse(_: Uring) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(Uring, "__init__", refuse)
    async with served_world(tmp_path, near_to(tmp_path, TWO_COPIES, 3)) as opened:
        yield opened


@pytest.fixture(params=["chained", "threaded"])
def world(request: pytest.FixtureRequest) -> ServedWorld:
    """Either of them."""
    found: ServedWorld = request.getfixturevalue(request.param)
    return found


def near_of(world: ServedWorld) -> NearSmallPuts:
    found = world.objects._writer._services.nodes._near_small_puts
    assert found is not None
    return found


async def put(world: ServedWorld, key: int, data: bytes) -> None:
    """A body that is held."""
    digests = BodyDigests(hashlib.md5(data, usedforsecurity=False).digest(), None)
    request = PutRequest(world.owner.canonical_id, Attributes())
    await world.objects.put(world.bucket, b"%d" % key, HeldBody(memoryview(data), digests), request)


async def require_all(world: ServedWorld, bodies: dict[int, bytes]) -> None:
    """They read back, and each chunk of each node is whole on the medium."""
    for key, data in bodies.items():
        async with world.objects.open(world.bucket, b"%d" % key) as reading:
            assert b"".join([bytes(block) async for block in reading]) == data
    for node in world.nodes:
        for entry in await node.store.inventory(None, INVENTORY_ENTRIES_MAX):
            try:
                await node.store.verify(chunk_id_from_bytes(entry.chunk_id))
            except ChunkNotFound:  # of a write that failed: it was just taken back
                assert entry not in await node.store.inventory(None, INVENTORY_ENTRIES_MAX)


async def put_many(world: ServedWorld, keys: Sequence[int], size: int | None = None) -> dict[int, bytes]:
    """At once."""
    bodies = {key: os.urandom(size or SIZES[key % len(SIZES)]) for key in keys}
    await asyncio.gather(*[put(world, key, data) for key, data in bodies.items()])
    return bodies


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def warm_up(world: ServedWorld) -> dict[int, bytes]:
    """Until there is a range of each node."""
    bodies: dict[int, bytes] = {}

    async def more() -> None:
        key = 10_000 + len(bodies)
        bodies[key] = os.urandom(20_000)
        await put(world, key, bodies[key])

    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while len(lent(world)) < len(world.nodes):
            await more()
    return bodies


def lent(world: ServedWorld) -> set[int]:
    """Nodes that a range of the worker's is of."""
    lanes = near_of(world)._lanes
    return {node.number for node in world.nodes if node.directory in lanes and lanes[node.directory]._ranges}


def loans(node: ServedNode) -> int:
    return node._app._ranges._loans


# ------------------------------------------------------------------ when all goes well


@pytest.mark.usefixtures("restless")
async def test_what_is_small_is_written_and_nothing_is_sent(world: ServedWorld) -> None:
    """Once there are ranges; they are given back when nothing comes any more, and the nodes know what they have."""
    bodies = await warm_up(world)
    sent, written = world.count("PUT", ""), near_of(world).counts.near_pieces
    for turn in range(4):
        bodies |= await put_many(world, range(turn * 20, turn * 20 + 20), 30_000)
    copies = 80 * (2 if world.objects._writer._services.settings.redundancy.width == 2 else 1)
    assert world.count("PUT", "") - sent < 10  # from a range to the next one that was not there yet
    assert near_of(world).counts.near_pieces - written + world.count("PUT", "") - sent == copies
    await until(lambda: not any(map(loans, world.nodes)))
    assert near_of(world)._near_ranges.count == 0
    assert sum(node.store.figures.chunk_count for node in world.nodes) == copies // 80 * len(bodies)
    await require_all(world, bodies)


async def test_sizes(world: ServedWorld) -> None:
    """Each of them, many at once."""
    bodies = await warm_up(world)
    await require_all(world, bodies | await put_many(world, range(24)))


async def test_a_switch_turns_it_off(tmp_path: Path) -> None:
    """Everything is sent."""
    settings = replace(near_to(tmp_path, ONE_COPY, 3), local_writes=False)
    async with served_world(tmp_path, settings) as world:
        bodies = await put_many(world, range(20))
        assert world.count("PUT", "") == 20
        assert near_of(world).counts.near_pieces == 0
        await require_all(world, bodies)


async def test_who_puts_little_asks_for_nothing(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range would cost more than it saves."""
    monkeypatch.setattr(near_lane, "ASKED_AFTER_PUTS", 5)
    asked: list[str] = []
    monkeypatch.setattr(RangeClient, "borrow", lambda _, group, __: asked.append(group))
    for key in range(4):
        await put(world, key, bytes(20_000))
    assert not asked


async def test_ranges_that_are_used_up(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is asked for before; a chunk that fits none that is there is sent."""
    monkeypatch.setattr(near_ranges, "RANGE_BYTES", 128 << 10)
    bodies = await warm_up(world)
    for turn in range(6):
        bodies |= await put_many(world, range(turn * 10, turn * 10 + 10), 30_000)
    bodies |= await put_many(world, [999], 200_000)
    assert near_of(world).counts.near_pieces > 30
    await require_all(world, bodies)


async def test_from_one_group_to_the_next(world: ServedWorld) -> None:
    """Each has a segment of its own."""
    bodies = await warm_up(world)
    incarnation = world.objects._writer._services.session._current
    assert incarnation is not None
    incarnation.counter = 4090
    for turn in range(3):
        bodies |= await put_many(world, range(turn * 10, turn * 10 + 10), 30_000)
        await asyncio.sleep(0.1)
    groups = {str(of)[:29] for node in world.nodes for of in node.chunks}
    assert len(groups) == 2
    await require_all(world, bodies)


async def test_a_client_that_goes_leaves_nothing(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be its chunk waiting for a batch, or just being written."""
    await warm_up(world)
    before = [node.chunks for node in world.nodes]
    write, reap, loop, going_on = NearRange.write, Uring.reap, asyncio.get_running_loop(), asyncio.Event()
    started = asyncio.Event()

    def wait(near: NearRange, bodies: Sequence[NewBody]) -> list[ChunkReceipt]:
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(60)
        return write(near, bodies)

    def hold_back(ring: Uring) -> list[ChainEnd]:
        started.set()
        return reap(ring) if going_on.is_set() else []

    monkeypatch.setattr(NearRange, "write", wait)
    monkeypatch.setattr(Uring, "reap", hold_back)
    writing = [asyncio.create_task(put(world, key, bytes(30_000))) for key in range(12)]
    await started.wait()
    await asyncio.sleep(0.05)
    for task in writing:
        task.cancel()
    going_on.set()
    await asyncio.wait(writing)
    assert all(task.cancelled() for task in writing)
    await until(lambda: [node.chunks for node in world.nodes] == before)


# ------------------------------------------------------------------ when it does not


@pytest.mark.parametrize("where", ["at rest", "under load"])
async def test_a_datanode_that_ends(world: ServedWorld, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And another one begins in its directory: no put fails, and everything that was answered is there."""
    monkeypatch.setattr("storage.base.internal_server.DRAIN_TIMEOUT_S", 0.1)
    monkeypatch.setattr(near_lane, "FAILED_FOR_S", 0.0)
    bodies = await warm_up(world)
    node = world.nodes[0]
    if where == "at rest":
        await node.restart()
        bodies |= await put_many(world, range(30))
    else:
        restarting = asyncio.create_task(node.restart())
        for turn in range(10):
            bodies |= await put_many(world, range(turn * 10, turn * 10 + 10), 20_000)
        await restarting
    bodies |= await warm_up(world)
    await require_all(world, bodies)


class Looks:
    """What a worker finds when it looks at its connections."""

    def __init__(self) -> None:
        self.answer: Callable[[RangeLoan], bool] | None = None
        """None: the truth"""


def watch_looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Of ranges that are borrowed from now on."""
    looks, is_lent = Looks(), RangeLoan.is_lent
    monkeypatch.setattr(RangeLoan, "is_lent", lambda loan: (looks.answer or is_lent)(loan))
    return looks


async def test_a_range_that_was_taken_back_at_rest(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same chunk is sent: nothing was written."""
    looks = watch_looks(monkeypatch)
    bodies = await warm_up(world)
    sent = world.count("PUT", "")
    looks.answer = lambda _: False
    bodies |= await put_many(world, range(6), 30_000)
    width = world.objects._writer._services.settings.redundancy.width
    assert world.count("PUT", "") == sent + 6 * width
    await require_all(world, bodies)


async def test_a_range_that_is_taken_back_while_it_is_written_into(
    world: ServedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is written anew, as another blob, and nothing stays of the first."""
    looks = watch_looks(monkeypatch)
    bodies = await warm_up(world)
    counted: dict[RangeLoan, int] = {}

    def is_lent_at_first(loan: RangeLoan) -> bool:
        counted[loan] = counted.get(loan, 0) + 1
        return counted[loan] == 1

    looks.answer = is_lent_at_first
    width = world.objects._writer._services.settings.redundancy.width
    bodies |= await put_many(world, [1], 30_000)
    assert 2 in counted.values()
    await until(lambda: sum(len(node.chunks) for node in world.nodes) == width * len(bodies))
    await require_all(world, bodies)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("step", ["bodies", "slots", "fdatasync"])
async def test_a_medium_that_fails(
    threaded: ServedWorld, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    """Of one node, for one batch: the put is made good, and only what may be is left."""
    world = threaded
    bodies = await warm_up(world)
    failed: list[str] = []

    def fail(tried: str) -> None:
        if tried == step and not failed:
            failed.append(step)
            raise OSError(number, os.strerror(number))

    class Failing(DiskFile):
        """Of a borrower: slots and syncs."""

        def pwrite(self, data: Buffer, offset: int) -> None:
            fail("slots")
            super().pwrite(data, offset)

        def fdatasync(self) -> None:
            fail("fdatasync")
            super().fdatasync()

    def write_bodies(file: DirectFile, data: memoryview, offset: int) -> None:
        fail("bodies")
        pwrite(file, data, offset)

    pwrite = DirectFile.pwrite
    monkeypatch.setattr(DirectFile, "pwrite", write_bodies)
    for lane in near_of(world)._lanes.values():
        for held in lane._ranges:
            file = held.near._file
            assert isinstance(file, DiskFile)
            held.near._file = Failing(os.dup(file.fileno()))
            file.close()
    bodies |= await put_many(world, range(9), 30_000)
    assert failed
    bodies |= await put_many(world, range(9, 20), 30_000)
    await require_all(world, bodies)
    await until(lambda: sum(map(poisoned, world.nodes)) == (step != "bodies"))


@pytest.mark.parametrize("step", ["bodies", "slots", "fdatasync"])
async def test_a_medium_that_fails_a_chain(chained: ServedWorld, step: str) -> None:
    """The same. What fails before the sync fails once more, when a thread does all of it again."""
    bodies = await warm_up(chained)
    held = next(iter(near_of(chained)._lanes.values()))._ranges[0]
    failing = "/dev/null" if step == "fdatasync" else "/dev/full"  # the one takes everything, but no sync
    if step == "bodies":
        held.near._bodies = DirectFile(os.open(failing, os.O_WRONLY), is_direct=True)
    else:
        assert isinstance(held.near._file, DiskFile)
        held.near._file.close()
        held.near._file = DiskFile(os.open(failing, os.O_WRONLY))
    bodies |= await put_many(chained, range(20), 30_000)
    assert held.is_retired
    assert bool(held.near.failed) == (step != "bodies")
    await require_all(chained, bodies)
    await until(lambda: sum(map(poisoned, chained.nodes)) == (step != "bodies"))


async def test_a_chain_that_fails_and_a_thread_that_does_not(
    chained: ServedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a file system wants another alignment: the thread finds that out, and everything is there."""
    bodies = await warm_up(chained)
    reap, failed = Uring.reap, list[ChainEnd]()

    def fail(ring: Uring) -> list[ChainEnd]:
        failed.extend(end._replace(error=errno.EINVAL, has_written=False) for end in reap(ring))
        return failed[-1:]

    monkeypatch.setattr(Uring, "reap", fail)
    for key in range(9):
        bodies |= await put_many(chained, [key], 30_000)
    assert failed
    await require_all(chained, bodies)


async def test_a_ring_that_breaks(chained: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take over, and what the kernel has of the last chain stays the kernel's: memory, and files by number."""
    bodies = await warm_up(chained)
    bodies |= await put_many(chained, range(30, 40), 30_000)
    near_ranges = near_of(chained)._near_ranges
    call, taken = uring._call, list[memoryview]()
    monkeypatch.setattr(uring, "_call", lambda number, fd, count: call(number, fd, count - 1))
    monkeypatch.setattr(near_ranges.buffers, "give_back", taken.append)
    for key in range(10):  # each to the next node; the first of a range that has room
        if not near_ranges.chains.is_broken:
            bodies |= await put_many(chained, [key], 30_000)
    monkeypatch.undo()
    assert near_ranges.chains.is_broken
    broken = [held for lane in near_of(chained)._lanes.values() for held in lane._ranges if held.near._is_left_open]
    assert len(broken) == 1
    assert len(taken) == 1  # the thread's own
    bodies |= await put_many(chained, range(10, 30), 30_000)
    assert near_of(chained).counts.near_pieces >= 20
    await require_all(chained, bodies)


def poisoned(node: ServedNode) -> int:
    """How many of its segments are."""
    return sum(segment.is_poisoned for segment in node.store._directory._segments._open.values())


def is_of(node: ServedNode, fd: int) -> bool:
    """Whether it is of an open file of the node's."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith(str(node.directory))


async def test_a_medium_that_hangs(threaded: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one node: the put is made good elsewhere once its deadline has passed, and others do not wait for it."""
    bodies = await warm_up(threaded)
    write, loop, going_on = NearRange.write, asyncio.get_running_loop(), asyncio.Event()

    def hang(near: NearRange, chunks: Sequence[NewBody]) -> list[ChunkReceipt]:
        if is_of(threaded.nodes[0], near._file.fileno()):
            asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(60)
        return write(near, chunks)

    monkeypatch.setattr(NearRange, "write", hang)
    try:
        bodies |= await put_many(threaded, range(12), 30_000)
    finally:
        going_on.set()
    await require_all(threaded, bodies)


async def test_a_medium_that_hangs_a_chain(chained: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same. Its bodies are stuck in a pipe, until that breaks."""
    bodies = await warm_up(chained)
    begin, (read, full) = Uring.begin, os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, bytes(1 << 16))
    os.set_blocking(full, True)
    hung: list[int] = []

    def hang(ring: Uring, writes: Sequence[Write], synced_fd: int) -> int | None:
        if is_of(chained.nodes[0], synced_fd) and not hung:
            hung.append(synced_fd)
            writes = [writes[0]._replace(fd=full), *writes[1:]]
        return begin(ring, writes, synced_fd)

    monkeypatch.setattr(Uring, "begin", hang)
    try:
        bodies |= await put_many(chained, range(12), 30_000)
        assert hung
    finally:
        os.close(read)
        os.close(full)
    await require_all(chained, bodies)


async def test_a_directory_that_cannot_be_written_into(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked for again for a while."""
    asked: list[object] = []
    borrow = RangeClient.borrow

    def count(client: RangeClient, group: str, length: int) -> RangeLoan:
        asked.append(group)
        return borrow(client, group, length)

    def refuse(*_: object) -> None:
        raise NotLent("not yours")

    monkeypatch.setattr(RangeClient, "borrow", count)
    monkeypatch.setattr(NearRange, "__init__", refuse)
    bodies: dict[int, bytes] = {}
    for turn in range(6):
        bodies |= await put_many(world, range(turn * 10, turn * 10 + 10), 20_000)
        await asyncio.sleep(0.02)
    assert len(asked) == 3
    assert near_of(world).counts.near_pieces == 0
    await until(lambda: not any(map(loans, world.nodes)))
    await require_all(world, bodies)


async def test_a_node_that_drains(world: ServedWorld) -> None:
    """It lends nothing any more."""
    world.nodes[0].intake.hear(NodeState.DRAINING)
    bodies: dict[int, bytes] = {}
    for turn in range(4):
        bodies |= await put_many(world, range(turn * 10, turn * 10 + 10), 20_000)
    assert loans(world.nodes[0]) == 0
    assert world.nodes[0].chunks == []
    await require_all(world, bodies)


async def test_more_than_may_wait_is_sent(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded in bytes."""
    bodies = await warm_up(world)
    sent = world.count("PUT", "")
    monkeypatch.setattr(near_lane, "WAITING_BYTES_MAX", 70_000)
    bodies |= await put_many(world, range(30), 60_000)
    assert world.count("PUT", "") > sent
    assert all(lane._waiting_bytes == 0 for lane in near_of(world)._lanes.values())
    await require_all(world, bodies)


async def test_a_range_that_comes_when_the_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given back as well; and so is every other."""
    borrowed: list[RangeLoan] = []
    borrow = RangeClient.borrow

    def slowly(client: RangeClient, group: str, length: int) -> RangeLoan:
        loan = borrow(client, group, length)
        borrowed.append(loan)
        return loan

    monkeypatch.setattr(RangeClient, "borrow", slowly)
    async with served_world(tmp_path, near_to(tmp_path, ONE_COPY, 3)) as world:
        await put(world, 1, bytes(20_000))
    assert borrowed
    await until(lambda: not any(loan.is_lent() for loan in borrowed))
    borrowed[0].end(Ending())  # twice is no error


async def test_where_a_chunk_lies(world: ServedWorld) -> None:
    """In a segment, by either way."""
    await warm_up(world)
    await put_many(world, range(6), 30_000)
    for node in world.nodes:
        for of in node.chunks:
            assert find_chunk(node.directory, of).slot_at is not None
