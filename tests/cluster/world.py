"""A whole cluster side in one process: real metadata (SQLite, its owner inside), real keys, datanodes in memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cluster.assembly import Cluster, ClusterSettings, Outside, open_cluster
from cluster.body import BodyDigests
from cluster.deadlines import Deadlines
from cluster.near_pieces import NearPieces
from cluster.nodes import Datanode
from cluster.objectstore import PutRequest, PutResult
from s3gw.protocol.checksums import new_hasher
from storage.base.clock import Clock, SystemClock
from storage.base.files import DiskFiles
from storage.crypto.keyring import Keyring
from storage.metadata.commands import CreateUser
from storage.metadata.interface import Metadata
from storage.metadata.postgresql.open import open_postgres_metadata
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import Attributes, Bucket, ByteRange, Checksum, ChecksumAlgorithm, ClusterMap, Node, User, Versioning
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.near import NearDatanode

CLUSTER_ID = bytes.fromhex("c" * 32)
INTERNAL_KEY = b"i" * 32
QUICK = Deadlines(
    begin_s=0.3, stall_s=0.3, durable_s=0.3, pull_s=0.5, first_byte_s=0.3, read_stall_s=0.3, clean_up_s=0.5
)
"""for tests in which something must be late"""
SETTINGS = ClusterSettings(CLUSTER_ID, INTERNAL_KEY, chunk_bytes=256 << 10, repair_interval_s=3600)


class FixedMasterKey:
    """A master key that is simply there."""

    def load(self) -> tuple[bytes, ...]:
        return (b"m" * 32,)

    def begin_rotation(self) -> None: ...

    def finish_rotation(self) -> None: ...


class StaticMap:
    """A map that changes only when told."""

    def __init__(self, nodes: Iterable[Node], on_map: Callable[[ClusterMap], Awaitable[None]]) -> None:
        self.cluster_map = ClusterMap(1, tuple(nodes))
        self._on_map = on_map

    async def start(self) -> None:
        await self._on_map(self.cluster_map)

    async def change(self, nodes: Iterable[Node]) -> None:
        """A new map under the next epoch."""
        self.cluster_map = ClusterMap(self.cluster_map.epoch + 1, tuple(nodes))
        await self._on_map(self.cluster_map)

    async def close(self) -> None: ...


class BlocksBody:
    """A Body of given blocks, hashed as they pass. `ends` may raise instead of giving digests."""

    def __init__(
        self,
        blocks: Iterable[bytes],
        length: int | None = None,
        *,
        failure: Exception | None = None,
        before_block: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._blocks = list(blocks) if length is None else blocks
        self.length = sum(map(len, self._blocks)) if length is None else length
        self._failure = failure
        self._before_block = before_block
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc = new_hasher(ChecksumAlgorithm.CRC64NVME)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for index, block in enumerate(self._blocks):
            if self._before_block is not None:
                await self._before_block(index)
            self._md5.update(block)
            self._crc.update(block)
            yield block

    async def finish(self) -> BodyDigests:
        if self._failure is not None:
            raise self._failure
        value = base64.b64encode(self._crc.digest()).decode()
        return BodyDigests(self._md5.digest(), Checksum(ChecksumAlgorithm.CRC64NVME, value))


class World:
    """One worker over `nodes`."""

    def __init__(
        self, cluster: Cluster, metadata: Metadata, keyring: Keyring, nodes: dict[int, FaultyDatanode], owner: User
    ) -> None:
        self.cluster = cluster
        self.objects = cluster.objects
        self.metadata = metadata
        self.keyring = keyring
        self.nodes = nodes
        self.stores: dict[int, Datanode] = dict(nodes)
        self.owner = owner
        self.bucket: Bucket
        self.map: StaticMap

    async def make_bucket(self, name: str, versioning: Versioning = Versioning.UNVERSIONED) -> Bucket:
        """A fresh bucket of the one user."""
        bucket = await self.cluster.directory.create_bucket(name, self.owner, "us-east-1", {})
        if versioning is not Versioning.UNVERSIONED:
            await self.cluster.directory.set_versioning(bucket, versioning)
        return bucket

    def request(self, **attributes: str) -> PutRequest:
        """A PUT with these attributes."""
        return PutRequest(self.owner.canonical_id, Attributes(**attributes))  # type: ignore[arg-type]

    async def put(
        self, key: bytes, data: bytes, *, bucket: Bucket | None = None, block_bytes: int = 100_000
    ) -> PutResult:
        """PUT in blocks of an odd size."""
        blocks = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
        return await self.objects.put(bucket or self.bucket, key, BlocksBody(blocks), self.request())

    async def get(
        self,
        key: bytes,
        byte_range: ByteRange | None = None,
        *,
        bucket: Bucket | None = None,
        version_id: str | None = None,
    ) -> bytes:
        """GET whole or a range."""
        async with self.objects.open(bucket or self.bucket, key, version_id, byte_range) as reading:
            data = b"".join([bytes(block) async for block in reading])
            assert len(data) == reading.end - reading.start
            return data

    @property
    def near(self) -> NearPieces:
        """What of the nodes is read directly."""
        return self.objects._reader._runs.chunks._services.near

    @property
    def copies(self) -> int:
        """Chunks on all nodes together."""
        return sum(len(node.chunks) for node in self.nodes.values())


@asynccontextmanager
async def open_world(
    directory: Path,
    *,
    node_count: int = 3,
    settings: ClusterSettings = SETTINGS,
    deadlines: Deadlines | None = None,
    clock: Clock | None = None,
    failure_domain: str = "",
    dsn: str = "",
    near: bool = False,
) -> AsyncIterator[World]:
    """Metadata and keyring in `directory`, one user, one bucket named `bucket`. dsn: of an empty PostgreSQL database in
    place of SQLite. near: the datanodes' directories are read directly."""
    clock = clock or SystemClock()
    peers: dict[str, FaultyDatanode] = {}
    nodes: dict[int, FaultyDatanode] = {}
    for number in range(1, node_count + 1):
        home = directory / f"node-{number}"
        nodes[number] = (
            NearDatanode(number, peers, failure_domain, home) if near else FaultyDatanode(number, peers, failure_domain)
        )
    if near:
        directories = tuple(directory / f"node-{number}" for number in nodes)
        settings = replace(settings, datanode_directories=directories)
    if deadlines is not None:
        settings = replace(settings, deadlines=deadlines)
    metadata: Metadata
    if dsn:
        metadata = await open_postgres_metadata(dsn, clock=clock)
    else:
        metadata = await open_owned_metadata(directory / "metadata", clock=clock)
    keyring = Keyring(DiskFiles(), directory / "keyring", CLUSTER_ID, FixedMasterKey(), clock)
    keyring.open()
    owner = User("f" * 64, "owner", "Owner")
    try:
        if await metadata.find_user(owner.canonical_id) is None:
            await metadata.apply(CreateUser(owner))
        maps: list[StaticMap] = []

        def follow(on_map: Callable[[ClusterMap], Awaitable[None]]) -> StaticMap:
            maps.append(StaticMap([node.node() for node in nodes.values()], on_map))
            return maps[0]

        outside = Outside(metadata, keyring, follow, lambda node: nodes[node.number], new_hasher, clock)
        async with open_cluster(settings, outside) as cluster:
            world = World(cluster, metadata, keyring, nodes, owner)
            world.map = maps[0]
            world.bucket = await world.make_bucket("bucket")
            while near and not all(number in world.near for number in nodes):
                await asyncio.sleep(0.001)
            yield world
    finally:
        await metadata.close()
