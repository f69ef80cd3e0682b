"""DatanodeClient is a ChunkStore: the suite over real HTTP to a disk, by Unix socket, loopback TCP and TLS."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from storage.base.clock import SystemClock
from storage.base.errors import NodeFull
from storage.base.files import DiskFiles, DiskSpace
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token
from storage.chunks.disk import DiskChunkStore
from storage.chunks.room import FREE_KEPT_S
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import Buffer, ChunkStore
from storage.datanode.app import DatanodeApp
from storage.datanode.client import WHOLE_BODY_BYTES_MAX, DatanodeClient
from storage.datanode.peers import Peers
from tests.storage.chunks.chunk_files import damage_chunk, shorten_chunk
from tests.storage.chunks.conformance import ChunkStoreConformance, StoreUnderTest, chunk_id, put, read, some_bytes
from tests.storage.datanode.nodes import NODE_KEY, SharedServer
from tests.tls import InternalTls, make_internal_tls

SETTLE_TIMEOUT_S = 60.0


class MeteredFiles(DiskFiles):
    """The machine's files with a free space that a test can set."""

    def __init__(self) -> None:
        self.free_bytes = 1 << 40

    def space(self, path: str | os.PathLike[str]) -> DiskSpace:
        return DiskSpace(1 << 40, self.free_bytes)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> InternalTls:
    """A CA of this module."""
    return make_internal_tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["unix", "tcp", "tls"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tls: InternalTls
) -> Iterator[SharedServer]:
    """One listening socket of each kind for all tests."""
    if request.param == "unix":
        server = SharedServer(f"unix:{tmp_path_factory.mktemp('socket') / 's'}")
    elif request.param == "tcp":
        server = SharedServer("http://127.0.0.1:0")
    else:
        server = SharedServer("https://127.0.0.1:0", tls.files)
    yield server
    server.close()


class TestDatanodeClient(ChunkStoreConformance):
    """The suite over the wire. What a test does behind the store's back it does to the datanode's files."""

    @pytest.fixture
    async def subject(self, server: SharedServer, tls: InternalTls, tmp_path: Path) -> AsyncIterator[StoreUnderTest]:
        """A fresh directory behind the shared socket."""
        files = MeteredFiles()
        disk = DiskChunkStore(files, tmp_path / "data", reserve_bytes=1000)

        async def make_app() -> DatanodeApp:
            return DatanodeApp(disk, NODE_KEY, SystemClock(), Peers())

        server.app = server.run(make_app())
        client = DatanodeClient(server.address, access_token(NODE_KEY), tls_ca=tls.ca)

        def damage(of: ChunkId) -> None:
            damage_chunk(tmp_path / "data", of)

        def shorten(of: ChunkId) -> None:
            shorten_chunk(tmp_path / "data", of)

        def fill_up() -> None:
            files.free_bytes = 1500
            time.sleep(FREE_KEPT_S)

        def leftovers() -> list[str]:
            # The datanode learns of a broken connection a moment after the client gave up.
            end_s = time.monotonic() + SETTLE_TIMEOUT_S
            while (names := os.listdir(tmp_path / "data" / "tmp")) and time.monotonic() < end_s:
                time.sleep(0.005)
            return names

        yield StoreUnderTest(client, damage, shorten, fill_up, leftovers, SystemClock().now_ms)
        await client.close()
        disk.close()

    async def test_a_full_medium_takes_nothing_but_deletes(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """As for every store, but a small chunk goes out with the request: only a large body stays untouched."""
        await put(store, chunk_id(1), some_bytes(5000))
        subject.fill_up()
        asked: list[bool] = []

        async def body(length: int) -> AsyncIterator[Buffer]:
            asked.append(True)
            yield some_bytes(length)

        with pytest.raises(NodeFull):
            await store.put(chunk_id(2), WHOLE_BODY_BYTES_MAX + 1, body(WHOLE_BODY_BYTES_MAX + 1))
        assert not asked
        with pytest.raises(NodeFull):
            await store.put(chunk_id(2), 2000, body(2000))
        with pytest.raises(NodeFull):
            await store.put_whole(chunk_id(2), [some_bytes(RECORD_BYTES_MAX // 4)] * 4)
        [outcome] = await store.put_many([(chunk_id(2), some_bytes(2000))])
        assert isinstance(outcome, NodeFull)
        assert await read(store, chunk_id(1)) == some_bytes(5000)
        assert await store.delete_many([chunk_id(1)]) == [True]
