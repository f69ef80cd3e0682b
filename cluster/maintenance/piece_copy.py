"""Makes pieces of chunks on other nodes, at the pace of a throttle: copied as they are, or rebuilt out of others.

What is made is durable when a call returns, and no row names it yet. A call that fails or is cut off may have left the
piece on its target all the same: right bytes that no row names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from cluster.deadlines import Deadlines
from cluster.maintenance.call_groups import CallGroups
from cluster.maintenance.pieces import receipt_of, stored_id_of, striping_of
from cluster.maintenance.throttle import Throttle
from cluster.nodes import Copy, NodePool
from storage.base.errors import Corrupt, NodeUnreachable
from storage.chunks.store import ChunkReceipt
from storage.metadata.interface import ChunkPlace

SMALL_PIECE_BYTES = 128 << 10
"""replicas up to this size go to one target many in a call: the way there costs more than they do"""


class PieceCopier:
    """Errors of both: ChunkNotFound, Corrupt (a source, or what came out, is not what the row says), NodeFull,
    ChunkConflict (the target holds other bytes under this id), NodeUnreachable, Unavailable."""

    def __init__(self, nodes: NodePool, throttle: Throttle, deadlines: Deadlines) -> None:
        self._nodes = nodes
        self._throttle = throttle
        self._deadlines = deadlines
        self._pulls: CallGroups[int, Copy, ChunkReceipt] = CallGroups(nodes.pull_many)

    async def copy(self, place: ChunkPlace, position: int, source: int, target: int) -> ChunkReceipt:
        """Let `target` pull the piece at `position` from `source`."""
        expected = receipt_of(place, position)
        await self._throttle.take(expected.length)
        copy = Copy(source, stored_id_of(place), expected)
        is_small = expected.length <= SMALL_PIECE_BYTES
        pulling = self._pulls.ask(target, copy) if is_small else self._nodes.pull(target, *copy)
        return await self._make(expected, target, pulling)

    async def rebuild(self, place: ChunkPlace, position: int, target: int, holders: Mapping[int, int]) -> ChunkReceipt:
        """Let `target` make a fragment out of others. holders: fragment number → node, as many as are needed."""
        expected, striping = receipt_of(place, position), striping_of(place)
        await self._throttle.take(sum(striping.fragment_length(number) for number in holders))
        rebuilding = self._nodes.rebuild(target, holders, stored_id_of(place), position, striping, expected.digest)
        return await self._make(expected, target, rebuilding)

    async def _make(self, expected: ChunkReceipt, target: int, making: Awaitable[ChunkReceipt]) -> ChunkReceipt:
        try:
            async with asyncio.timeout(self._deadlines.pull_s):
                receipt = await making
        except TimeoutError:
            raise NodeUnreachable(f"node {target} did not make a piece in time") from None
        if receipt != expected:
            raise Corrupt(f"node {target} stored other bytes than the row describes")
        return receipt
