"""Acts on the hints of this worker's reads and writes: looks at every replica of the chunk, makes what is missing.

Write order: 1. bad copies are set aside, so that their nodes can take a good one; 2. copies are made from node to node;
3. the row names them. A crash before 3 leaves copies that no row names beside a blob that has rows: they go when the
blob goes. Two workers may repair one chunk at once: the row is only changed from what it was.

Whoever has too few copies without anybody having read it is found by the scrub, not here.
"""

from __future__ import annotations

import asyncio
import logging

from cluster.deadlines import Deadlines
from cluster.maintenance.repair import RepairPlan, ReplicaState, plan_repair
from cluster.nodes import NodePool
from cluster.placer import Placer
from cluster.repair_hints import RepairHints
from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import SetReplicas
from storage.metadata.interface import Metadata
from storage.model import Chunk

REPAIR_INTERVAL_S = 5.0
CHUNKS_PER_RUN_MAX = 64

_log = logging.getLogger(__name__)


class Repairer:
    """One per worker; `run` is called by a background loop."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        placer: Placer,
        hints: RepairHints,
        wanted: int,
        deadlines: Deadlines,
    ) -> None:
        self._metadata = metadata
        self._nodes = nodes
        self._placer = placer
        self._hints = hints
        self._wanted = wanted
        self._deadlines = deadlines

    async def run(self) -> None:
        """Repair what was hinted at, a bounded number of chunks. When no node takes a copy, the rest waits as well: a
        look reads whole chunks, which is not worth repeating until there is room."""
        for _ in range(CHUNKS_PER_RUN_MAX):
            taken = self._hints.take(1)
            if not taken:
                return
            try:
                await self.repair(taken[0].chunk_id)
            except NotEnoughNodes as error:
                _log.info("chunk %s is not repaired yet: %s", taken[0].chunk_id, error)
                self._hints.restore(taken[0])
                return
            except Corrupt as error:
                _log.error("chunk %s: %s", taken[0].chunk_id, error)
            except (ChunkError, Unavailable) as error:
                _log.info("chunk %s is left to others: %s", taken[0].chunk_id, error)

    async def repair(self, chunk_id: ChunkId) -> bool:
        """Whether something was repaired. Corrupt when no good copy is left, Unavailable when none can be reached,
        NotEnoughNodes when copies are still missing. A replica whose node does not answer is left as it is: whether it
        is lost is the master's decision."""
        row = await self._read_row(chunk_id)
        if row is None:
            return False
        states = {number: await self._look(number, chunk_id, row) for number in row.nodes}
        if ReplicaState.GOOD not in states.values():
            raise (Unavailable if ReplicaState.UNKNOWN in states.values() else Corrupt)("no good replica can be read")
        plan = plan_repair(states, self._wanted, self._placer.rank(chunk_id.blob_id, chunk_id.chunk_index, row.nodes))
        return plan is not None and await self._carry_out(chunk_id, row, plan)

    async def _carry_out(self, chunk_id: ChunkId, row: Chunk, plan: RepairPlan) -> bool:
        for number in plan.set_aside:
            # Once more, right before: another worker may have put a good copy there since.
            if await self._look(number, chunk_id, row) is ReplicaState.BAD:
                await self._nodes.store(number).quarantine_many([chunk_id])
        made: list[int] = []
        for target in plan.targets:
            if len(made) == plan.missing:
                break
            if await self._copy(plan.source, target, chunk_id, row):
                made.append(target)
        nodes = (*plan.kept, *made)
        if set(nodes) != set(row.nodes):
            change = SetReplicas(chunk_id.blob_id, chunk_id.chunk_index, row.nodes, nodes)
            if not await self._metadata.apply(change):
                await self._withdraw(chunk_id, made)
                return False
        _log.info("chunk %s is on nodes %s now, it was on %s", chunk_id, nodes, row.nodes)
        if len(nodes) < self._wanted:
            raise NotEnoughNodes(f"{len(nodes)} of {self._wanted} copies")
        return True

    async def _look(self, number: int, chunk_id: ChunkId, row: Chunk) -> ReplicaState:
        try:
            receipt = await self._nodes.store(number).verify(chunk_id)
        except ChunkNotFound:
            return ReplicaState.MISSING
        except Corrupt:
            return ReplicaState.BAD
        except (ChunkError, Unavailable):
            return ReplicaState.UNKNOWN
        return ReplicaState.GOOD if receipt == _expected(row) else ReplicaState.BAD

    async def _copy(self, source: int, target: int, chunk_id: ChunkId, row: Chunk) -> bool:
        expected = _expected(row)
        try:
            async with asyncio.timeout(self._deadlines.pull_s):
                return await self._nodes.pull(target, source, chunk_id, expected) == expected
        except (ChunkError, Corrupt, Unavailable, TimeoutError) as error:
            _log.info("node %d did not take a copy of chunk %s: %s", target, chunk_id, error)
            return False

    async def _withdraw(self, chunk_id: ChunkId, made: list[int]) -> None:
        """The row changed meanwhile, or is gone. Copies of a blob that is gone are deleted. While there is a row they
        stay, named or not: another worker may have found one of them on its node and be about to name it."""
        if await self._read_row(chunk_id) is None:
            for number in made:
                await self._nodes.store(number).delete_many([chunk_id])

    async def _read_row(self, chunk_id: ChunkId) -> Chunk | None:
        rows = await self._metadata.read_chunks(chunk_id.blob_id, chunk_id.chunk_index, 1)
        return rows[0] if rows and rows[0].index == chunk_id.chunk_index and rows[0].nodes else None


def _expected(row: Chunk) -> ChunkReceipt:
    return ChunkReceipt(sealed_length(row.length), row.digest)
