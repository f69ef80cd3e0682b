"""Walks over all records and inventories again and again: what is short of pieces is queued for repair, what no row
names is set aside once it may be, drained nodes are closed and retired, and what cannot be read is told by name.

A walk is taken every interval, and at once when a node died, came back, joined or is drained, when repairs are through,
when a drained node has to be looked for a last time, and when an operator orders it. It goes on where it was when it
was interrupted; another term of this master begins with nothing. What a stop leaves is: nothing that a new walk does
not find, and the records of what was done.

No walk begins while it is too early to say that a node is silent: a master that starts knows states and addresses from
the records, and what it would find missing may be on nodes that have moved and are about to report. Its first walk
waits until all were heard of, for `suspect_after_s` at most. A node that is heard of only after that is a reason to
walk again.

A drain: 1. every piece that rows name on the node is repaired elsewhere; 2. a whole walk finds no row that names it:
the node is closed, so that no commit can name it any more; 3. one more whole walk, begun after that, finds none either:
it is gone for good; if it finds some (of commits that came before 2), they are moved, and so on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.maintenance.affected import name_affected
from cluster.maintenance.read_horizon import ReadHorizon
from cluster.maintenance.repair_job import RepairJob
from cluster.maintenance.repair_queue import RepairItem, RepairQueue
from cluster.maintenance.second_look import SecondLook
from cluster.maintenance.surplus import SurplusMemory, is_settled
from cluster.maintenance.surplus_remover import SurplusRemover
from cluster.maintenance.survey import (
    ChunkSurvey,
    Standing,
    Surplus,
    SurveySettings,
    can_be_repaired,
    compare_window,
    missing_bytes,
)
from cluster.maintenance.survey_report import SurveyFacts, describe_survey
from cluster.maintenance.survey_status import SurveyStatus
from cluster.maintenance.targets import Targets
from cluster.maintenance.walk import Walk, Window
from cluster.maintenance.walk_record import DEAD, DRAINING, WalkRecord, classify, closed_numbers
from cluster.nodes import NodePool
from cluster.registry.state import Holdings, ReportRefused
from storage.base.clock import Clock
from storage.base.errors import Refused, Unavailable
from storage.base.ids import split_stored_index
from storage.metadata.interface import Metadata
from storage.model import ClusterMap, Node, NodeState

RECHECK_S = 5.0
"""the least pause between two walks that nothing but the end of repairs asks for"""
SILENT_RECHECK_S = 60.0
"""until the next walk when a node did not answer that is not dead"""
NODES_POLL_S = 0.1
"""between two looks whether the nodes were heard of"""
LOOK_S = 5.0
"""between two looks at the running reads, while there is surplus"""
STRAYS_MAX = 8

_log = logging.getLogger(__name__)


class Nodes(Protocol):
    """The registry, as far as the survey has to do with it."""

    @property
    def cluster_map(self) -> ClusterMap: ...

    @property
    def term(self) -> int: ...

    @property
    def unheard(self) -> frozenset[int]: ...

    @property
    def awaited(self) -> frozenset[int]: ...

    async def close(self, node_id: str) -> None: ...

    async def retire(self, node_id: str) -> None: ...


class Surveyor:
    """One per cluster, in the active master; `run` is called by a background loop, every second."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        registry: Nodes,
        queue: RepairQueue,
        repairs: RepairJob,
        remover: SurplusRemover,
        clock: Clock,
        settings: SurveySettings = SurveySettings(),  # noqa: B008 - immutable
    ) -> None:
        self._metadata = metadata
        self._nodes = nodes
        self._registry = registry
        self._queue = queue
        self._repairs = repairs
        self._remover = remover
        self._clock = clock
        self._settings = settings
        self._second_look = SecondLook(metadata, nodes)
        self._memory = SurplusMemory(settings.surplus_age_s)
        self._term = -1
        self._adopted: ClusterMap | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._horizon = ReadHorizon(self._settings.read_margin_s)
        self._looked_s = float("-inf")
        self._walk: Walk | None = None
        self._current: WalkRecord | None = None
        """what the walk under way adds up"""
        self._last: WalkRecord | None = None
        """the last whole walk"""
        self._walks = 0
        self._removed = 0
        self._is_ordered = False
        self._classes: Mapping[int, str] = {}
        self._returned_ms: dict[int, int] = {}
        """by node: when it came back that was dead, or was first seen in this term"""
        self._memory.clear()
        self._queue.clear()

    def order_walk(self) -> None:
        """Walk at the next run, whenever the last one was."""
        self._is_ordered = True

    async def run(self) -> None:
        """One whole walk, or the rest of one, when it is time for it. Unavailable without the metadata."""
        if self._registry.term != self._term:
            self._term = self._registry.term
            self._begin_anew()
        cluster_map = await self._follow_map()
        await self._look_at_reads()
        if self._walk is None or self._current is None:
            if not self._is_due(cluster_map):
                return
            # Within this run, so that who ordered it is told the end of a walk.
            while self._registry.awaited:  # noqa: ASYNC110 - time ends it too, which tells nobody
                await asyncio.sleep(NODES_POLL_S)
            self._begin_walk(await self._follow_map())
        assert self._walk is not None and self._current is not None
        while not self._walk.is_over:
            await self._take_window(self._walk, self._current, await self._follow_map())
            await asyncio.sleep(self._settings.pause_s)
        await self._end_walk(self._current)

    # ------------------------------------------------------------------ when

    async def _follow_map(self) -> ClusterMap:
        cluster_map = self._registry.cluster_map
        # Not by its epoch: epochs come again after records were lost.
        if cluster_map is not self._adopted:
            await self._nodes.adopt(cluster_map)
            self._adopted = cluster_map
        classes = classify(cluster_map)
        for number, is_now in classes.items():
            # A term that begins does not know who came back before it: everybody may have.
            if is_now != DEAD and self._classes.get(number, DEAD) == DEAD:
                self._returned_ms[number] = self._clock.now_ms()
        self._classes = classes
        return cluster_map

    async def _look_at_reads(self) -> None:
        """While there is surplus: since when no read can have begun that still runs."""
        now_s = self._clock.monotonic_s()
        if len(self._memory) and now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._horizon.look(await self._metadata.list_sessions(), now_s)

    def _is_due(self, cluster_map: ClusterMap) -> bool:
        last, now_s = self._last, self._clock.monotonic_s()
        if last is None or self._is_ordered or classify(cluster_map) != last.classes:
            return True
        interval_s = self._settings.interval_s
        if any(last.classes.get(number) != DEAD for number in last.tally.silent):
            interval_s = min(interval_s, SILENT_RECHECK_S)
        if now_s - last.began_s >= interval_s:
            return True
        pause_s = max(min(RECHECK_S, self._settings.interval_s), last.ended_s - last.began_s)
        if now_s - last.ended_s < pause_s:
            return False
        if (last.unheard & last.tally.silent) - self._registry.unheard:
            return True
        if not self._queue.is_idle:
            return False
        if self._queue.overflowed or self._repairs.totals["pieces"] != last.repaired:
            return True
        if closed_numbers(cluster_map) != last.closed:
            return True
        ripe_s = self._memory.ripe_s
        return ripe_s is not None and last.began_s < ripe_s <= now_s

    # ------------------------------------------------------------------ a walk

    def _begin_walk(self, cluster_map: ClusterMap) -> None:
        now_s = self._clock.monotonic_s()
        self._walk = Walk(self._metadata, self._nodes)
        repaired, unheard = self._repairs.totals["pieces"], self._registry.unheard
        self._current = WalkRecord(cluster_map, now_s, self._clock.now_ms(), repaired, unheard)
        self._memory.begin_walk(now_s)
        self._queue.overflowed = False
        self._is_ordered = False

    async def _take_window(self, walk: Walk, record: WalkRecord, cluster_map: ClusterMap) -> None:
        """When it fails before the window is accepted, the same window is next."""
        window = await walk.next_window(cluster_map)
        chunks = compare_window(window.places, window.listed, window.standings)
        chunks = await self._second_look.check(chunks, window.standings)
        self._count(record, window, chunks, cluster_map)
        walk.accept()
        await self._remove_surplus(chunks, window.standings)

    def _count(
        self, record: WalkRecord, window: Window, chunks: Sequence[ChunkSurvey], cluster_map: ClusterMap
    ) -> None:
        nodes = {node.number: node for node in cluster_map.nodes}
        able = Targets(cluster_map).able
        record.tally.add_listing(window.listed, window.standings)
        for chunk in chunks:
            survives = record.tally.add_chunk(chunk, nodes)
            if can_be_repaired(chunk, able):
                place, strays = chunk.place, chunk.strays[:STRAYS_MAX]
                size = missing_bytes(chunk)
                self._queue.add(RepairItem(place.blob_id, place.chunk_index, survives.disks, size, strays))

    async def _remove_surplus(self, chunks: Sequence[ChunkSurvey], standings: Mapping[int, Standing]) -> None:
        reads_since_s = self._horizon.reads_since_s
        ripe = []
        for chunk in chunks:
            old = tuple(
                surplus
                for surplus in chunk.surplus
                if self._memory.note(surplus, reads_since_s, self._kept_s(chunk, surplus))
                and standings.get(surplus.node) is Standing.HERE
            )
            if old and is_settled(chunk):
                ripe.append(chunk._replace(surplus=old))
        if not ripe:
            return
        removed = await self._remover.remove(ripe, self._returned_ms)
        for surplus in removed.pieces:
            self._memory.forget(surplus)
        self._removed += len(removed.pieces)
        for place in removed.to_repair:
            self._queue.add(RepairItem(place.blob_id, place.chunk_index, 0))

    def _kept_s(self, chunk: ChunkSurvey, surplus: Surplus) -> float:
        """For how long the survey leaves a piece alone in any case."""
        generation, _ = split_stored_index(surplus.chunk_id.chunk_index)
        return self._settings.history_s if generation < chunk.place.generation else 0.0

    async def _end_walk(self, record: WalkRecord) -> None:
        record.affected = await name_affected(self._metadata, record.tally.affected)
        record.ended_s, record.ended_ms = self._clock.monotonic_s(), self._clock.now_ms()
        self._memory.end_walk(record.tally.silent)
        self._walk, self._current, self._last = None, None, record
        self._walks += 1
        self._repairs.left.clear()
        _tell(record, self._queue)
        for node in self._registry.cluster_map.nodes:
            if node.state is NodeState.DRAINING and record.classes.get(node.number) == DRAINING:
                await self._advance_drain(node, record)

    async def _advance_drain(self, node: Node, record: WalkRecord) -> None:
        if record.tally.named_pieces(node.number):
            return
        advance = self._registry.retire if node.number in record.closed else self._registry.close
        try:
            await advance(node.report.node_id)
        except (ReportRefused, Refused, Unavailable) as error:
            _log.info("node %d is empty; the next walk ends its drain: %s", node.number, error)

    # ------------------------------------------------------------------ what it knows

    def holdings(self, number: int) -> Holdings | None:
        """What the last whole walk found of a node; None before it knew the node, and when another one died since: what
        was not needed of this one then may be all that there is."""
        last = self._last
        if last is None or number not in last.classes:
            return None
        now = classify(self._registry.cluster_map)
        if any(now.get(it) == DEAD and was != DEAD for it, was in last.classes.items()):
            return None
        return Holdings(last.tally.named_pieces(number), last.tally.last_pieces(number), number in last.closed)

    @property
    def counts(self) -> Mapping[str, int]:
        """done and total: chunks of the walk under way, or of the last one."""
        last = self._last.tally.chunks if self._last is not None else 0
        done = self._current.tally.chunks if self._current is not None else last
        return {"done": done, "total": max(done, last), "walks": self._walks, "surplus_removed": self._removed}

    @property
    def status(self) -> SurveyStatus:
        """As of now; see SurveyStatus for what is of the last whole walk."""
        return describe_survey(
            SurveyFacts(
                self._registry.cluster_map,
                self._last,
                self._current,
                self._walks,
                self._removed,
                self._queue,
                self._repairs.totals,
                self._repairs.left,
            )
        )


def _tell(record: WalkRecord, queue: RepairQueue) -> None:
    tally = record.tally
    told = ", ".join(f"{count} {health.value}" for health, count in tally.health.items())
    _log.info("walked over %d chunks: %s; %d wait for repair", tally.chunks, told or "nothing", len(queue))
    for it in record.affected[:10]:
        _log.error("%s: bucket %s, key %s, version %s", it.state, it.bucket, it.object_key, it.version_id or "(part)")
