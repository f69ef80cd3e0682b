"""Chunks that are written: as replicas, which all get the sealed bytes as they are, or as fragments, which get a share
of the frames or parity each. The chunk's redundancy decides."""

from __future__ import annotations

from cluster.byte_budget import ByteBudget
from cluster.chunk_write import ChunkOrder, ChunkWrite
from cluster.deadlines import Deadlines
from cluster.frame_log import FrameLog
from cluster.maintenance.pieces import NOWHERE
from cluster.nodes import NodePool
from cluster.stripe_log import StripeLog
from storage.chunks.erasure import FRAGMENT_HEADER_BYTES, NEEDED_MAX, PARITY_MAX, SEALED_FRAME_BYTES
from storage.chunks.store import ChunkReceipt

STRIPE_BYTES_MAX = (NEEDED_MAX + PARITY_MAX) * (FRAGMENT_HEADER_BYTES + SEALED_FRAME_BYTES)
"""of memory, for the widest stripe"""
STRIPES_SHARE = 0.5
"""of the memory, which the stripes that are being gathered may hold together"""
BUDGET_BYTES_MIN = round(STRIPE_BYTES_MAX / STRIPES_SHARE)


class ReplicaWrite(ChunkWrite):
    """Every place is sent the same bytes; a missing replica is pulled from one that is there."""

    def __init__(self, order: ChunkOrder, log: FrameLog, nodes: NodePool, deadlines: Deadlines) -> None:
        width = order.redundancy.width
        super().__init__(order, [log] * width, [order.sealed_length] * width, nodes, deadlines)
        self.log = log
        self._whole = log

    @property
    def digest(self) -> bytes:
        return self._whole.digest

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._durable.values())

    async def _make(self, place: int, target: int) -> ChunkReceipt:
        source = next(iter(self._durable.values()))
        return await self._nodes.pull(target, source, self._chunk_id, self._expected(place))

    def discard(self) -> None:
        self._whole.discard()


class FragmentWrite(ChunkWrite):
    """Every place is sent its own fragment; a missing one is rebuilt from as many others as are needed."""

    def __init__(self, order: ChunkOrder, log: StripeLog, nodes: NodePool, deadlines: Deadlines) -> None:
        striping = order.striping
        lengths = [striping.fragment_length(number) for number in range(striping.width)]
        super().__init__(order, log.fragments, lengths, nodes, deadlines)
        self.log = log
        self._stripes = log
        self._striping = striping
        self._made = 0

    @property
    def digest(self) -> bytes:
        return b"".join(log.digest for log in self._logs)

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self._durable.get(place, NOWHERE) for place in range(self._striping.width))

    async def _make(self, place: int, target: int) -> ChunkReceipt:
        # From others each time: which of them failed, a target does not say.
        holders = sorted(self._durable.items())
        turn = self._made % len(holders)
        self._made += 1
        sources = dict([*holders[turn:], *holders[:turn]][: self._striping.needed])
        digest = self._logs[place].digest
        return await self._nodes.rebuild(target, sources, self._chunk_id, place, self._striping, digest)

    def discard(self) -> None:
        self._stripes.discard()


class ChunkWrites:
    """What all writes of a process share."""

    def __init__(self, budget: ByteBudget, nodes: NodePool, deadlines: Deadlines) -> None:
        """ValueError for a budget of less than BUDGET_BYTES_MIN."""
        if budget.capacity_bytes < BUDGET_BYTES_MIN:
            raise ValueError(f"a memory budget has at least {BUDGET_BYTES_MIN} bytes")
        self._budget = budget
        self._stripes = ByteBudget(round(budget.capacity_bytes * STRIPES_SHARE))
        self._nodes = nodes
        self._deadlines = deadlines

    def begin(self, order: ChunkOrder) -> ChunkWrite:
        """A write that is started by the caller."""
        if not order.redundancy.is_erasure:
            return ReplicaWrite(order, FrameLog(self._budget), self._nodes, self._deadlines)
        log = StripeLog(self._budget, self._stripes, order.striping, self._deadlines.stripe_s)
        return FragmentWrite(order, log, self._nodes, self._deadlines)
