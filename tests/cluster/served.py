"""Real datanodes over real sockets and directories, served within the test's event loop, and a gateway beside them.

Where FaultyDatanode says what is asked of a node, these say what comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.assembly import ClusterSettings, Outside, open_cluster
from cluster.near_puts import NearPuts
from cluster.objectstore import ObjectStore, PutRequest
from s3gw.protocol.checksums import new_hasher
from storage.base.address import Address
from storage.base.clock import SystemClock
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.chunks.disk import DiskChunkStore
from storage.chunks.layout import TEMPORARY
from storage.crypto.keyring import Keyring
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.identity import store_identity
from storage.datanode.intake import Intake
from storage.datanode.peers import Peers
from storage.metadata.commands import CreateUser
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import Attributes, ClusterMap, Node, NodeReport, NodeState, User
from tests.cluster.world import CLUSTER_ID, INTERNAL_KEY, BlocksBody, FixedMasterKey, StaticMap
from tests.storage.base.serving import serving
from tests.storage.chunks.chunk_files import list_chunks

GIB = 1 << 30


class ServedNode:
    """One datanode. `asked` has every request so far, as (method, what of a chunk)."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.directory = directory
        self.node_id = f"{number:032x}"
        self.asked: list[tuple[str, str]] = []
        self.intake = Intake()
        self.address = Address("")
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        """called with every request for a draft"""
        self._key = derive_node_key(INTERNAL_KEY, ROLE_DATANODE, self.node_id)
        self.token = access_token(self._key)
        self._serving = AsyncExitStack()
        self._open()
        store_identity(DiskFiles(), directory, CLUSTER_ID.hex(), self.node_id)

    def _open(self) -> None:
        self.store = DiskChunkStore(DiskFiles(), self.directory, reserve_bytes=0)
        self._app = DatanodeApp(
            self.store, self._key, SystemClock(), Peers(), intake=self.intake, lending=self.store, realm="r"
        )

    async def start(self, socket: Path) -> None:
        """Accept."""
        self.address = await self._serving.enter_async_context(serving(self, f"unix:{socket}"))

    async def restart(self) -> None:
        """End, and begin anew in the same directory and at the same address."""
        await self.stop()
        self._open()
        await self.start(Path(self.address.path))

    async def stop(self) -> None:
        """Let go of everything."""
        await self._serving.aclose()
        self.store.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path.startswith("/v1/chunks/"):
            action = path.removeprefix("/v1/chunks/")[40:]
            self.asked.append((scope["method"], action))
            if action == "/draft" and self.before_answer is not None:
                await self.before_answer()
        await self._app(scope, receive, send)

    def node(self) -> Node:
        """Its registry record."""
        domain = f"zone/host-{self.number}/disk"
        report = NodeReport(self.node_id, CLUSTER_ID.hex(), str(self.address), domain, 100 * GIB, 90 * GIB, GIB, 1)
        return Node(self.number, report, NodeState.UP, 0)

    def client(self) -> DatanodeClient:
        """As a gateway has one."""
        return DatanodeClient(self.address, self.token)

    @property
    def chunks(self) -> list[ChunkId]:
        """What it holds."""
        return list_chunks(self.directory)

    @property
    def leftovers(self) -> list[str]:
        """In tmp/."""
        return [path.name for path in (self.directory / TEMPORARY).iterdir()]

    def count(self, method: str, action: str) -> int:
        """How often that was asked of a chunk."""
        return self.asked.count((method, action))


class ServedWorld:
    """One worker over served nodes."""

    def __init__(self, nodes: list[ServedNode], objects: ObjectStore, owner: User) -> None:
        self.nodes = nodes
        self.objects = objects
        self.owner = owner
        self.bucket: Any = None

    @property
    def near_puts(self) -> NearPuts:
        """What writes directly."""
        found = self.objects._writer._services.chunks._nodes._near_puts
        assert found is not None
        return found

    async def put(self, data: bytes, *, before_block: Callable[[int], Awaitable[None]] | None = None) -> None:
        """PUT `key` in blocks of an odd size."""
        blocks = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
        request = PutRequest(self.owner.canonical_id, Attributes())
        await self.objects.put(self.bucket, b"key", BlocksBody(blocks, before_block=before_block), request)

    async def get(self) -> bytes:
        """GET `key` whole."""
        async with self.objects.open(self.bucket, b"key") as reading:
            return b"".join([bytes(block) async for block in reading])

    def count(self, method: str, action: str) -> int:
        """Requests of all nodes together."""
        return sum(node.count(method, action) for node in self.nodes)


@asynccontextmanager
async def served_world(directory: Path, settings: ClusterSettings, node_count: int = 3) -> AsyncIterator[ServedWorld]:
    """One user, one bucket; the datanodes' directories are known to the worker."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        nodes = [ServedNode(number, directory / f"node-{number}") for number in range(1, node_count + 1)]
        for node in nodes:
            stack.push_async_callback(node.stop)
            await node.start(directory / f"s{node.number}")
        metadata = await open_owned_metadata(directory / "metadata", clock=clock)
        stack.push_async_callback(metadata.close)
        keyring = Keyring(DiskFiles(), directory / "keyring", CLUSTER_ID, FixedMasterKey(), clock)
        keyring.open()
        owner = User("f" * 64, "owner", "Owner")
        await metadata.apply(CreateUser(owner))

        def follow(on_map: Callable[[ClusterMap], Awaitable[None]]) -> StaticMap:
            return StaticMap([node.node() for node in nodes], on_map)

        clients = {node.number: node for node in nodes}
        outside = Outside(metadata, keyring, follow, lambda it: clients[it.number].client(), new_hasher, clock)
        cluster = await stack.enter_async_context(open_cluster(settings, outside))
        world = ServedWorld(nodes, cluster.objects, owner)
        world.bucket = await cluster.directory.create_bucket("bucket", owner, "us-east-1", {})
        identifying = world.near_puts._near._identifying
        assert identifying is not None
        await identifying
        yield world
