"""`frostbyte status`: how a running cluster is, in figures and in sentences."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
from rich.table import Table

from cluster.maintenance.survey_status import SurveyStatus
from cluster.registry.config import MasterConfig
from cluster.registry.maintenance import NodeScrub
from s3gw.cli.formats import format_age, format_share, format_size, format_time
from s3gw.cli.health import (
    Verdict,
    describe_data,
    describe_drains,
    describe_repairs,
    describe_scrub,
    describe_verification,
    judge,
    name_affected,
)
from s3gw.cli.journal import describe_journal, read_journal
from s3gw.cli.master import SILENT, Job, find_master, open_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, run
from s3gw.cli.report import (
    describe_durability,
    describe_nodes,
    describe_survival,
    evaluate_survival,
    list_warnings,
)
from s3gw.cli.screen import add_row, make_table, show
from storage.base.clock import SystemClock
from storage.base.errors import Unavailable
from storage.journal.status import JournalStatus
from storage.metadata.open import open_metadata
from storage.model import ClusterMap, NodeState, SessionState

METADATA_DEADLINE_S = 5.0

_STYLES = {Verdict.WELL.name: "green", Verdict.DEGRADED.name: "yellow", Verdict.LOST.name: "bold red"}


class Told(NamedTuple):
    """What the master said."""

    cluster_map: ClusterMap
    jobs: list[Job]
    masters: dict[str, str]
    survey: SurveyStatus
    scrubs: list[NodeScrub]


def status(
    as_json: JsonOption = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Exit status for monitoring: 0 all is well, 1 degraded, 2 data is lost or not readable now."
        ),
    ] = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Show the health of the data, nodes, what losses are survived, jobs, and what an operator should know."""
    found = run(fetch_status(*find_master(data, config, master)))
    print_status(found, as_json=as_json)
    if check:
        sys.exit(Verdict[found["verdict"].upper()].value)


async def fetch_status(config: MasterConfig, home: Path | None) -> dict[str, Any]:
    """Everything that is shown, as JSON can say it. ConfigError, Unavailable."""
    async with open_master(config, home) as master:
        cluster_map = await master.fetch_map()
        told = Told(
            cluster_map,
            *await asyncio.gather(
                master.fetch_jobs(), master.fetch_roles(), master.fetch_survey(), master.fetch_scrubs()
            ),
        )
    return describe_status(config, told, await _fetch_metadata(config), SystemClock().now_ms(), read_journal(config))


def describe_status(
    config: MasterConfig, told: Told, metadata: dict[str, Any], now_ms: int, journal: JournalStatus | None = None
) -> dict[str, Any]:
    """Figures by name. `survives` is null where a write is not possible now."""
    cluster_map, jobs, masters, survey, scrubs = told
    survives = evaluate_survival(config.placed, cluster_map.nodes)
    warnings = list_warnings(config.placed, cluster_map)
    failing = [job for job in jobs if job.last_error]
    warnings += [f"Job {job.name} fails: {job.last_error}" for job in failing]
    warnings += [f"The master at {address} does not answer." for address, role in masters.items() if role == SILENT]
    if not metadata["answers"]:
        warnings.insert(0, f"The metadata does not answer, so no request succeeds: {metadata['error']}")
    warnings += [f"Metadata: {sentence}." for sentence in metadata.get("loss_window", ())]
    records = describe_journal(config.metadata.engine, journal, now_ms)
    warnings += records.warnings
    judgement = judge(
        survey,
        cluster_map.nodes,
        writes_succeed=survives is not None and records.takes_writes,
        metadata_answers=metadata["answers"],
        failing_jobs=len(failing),
    )
    return {
        "cluster_id": config.cluster_id,
        "epoch": cluster_map.epoch,
        "verdict": judgement.verdict.name.lower(),
        "reasons": list(judgement.reasons),
        "redundancy": config.redundancy,
        "durability": describe_durability(cluster_map.nodes),
        "survives": survives and survives._asdict(),
        "summary": describe_survival(config.placed, survives) if survives else "",
        "health": [
            *describe_data(survey, now_ms),
            *describe_repairs(survey),
            *describe_drains(cluster_map.nodes, survey.drains, now_ms, journal.holders if journal else ()),
            *describe_verification(cluster_map.nodes, now_ms),
            *describe_scrub(scrubs),
        ],
        "affected": name_affected(survey),
        "warnings": warnings,
        "notes": list(records.notes),
        "survey": _name_fields(survey),
        "scrub": _name_fields(scrubs),
        "nodes": describe_nodes(cluster_map),
        "masters": [{"address": address, "role": role} for address, role in masters.items()],
        "jobs": [{name: getattr(job, name) for name in Job.__struct_fields__} for job in jobs],
        "metadata": {"engine": config.metadata.engine, **metadata, "journal": journal and _name_fields(journal)},
    }


