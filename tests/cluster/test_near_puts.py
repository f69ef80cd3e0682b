"""Pieces that are written into a datanode's directory: a store like any other, and writes that fail like any other."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import near_puts
from cluster.assembly import ClusterSettings
from cluster.deadlines import Deadlines
from cluster.near_pieces import NearPieces
from cluster.near_puts import NEAR_PUTS_MAX, REFUSED_FOR_S, NearPuts
from cluster.read_counts import ReadCounts
from storage.base import internal_server
from storage.base.clock import ManualClock, SystemClock
from storage.base.direct_file import DirectFile
from storage.base.errors import NoSuchKey, Unavailable
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token
from storage.chunks import near_drafts
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.room import FREE_KEPT_S
from storage.chunks.store import Buffer, ChunkReceipt
from storage.datanode import near_wire
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.identity import store_identity
from storage.datanode.peers import Peers
from storage.model import ClusterMap, NodeState
from tests.cluster.nodes import make_node
from tests.cluster.served import ServedWorld, served_world
from tests.cluster.world import CLUSTER_ID, SETTINGS
from tests.storage.base.serving import serving
from tests.storage.chunks.chunk_files import damage_chunk, shorten_chunk
from tests.storage.chunks.conformance import ChunkStoreConformance, StoreUnderTest, chunk_id, cut, read, some_bytes
from tests.storage.datanode.nodes import NODE_KEY, SharedServer
from tests.storage.datanode.test_conformance import MeteredFiles

NUMBER = 7
NODE_ID = f"{NUMBER:032x}"
SETTLE_TIMEOUT_S = 60.0


class NearClient(DatanodeClient):
    """A client whose puts are written directly, whatever their size."""

    near: NearPuts

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        return await self.near.put(NUMBER, Wired(self), chunk_id, length, body)


class Wired:
    """The client beneath, of which sending would be noticed."""

    def __init__(self, client: DatanodeClient) -> None:
        self._client = client

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        raise AssertionError("the piece was sent")

    async def lend(self, chunk_id: ChunkId, loan: near_wire.Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt:
        return await self._client.lend(chunk_id, loan, account)


async def near_pieces(directory: Path) -> NearPieces:
    """That have identified a directory as that of node 7."""
    near = NearPieces(CLUSTER_ID, ReadCounts(), [directory])
    near.adopt(ClusterMap(1, (make_node(NUMBER),)))
    assert near._identifying is not None
    await near._identifying
    return near


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces as well."""
    monkeypatch.setattr(near_puts, "NEAR_BYTES_MIN", -1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    """One listening socket for all tests."""
    server = SharedServer(f"unix:{tmp_path_factory.mktemp('socket') / 's'}")
    yield server
    server.close()


@pytest.mark.usefixtures("any_size")
class TestNearPuts(ChunkStoreConformance):
    """The suite over a datanode and a writer that share a directory."""

    @pytest.fixture
    async def subject(self, server: SharedServer, tmp_path: Path) -> AsyncIterator[StoreUnderTest]:
        """A fresh directory behind the shared socket."""
        files, data = MeteredFiles(), tmp_path / "data"
        disk = DiskChunkStore(files, data, reserve_bytes=1000)
        store_identity(DiskFiles(), data, CLUSTER_ID.hex(), NODE_ID)

        async def make_app() -> DatanodeApp:
            return DatanodeApp(disk, NODE_KEY, SystemClock(), Peers(), lending=disk)

        server.app = server.run(make_app())
        client = NearClient(server.address, access_token(NODE_KEY))
        near = await near_pieces(data)
        client.near = NearPuts(near, SystemClock())

        def damage(of: ChunkId) -> None:
            damage_chunk(data, of)

        def shorten(of: ChunkId) -> None:
            shorten_chunk(data, of)

        def fill_up() -> None:
            files.free_bytes = 1500
            time.sleep(FREE_KEPT_S)

        def leftovers() -> list[str]:
            end_s = time.monotonic() + SETTLE_TIMEOUT_S
            while (names := os.listdir(data / "tmp")) and time.monotonic() < end_s:
                time.sleep(0.005)
            return names

        yield StoreUnderTest(client, damage, shorten, fill_up, leftovers, SystemClock().now_ms)
        await client.near.close()
        await near.close()
        await client.close()
        disk.close()


# ------------------------------------------------------------------ whole writes

LARGE = replace(SETTINGS, chunk_bytes=4 << 20, redundancy="replica:2")
CODED = replace(SETTINGS, chunk_bytes=4 << 20, redundancy="ec:2+1")
DATA = os.urandom((8 << 20) + 300_000)


def near_to(tmp_path: Path, settings: ClusterSettings, node_count: int) -> ClusterSettings:
    """A worker that knows all of the directories."""
    directories = tuple(tmp_path / f"node-{number}" for number in range(1, node_count + 1))
    return replace(settings, datanode_directories=directories, deadlines=Deadlines())


@pytest.fixture(params=[LARGE, CODED], ids=["replicas", "fragments"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ServedWorld]:
    """With one node more than a chunk has pieces."""
    count = 3 if request.param is LARGE else 4
    async with served_world(tmp_path, near_to(tmp_path, request.param, count), count) as opened:
        yield opened


async def settled(world: ServedWorld) -> None:
    """No draft is anywhere any more."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while any(node.leftovers for node in world.nodes):
            await asyncio.sleep(0.01)


async def test_large_pieces_are_written_and_the_rest_is_sent(world: ServedWorld) -> None:
    """Every piece is on as many nodes as it should be, and every one is verified from the medium."""
    await world.put(DATA)
    pieces = 2 if world.count("PUT", "") == 2 else 3  # of the last chunk, which is small
    assert world.count("PUT", "/draft") == 2 * pieces
    assert world.count("PUT", "") == pieces
    assert await world.get() == DATA
    for node in world.nodes:
        for of in node.chunks:
            await node.store.verify(of)
    assert world.near_puts.counts.near_bytes > len(DATA) - 300_000
    await settled(world)


async def test_a_switch_turns_it_off(tmp_path: Path) -> None:
    """Everything is sent."""
    settings = replace(near_to(tmp_path, LARGE, 3), local_writes=False)
    async with served_world(tmp_path, settings) as world:
        await world.put(DATA)
        assert world.count("PUT", "/draft") == 0
        assert world.count("PUT", "") == 6
        assert await world.get() == DATA


async def test_a_directory_that_cannot_be_written_into(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are sent, and it is not asked for a draft again for a while."""

    def refuse(path: str) -> DirectFile:
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(near_drafts, "open_direct", refuse)
    await world.put(DATA)
    asked = world.count("PUT", "/draft")
    assert 0 < asked <= len(world.nodes)
    await world.put(DATA)
    assert world.count("PUT", "/draft") <= len(world.nodes)
    assert await world.get() == DATA
    await settled(world)


async def test_a_node_that_takes_no_chunks_is_replaced_before_the_first_byte(world: ServedWorld) -> None:
    """It says so for drafts as it does for bytes."""
    world.nodes[0].intake.hear(NodeState.DRAINING)
    await world.put(DATA)
    assert world.nodes[0].chunks == []
    assert await world.get() == DATA
    await settled(world)


async def test_a_medium_that_fails_midway(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one node: the piece is dropped, and made anew on another."""
    write = DirectFile.pwrite
    victim = world.nodes[0]

    def fail(file: DirectFile, data: memoryview, offset: int) -> None:
        path = os.readlink(f"/proc/self/fd/{file._fd}")
        if offset >= 1 << 20 and path.startswith(str(victim.directory)):
            raise OSError(5, "EIO")
        write(file, data, offset)

    monkeypatch.setattr(DirectFile, "pwrite", fail)
    await world.put(DATA)
    assert await world.get() == DATA
    for node in world.nodes:
        for of in node.chunks:
            await node.store.verify(of)
    await settled(world)


async def test_a_draft_that_is_gone_midway(world: ServedWorld) -> None:
    """As when a datanode was started anew and emptied its tmp/: what was written there never gets a name."""
    victim = world.nodes[0]
    removed: list[Path] = []

    async def remove(_: int) -> None:
        for path in (victim.directory / "tmp").iterdir():
            removed.append(path)
            path.unlink()

    await world.put(DATA, before_block=remove)
    assert removed
    assert await world.get() == DATA
    for of in victim.chunks:
        await victim.store.verify(of)


async def test_a_medium_that_hangs_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the deadline of a datanode that stalls."""
    settings = replace(near_to(tmp_path, LARGE, 3), deadlines=Deadlines(stall_s=2, durable_s=4))
    write = DirectFile.pwrite
    async with served_world(tmp_path, settings) as world:
        victim = world.nodes[0]
        going_on = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(file: DirectFile, data: memoryview, offset: int) -> None:
            if os.readlink(f"/proc/self/fd/{file._fd}").startswith(str(victim.directory)):
                asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(60)
            write(file, data, offset)

        monkeypatch.setattr(DirectFile, "pwrite", hang)
        try:
            await world.put(DATA)
            assert await world.get() == DATA
        finally:
            going_on.set()
        await settled(world)


async def test_a_body_that_breaks_off_leaves_nothing(world: ServedWorld) -> None:
    """Not a draft, not a chunk."""

    async def break_off(index: int) -> None:
        if index == 60:
            raise LookupError("the client is gone")

    with pytest.raises(LookupError):
        await world.put(DATA, before_block=break_off)
    with pytest.raises(NoSuchKey):
        await world.get()
    await settled(world)
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while any(node.chunks for node in world.nodes):
            await asyncio.sleep(0.01)


@pytest.fixture
def impatient_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datanodes that cut a connection on which nothing moves for two seconds."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 2.0)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.2)


@pytest.mark.usefixtures("impatient_servers")
async def test_a_slow_client_is_no_stall(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life go to the datanode while nothing else does."""
    monkeypatch.setattr(near_wire, "SIGN_INTERVAL_S", 0.1)

    async def wait(index: int) -> None:
        await asyncio.sleep(4 if index == 20 else 0)

    await world.put(DATA, before_block=wait)
    assert world.count("PUT", "/draft") > 0
    assert await world.get() == DATA


@pytest.mark.usefixtures("impatient_servers")
async def test_a_gateway_that_stopped_keeps_no_draft(world: ServedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like one that died, though its connections stand; when it goes on it is told that the write is over."""
    monkeypatch.setattr(near_wire, "SIGN_INTERVAL_S", 600)

    async def stop(index: int) -> None:
        if index == 20:
            assert any(node.leftovers for node in world.nodes)
            await settled(world)

    with pytest.raises(Unavailable):
        await world.put(DATA, before_block=stop)
    with pytest.raises(NoSuchKey):
        await world.get()


# ------------------------------------------------------------------ what is written where


class Node:
    """Counts what is asked of it; its drafts are never there."""

    def __init__(self) -> None:
        self.sent = 0
        self.asked_for_drafts = 0

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        self.sent += 1
        return digest_of(b"".join([bytes(block) async for block in body]))

    async def lend(self, chunk_id: ChunkId, loan: near_wire.Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt:
        self.asked_for_drafts += 1
        async for _ in account:
            raise AssertionError("an account of a draft that is not there")
        raise AssertionError("nothing was refused")


@pytest.mark.usefixtures("any_size")
async def test_a_refusal_is_remembered_for_a_while(tmp_path: Path) -> None:
    """And sent is what was to be written."""
    disk = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    store_identity(DiskFiles(), tmp_path, CLUSTER_ID.hex(), NODE_ID)
    near, clock, node = await near_pieces(tmp_path), ManualClock(), Node()
    puts = NearPuts(near, clock)
    for _ in range(3):
        assert await puts.put(NUMBER, node, chunk_id(1), 9, cut(some_bytes(9), 4)) == digest_of(some_bytes(9))
    assert (node.sent, node.asked_for_drafts) == (3, 1)
    clock.advance(REFUSED_FOR_S + 1)
    await puts.put(NUMBER, node, chunk_id(1), 9, cut(some_bytes(9), 4))
    assert (node.sent, node.asked_for_drafts) == (4, 2)
    await puts.close()
    await near.close()
    disk.close()


@pytest.mark.parametrize("why", ["far", "small", "busy"])
async def test_what_is_sent_without_asking(tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of other nodes, small ones, and those beyond the bound."""
    disk = DiskChunkStore(DiskFiles(), tmp_path, reserve_bytes=0)
    store_identity(DiskFiles(), tmp_path, CLUSTER_ID.hex(), NODE_ID)
    near, node = await near_pieces(tmp_path), Node()
    puts = NearPuts(near, SystemClock())
    if why != "small":
        monkeypatch.setattr(near_puts, "NEAR_BYTES_MIN", -1)
    if why == "busy":
        puts._running = NEAR_PUTS_MAX
    number = NUMBER + 1 if why == "far" else NUMBER
    await puts.put(number, node, chunk_id(1), 9, cut(some_bytes(9), 4))
    assert (node.sent, node.asked_for_drafts) == (1, 0)
    await puts.close()
    await near.close()
    disk.close()


@pytest.mark.usefixtures("any_size")
async def test_a_datanode_that_lends_nothing(tmp_path: Path) -> None:
    """One of another release, say: it is sent its pieces."""
    (tmp_path / "data").mkdir()
    store_identity(DiskFiles(), tmp_path / "data", CLUSTER_ID.hex(), NODE_ID)
    near, store = await near_pieces(tmp_path / "data"), MemoryChunkStore()
    app = DatanodeApp(store, NODE_KEY, SystemClock(), Peers())
    puts = NearPuts(near, SystemClock())
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        client = DatanodeClient(address, access_token(NODE_KEY))
        await puts.put(NUMBER, client, chunk_id(1), 500_000, cut(some_bytes(500_000), 65_552))
        assert await read(client, chunk_id(1)) == some_bytes(500_000)
        await client.close()
    await puts.close()
    await near.close()


@pytest.mark.usefixtures("any_size")
async def test_memory_is_given_back_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while something is written."""
    monkeypatch.setattr(near_puts, "MEMORY_KEPT_S", 0.01)
    disk = DiskChunkStore(DiskFiles(), tmp_path / "data", reserve_bytes=0)
    store_identity(DiskFiles(), tmp_path / "data", CLUSTER_ID.hex(), NODE_ID)
    near = await near_pieces(tmp_path / "data")
    puts = NearPuts(near, SystemClock())
    app = DatanodeApp(disk, NODE_KEY, SystemClock(), Peers(), lending=disk)
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        client = DatanodeClient(address, access_token(NODE_KEY))
        await puts.put(NUMBER, client, chunk_id(1), 500_000, cut(some_bytes(500_000), 65_552))
        assert puts._buffers._free
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while puts._buffers._free:
                await asyncio.sleep(0.01)
        await client.close()
    await puts.close()
    await near.close()
    disk.close()
