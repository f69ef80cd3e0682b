"""The datanodes as a gateway talks to them: one client per node, and a short memory of who just failed.

Numbers come from chunk rows and from the cluster map. A node that refused, stalled or was full is asked last for a few
seconds, which is all the health that a gateway keeps: whether a node is up is the master's decision.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import random
from typing import NamedTuple, Protocol

from cluster.near_puts import NearPuts
from cluster.near_small_puts import NearSmallPuts
from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt, NodeUnreachable
from storage.base.ids import ChunkId
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key, make_pull_ticket
from storage.chunks.erasure import Striping
from storage.chunks.store import Buffer, ChunkReceipt, ChunkStore
from storage.datanode.near_wire import Loan
from storage.datanode.range_client import RangeClient
from storage.datanode.wire import DamagedChunk, FragmentSource, PullRequest, RebuildRequest, ScrubOrder, ScrubStatus
from storage.model import ClusterMap, Node, NodeState

FAILURE_MEMORY_S = 5.0
AWAY_STATES = (NodeState.DEAD, NodeState.GONE)
TICKET_LIFETIME_MS = 120_000
"""a pull ticket outlives the longest pull, and little more"""


class Datanode(ChunkStore, Protocol):
    """A chunk store on another machine: it can also fetch a chunk from a third one."""

    async def pull(self, chunk_id: ChunkId, request: PullRequest) -> ChunkReceipt:
        """Copy the chunk from another datanode, and make it durable."""
        ...

    async def pull_many(
        self, pulls: Sequence[tuple[ChunkId, PullRequest]]
    ) -> list[ChunkReceipt | ChunkError | Corrupt]:
        """The same of many small chunks: one outcome for each."""
        ...

    async def rebuild(self, chunk_id: ChunkId, request: RebuildRequest) -> ChunkReceipt:
        """Make a fragment out of those that other datanodes hold under the same id, and make it durable."""
        ...

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[DamagedChunk]:
        """Chunks that were found rotten and set aside, and that forget_damaged was not called for."""
        ...

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """The records do not count on these any more."""
        ...

    async def scrub_status(self) -> ScrubStatus:
        """How far the scrub is."""
        ...

    async def order_scrub(self, order: ScrubOrder) -> ScrubStatus:
        """Another pace, or a pass from the start."""
        ...

    async def lend(self, chunk_id: ChunkId, loan: Loan, account: AsyncIterator[Buffer]) -> ChunkReceipt:
        """Make a chunk durable whose bytes this process writes into the node's directory (cluster.near_puts)."""
        ...

    @property
    def ranges(self) -> RangeClient | None:
        """Of its segments, to be borrowed (cluster.near_small_puts); None where that cannot be."""
        ...

    async def close(self) -> None: ...


class Copy(NamedTuple):
    """A chunk that a node is to copy from `source`, and what it must be."""

    source: int
    chunk_id: ChunkId
    expected: ChunkReceipt


Connect = Callable[[Node], Datanode]


