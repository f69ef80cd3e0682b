"""PURE. What `frostbyte status` says about the data: sentences, and one verdict for whoever watches from outside.

Nothing is said that is not known. The survey looks the data through in walks; before the first walk of an active master
has ended there is no figure, and the figures of a walk are those of its time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.maintenance.survey_status import AffectedObject, DrainProgress, SurveyStatus
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.formats import count, format_age, format_share, format_size, format_time, name_nodes, printable
from storage.model import Node, NodeState

AFFECTED_SHOWN_MAX = 20
GONE_TOLD_MS = 86_400_000
"""a node that left is spoken of for a day"""
_JOURNAL = "the metadata's journal is still on it"
_KEEP = "Keep it running."


class Verdict(enum.Enum):
    """The value is the exit status of `frostbyte status --check`."""

    WELL = 0
    DEGRADED = 1
    LOST = 2


class Judgement(NamedTuple):
    """reasons: short, empty when all is well."""

    verdict: Verdict
    reasons: tuple[str, ...]


def judge(
    survey: SurveyStatus, nodes: Sequence[Node], *, writes_succeed: bool, metadata_answers: bool, failing_jobs: int = 0
) -> Judgement:
    """LOST: something cannot be read, now or for ever. DEGRADED: less is survived than was asked for, something needs
    an operator, or it is not known yet whether all is well. Where the cluster's shape promises little, as on a single
    disk, that is no fault: it was asked for."""
    present = [node for node in nodes if node.state is not NodeState.GONE]
    lost = [
        (count(survey.lost, "chunk") + " lost", survey.lost),
        (count(survey.unavailable, "chunk") + " not readable now", survey.unavailable),
        ("the metadata does not answer", not metadata_answers),
    ]
    damaged = max(survey.damaged_pieces, sum(node.report.damaged_count for node in present))
    silent = sum(node.state in (NodeState.SUSPECT, NodeState.DEAD) for node in present)
    degraded = [
        ("the data has not been looked through yet", not survey.walks),
        ("writes fail", not writes_succeed),
        (count(survey.endangered, "chunk") + " endangered", survey.endangered),
        (count(survey.degraded, "chunk") + " degraded", survey.degraded),
        (count(damaged, "piece") + " damaged", damaged),
        (count(survey.missing_pieces, "piece") + " missing", survey.missing_pieces),
        (count(silent, "node") + " not answering", silent),
        (count(failing_jobs, "job") + " failing", failing_jobs),
    ]
    reasons = tuple(text for text, is_so in (*lost, *degraded) if is_so)
    if any(is_so for _, is_so in lost):
        return Judgement(Verdict.LOST, reasons)
    return Judgement(Verdict.DEGRADED if reasons else Verdict.WELL, reasons)


def describe_data(survey: SurveyStatus, now_ms: int) -> list[str]:
    """How many chunks are whole, and what is wrong with the others."""
    if not survey.walks:
        so_far = f", {count(survey.chunks_walked, 'chunk')} so far" if survey.is_walking else ""
        return [f"The health of the data is not known yet: the first walk of this master has not ended{so_far}."]
    when = f"as of {format_time(survey.walk_ended_ms)}, {format_age(survey.walk_ended_ms, now_ms)} ago"
    if not survey.chunks:
        return [f"Datanodes keep no data, {when}."]
    total = count(survey.chunks, "chunk")
    kept = f"{total} ({format_size(survey.bytes)})"
    if survey.healthy == survey.chunks:
        found = [f"All pieces of {kept} are there, {when}."]
    else:
        found = [f"{survey.healthy:,} of {kept} have all their pieces, {when}."]
    states = [
        (survey.lost, "lost: too few pieces are left, and every node that might have more was asked"),
        (survey.unavailable, "not readable now: nodes that do not answer may have the pieces"),
        (survey.endangered, "endangered: not one more loss is survived"),
        (survey.degraded, "degraded: pieces are missing, and one more loss is survived"),
    ]
    found += [f"{count(number, 'chunk')} {_is(number)} {text}." for number, text in states if number]
    if survey.silent_nodes:
        found.append(f"Not looked through: {name_nodes(survey.silent_nodes)}.")
    least = {kind: min(counts) for kind, counts in survey.losses.items() if counts}
    return [*found, describe_losses(least)] if least else found


def describe_repairs(survey: SurveyStatus) -> list[str]:
    """What is being mended, and what was."""
    found = []
    if survey.queued or survey.repairing:
        waiting = f"{count(survey.queued, 'chunk')} ({format_size(survey.queued_bytes)} of pieces)"
        found.append(f"Repair: {waiting} waiting, {survey.repairing} under way.")
    if survey.repaired_pieces:
        made = f"{count(survey.repaired_pieces, 'piece')} ({format_size(survey.repaired_bytes)})"
        found.append(f"Repaired since this master became active: {made}.")
    if survey.failed_repairs:
        found.append(f"{count(survey.failed_repairs, 'repair')} did not make all pieces; each is tried again.")
    if survey.surplus_pieces:
        surplus = f"{count(survey.surplus_pieces, 'piece')} ({format_size(survey.surplus_bytes)})"
        found.append(f"Surplus, to be removed once the others are verified: {surplus}.")
    return found


def describe_drains(
    nodes: Sequence[Node], drains: Sequence[DrainProgress], now_ms: int, holders: Sequence[str] = ()
) -> list[str]:
    """What is left on each node that is being emptied, and which may be switched off. holders: ids of nodes that a
    recovery of the metadata needs."""
    by_number = {drain.number: drain for drain in drains}
    found = []
    for node in nodes:
        if node.state is NodeState.DRAINING:
            found.append(_describe_drain(node.number, by_number.get(node.number), holders))
        elif node.state is NodeState.GONE and node.report.node_id in holders:
            found.append(f"Node {node.number} is gone, but {_JOURNAL}. {_KEEP}")
        elif node.state is NodeState.GONE and now_ms - node.last_heard_ms < GONE_TOLD_MS:
            found.append(f"Node {node.number} is gone: nothing needs it, it is safe to switch it off.")
    return found


def _describe_drain(number: int, drain: DrainProgress | None, holders: Sequence[str]) -> str:
    if drain is None:
        return f"Node {number} is being emptied: what is left is known when a walk has ended. {_KEEP}"
    if is_safe(drain, holders):
        return f"Node {number} is empty: it is safe to switch it off."
    if drain.pieces_left:
        left = f"{count(drain.pieces_left, 'piece')} ({format_size(drain.bytes_left)}) left"
    else:
        left = _JOURNAL if drain.is_safe else "a last walk has to find it empty"
    return f"Node {number} is being emptied: {left}. {_KEEP}"


def is_safe(drain: DrainProgress, holders: Sequence[str] = ()) -> bool:
    """Whether nothing needs the node any more."""
    return drain.is_safe and drain.node_id not in holders


def describe_verification(nodes: Sequence[Node], now_ms: int) -> list[str]:
    """When the bytes on the nodes' disks were last read, by what the nodes said last."""
    holding = [node for node in nodes if node.state is not NodeState.GONE and node.report.chunk_count]
    if not holding:
        return []
    found = []
    oldest = min((it for it in holding if it.report.oldest_verified_ms), key=_verified_ms, default=None)
    if oldest is not None:
        age = format_age(oldest.report.oldest_verified_ms, now_ms)
        found.append(f"Verified: the piece that was read from its disk longest ago was read {age} ago.")
    unverified = sum(node.report.unverified_count for node in holding)
    if unverified:
        total = count(sum(node.report.chunk_count for node in holding), "piece")
        found.append(f"Not read from the disk since they were written: {unverified:,} of {total}.")
    damaged = sum(node.report.damaged_count for node in holding)
    if damaged:
        where = name_nodes(node.number for node in holding if node.report.damaged_count)
        found.append(f"{count(damaged, 'piece')} {_was(damaged)} found damaged and set aside on {where}.")
    silent = [node.number for node in holding if node.state in (NodeState.SUSPECT, NodeState.DEAD)]
    if silent:
        found.append(f"What is said of {name_nodes(silent)} was reported before the silence.")
    return found


