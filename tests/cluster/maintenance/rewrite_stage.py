"""What lays blobs anew: a rewriter beside a whole gateway, whose last commands may be changed on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.rewriter import Rewriter
from cluster.maintenance.sweep import choose_forgettable, plan_released
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from cluster.redundancy import parse_redundancy
from storage.base.clock import SystemClock
from storage.base.ids import ChunkId, split_stored_index, stored_chunk_id
from storage.metadata.commands import (
    REDUNDANCY_SETTING,
    REWRITE_SETTING,
    Command,
    ForgetBlobs,
    PutBucketSetting,
    RegisterNode,
    Relayout,
)
from storage.metadata.interface import Metadata
from storage.model import Blob, NodeState
from tests.cluster.layouts import read_blobs
from tests.cluster.world import QUICK, SETTINGS, World, open_world

Hook = Callable[[Relayout], Awaitable[object]]


class Observed:
    """The world's metadata; what becomes of a Relayout may be changed."""

    def __init__(self, inner: Metadata) -> None:
        self._inner = inner
        self.on_relayout: Hook | None = None

    async def apply(self, command: Command) -> object:
        if isinstance(command, Relayout) and self.on_relayout is not None:
            return await self.on_relayout(command)
        return await self._inner.apply(command)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Stage:
    """A world, and a rewriter beside its gateway."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.observed = Observed(world.metadata)
        self.claims = BlobClaims()
        self.throttle = Throttle(1 << 40, SystemClock())
        self.term = 0
        self.rewriter = self.make_rewriter(lambda: self.term, self.claims)

    def make_rewriter(self, term: Callable[[], int], claims: BlobClaims) -> Rewriter:
        """Another master's, perhaps."""
        return Rewriter(
            self.observed,  # type: ignore[arg-type]
            NodePool(bytes(32), SystemClock(), lambda node: self.world.nodes[node.number]),
            claims,
            self.throttle,
            parse_redundancy("replica:2"),
            lambda: self.world.map.cluster_map,
            term,
            SystemClock(),
            deadlines=QUICK,
            pause_s=0,
        )

    async def set(self, redundancy: str = "", rewrite: bytes | None = None) -> None:
        """The bucket's settings."""
        document = redundancy.encode() or None
        for name, value in ((REDUNDANCY_SETTING, document), (REWRITE_SETTING, rewrite)):
            await self.world.metadata.apply(PutBucketSetting(self.world.bucket.bucket_id, name, value))

    async def run(self, redundancy: str) -> None:
        """Set it, and lay everything out."""
        await self.set(redundancy)
        await self.rewriter.run()

    async def blob(self, key: bytes = b"key") -> Blob:
        """The only blob of an object, with all of its rows."""
        (blob,) = await read_blobs(self.world, key)
        return blob

    async def sweep(self) -> None:
        """What is released, as if no read had begun before."""
        world = self.world
        plan = plan_released(await world.metadata.list_released_blobs(2**62, 1_000), world.map.cluster_map)
        for number, chunk_ids in plan.deletes.items():
            await world.nodes[number].inner.delete_many(chunk_ids)
        if gone := choose_forgettable(plan, ()):
            blob_ids, generations = zip(*gone, strict=True)
            await world.metadata.apply(ForgetBlobs(blob_ids, generations))

    async def require_only(self, *keys: bytes, strays_on: int = 0) -> None:
        """Every node holds exactly what the rows of these objects name; strays_on: the node that may hold more."""
        named: set[tuple[int, ChunkId]] = set()
        for key in keys:
            for blob in await read_blobs(self.world, key):
                width = parse_redundancy(blob.redundancy).width
                for chunk in blob.chunks:
                    assert len({number for number in chunk.nodes if number}) == width
                    stored = stored_chunk_id(blob.blob_id, chunk.index, blob.generation)
                    named |= {(number, stored) for number in chunk.nodes}
        held = {(number, it) for number, node in self.world.nodes.items() for it in node.chunks}
        assert {(number, it) for number, it in held if number != strays_on or (number, it) in named} == named

    def generations(self) -> set[int]:
        """Of everything that nodes hold."""
        return {split_stored_index(it.chunk_index)[0] for node in self.world.nodes.values() for it in node.chunks}


@asynccontextmanager
async def staged(tmp_path: Path, node_count: int = 8, chunk_bytes: int = 1 << 20) -> AsyncIterator[Stage]:
    """Replicas of two by default."""
    settings = replace(SETTINGS, chunk_bytes=chunk_bytes)
    async with open_world(tmp_path, node_count=node_count, deadlines=QUICK, settings=settings) as world:
        for node in world.nodes.values():
            await world.metadata.apply(RegisterNode(node.node().report, NodeState.UP))
        yield Stage(world)