def _name_fields(value: object) -> Any:
    """As JSON has it."""
    return msgspec.json.decode(msgspec.json.encode(value))


async def _fetch_metadata(config: MasterConfig) -> dict[str, Any]:
    """Whether commands are taken, and a few counts."""
    try:
        metadata = await open_metadata(config.metadata, deadline_s=METADATA_DEADLINE_S)
    except Unavailable as error:
        return {"answers": False, "error": str(error)}
    try:
        buckets, users = await metadata.list_buckets(None), await metadata.list_users()
        sessions = [session for session in await metadata.list_sessions() if session.state is SessionState.OPEN]
    except Unavailable as error:
        return {"answers": False, "error": str(error)}
    finally:
        await metadata.close()
    return {
        "answers": True,
        "error": "",
        "loss_window": list(metadata.loss_window),
        "buckets": len(buckets),
        "users": len(users),
        "writers": [session.owner for session in sessions],
    }


def print_status(status: dict[str, Any], *, as_json: bool) -> None:
    """For a program, or for a person."""
    if as_json:
        print(json.dumps(status, indent=2))
        return
    show(f"cluster {status['cluster_id']}, epoch {status['epoch']}")
    reasons = f": {'; '.join(status['reasons'])}" if status["reasons"] else ""
    show(f"health: {status['verdict']}{reasons}", style=_STYLES[status["verdict"].upper()])
    show(*status["health"])
    show(*status["affected"], style="red")
    show(f"redundancy {status['redundancy']}, durability {status['durability']}")
    if status["summary"]:
        show(status["summary"])
    for warning in status["warnings"]:
        show(f"! {warning}", style="yellow")
    show(*status["notes"], make_node_table(status["nodes"]), _make_job_table(status["jobs"]))
    if len(status["masters"]) > 1:
        show("masters: " + ", ".join(f"{it['address']} {it['role']}" for it in status["masters"]))
    metadata = status["metadata"]
    if metadata["answers"]:
        workers = f"{len(metadata['writers'])} gateway workers"
        counts = f"{metadata['buckets']} buckets, {metadata['users']} users, {workers}"
        show(f"{counts}, metadata in {metadata['engine']}")


def make_node_table(nodes: list[dict[str, Any]]) -> Table:
    """One row for each node. `read` is when the piece was read from the disk that was not read for longest."""
    columns = (
        "node",
        "state",
        "pieces",
        "stored",
        "free",
        "of",
        "read",
        "unread",
        "damaged",
        "failure domain",
        "address",
    )
    table = make_table(*columns, title="nodes")
    now_ms = SystemClock().now_ms()
    for node in nodes:
        add_row(
            table,
            str(node["number"]),
            _describe_state(node),
            f"{node['chunk_count']:,}",
            format_size(node["stored_bytes"]),
            format_size(node["free_bytes"]),
            format_size(node["capacity_bytes"]),
            format_age(node["oldest_verified_ms"], now_ms),
            f"{node['unverified_count']:,}",
            f"{node['damaged_count']:,}",
            node["failure_domain"],
            node["address"],
        )
    return table


def _describe_state(node: dict[str, Any]) -> str:
    if node["state"] == NodeState.GONE:
        return "gone"
    marks = [name for name, is_so in (("full", node["is_full"]), ("closed", node["is_closed"])) if is_so]
    return ", ".join([node["state"], *marks])


def _make_job_table(jobs: list[dict[str, Any]]) -> Table:
    table = make_table("job", "runs", "last run", "now", "did", "last error", title="jobs")
    for job in jobs:
        counts = dict(job["counts"])
        done, total = counts.pop("done", 0), counts.pop("total", 0)
        did = ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()) if number) or "-"
        now = "-" if not job["started_ms"] else format_share(done, total) if total else "running"
        last = format_time(job["last_run_ms"])
        add_row(table, job["name"], f"{job['runs']:,}", last, now, did, job["last_error"] or "-")
    return table
