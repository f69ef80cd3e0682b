"""Follows up what nodes found rotten: such a piece is repaired like a missing one, then its node may forget it.

A node keeps what its scrub set aside on a list until it is told that the records do not count on it any more. That is
so when the chunk's row names another node in its place, or the same node with a good piece, or when there is no such
row. A stop anywhere leaves the list as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cluster.domains import evaluate_losses
from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.pieces import named_pieces, receipt_of, redundancy_of, stored_id_of
from cluster.maintenance.repair_queue import RETRY_FIRST_S, RETRY_MAX_S, RepairItem, RepairQueue
from cluster.nodes import NodePool
from storage.base.clock import Clock
from storage.base.ids import ChunkId, chunk_id_from_bytes, split_stored_index
from storage.chunks.store import ChunkReceipt, ChunkState
from storage.metadata.interface import ChunkPlace, Metadata
from storage.model import ClusterMap, Node, NodeState

PAGE_CHUNKS = 200
PAGES_MAX = 50
"""of one node in one run"""

_log = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """When a node's list was looked at last, how long it was by its report, and for how long it is left alone."""

    reported: int
    until_s: float
    pause_s: float


class DamageReports:
    """`run` is called by a background loop, every second: it asks only nodes that report damage."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        queue: RepairQueue,
        current_map: Callable[[], ClusterMap],
        clock: Clock,
    ) -> None:
        self._metadata = metadata
        self._nodes = nodes
        self._queue = queue
        self._current_map = current_map
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    async def run(self) -> None:
        """Unavailable without the metadata."""
        now_s = self._clock.monotonic_s()
        for node in self._current_map().nodes:
            if node.state in (NodeState.DEAD, NodeState.GONE) or not node.report.damaged_count:
                self._seen.pop(node.number, None)
                continue
            seen = self._seen.get(node.number)
            if seen is not None and seen.reported == node.report.damaged_count and now_s < seen.until_s:
                continue
            forgotten = await self._follow_up(node)
            # What cannot be made good (yet) is looked at again and again, less and less often.
            is_first = seen is None or forgotten or seen.reported != node.report.damaged_count
            pause_s = RETRY_FIRST_S if is_first else min(RETRY_MAX_S, seen.pause_s * 2)  # type: ignore[union-attr]
            self._seen[node.number] = _Seen(node.report.damaged_count, now_s + pause_s, pause_s)

    async def _follow_up(self, node: Node) -> int:
        """How many chunks the node could be told to forget."""
        calls = NodeCalls(self._nodes)
        after: ChunkId | None = None
        forgotten = 0
        for _ in range(PAGES_MAX):
            page = await calls.call(node.number, lambda store, at=after: store.list_damaged(at, PAGE_CHUNKS))  # type: ignore[misc]
            if not page:
                break
            ids = [chunk_id_from_bytes(damaged.chunk_id) for damaged in page]
            over = await self._look_at(node, ids, calls)
            flags = await calls.call(node.number, lambda store, ids=over: store.forget_damaged(ids)) if over else None  # type: ignore[misc]
            forgotten += sum(flags or [])
            after = ids[-1]
            if len(page) < PAGE_CHUNKS:
                break
        return forgotten

    async def _look_at(self, node: Node, ids: Sequence[ChunkId], calls: NodeCalls) -> list[ChunkId]:
        """Queue the repairs that are due; the ids that can be forgotten."""
        keys = [(chunk_id.blob_id, split_stored_index(chunk_id.chunk_index)[1]) for chunk_id in ids]
        rows = {stored_id_of(place): place for place in await self._metadata.find_chunk_places(sorted(set(keys)))}
        states = await calls.call(node.number, lambda store: store.inspect_many(ids))
        if states is None:
            return []
        over: list[ChunkId] = []
        for chunk_id, state in zip(ids, states, strict=True):
            place = rows.get(chunk_id)
            if place is None or place.is_released or _is_made_good(place, node.number, state):
                over.append(chunk_id)
            else:
                self._queue.add(self._make_item(place, node.number))
        return over

    def _make_item(self, place: ChunkPlace, number: int) -> RepairItem:
        """As endangered as the chunk is without this piece."""
        nodes = {node.number: node for node in self._current_map().nodes}
        domains = [
            nodes[holder].report.failure_domain
            for _, holder in named_pieces(place)
            if holder != number and holder in nodes and nodes[holder].state not in (NodeState.DEAD, NodeState.GONE)
        ]
        losses_left = evaluate_losses(domains, redundancy_of(place).needed).disks
        return RepairItem(place.blob_id, place.chunk_index, losses_left, receipt_of(place, 0).length)


def _is_made_good(place: ChunkPlace, number: int, state: ChunkState | None) -> bool:
    """Whether the row does not name the node, or the node has the piece (again) that the row says."""
    positions = [position for position, holder in named_pieces(place) if holder == number]
    if not positions:
        return True
    return state is not None and ChunkReceipt(state.length, state.digest) == receipt_of(place, positions[0])
