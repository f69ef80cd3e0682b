"""Executes what rebalance.py plans, in the process of the active master.

A run: 1. *census*: all records are counted, for what they place on each node; 2. the records are walked once more, from
a random place on (from where the last run stopped, later), and pieces are moved: those of crowded chunks, or, where
there are none, until the nodes are even; and no more than a run may. It is taken when nodes have joined, left or
filled, every ten minutes, when an operator orders it, and again and again while there is something to move. Where
nothing can be moved (domains do not let it), it rests; what failed is tried again soon, and then less and less often.

A move: 1. the target copies the piece and makes it durable; 2. the row names the target in place of the source. A stop
after 1 leaves a piece that no row names on the target, one after 2 leaves it on the source: the survey takes it for
surplus and deletes it last. Readers find the row as it was or as it is, and the piece on both nodes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import islice

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.rebalance import Census, Move, Scales
from cluster.maintenance.spread import Spread, room_bytes, takes_part
from cluster.nodes import NodePool
from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt, StalePlacement, Unavailable
from storage.base.ids import BLOB_ID_BYTES
from storage.metadata.commands import SetReplicas
from storage.metadata.interface import ChunkPlace, Metadata
from storage.model import ClusterMap, NodeState

PAGE_PLACES = 2_000
PAUSE_S = 0.02
"""between pages, so that a walk never has the metadata to itself"""
MOVES_AT_ONCE = 4
MOVES_PER_RUN_MAX = 1_000
CENSUS_AGE_S_MAX = 600.0
"""what rests looks again then: nodes fill and empty by themselves, and a write may find some of them full"""
CENSUS_SHARE_MAX = 0.05
"""of the time goes into counting, however many records there are"""
RETRY_FIRST_S = 60.0
"""after a run in which moves failed and none was made; doubled each time"""
RETRY_S_MAX = 1_800.0

_UNDECIDED = (NodeState.JOINING, NodeState.SUSPECT)

_log = logging.getLogger(__name__)

_Key = tuple[bytes, int]
Plan = Callable[[ChunkPlace], Move | None]


class Rebalancer:
    """One per cluster; `run` is called by a background loop, and runs never overlap."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        copier: PieceCopier,
        claims: BlobClaims,
        current_map: Callable[[], ClusterMap],
        current_term: Callable[[], int],
        clock: Clock,
        *,
        page_places: int = PAGE_PLACES,
        moves_per_run: int = MOVES_PER_RUN_MAX,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.totals: Counter[str] = Counter()
        """pieces moved and failed, and bytes moved, by this process"""
        self._metadata = metadata
        self._nodes = nodes
        self._copier = copier
        self._claims = claims
        self._current_map = current_map
        self._current_term = current_term
        self._clock = clock
        self._page_places = page_places
        self._moves_per_run = moves_per_run
        self._pause_s = pause_s
        self._cursor: _Key | None = None
        self._is_ordered = False
        self._is_moving = False
        self._is_evening = False
        self._counted: object = None
        """of what nodes the last census was"""
        self._counted_s = 0.0
        self._rest_s = CENSUS_AGE_S_MAX
        """how long what was counted is relied on"""
        self._retry_s = 0.0
        self._done_bytes = 0
        self._total_bytes = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """done and total: bytes of the rebalance under way, or of the last one; total is an estimate."""
        return {**self.totals, "done": self._done_bytes, "total": self._total_bytes}

    def order(self) -> None:
        """The next run looks at every record, and moves what helps however even the nodes are."""
        self._is_ordered = True

    async def run(self) -> None:
        """Unavailable without the metadata, NotActiveMaster after a takeover. While it is not decided of a node whether
        it is there or not, nothing is moved: what it holds may be repaired in a moment."""
        cluster_map = self._current_map()
        if not self._is_due(cluster_map) or any(node.state in _UNDECIDED for node in cluster_map.nodes):
            return
        await self._nodes.adopt(cluster_map)
        began_s = self._clock.monotonic_s()
        census = await self._take_census(cluster_map)
        took_s = self._clock.monotonic_s() - began_s
        scales = Scales(cluster_map.nodes, census)
        is_ordered, self._is_ordered = self._is_ordered, False
        self._counted, self._counted_s = _describe(cluster_map), self._clock.monotonic_s()
        failed_before = self.totals["failed"]
        was_moving, was_evening = self._is_moving, self._is_evening
        self._is_moving = self._is_evening = False
        if not was_moving:
            self._done_bytes = self._total_bytes = 0
        spread = await self._spread_pieces(scales) if census.crowded else 0
        moved = 0
        if not spread and (scales.is_uneven or ((was_evening or is_ordered) and not scales.is_at_rest)):
            moved = await self._even_out(scales)
            self._is_evening = moved > 0 and not scales.is_at_rest
        self._is_moving = spread > 0 or self._is_evening
        self._rest(took_s, has_failed=not (spread or moved) and self.totals["failed"] > failed_before)
        if not self._is_moving:
            self._total_bytes = self._done_bytes
        if spread or moved:
            _log.info("moved %d pieces of crowded chunks, %d for evenness", spread, moved)

    def _is_due(self, cluster_map: ClusterMap) -> bool:
        if self._is_ordered or self._is_moving or self._counted != _describe(cluster_map):
            return True
        return self._clock.monotonic_s() - self._counted_s >= self._rest_s

    def _rest(self, census_s: float, *, has_failed: bool) -> None:
        """census_s: how long it took."""
        self._retry_s = min(2 * self._retry_s or RETRY_FIRST_S, RETRY_S_MAX) if has_failed else 0.0
        self._rest_s = max(self._retry_s or CENSUS_AGE_S_MAX, census_s / CENSUS_SHARE_MAX)

    async def _take_census(self, cluster_map: ClusterMap) -> Census:
        census = Census(Spread(cluster_map.nodes))
        async for page in self._walk(None):
            for place in page:
                census.add(place)
        return census

    async def _spread_pieces(self, scales: Scales) -> int:
        """One piece of each crowded chunk; how many were moved."""
        return await self._move_pieces(scales, scales.plan_spread, lambda: False)

    async def _even_out(self, scales: Scales) -> int:
        """Until all are near each other; how many were moved."""
        self._total_bytes = self._done_bytes + scales.misplaced_bytes
        return await self._move_pieces(scales, scales.plan, lambda: scales.is_at_rest)

    async def _move_pieces(self, scales: Scales, plan: Plan, is_enough: Callable[[], bool]) -> int:
        moved = 0
        if self._cursor is None:
            self._cursor = (os.urandom(BLOB_ID_BYTES), 0)
        async for page in self._walk(self._cursor):
            moves = self._plan(plan, page)
            while batch := list(islice(moves, min(MOVES_AT_ONCE, self._moves_per_run - moved))):
                made = await asyncio.gather(*(self._move(move, scales) for move in batch))
                moved += sum(made)
                self._total_bytes = max(self._total_bytes, self._done_bytes)
                if moved >= self._moves_per_run or is_enough():
                    return moved
        return moved

    def _plan(self, plan: Plan, page: list[ChunkPlace]) -> Iterator[Move]:
        """Planned as they are taken, so that each is planned after the ones before it."""
        for place in page:
            self._cursor = (place.blob_id, place.chunk_index)
            move = plan(place)
            if move is not None:
                yield move

    async def _move(self, move: Move, scales: Scales) -> bool:
        """Whether the row names the target now; else the scales forget the move."""
        place = move.place
        with self._claims.claim(place.blob_id) as is_mine:
            moved = is_mine and await self._copy_and_name(move)
        if moved:
            self._done_bytes += move.piece_bytes
            self.totals["moved"] += 1
            self.totals["moved_bytes"] += move.piece_bytes
        else:
            scales.undo(move)
            self.totals["failed"] += is_mine
        return moved

    async def _copy_and_name(self, move: Move) -> bool:
        place = move.place
        try:
            await self._copier.copy(place, move.position, move.source, move.target)
            change = SetReplicas(
                place.blob_id, place.chunk_index, place.nodes, move.nodes, place.generation, self._current_term()
            )
            is_named: bool = await self._metadata.apply(change)
        except (ChunkError, Corrupt, Unavailable, StalePlacement) as error:
            _log.info("a piece of blob %s stays on node %d: %s", place.blob_id.hex(), move.source, error)
            return False
        return is_named

    async def _walk(self, begin: _Key | None) -> AsyncIterator[list[ChunkPlace]]:
        """Every record once, in pages: those after `begin`, then those up to it."""
        after, is_wrapped = begin, begin is None
        while True:
            page = await self._metadata.list_chunk_places(after, self._page_places)
            is_last = len(page) < self._page_places
            if is_wrapped and begin is not None:
                within = [place for place in page if (place.blob_id, place.chunk_index) <= begin]
                is_last, page = is_last or len(within) < len(page), within
            yield page
            if page:
                after = (page[-1].blob_id, page[-1].chunk_index)
            if is_last:
                if is_wrapped:
                    return
                after, is_wrapped = None, True
            await asyncio.sleep(self._pause_s)


def _describe(cluster_map: ClusterMap) -> object:
    """What evenness is judged by, but for the bytes: another value is a reason to count again."""
    return {
        (node.number, node.report.failure_domain, node.report.capacity_bytes, room_bytes(node) > 0)
        for node in cluster_map.nodes
        if takes_part(node)
    }
