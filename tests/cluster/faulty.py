"""A datanode in memory that fails as told: it refuses, fills up, stalls, dies midway, lies, corrupts or is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, NodeFull, NodeUnreachable
from storage.base.ids import ChunkId
from storage.chunks.erasure import Striping
from storage.chunks.footer import digest_of
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.near_drafts import NotLent
from storage.chunks.store import Buffer, ChunkReceipt, ChunkState, InventoryEntry, Judged, Space
from storage.datanode.near_wire import Loan
from storage.datanode.wire import DamagedChunk, PullRequest, RebuildRequest, ScrubOrder, ScrubStatus
from storage.model import Node, NodeReport, NodeState
from tests.storage.chunks.fragments import rebuild_fragment

GIB = 1 << 30


class FaultyDatanode:
    """A memory store with switches. `peers` maps addresses to nodes, for pulls."""

    ranges = None
    """it lends none"""

    def __init__(self, number: int, peers: dict[str, FaultyDatanode], failure_domain: str = "") -> None:
        self.number = number
        self.address = f"unix:/node-{number}"
        self.failure_domain = failure_domain or f"zone/host-{number}/disk"
        self.inner = MemoryChunkStore()
        self.peers = peers
        peers[self.address] = self
        self.down = False
        """refuses everything"""
        self.free_bytes = 90 * GIB
        self.full = False
        """refuses puts and pulls with NodeFull, before a byte was taken"""
        self.put_dies_after_bytes: int | None = None
        self.put_stalls_after_bytes: int | None = None
        self.put_is_never_durable = False
        """takes everything and does not answer"""
        self.put_stores_other_bytes = False
        self.slow_by_steps = 0
        """turns of the event loop that it takes for each piece"""
        self.get_stalls = False
        """until go_on()"""
        self.waiting = 0
        """reads that are stalled now"""
        self._going_on = asyncio.Event()
        self.get_corrupts = False
        self.get_ends_early = False
        self.delete_fails = False
        self.pull_fails = False
        self.puts = 0
        self.gets = 0
        self.pulls = 0
        self.rebuilds = 0
        self.damaged: dict[ChunkId, int] = {}
        """set aside by a scrub, and not forgotten yet"""
        self.deletes = 0
        self.orders: list[Sequence[Judged]] = []
        """to set aside"""
        self.bytes_taken = 0

    def node(self, state: NodeState = NodeState.UP) -> Node:
        """Its registry record."""
        report = NodeReport(
            f"{self.number:032x}",
            "c" * 32,
            self.address,
            self.failure_domain,
            100 * GIB,
            self.free_bytes,
            GIB,
            1,
            damaged_count=len(self.damaged),
        )
        return Node(self.number, report, state, 0)

    @property
    def chunks(self) -> dict[ChunkId, bytes]:
        """What it holds."""
        return self.inner.chunks

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        self.puts += 1
        self._check_up()
        if self.full:
            raise NodeFull("full")
        receipt = await self.inner.put(chunk_id, length, self._take(body))
        if self.put_is_never_durable:
            await asyncio.Event().wait()
        if self.put_stores_other_bytes:
            return ChunkReceipt(receipt.length, bytes(8))
        return receipt

    async def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> ChunkReceipt:
        return await self.put(chunk_id, sum(map(len, blocks)), _each(blocks))

    async def lend(self, chunk_id: ChunkId, loan: Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt:
        raise NotLent("in memory")

    async def _take(self, body: AsyncIterator[Buffer]) -> AsyncIterator[Buffer]:
        taken = 0
        async for piece in body:
            self._check_up()
            taken += len(piece)
            self.bytes_taken += len(piece)
            if self.put_dies_after_bytes is not None and taken > self.put_dies_after_bytes:
                raise NodeUnreachable("died")
            if self.put_stalls_after_bytes is not None and taken > self.put_stalls_after_bytes:
                await asyncio.Event().wait()
            for _ in range(self.slow_by_steps):
                await asyncio.sleep(0)
            yield piece

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        self._check_up()
        return await self.inner.put_many(items)

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        self.gets += 1
        self._check_up()
        if self.get_stalls:
            await self._stall()
        async for piece in self.inner.get(chunk_id, offset, length):
            block = piece
            if self.get_corrupts:
                block = bytes([block[0] ^ 1]) + block[1:]
            if self.get_ends_early:
                yield block[: len(block) // 2]
                return
            yield block

    async def _stall(self) -> None:
        self.waiting += 1
        try:
            await self._going_on.wait()
        finally:
            self.waiting -= 1

    def go_on(self) -> None:
        """As after SIGCONT: what was asked meanwhile is answered now."""
        self.get_stalls = False
        self._going_on.set()
        self._going_on = asyncio.Event()

    async def get_many(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError]:
        self._check_up()
        return await self.inner.get_many(spans)

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        self._check_up()
        return await self.inner.stat(chunk_id)

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        self._check_up()
        return await self.inner.verify(chunk_id)

    async def pull(self, chunk_id: ChunkId, request: PullRequest) -> ChunkReceipt:
        self.pulls += 1
        self._check_up()
        if self.full:
            raise NodeFull("full")
        if self.pull_fails:
            raise NodeUnreachable("the source does not answer")
        sealed = self.peers[request.source].chunks.get(chunk_id)
        if sealed is None:
            raise ChunkNotFound("the source does not hold it")
        if digest_of(sealed).digest != request.digest:
            raise Corrupt("the source holds other bytes")
        outcome = (await self.inner.put_many([(chunk_id, sealed)]))[0]
        if not isinstance(outcome, ChunkReceipt):
            raise outcome
        return outcome

    async def pull_many(
        self, pulls: Sequence[tuple[ChunkId, PullRequest]]
    ) -> list[ChunkReceipt | ChunkError | Corrupt]:
        outcomes: list[ChunkReceipt | ChunkError | Corrupt] = []
        for chunk_id, request in pulls:
            try:
                outcomes.append(await self.pull(chunk_id, request))
            except (ChunkError, Corrupt) as error:
                outcomes.append(error)
        return outcomes

    async def rebuild(self, chunk_id: ChunkId, request: RebuildRequest) -> ChunkReceipt:
        self.rebuilds += 1
        self._check_up()
        if self.full:
            raise NodeFull("full")
        if self.pull_fails:
            raise NodeUnreachable("a source does not answer")
        fragments: dict[int, bytes] = {}
        for source in request.sources:
            fragment = self.peers[source.address].chunks.get(chunk_id)
            if fragment is None:
                raise ChunkNotFound("a source does not hold it")
            fragments[source.number] = fragment
        striping = Striping(request.needed, request.width, request.sealed_length)
        made = rebuild_fragment(fragments, request.number, striping)
        if digest_of(made).digest != request.digest:
            raise Corrupt("what came out is not the fragment")
        outcome = (await self.inner.put_many([(chunk_id, made)]))[0]
        if not isinstance(outcome, ChunkReceipt):
            raise outcome
        return outcome

    async def inspect_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        self._check_up()
        return await self.inner.inspect_many(chunk_ids)

    async def scrub(self) -> None:
        """Read everything now, and set aside what is rotten."""
        for chunk_id in list(self.inner.chunks):
            try:
                await self.inner.verify(chunk_id)
            except Corrupt:
                await self.inner.quarantine_many([chunk_id])
                self.damaged[chunk_id] = 1

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[DamagedChunk]:
        self._check_up()
        ids = sorted(chunk_id for chunk_id in self.damaged if after is None or chunk_id > after)
        return [DamagedChunk(chunk_id.to_bytes(), self.damaged[chunk_id]) for chunk_id in ids[:limit]]

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check_up()
        return [self.damaged.pop(chunk_id, None) is not None for chunk_id in chunk_ids]

    async def scrub_status(self) -> ScrubStatus:
        self._check_up()
        return ScrubStatus()

    async def order_scrub(self, order: ScrubOrder) -> ScrubStatus:
        self._check_up()
        return ScrubStatus()

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check_up()
        if self.delete_fails:
            raise NodeUnreachable("no")
        self.deletes += len(chunk_ids)
        return await self.inner.delete_many(chunk_ids)

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        self._check_up()
        return await self.inner.quarantine_many(chunk_ids)

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        self._check_up()
        self.orders.append(judged)
        return await self.inner.quarantine_judged(judged)

    async def repeat_orders(self) -> int:
        """Orders to set aside arrive a second time, late. How many."""
        for judged in self.orders:
            await self.inner.quarantine_judged(judged)
        return len(self.orders)

    async def purge_quarantine(self, older_than_ms: int) -> int:
        self._check_up()
        return await self.inner.purge_quarantine(older_than_ms)

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        self._check_up()
        return await self.inner.inventory(after, limit)

    async def space(self) -> Space:
        self._check_up()
        if self.get_stalls:
            await asyncio.Event().wait()
        return await self.inner.space()

    async def close(self) -> None:
        pass

    def _check_up(self) -> None:
        if self.down:
            raise NodeUnreachable("down")


async def _each(blocks: Sequence[Buffer]) -> AsyncIterator[Buffer]:
    for block in blocks:
        yield block
