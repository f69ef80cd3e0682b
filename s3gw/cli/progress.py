"""PURE. Where the jobs of a cluster are, from what the master says: as bars, and whether what was ordered is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cluster.maintenance.survey_status import SurveyStatus
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.formats import count, format_size
from s3gw.cli.health import describe_drains, is_safe
from s3gw.cli.master import Job
from storage.model import Node, NodeState

_PROGRESS = ("done", "total")


class Bar(NamedTuple):
    """One thing that goes on. total 0: how much there is to do is not known."""

    name: str
    done: int
    total: int
    text: str = ""


class Look(NamedTuple):
    """How it is at one moment. summary: sentences for the end."""

    bars: tuple[Bar, ...]
    is_over: bool = False
    summary: tuple[str, ...] = ()


def look_at_job(job: Job, runs: int, before: dict[str, int]) -> Look:
    """A job that was ordered: over after so many runs, and when all is done that it counts. before: its counts at the
    order."""
    done, total = (job.counts.get(name, 0) for name in _PROGRESS)
    is_over = job.runs >= runs and not job.started_ms and (done >= total or bool(job.last_error))
    did = ", ".join(f"{name} {number:,}" for name, number in sorted(gained(job, before).items())) or "nothing to do"
    bar = Bar(job.name, done, total)
    failure = (f"The run failed, and is tried again: {job.last_error}",) if job.last_error else ()
    return Look((bar,), is_over, failure or (f"{job.name}: {did}.",))


def gained(job: Job, before: dict[str, int]) -> dict[str, int]:
    """What a job did since, by name; only what it did."""
    counted = {name: number - before.get(name, 0) for name, number in job.counts.items() if name not in _PROGRESS}
    return {name: number for name, number in counted.items() if number}


def look_at_repair(survey: SurveyStatus, walked: bool, before: SurveyStatus) -> Look:
    """walked: a walk that began after the order has ended. before: the survey at the order."""
    bars = []
    if not walked:
        total = max(survey.chunks, survey.chunks_walked)
        bars.append(Bar("survey", survey.chunks_walked, total, f"{survey.chunks_walked:,} chunks"))
    left = survey.queued + survey.repairing
    made = max(0, survey.repaired_pieces - before.repaired_pieces)
    text = f"{count(left, 'chunk')} left ({format_size(survey.queued_bytes)}), {count(made, 'piece')} made"
    bars.append(Bar("repair", made, made + left, text))
    summary = [f"repair: {count(made, 'piece')} made."]
    worse = [(survey.lost, "lost"), (survey.unavailable, "not readable now"), (survey.degraded, "degraded")]
    worse += [(survey.endangered, "endangered")]
    summary += [f"{count(number, 'chunk')} {text}." for number, text in worse if number]
    return Look(tuple(bars), walked and not left, tuple(summary))


def look_at_scrubs(scrubs: Sequence[NodeScrub], numbers: Sequence[int]) -> Look:
    """The passes of these nodes: over when none is under way on those that answer."""
    watched = [scrub for scrub in scrubs if scrub.number in numbers]
    bars, summary = [], []
    for scrub in watched:
        name, status = f"node {scrub.number}", scrub.status
        if status is None:
            bars.append(Bar(name, 0, 0, f"does not answer: {scrub.error}"))
            summary.append(f"{name} does not answer: {scrub.error}.")
            continue
        text = f"{format_size(status.checked_bytes)} of {format_size(status.total_bytes)}"
        pace = f" at {format_size(status.pace_bytes_per_s)} a second" if status.is_running else ""
        found = f", {count(status.damaged, 'piece')} damaged" if status.damaged else ""
        bars.append(Bar(name, status.checked_bytes, status.total_bytes, text + pace + found))
        summary.append(
            f"{name}: {count(status.checked_chunks, 'piece')} read ({format_size(status.checked_bytes)}){found}."
        )
    is_over = not any(scrub.status is not None and scrub.status.is_running for scrub in watched)
    return Look(tuple(bars), is_over, tuple(summary))


def look_at_drain(node: Node, survey: SurveyStatus, most: int, now_ms: int, holders: Sequence[str]) -> Look:
    """Of one node. most: pieces that were on it when the watching began, or were seen since."""
    name = f"node {node.number}"
    if node.state not in (NodeState.DRAINING, NodeState.GONE):
        text = f"is {node.state.value}, no longer draining"
        return Look((Bar(name, 0, 0, text),), True, (f"Node {node.number} {text}.",))
    drain = next((it for it in survey.drains if it.number == node.number), None)
    sentences = tuple(describe_drains([node], survey.drains, now_ms, holders))
    if node.state is NodeState.GONE:
        return Look((Bar(name, most, most, "is gone"),), node.report.node_id not in holders, sentences)
    if drain is None:
        return Look((Bar(name, 0, 0, "a walk has to end first"),), False, sentences)
    text = f"{count(drain.pieces_left, 'piece')} left ({format_size(drain.bytes_left)})"
    if not drain.pieces_left:
        text = "a last look" if not drain.is_safe else "is empty"
    return Look((Bar(name, most - drain.pieces_left, most, text),), is_safe(drain, holders), sentences)