def describe_scrub(scrubs: Sequence[NodeScrub]) -> list[str]:
    """How far the passes under way are, and who does not say."""
    running = [it for it in scrubs if it.status is not None and it.status.is_running]
    found = []
    if running:
        passes = ", ".join(f"node {it.number} {_share_of(it)}" for it in running)
        pace = sum(it.status.pace_bytes_per_s for it in running if it.status is not None)
        found.append(f"Scrub: {passes}, at {format_size(pace)} a second in all.")
    silent = [it.number for it in scrubs if it.status is None]
    if silent:
        found.append(f"The scrub of {name_nodes(silent)} is not known: no answer.")
    return found


def name_affected(survey: SurveyStatus, shown_max: int = AFFECTED_SHOWN_MAX) -> list[str]:
    """Objects that cannot be read, one a line, and how many more there are."""
    found = [_name_object(it) for it in survey.affected[:shown_max]]
    more = len(survey.affected) - len(found)
    if more:
        found.append(f"and {count(more, 'object')} more: --json lists them")
    if survey.affected_chunks_unnamed:
        found.append(f"and what else {count(survey.affected_chunks_unnamed, 'chunk')} beyond those are part of")
    return found


def _name_object(affected: AffectedObject) -> str:
    name = f"{affected.state}: s3://{affected.bucket}/{printable(affected.object_key)}"
    if affected.upload_id:
        return f"{name} (a part of the open upload {affected.upload_id})"
    return f"{name} (version {affected.version_id})" if affected.version_id not in ("", "null") else name


def describe_losses(least: Mapping[str, int]) -> str:
    """What the weakest chunk survives. least: by `zones`, `hosts`, `disks`, `nodes`, how many may be lost."""
    kinds = (("nodes", "datanode"), ("disks", "disk"), ("hosts", "host"), ("zones", "zone"))
    if least.get("nodes", 0) < 0:
        return "The weakest chunk cannot be read now."
    survived = [count(least[kind], noun) for kind, noun in kinds if least.get(kind, 0) > 0]
    if not survived:
        return "The weakest chunk does not survive the loss of one more datanode that has a piece of it."
    return f"The weakest chunk survives the loss of {' or of '.join(survived)}, whichever it is."


def _share_of(scrub: NodeScrub) -> str:
    status = scrub.status
    return "" if status is None else format_share(status.checked_bytes, status.total_bytes)


def _verified_ms(node: Node) -> int:
    return node.report.oldest_verified_ms


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
