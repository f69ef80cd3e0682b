"""PURE. SurveyStatus out of what the survey, the queue and the repairs know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.maintenance.repair_queue import RepairQueue
from cluster.maintenance.survey_status import DrainProgress, SurveyStatus
from cluster.maintenance.survey_tally import Tally
from cluster.maintenance.walk_record import WalkRecord
from storage.model import ClusterMap, Node, NodeState


class SurveyFacts(NamedTuple):
    """last: the last whole walk; current: the one under way. totals: of the repairs. left: pieces that were moved away
    from each node since the last walk ended."""

    cluster_map: ClusterMap
    last: WalkRecord | None
    current: WalkRecord | None
    walks: int
    removed: int
    queue: RepairQueue
    totals: Mapping[str, int]
    left: Mapping[int, int]


def describe_survey(facts: SurveyFacts) -> SurveyStatus:
    """As of now; figures of chunks and nodes are of the last whole walk."""
    last, current, queue = facts.last, facts.current, facts.queue
    tally = last.tally if last is not None else Tally()
    nodes = facts.cluster_map.nodes
    return SurveyStatus(
        walks=facts.walks,
        walk_started_ms=last.began_ms if last is not None else 0,
        walk_ended_ms=last.ended_ms if last is not None else 0,
        is_walking=current is not None,
        chunks_walked=current.tally.chunks if current is not None else 0,
        chunks=tally.chunks,
        bytes=tally.bytes,
        **{health.value: count for health, count in tally.health.items()},
        losses=tally.losses,
        missing_pieces=tally.total("missing_pieces"),
        damaged_pieces=sum(node.report.damaged_count for node in nodes),
        surplus_pieces=tally.total("surplus_pieces"),
        surplus_bytes=tally.total("surplus_bytes"),
        queued=len(queue),
        queued_bytes=queue.piece_bytes,
        repairing=queue.under_way,
        repaired_pieces=facts.totals.get("pieces", 0),
        repaired_bytes=facts.totals.get("bytes", 0),
        failed_repairs=facts.totals.get("failed", 0),
        removed_surplus_pieces=facts.removed,
        silent_nodes=tuple(sorted(tally.silent)),
        nodes=tally.holdings(nodes),
        drains=tuple(describe_drain(facts, node) for node in nodes if node.state is NodeState.DRAINING),
        affected=last.affected if last is not None else (),
        affected_chunks_unnamed=tally.affected_over,
    )


def describe_drain(facts: SurveyFacts, node: Node) -> DrainProgress:
    """What is left: as the last walk found it, less what was moved since. Before there was one, as the node reports."""
    last, report = facts.last, node.report
    if last is None or node.number not in last.classes:
        pieces, size, is_safe = report.chunk_count, report.stored_bytes, False
    else:
        named = last.tally.named_pieces(node.number)
        pieces = max(0, named - facts.left.get(node.number, 0))
        size = last.tally.named_bytes(node.number) * pieces // max(named, 1)
        is_safe = not named and node.number in last.closed
    return DrainProgress(node.number, report.node_id, pieces, size, node.is_closed, is_safe)
