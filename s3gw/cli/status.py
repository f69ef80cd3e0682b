"""`frostbyte status`: how a running cluster is, in figures and in sentences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.registry.config import MasterConfig
from s3gw.cli.master import SILENT, Job, find_master, open_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, run
from s3gw.cli.report import (
    METADATA_SENTENCES,
    describe_durability,
    describe_nodes,
    describe_survival,
    evaluate_survival,
    list_warnings,
)
from s3gw.cli.screen import add_row, make_table, show
from storage.base.errors import Unavailable
from storage.metadata.open import open_metadata
from storage.model import ClusterMap, SessionState

METADATA_DEADLINE_S = 5.0


def status(
    as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None, master: MasterOption = None
) -> None:
    """Show nodes, what losses are survived, jobs, and what an operator should know."""
    print_status(run(fetch_status(*find_master(data, config, master))), as_json=as_json)


async def fetch_status(config: MasterConfig, home: Path | None) -> dict[str, Any]:
    """Everything that is shown, as JSON can say it. ConfigError, Unavailable."""
    async with open_master(config, home) as master:
        cluster_map, jobs, masters = await master.fetch_map(), await master.fetch_jobs(), await master.fetch_roles()
    return describe_status(config, cluster_map, jobs, masters, await _fetch_metadata(config))


def describe_status(
    config: MasterConfig,
    cluster_map: ClusterMap,
    jobs: list[Job],
    masters: dict[str, str],
    metadata: dict[str, Any],
) -> dict[str, Any]:
    """Figures by name. `survives` is null where a write is not possible now."""
    survives = evaluate_survival(config.placed, cluster_map.nodes)
    warnings = list_warnings(config.placed, cluster_map)
    warnings += [f"Job {job.name} fails: {job.last_error}" for job in jobs if job.last_error]
    warnings += [f"The master at {address} does not answer." for address, role in masters.items() if role == SILENT]
    if not metadata["answers"]:
        warnings.insert(0, f"The metadata does not answer, so no request succeeds: {metadata['error']}")
    warnings += [f"Metadata: {sentence}." for sentence in metadata.get("loss_window", ())]
    return {
        "cluster_id": config.cluster_id,
        "epoch": cluster_map.epoch,
        "redundancy": config.redundancy,
        "durability": describe_durability(cluster_map.nodes),
        "survives": survives and survives._asdict(),
        "summary": describe_survival(config.placed, survives) if survives else "",
        "warnings": warnings,
        "notes": [METADATA_SENTENCES[config.metadata.engine]],
        "nodes": describe_nodes(cluster_map),
        "masters": [{"address": address, "role": role} for address, role in masters.items()],
        "jobs": [{name: getattr(job, name) for name in Job.__struct_fields__} for job in jobs],
        "metadata": {"engine": config.metadata.engine, **metadata},
    }


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
    """One row for each node."""
    table = make_table("node", "state", "free", "of", "failure domain", "address", title="nodes")
    for node in nodes:
        add_row(
            table,
            str(node["number"]),
            f"{node['state']}, full" if node["is_full"] else node["state"],
            format_size(node["free_bytes"]),
            format_size(node["capacity_bytes"]),
            node["failure_domain"],
            node["address"],
        )
    return table


def _make_job_table(jobs: list[dict[str, Any]]) -> Table:
    table = make_table("job", "runs", "last run", "did", "last error", title="jobs")
    for job in jobs:
        did = ", ".join(f"{name} {count}" for name, count in sorted(job["counts"].items()) if count) or "-"
        add_row(table, job["name"], str(job["runs"]), format_time(job["last_run_ms"]), did, job["last_error"] or "-")
    return table


def format_size(size_bytes: int) -> str:
    """In the largest binary unit that leaves at least one."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_time(time_ms: int) -> str:
    """UTC to the second; `never` for 0."""
    if not time_ms:
        return "never"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
