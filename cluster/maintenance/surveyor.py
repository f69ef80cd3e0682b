"""Walks over all records and inventories again and again: what is short of pieces is queued for repair, what no row
names is set aside once it may be, drained nodes are closed and retired, and what cannot be read is told by name.

A walk is taken every interval, and at once when a node died, came back, joined or is drained, when repairs are through,
when a drained node has to be looked for a last time, and when an operator orders it. It goes on where it was when it
was interrupted; another term of this master begins with nothing. What a stop leaves is: nothing that a new walk does
not find, and the records of what was done.

A drain: 1. every piece that rows name on the node is repaired elsewhere; 2. a whole walk finds no row that names it:
the node is closed, so that no commit can name it any more; 3. one more whole walk, begun after that, finds none either:
it is gone for good; if it finds some (of commits that came before 2), they are moved, and so on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from cluster.maintenance.read_horizon import ReadHorizon
from cluster.maintenance.repair_job import RepairJob
from cluster.maintenance.repair_queue import RepairItem, RepairQueue
from cluster.maintenance.second_look import SecondLook
from cluster.maintenance.surplus import SurplusMemory, is_settled
from cluster.maintenance.surplus_remover import SurplusRemover
from cluster.maintenance.survey import (
    ChunkSurvey,
    Standing,
    SurveySettings,
    can_be_repaired,
    compare_window,
    missing_bytes,
)
from cluster.maintenance.survey_status import (
    AFFECTED_NAMES_MAX,
    AffectedObject,
    DrainProgress,
    SurveyStatus,
)
from cluster.maintenance.survey_tally import Tally
from cluster.maintenance.targets import Targets
from cluster.maintenance.walk import Walk, Window
from cluster.nodes import NodePool
from cluster.registry.state import Holdings, ReportRefused
from storage.base.clock import Clock
from storage.base.errors import Refused, Unavailable
from storage.metadata.interface import ChunkPlace, Metadata
from storage.model import ClusterMap, Node, NodeState

RECHECK_S = 5.0
"""the least pause between two walks that nothing but the end of repairs asks for"""
SILENT_RECHECK_S = 60.0
"""until the next walk when a node did not answer that is not dead"""
LOOK_S = 5.0
"""between two looks at the running reads, while there is surplus"""
STRAYS_MAX = 8
USERS_AT_ONCE = 100

_log = logging.getLogger(__name__)


class Nodes(Protocol):
    """The registry, as far as the survey has to do with it."""

    @property
    def cluster_map(self) -> ClusterMap: ...

    @property
    def term(self) -> int: ...

    async def close(self, node_id: str) -> None: ...

    async def retire(self, node_id: str) -> None: ...


class _WalkUnderWay:
    """A walk, what it adds up, and how things were when it began."""

    def __init__(self, walk: Walk, cluster_map: ClusterMap, now_s: float, now_ms: int, repaired: int) -> None:
        self.walk = walk
        self.tally = Tally()
        self.began_s = now_s
        self.began_ms = now_ms
        self.ended_s = now_s
        self.ended_ms = 0
        self.classes = classify(cluster_map)
        self.closed = closed_numbers(cluster_map)
        self.repaired = repaired
        """pieces that had been repaired before"""
        self.affected: tuple[AffectedObject, ...] = ()


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
        self._epoch = -1
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._horizon = ReadHorizon(self._settings.read_margin_s)
        self._looked_s = float("-inf")
        self._walk: _WalkUnderWay | None = None
        self._last: _WalkUnderWay | None = None
        self._walks = 0
        self._removed = 0
        self._is_ordered = False
        self._classes: Mapping[int, str] = {}
        self._returned_ms: dict[int, int] = {}
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
        if self._walk is None:
            if not self._is_due(cluster_map):
                return
            self._begin_walk(cluster_map)
        under_way = self._walk
        assert under_way is not None
        while not under_way.walk.is_over:
            cluster_map = await self._follow_map()
            await self._take_window(under_way, cluster_map)
            await asyncio.sleep(self._settings.pause_s)
        await self._end_walk(under_way)

    # ------------------------------------------------------------------ when

    async def _follow_map(self) -> ClusterMap:
        cluster_map = self._registry.cluster_map
        if cluster_map.epoch != self._epoch:
            await self._nodes.adopt(cluster_map)
            self._epoch = cluster_map.epoch
        classes = classify(cluster_map)
        for number, is_now in classes.items():
            if is_now != _DEAD and self._classes.get(number) == _DEAD:
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
        if any(last.classes.get(number) != _DEAD for number in last.tally.silent):
            interval_s = min(interval_s, SILENT_RECHECK_S)
        if now_s - last.began_s >= interval_s:
            return True
        pause_s = max(min(RECHECK_S, self._settings.interval_s), last.ended_s - last.began_s)
        if now_s - last.ended_s < pause_s or not self._queue.is_idle:
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
        walk = Walk(self._metadata, self._nodes)
        repaired = self._repairs.totals["pieces"]
        self._walk = _WalkUnderWay(walk, cluster_map, now_s, self._clock.now_ms(), repaired)
        self._memory.begin_walk(now_s)
        self._queue.overflowed = False
        self._is_ordered = False

    async def _take_window(self, under_way: _WalkUnderWay, cluster_map: ClusterMap) -> None:
        """When it fails before the window is accepted, the same window is next."""
        window = await under_way.walk.next_window(cluster_map)
        chunks = compare_window(window.places, window.listed, window.standings)
        chunks = await self._second_look.check(chunks, window.standings)
        self._count(under_way, window, chunks, cluster_map)
        under_way.walk.accept()
        await self._remove_surplus(chunks, window.standings)

    def _count(
        self, under_way: _WalkUnderWay, window: Window, chunks: Sequence[ChunkSurvey], cluster_map: ClusterMap
    ) -> None:
        nodes = {node.number: node for node in cluster_map.nodes}
        able = Targets(cluster_map).able
        under_way.tally.add_listing(window.listed, window.standings)
        for chunk in chunks:
            survives = under_way.tally.add_chunk(chunk, nodes)
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
                if self._memory.note(surplus, reads_since_s) and standings.get(surplus.node) is Standing.HERE
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
            self._queue.add(_most_urgent(place))

    async def _end_walk(self, under_way: _WalkUnderWay) -> None:
        under_way.affected = await self._name_affected(under_way.tally)
        self._memory.end_walk(under_way.tally.silent)
        under_way.ended_s, under_way.ended_ms = self._clock.monotonic_s(), self._clock.now_ms()
        self._walk, self._last = None, under_way
        self._walks += 1
        self._repairs.left.clear()
        _tell(under_way, self._queue)
        for node in self._registry.cluster_map.nodes:
            if node.state is NodeState.DRAINING and under_way.classes.get(node.number) == _DRAINING:
                await self._advance_drain(node, under_way)

    async def _advance_drain(self, node: Node, walk: _WalkUnderWay) -> None:
        if walk.tally.named_pieces(node.number):
            return
        advance = self._registry.retire if node.number in walk.closed else self._registry.close
        try:
            await advance(node.report.node_id)
        except (ReportRefused, Refused, Unavailable) as error:
            _log.info("node %d is empty; the next walk ends its drain: %s", node.number, error)

    async def _name_affected(self, tally: Tally) -> tuple[AffectedObject, ...]:
        found: list[AffectedObject] = []
        blob_ids = sorted(tally.affected, key=lambda blob_id: (tally.affected[blob_id], blob_id))
        for begin in range(0, len(blob_ids), USERS_AT_ONCE):
            room = AFFECTED_NAMES_MAX - len(found)
            if room <= 0:
                break
            for user in await self._metadata.find_blob_users(blob_ids[begin : begin + USERS_AT_ONCE], room):
                state = tally.affected[user.blob_id].value
                key = user.object_key.decode("utf-8", "backslashreplace")
                found.append(AffectedObject(state, user.bucket_name, key, user.version_id, user.upload_id))
        return tuple(sorted(found, key=lambda it: it.state))

    # ------------------------------------------------------------------ what it knows

    def holdings(self, number: int) -> Holdings | None:
        """What the last whole walk found of a node; None before it knew the node."""
        last = self._last
        if last is None or number not in last.classes:
            return None
        return Holdings(last.tally.named_pieces(number), last.tally.last_pieces(number), number in last.closed)

    @property
    def counts(self) -> Mapping[str, int]:
        """done and total: chunks of the walk under way, or of the last one."""
        last = self._last.tally.chunks if self._last is not None else 0
        done = self._walk.tally.chunks if self._walk is not None else last
        return {"done": done, "total": max(done, last), "walks": self._walks, "surplus_removed": self._removed}

    @property
    def status(self) -> SurveyStatus:
        """As of now; see SurveyStatus for what is of the last whole walk."""
        cluster_map, last = self._registry.cluster_map, self._last
        tally = last.tally if last is not None else Tally()
        totals = self._repairs.totals
        return SurveyStatus(
            walks=self._walks,
            walk_started_ms=last.began_ms if last is not None else 0,
            walk_ended_ms=last.ended_ms if last is not None else 0,
            is_walking=self._walk is not None,
            chunks_walked=self._walk.tally.chunks if self._walk is not None else 0,
            chunks=tally.chunks,
            bytes=tally.bytes,
            **{health.value: count for health, count in tally.health.items()},
            losses={level: dict(sorted(counts.items())) for level, counts in tally.losses.items()},
            missing_pieces=tally.total("missing_pieces"),
            damaged_pieces=sum(node.report.damaged_count for node in cluster_map.nodes),
            surplus_pieces=tally.total("surplus_pieces"),
            surplus_bytes=tally.total("surplus_bytes"),
            queued=len(self._queue),
            queued_bytes=self._queue.piece_bytes,
            repairing=self._queue.under_way,
            repaired_pieces=totals["pieces"],
            repaired_bytes=totals["bytes"],
            failed_repairs=totals["failed"],
            removed_surplus_pieces=self._removed,
            silent_nodes=tuple(sorted(tally.silent)),
            nodes=tally.holdings(cluster_map.nodes),
            drains=tuple(self._drain(node) for node in cluster_map.nodes if node.state is NodeState.DRAINING),
            affected=last.affected if last is not None else (),
            affected_chunks_unnamed=tally.affected_over,
        )

    def _drain(self, node: Node) -> DrainProgress:
        number, last = node.number, self._last
        if last is None or number not in last.classes:
            report = node.report
            return DrainProgress(
                number, report.node_id, report.chunk_count, report.stored_bytes, node.is_closed, is_safe=False
            )
        named, size = last.tally.named_pieces(number), last.tally.named_bytes(number)
        left = max(0, named - self._repairs.left[number])
        is_safe = not named and number in last.closed
        return DrainProgress(
            number, node.report.node_id, left, size * left // named if named else 0, node.is_closed, is_safe
        )


_DEAD, _DRAINING = NodeState.DEAD.value, NodeState.DRAINING.value


def classify(cluster_map: ClusterMap) -> dict[int, str]:
    """What decides which pieces count, by node number: a change is a reason to walk."""
    kept = (NodeState.DEAD, NodeState.DRAINING, NodeState.GONE)
    return {node.number: node.state.value if node.state in kept else "here" for node in cluster_map.nodes}


def closed_numbers(cluster_map: ClusterMap) -> frozenset[int]:
    """The nodes that no commit may name."""
    return frozenset(node.number for node in cluster_map.nodes if node.is_closed)


def _most_urgent(place: ChunkPlace) -> RepairItem:
    return RepairItem(place.blob_id, place.chunk_index, 0)


def _tell(walk: _WalkUnderWay, queue: RepairQueue) -> None:
    tally = walk.tally
    told = ", ".join(f"{count} {health.value}" for health, count in tally.health.items())
    _log.info("walked over %d chunks: %s; %d wait for repair", tally.chunks, told or "nothing", len(queue))
    for it in walk.affected[:10]:
        _log.error("%s: bucket %s, key %s, version %s", it.state, it.bucket, it.object_key, it.version_id or "(part)")
