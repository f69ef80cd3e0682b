"""Asks nodes for the pieces of a chunk: whether each is there with the right digest, or (deep) reads right from the
medium."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from cluster.maintenance.call_groups import CallGroups
from cluster.maintenance.node_calls import CALL_DEADLINE_S
from cluster.maintenance.pieces import named_pieces, position_of, receipt_of, stored_id_of
from cluster.maintenance.repair import Finding, Piece
from cluster.nodes import NodePool
from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, Unavailable
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt, ChunkState, Judged
from storage.metadata.interface import ChunkPlace
from storage.model import ClusterMap, NodeState


class PieceLook:
    """Nodes that are dead or gone by the map are not asked."""

    def __init__(self, nodes: NodePool, current_map: Callable[[], ClusterMap]) -> None:
        self._nodes = nodes
        self._current_map = current_map
        self._inspections: CallGroups[int, ChunkId, ChunkState | None] = CallGroups(self._inspect_many)

    async def look_at_named(self, place: ChunkPlace, *, deep: bool) -> list[Piece]:
        """Every piece that the row names."""
        states = {node.number: node.state for node in self._current_map().nodes}
        named = list(named_pieces(place))
        findings = await asyncio.gather(
            *(self._look(place, position, number, states.get(number), deep=deep) for position, number in named)
        )
        return [Piece(*piece, finding) for piece, finding in zip(named, findings, strict=True)]

    async def look_at_strays(self, place: ChunkPlace, numbers: Collection[int]) -> list[Piece]:
        """The good pieces among those that these nodes hold and the row does not name, read from the medium."""
        states = {node.number: node.state for node in self._current_map().nodes}
        asked = [number for number in numbers if number not in place.nodes and _may_answer(states.get(number))]
        receipts = await asyncio.gather(*(self._verify(number, stored_id_of(place)) for number in asked))
        found = []
        for number, receipt in zip(asked, receipts, strict=True):
            position = position_of(place, receipt) if isinstance(receipt, ChunkReceipt) else None
            if position is not None:
                is_leaving = states.get(number) is NodeState.DRAINING
                found.append(Piece(position, number, Finding.LEAVING if is_leaving else Finding.GOOD))
        return found

    async def examine(self, number: int, chunk_id: ChunkId, expected: ChunkReceipt, *, deep: bool) -> Finding:
        """GOOD, MISSING, BAD, or UNKNOWN when the node does not answer."""
        receipt = await (self._verify(number, chunk_id) if deep else self._inspect(number, chunk_id))
        if isinstance(receipt, Finding):
            return receipt
        return Finding.GOOD if receipt == expected else Finding.BAD

    async def judge(self, number: int, chunk_id: ChunkId, expected: ChunkReceipt) -> Judged | None:
        """A piece that reads wrong from the medium, as an order to set it aside tells it; None when it is right or not
        there, or the node does not answer."""
        try:
            # Before the piece is read: what is stored in its place after this is another one, and stays.
            state = await self._inspections.ask(number, chunk_id)
        except (ChunkError, Corrupt, Unavailable, TimeoutError):
            return None
        is_bad = await self.examine(number, chunk_id, expected, deep=True) is Finding.BAD
        return (chunk_id, state) if is_bad else None

    async def _look(
        self, place: ChunkPlace, position: int, number: int, state: NodeState | None, *, deep: bool
    ) -> Finding:
        if state is NodeState.GONE:
            return Finding.MISSING
        if state is NodeState.DEAD:
            return Finding.AWAY
        finding = await self.examine(number, stored_id_of(place), receipt_of(place, position), deep=deep)
        if state is NodeState.DRAINING:
            return {Finding.GOOD: Finding.LEAVING, Finding.UNKNOWN: Finding.AWAY}.get(finding, finding)
        return finding

    async def _inspect(self, number: int, chunk_id: ChunkId) -> ChunkReceipt | Finding:
        try:
            state = await self._inspections.ask(number, chunk_id)
        except (ChunkError, Corrupt, Unavailable, TimeoutError):
            return Finding.UNKNOWN
        return ChunkReceipt(state.length, state.digest) if state is not None else Finding.MISSING

    async def _inspect_many(self, number: int, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        async with asyncio.timeout(CALL_DEADLINE_S):
            return await self._nodes.store(number).inspect_many(chunk_ids)

    async def _verify(self, number: int, chunk_id: ChunkId) -> ChunkReceipt | Finding:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                return await self._nodes.store(number).verify(chunk_id)
        except ChunkNotFound:
            return Finding.MISSING
        except Corrupt:
            return Finding.BAD
        except (ChunkError, Unavailable, TimeoutError):
            return Finding.UNKNOWN


def _may_answer(state: NodeState | None) -> bool:
    return state not in (NodeState.DEAD, NodeState.GONE)