class NodePool:
    """Clients by node number, following the cluster map."""

    def __init__(
        self,
        internal_key: bytes,
        clock: Clock,
        connect: Connect,
        near_puts: NearPuts | None = None,
        near_small_puts: NearSmallPuts | None = None,
    ) -> None:
        """near_puts, near_small_puts: what is written into the directories of nodes on this machine; None: everything
        is sent."""
        self._internal_key = internal_key
        self._clock = clock
        self._connect = connect
        self._near_puts = near_puts
        self._near_small_puts = near_small_puts
        self._nodes: dict[int, Node] = {}
        self._clients: dict[int, Datanode] = {}
        self._replaced: list[Datanode] = []
        self._failed_until_s: dict[int, float] = {}
        self._away: frozenset[int] = frozenset()

    async def adopt(self, cluster_map: ClusterMap) -> None:
        """Know these nodes from now on. A node that moved gets a new client; calls under way may end on the old one,
        which is closed when the next map comes."""
        await self._close(self._replaced)
        nodes = {node.number: node for node in cluster_map.nodes}
        for number, client in list(self._clients.items()):
            known = nodes.get(number)
            if known is None or known.report.address != self._nodes[number].report.address:
                self._replaced.append(client)
                del self._clients[number]
        self._nodes = nodes
        self._away = frozenset(number for number, node in nodes.items() if node.state in AWAY_STATES)

    def knows(self, number: int) -> bool:
        """Whether the map has this node."""
        return number in self._nodes

    def store(self, number: int) -> Datanode:
        """The node's client. NodeUnreachable when the map has no such node."""
        client = self._clients.get(number)
        if client is None:
            client = self._clients[number] = self._connect(self._known(number))
        return client

    async def put(self, number: int, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        """As ChunkStore.put, to a node, the shortest way there is."""
        node = self.store(number)
        if self._near_puts is not None:
            return await self._near_puts.put(number, node, chunk_id, length, body)
        return await node.put(chunk_id, length, body)

    def put_whole(self, number: int, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> Awaitable[ChunkReceipt]:
        """As ChunkStore.put_whole, to a node, the shortest way there is; NodeUnreachable at once when the map has none
        of this number. The blob is the caller's own, and this its only chunk."""
        node = self.store(number)
        if self._near_small_puts is not None:
            return self._near_small_puts.put(number, node, chunk_id, blocks)
        return node.put_whole(chunk_id, blocks)

    async def pull(self, target: int, source: int, chunk_id: ChunkId, expected: ChunkReceipt) -> ChunkReceipt:
        """Let `target` copy a chunk from `source`. Errors as DatanodeClient.pull."""
        return await self.store(target).pull(chunk_id, self._pull_request(Copy(source, chunk_id, expected)))

    async def pull_many(self, target: int, copies: Sequence[Copy]) -> list[ChunkReceipt | ChunkError | Corrupt]:
        """The same of many small chunks: one outcome for each. Errors as DatanodeClient.pull_many."""
        pulls = [(copy.chunk_id, self._pull_request(copy)) for copy in copies]
        return await self.store(target).pull_many(pulls)

    def _pull_request(self, copy: Copy) -> PullRequest:
        node = self._known(copy.source)
        ticket = self._ticket(node, copy.chunk_id)
        return PullRequest(node.report.address, ticket, copy.expected.length, copy.expected.digest)

    async def rebuild(
        self, target: int, sources: Mapping[int, int], chunk_id: ChunkId, number: int, striping: Striping, digest: bytes
    ) -> ChunkReceipt:
        """Let `target` make fragment `number` out of others. sources: fragment number → node, as many as are needed.
        Errors as DatanodeClient.rebuild."""
        found = tuple(self._source(fragment, node, chunk_id) for fragment, node in sources.items())
        needed, width, sealed_length = striping
        request = RebuildRequest(needed, width, number, sealed_length, digest, found)
        return await self.store(target).rebuild(chunk_id, request)

    def _source(self, fragment: int, number: int, chunk_id: ChunkId) -> FragmentSource:
        node = self._known(number)
        return FragmentSource(fragment, node.report.address, self._ticket(node, chunk_id))

    def _known(self, number: int) -> Node:
        node = self._nodes.get(number)
        if node is None:
            raise NodeUnreachable(f"no node has the number {number}")
        return node

    def _ticket(self, node: Node, chunk_id: ChunkId) -> str:
        node_key = derive_node_key(self._internal_key, ROLE_DATANODE, node.report.node_id)
        return make_pull_ticket(node_key, chunk_id, self._clock.now_ms() + TICKET_LIFETIME_MS)

    def note_failure(self, number: int) -> None:
        """Ask this node last for a while."""
        self._failed_until_s[number] = self._clock.monotonic_s() + FAILURE_MEMORY_S

    def note_success(self, number: int) -> None:
        """It works (again)."""
        if self._failed_until_s:
            self._failed_until_s.pop(number, None)

    def has_failed(self, number: int) -> bool:
        """Whether the node failed a moment ago."""
        until_s = self._failed_until_s.get(number)
        if until_s is None:
            return False
        if self._clock.monotonic_s() >= until_s:
            del self._failed_until_s[number]
            return False
        return True

    def failed_numbers(self) -> frozenset[int]:
        """All nodes that failed a moment ago."""
        if not self._failed_until_s:
            return frozenset()
        return frozenset(number for number in list(self._failed_until_s) if self.has_failed(number))

    def is_doubtful(self, number: int) -> bool:
        """Whether reads had better ask others first: it failed a moment ago, or the master holds it for lost."""
        return number in self._away or self.has_failed(number)

    def order_for_read(self, numbers: Sequence[int]) -> Sequence[int]:
        """All of them, from a random one on so that readers spread, doubtful ones last. (In turn would let a
        reader of regular habits ask the same replica for the same frame for ever, and never notice a bad one.)"""
        if len(numbers) < 2:
            return numbers
        turn = int(random() * len(numbers))  # noqa: S311 - spreads load, guards nothing
        ordered = [*numbers[turn:], *numbers[:turn]]
        if self._failed_until_s or self._away:
            ordered.sort(key=self.is_doubtful)
        return ordered

    async def close(self) -> None:
        """Close all clients."""
        self._replaced.extend(self._clients.values())
        self._clients.clear()
        await self._close(self._replaced)

    @staticmethod
    async def _close(clients: list[Datanode]) -> None:
        while clients:
            await clients.pop().close()
