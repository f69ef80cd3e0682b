"""Executes what sweep.py plans, in small bounded steps, so that nothing but time is lost when it stops anywhere.

One run: 1. fence sessions that were silent for a lease; 2. delete released chunks and old layouts, then forget them;
3. look through inventories for orphans and set aside those that were seen before; 4. purge what was set aside long ago;
5. after a pass over every node, forget sessions of which nothing is left. A crash after any step leaves work for the
next run: a chunk that was deleted and not forgotten is deleted again, which is no error. What is written carries the
term of this master's lease, and is refused after another one took over.

A lease is in the wall time of the metadata's owner. So that a clock that is set forward fences nobody who lives, none
is fenced before this process has seen a session unchanged for a lease, by its own steady clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.orphans import OrphanPasses
from cluster.maintenance.read_horizon import ReadHorizon
from cluster.maintenance.sweep import (
    SweepSettings,
    choose_forgettable,
    choose_forgettable_sessions,
    plan_released,
)
from cluster.nodes import NodePool
from storage.base.clock import Clock
from storage.base.ids import ChunkId
from storage.metadata.commands import FenceSessions, ForgetBlobs, ForgetSessions
from storage.metadata.interface import Metadata
from storage.model import ClusterMap, NodeState

RELEASED_BATCH_BLOBS = 64
"""a blob of 5 GiB has 640 chunks, so that a batch stays small"""
RELEASED_BATCHES_MAX = 64
FORGOTTEN_SESSIONS_MAX = 1_000
COUNTED = ("fenced", "deleted", "forgotten_blobs", "quarantined", "purged", "forgotten_sessions")
"""of a SweepReport, what is summed up over runs"""
PAUSE_S = 0.02
"""between batches, so that the sweep never has a node or the metadata to itself"""

_log = logging.getLogger(__name__)


class SweepReport(NamedTuple):
    """What one run did."""

    fenced: int = 0
    deleted: int = 0
    """released chunks, over all nodes"""
    forgotten_blobs: int = 0
    suspected: int = 0
    """orphans seen for the first time, or again too soon"""
    quarantined: int = 0
    purged: int = 0
    forgotten_sessions: int = 0
    unreachable: tuple[int, ...] = ()
    """numbers of nodes that did not answer"""


class Sweeper:
    """One per cluster, in the master process. `run_once` at any time; runs never overlap."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        current_map: Callable[[], ClusterMap],
        clock: Clock,
        settings: SweepSettings = SweepSettings(),  # noqa: B008 - immutable
        pause_s: float = PAUSE_S,
        current_term: Callable[[], int] = lambda: 0,
    ) -> None:
        """current_term: of this master's lease, for what it writes."""
        self._metadata = metadata
        self._nodes = nodes
        self._current_map = current_map
        self._clock = clock
        self._settings = settings
        self._pause_s = pause_s
        self._current_term = current_term
        self._orphans = OrphanPasses(metadata, clock, settings, pause_s)
        self._horizon = ReadHorizon(settings.read_margin_ms / 1000)
        self._running = asyncio.Lock()
        self._is_ordered = False
        self._totals: Counter[str] = Counter()
        self._done_nodes = self._total_nodes = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """What all runs did together. done and total: nodes that the run under way, or the last one, looked through."""
        return {**self._totals, "done": self._done_nodes, "total": self._total_nodes}

    def order(self) -> None:
        """The next run looks through every inventory to its end."""
        self._is_ordered = True

    async def run(self) -> None:
        """As a background loop calls it."""
        whole_pass, self._is_ordered = self._is_ordered, False
        report = await self.run_once(whole_pass=whole_pass)
        self._totals.update({name: value for name, value in report._asdict().items() if name in COUNTED})
        if report._replace(suspected=0, unreachable=()) != SweepReport():
            _log.info("swept: %s", ", ".join(f"{name} {value}" for name, value in report._asdict().items() if value))

    async def run_once(self, *, whole_pass: bool = False) -> SweepReport:
        """All steps once. whole_pass: look through every inventory to its end. Unavailable without the metadata."""
        async with self._running:
            cluster_map = self._current_map()
            await self._nodes.adopt(cluster_map)
            calls = NodeCalls(self._nodes)
            cutoff_ms = self._horizon.look(await self._metadata.list_sessions(), self._clock.monotonic_s())
            if self._settings.history_ms:
                cutoff_ms = min(cutoff_ms, self._clock.now_ms() - self._settings.history_ms)
            fenced = await self._fence()
            deleted, forgotten = await self._sweep_released(cutoff_ms, cluster_map, calls)
            suspected = quarantined = purged = 0
            reachable = _reachable(cluster_map)
            self._done_nodes, self._total_nodes = 0, len(reachable)
            for number in reachable:
                orphans = await self._orphans.look_through(number, calls, whole=whole_pass)
                suspected, quarantined = suspected + orphans.suspected, quarantined + orphans.quarantined
                older_than_ms = self._clock.now_ms() - self._settings.quarantine_ms
                purged += await calls.call(number, lambda store, at=older_than_ms: store.purge_quarantine(at)) or 0  # type: ignore[misc]
                self._done_nodes += 1
            sessions = await self._forget_sessions(cluster_map)
            unreachable = tuple(sorted(calls.unreachable))
            return SweepReport(len(fenced), deleted, forgotten, suspected, quarantined, purged, sessions, unreachable)

    async def _fence(self) -> list[bytes]:
        if self._horizon.silent_s * 1000 < self._settings.lease_ttl_ms:
            return []
        fenced: list[bytes] = await self._metadata.apply(
            FenceSessions(self._settings.lease_ttl_ms, self._current_term())
        )
        return fenced

    async def _sweep_released(self, cutoff_ms: int, cluster_map: ClusterMap, calls: NodeCalls) -> tuple[int, int]:
        """(pieces deleted, blobs and old layouts forgotten)"""
        deleted = forgotten = 0
        for _ in range(RELEASED_BATCHES_MAX):
            blobs = await self._metadata.list_released_blobs(cutoff_ms, RELEASED_BATCH_BLOBS)
            plan = plan_released(blobs, cluster_map)
            deleted += sum(
                await asyncio.gather(*(_delete(calls, number, chunk_ids) for number, chunk_ids in plan.deletes.items()))
            )
            gone = choose_forgettable(plan, calls.unreachable)
            if gone:
                blob_ids, generations = zip(*gone, strict=True)
                await self._metadata.apply(ForgetBlobs(blob_ids, generations, self._current_term()))
                forgotten += len(gone)
            if len(blobs) < RELEASED_BATCH_BLOBS or not gone:
                break
            await asyncio.sleep(self._pause_s)
        return deleted, forgotten

    async def _forget_sessions(self, cluster_map: ClusterMap) -> int:
        """Only when every node that is not gone for good was looked through: a dead one may come back with chunks."""
        numbers = [node.number for node in cluster_map.nodes if node.state is not NodeState.GONE]
        seen = self._orphans.sessions_seen(numbers)
        if seen is None or not numbers:
            return 0
        sessions = await self._metadata.list_sessions()
        over = choose_forgettable_sessions(sessions, seen, self._clock.now_ms(), self._settings)
        over = over[:FORGOTTEN_SESSIONS_MAX]
        if over:
            await self._metadata.apply(ForgetSessions(over, self._current_term()))
        return len(over)


async def _delete(calls: NodeCalls, number: int, chunk_ids: list[ChunkId]) -> int:
    flags = await calls.call(number, lambda store: store.delete_many(chunk_ids))
    return sum(flags) if flags is not None else 0


def _reachable(cluster_map: ClusterMap) -> list[int]:
    return [node.number for node in cluster_map.nodes if node.state not in (NodeState.DEAD, NodeState.GONE)]
