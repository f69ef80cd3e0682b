"""The cluster side of a worker over real processes: a metadata owner and datanodes on disks, reached over sockets."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from cluster.assembly import ClusterSettings, Outside, open_cluster
from s3gw.protocol.checksums import new_hasher
from storage.base.clock import SystemClock
from storage.base.files import DiskFiles
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.crypto.keyring import Keyring
from storage.datanode.client import DatanodeClient
from storage.metadata.commands import CreateUser
from storage.metadata.interface import Metadata
from storage.metadata.postgresql.open import open_postgres_metadata
from storage.metadata.sqlite.open import open_metadata
from storage.model import ClusterMap, Node, NodeReport, NodeState, User
from tests.cluster.world import CLUSTER_ID, INTERNAL_KEY, SETTINGS, FixedMasterKey, StaticMap, World
from tests.storage.datanode.nodes import NodeProcess, running_node

GIB = 1 << 30
START_TIMEOUT_S = 60.0


@contextmanager
def short_directory() -> Iterator[Path]:
    """Sockets have short paths."""
    path = Path(tempfile.mkdtemp(prefix="fb"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_metadata(directory: Path) -> Iterator[Path]:
    """The owner process; its socket."""
    socket_path = directory / "metadata.sock"
    command = ["-m", "storage.metadata", "--data", str(directory / "metadata"), "--socket", str(socket_path)]
    with (directory / "metadata.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, *command], stderr=log)
    try:
        yield socket_path
    finally:
        process.terminate()
        assert process.wait(START_TIMEOUT_S) == 0


def client_of(number: int, process: NodeProcess) -> DatanodeClient:
    """With the token of the node's own key."""
    return DatanodeClient(process.address, access_token(derive_node_key(INTERNAL_KEY, ROLE_DATANODE, node_id(number))))


def node_id(number: int) -> str:
    """Of the number-th datanode."""
    return f"{number:032x}"


def record_of(number: int, process: NodeProcess, state: NodeState = NodeState.UP) -> Node:
    """The registry record."""
    domain = f"zone/host-{number}/disk"
    report = NodeReport(node_id(number), CLUSTER_ID.hex(), str(process.address), domain, 100 * GIB, 90 * GIB, GIB, 1)
    return Node(number, report, state, 0)


@asynccontextmanager
async def open_processes(
    directory: Path, *, node_count: int = 3, settings: ClusterSettings = SETTINGS, dsn: str = ""
) -> AsyncIterator[tuple[World, dict[int, NodeProcess]]]:
    """A world whose nodes are processes; `world.nodes` is empty, `world.stores` has their clients. dsn: as for
    open_world."""
    with ExitStack() as processes:
        socket_path = Path() if dsn else processes.enter_context(running_metadata(directory))
        nodes: dict[int, NodeProcess] = {}
        for number in range(1, node_count + 1):
            place = directory / f"n{number}"
            place.mkdir()
            node_key = derive_node_key(INTERNAL_KEY, ROLE_DATANODE, node_id(number)).hex()
            nodes[number] = processes.enter_context(running_node(place, node_key=node_key, node_id=node_id(number)))
        metadata: Metadata
        if dsn:
            metadata = await open_postgres_metadata(dsn)
        else:
            metadata = await open_metadata(directory / "metadata", socket_path, START_TIMEOUT_S)
        clock = SystemClock()
        keyring = Keyring(DiskFiles(), directory / "keyring", CLUSTER_ID, FixedMasterKey(), clock)
        keyring.open()
        owner = User("f" * 64, "owner", "Owner")
        await metadata.apply(CreateUser(owner))
        maps: list[StaticMap] = []

        def follow(on_map: Callable[[ClusterMap], Awaitable[None]]) -> StaticMap:
            maps.append(StaticMap([record_of(number, process) for number, process in nodes.items()], on_map))
            return maps[0]

        stores = {number: client_of(number, process) for number, process in nodes.items()}
        outside = Outside(
            metadata, keyring, follow, lambda node: client_of(node.number, nodes[node.number]), new_hasher, clock
        )
        try:
            async with open_cluster(settings, outside) as cluster:
                world = World(cluster, metadata, keyring, {}, owner)
                world.stores = dict(stores)
                world.map = maps[0]
                world.bucket = await world.make_bucket("bucket")
                yield world, nodes
        finally:
            await asyncio.gather(*(store.close() for store in stores.values()))
            await metadata.close()
