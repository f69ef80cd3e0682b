"""Datanodes, an owner with its journal, and what is needed to lose either: all in this process, over real sockets."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from storage.base.clock import ManualClock, SystemClock
from storage.base.files import DiskFiles
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key
from storage.base.key_files import store_internal_key
from storage.chunks.memory import MemoryChunkStore
from storage.crypto.keyring import Keyring
from storage.crypto.master_key import MasterKeyFile
from storage.datanode.app import DatanodeApp
from storage.datanode.journal_app import JournalRoutes
from storage.datanode.journal_files import JournalFiles
from storage.datanode.peers import Peers
from storage.journal.config import OwnerConfig
from storage.journal.keys import JournalKeys
from storage.journal.service import JournalService
from storage.journal.writer import Phase
from storage.metadata.commands import RegisterNode, SetNodeState
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite.database import DATABASE_NAME, read_only_uri
from storage.metadata.sqlite.open import MetadataOwner
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.metadata.sqlite.writer import LocalSink
from storage.model import Node, NodeReport, NodeState
from tests.storage.base.serving import serving
from tests.storage.metadata.engines import check_database

CLUSTER_ID = "c1" * 16
INTERNAL_KEY = bytes(range(32))
WAIT_S = 50.0

LOST, STALLED, REFUSED = "lost", "stalled", "refused"
"""what may become of a request: done and not answered, neither, answered with an error and not done"""


class DatanodeTwin:
    """One datanode with a memory of chunks and real journal files. `fate`: (method, path) → what becomes of it."""

    def __init__(self, root: Path, number: int, disk: str) -> None:
        self.directory = root / f"node-{number}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.report = NodeReport(
            f"{number:032x}", CLUSTER_ID, f"unix:{root / f's{number}'}", f"zone/host/{disk}", 1 << 40, 1 << 39, 0, 1
        )
        self.fate: Callable[[str, str], str] = lambda method, path: ""
        self.requests: list[tuple[str, str]] = []
        self._running: AsyncExitStack | None = None
        self._app: DatanodeApp | None = None
        self._stopping = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self._running is not None

    @property
    def files(self) -> Path:
        return self.directory / "journal"

    async def start(self) -> None:
        self._stopping.clear()
        running = AsyncExitStack()
        journal = JournalRoutes(JournalFiles(DiskFiles(), self.directory, 0))
        running.callback(journal.close)
        node_key = derive_node_key(INTERNAL_KEY, ROLE_DATANODE, self.report.node_id)
        self._app = DatanodeApp(
            MemoryChunkStore(),
            node_key,
            SystemClock(),
            Peers(),
            journal=journal,
            realm=f"{CLUSTER_ID}/{self.report.node_id}",
        )
        await running.enter_async_context(serving(self, self.report.address))
        self._running = running

    async def stop(self) -> None:
        running, self._running = self._running, None
        self._stopping.set()
        if running is not None:
            await running.aclose()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None
        method, path = scope["method"], scope["path"]
        self.requests.append((method, path))
        fate = self.fate(method, path)
        if fate == STALLED:
            await self._stopping.wait()
        elif fate == REFUSED:
            raise OSError("refused")
        elif fate == LOST:
            await self._app(scope, receive, _swallow)
            raise OSError("the answer was lost")
        else:
            await self._app(scope, receive, send)


async def _swallow(message: Any) -> None:
    pass


class OwnerTwin:
    """An owner with its journal, as `python -m storage.metadata --config` puts them together."""

    def __init__(self, directory: Path, owner: MetadataOwner, service: JournalService) -> None:
        self.directory = directory
        self.owner = owner
        self.service = service
        self.journal = service.journal
        self.metadata = SqliteMetadata(directory / DATABASE_NAME, LocalSink(owner.committer))

    async def wait_for(self, phase: Phase) -> None:
        """Until the journal is in it."""
        async with asyncio.timeout(WAIT_S):
            while self.journal.phase is not phase:
                await asyncio.sleep(0.01)

    async def register(self, *twins: DatanodeTwin, state: NodeState = NodeState.UP) -> list[Node]:
        """As the master does."""
        async with asyncio.timeout(WAIT_S):
            while self.journal.refusal(RegisterNode(twins[0].report, state)):
                await asyncio.sleep(0.01)
        return [await self.metadata.apply(RegisterNode(twin.report, state)) for twin in twins]

    async def set_state(self, twin: DatanodeTwin, state: NodeState) -> None:
        await self.metadata.apply(SetNodeState(twin.report.node_id, state))

    async def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until it holds."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{what} did not happen") from None


class World:
    """A cluster's keys, datanodes and owners below one directory."""

    def __init__(self, root: Path, disks: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.root = root
        self.clock = ManualClock()
        self.nodes = [DatanodeTwin(root, number, disk) for number, disk in enumerate(disks, 1)]
        files = DiskFiles()
        master_key = MasterKeyFile(files, root / "master.key")
        master_key.make()
        self.keyring = Keyring(files, root / "keyring", bytes.fromhex(CLUSTER_ID), master_key, self.clock)
        self.keyring.open()
        self.keyring.keep_internal_key(INTERNAL_KEY)
        store_internal_key(files, root / "internal.key", INTERNAL_KEY)
        self.keys = JournalKeys(self.keyring, bytes.fromhex(CLUSTER_ID))
        self.owners: list[OwnerTwin] = []

    async def start_nodes(self) -> None:
        for node in self.nodes:
            if not node.is_running:
                await node.start()

    async def start_owner(self, directory: str = "metadata", **settings: Any) -> OwnerTwin:
        """settings: of MetadataSettings; replicated unless they say otherwise."""
        path = self.root / directory
        path.mkdir(exist_ok=True)
        told = MetadataSettings(path=str(path), socket="s", **{"journal": "replicated", **settings})
        config = OwnerConfig(
            CLUSTER_ID,
            str(self.root / "keyring"),
            str(self.root / "master.key"),
            str(self.root / "internal.key"),
            told,
        )
        service = JournalService(config, {}, SystemClock())
        owner = await MetadataOwner.open(path, journal=service.journal)
        await service.begin(owner.committer, path)
        service.start()
        started = OwnerTwin(path, owner, service)
        self.owners.append(started)
        return started

    async def stop_owner(self, owner: OwnerTwin, *, check: bool = True) -> None:
        """In order: what was submitted is answered."""
        self.owners.remove(owner)
        await owner.owner.committer.close()
        await owner.service.close()
        await owner.metadata.close()
        await owner.owner.close()
        if check:
            assert check_database(owner.directory) == []

    async def kill_owner(self, owner: OwnerTwin) -> None:
        """As far as one process allows: nothing more goes out, and the database is left as its log is."""
        for task in owner.service._tasks:
            task.cancel()
        owner.journal.end("killed")
        await self.stop_owner(owner)

    async def close(self) -> None:
        for owner in list(self.owners):
            await self.stop_owner(owner, check=False)
        for node in self.nodes:
            await node.stop()


@asynccontextmanager
async def running_world(root: Path, disks: tuple[str, ...] = ("a", "b", "c")) -> AsyncIterator[World]:
    """With its datanodes started; everything is stopped at the end."""
    world = World(root, disks)
    try:
        await world.start_nodes()
        yield world
    finally:
        await world.close()


def dump_rows(directory: Path, *, without: tuple[str, ...] = ("journal_pending",)) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for where the database stands in its journal."""
    connection = sqlite3.connect(read_only_uri(directory / DATABASE_NAME), uri=True)
    try:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
            for table in tables
            if table not in without
        }
        told = ("journal_incarnation", "journal_snapshot_due", "journal_history")
        rows["meta"] = [row for row in rows["meta"] if row[0] not in told]
        return rows
    finally:
        connection.close()


def short_path(tmp_path: Path) -> Path:
    """Sockets have short paths."""
    path = tmp_path / "w"
    path.mkdir()
    assert len(os.fsencode(path)) < 90
    return path
