"""PURE. What `frostbyte doctor` makes of what it saw: one finding each, and what to do about it in one line."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.domains import parse_levels
from cluster.placement import is_full
from cluster.redundancy import Redundancy
from s3gw.cli.formats import count, format_size, name_nodes
from s3gw.cli.health import Judgement, Verdict
from s3gw.cli.journal import JournalReport
from s3gw.cli.master import SILENT
from s3gw.cli.report import evaluate_survival
from storage.model import ClusterMap, Node, NodeState

SKEW_MS_MAX = 5_000
"""a report takes a moment on its way, and may have waited for a busy master"""
SKEW_MS_BROKEN = 60_000
"""half of how long a ticket for a copy is good (cluster.nodes): copies between nodes may be refused"""
NEARLY_FULL_SHARE = 0.1
METADATA_FREE_BYTES_MIN = 1 << 30
OPEN_FILES_MIN = 4_096


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(NamedTuple):
    """check: what was looked at. advice: empty where nothing is to be done."""

    level: Level
    check: str
    says: str
    advice: str = ""


def check_nodes(cluster_map: ClusterMap, redundancy: Redundancy) -> list[Finding]:
    """States, room, disks, formats and clocks of the datanodes, and whether a write finds its places."""
    present = [node for node in cluster_map.nodes if node.state is not NodeState.GONE]
    if not present:
        return [Finding(Level.BAD, "nodes", "no datanode ever reported", "start one: see `frostbyte node add`")]
    return [
        *_check_states(present),
        _check_writes(present, redundancy),
        *_check_room(present),
        _check_disks(present, redundancy),
        *_check_formats(present),
        _check_clocks(present),
    ]


def _check_states(nodes: Sequence[Node]) -> list[Finding]:
    found = [
        Finding(
            Level.BAD,
            "nodes",
            f"node {node.number} at {node.report.address} is {node.state.value}",
            f"start it again, or `frostbyte node remove {node.number}` when it will not come back",
        )
        for node in nodes
        if node.state in (NodeState.SUSPECT, NodeState.DEAD)
    ]
    unsynced = [node.number for node in nodes if node.report.durability == "none"]
    if unsynced:
        says = f"durability none on {name_nodes(unsynced)}: what was acknowledged last does not survive a power cut"
        found.append(Finding(Level.WARNING, "nodes", says, "set durability to fsync where data counts"))
    return found or [Finding(Level.OK, "nodes", f"{count(len(nodes), 'datanode')}, all of them answer")]


def _check_writes(nodes: Sequence[Node], redundancy: Redundancy) -> Finding:
    if evaluate_survival(redundancy, nodes) is None:
        able = sum(node.state is NodeState.UP and not is_full(node) for node in nodes)
        says = f"writes fail: {redundancy} needs {redundancy.width} datanodes with room, {able} can take a chunk"
        return Finding(Level.BAD, "writes", says, "add datanodes, make room, or take a drain back")
    return Finding(Level.OK, "writes", f"{redundancy} finds its places")


def _check_room(nodes: Sequence[Node]) -> list[Finding]:
    found = []
    for node in nodes:
        report = node.report
        room = max(0, report.free_bytes - report.reserve_bytes)
        says = f"node {node.number}: {format_size(room)} free above the reserve of {format_size(report.reserve_bytes)}"
        if is_full(node):
            advice = "free space on its disk, add a datanode, or delete objects; reads and deletes go on"
            found.append(Finding(Level.WARNING, "space", says, advice))
        elif room < NEARLY_FULL_SHARE * report.capacity_bytes:
            found.append(Finding(Level.WARNING, "space", says, "add a disk or a datanode before it is full"))
    return found or [Finding(Level.OK, "space", f"{format_size(_room_bytes(nodes))} free above the reserves")]


def _room_bytes(nodes: Sequence[Node]) -> int:
    """Of each disk once."""
    rooms = {it.report.failure_domain: max(0, it.report.free_bytes - it.report.reserve_bytes) for it in nodes}
    return sum(rooms.values())


def _check_disks(nodes: Sequence[Node], redundancy: Redundancy) -> Finding:
    by_disk: dict[str, list[int]] = defaultdict(list)
    for node in nodes:
        by_disk[parse_levels(node.report.failure_domain)[2]].append(node.number)
    shared = [numbers for numbers in by_disk.values() if len(numbers) > 1]
    if not shared:
        return Finding(Level.OK, "disks", "every datanode has a disk of its own")
    says = f"{' and '.join(name_nodes(numbers) for numbers in shared)} share a disk"
    if len(by_disk) < redundancy.width:
        says += f": {redundancy} is on {count(len(by_disk), 'disk')}, whose loss is lost data"
        return Finding(Level.WARNING, "disks", says, "give each datanode a disk of its own: one --data for each")
    return Finding(Level.OK, "disks", f"{says}; there are enough others")


def _check_formats(nodes: Sequence[Node]) -> list[Finding]:
    formats = {node.report.format_version for node in nodes}
    if len(formats) == 1:
        return [Finding(Level.OK, "versions", f"all datanodes have format {formats.pop()}")]
    listed = ", ".join(f"node {node.number}: {node.report.format_version}" for node in nodes)
    return [Finding(Level.WARNING, "versions", f"datanodes have several formats ({listed})", "update the older ones")]


def _check_clocks(nodes: Sequence[Node]) -> Finding:
    """Against the master's, by the reports of nodes that answer."""
    skews = {
        node.number: node.report.clock_ms - node.last_heard_ms
        for node in nodes
        if node.report.clock_ms and node.state in (NodeState.UP, NodeState.DRAINING)
    }
    if not skews:
        return Finding(Level.OK, "clocks", "no datanode said what its clock says")
    number = max(skews, key=lambda it: abs(skews[it]))
    skew_ms = skews[number]
    if abs(skew_ms) <= SKEW_MS_MAX:
        return Finding(Level.OK, "clocks", f"within {SKEW_MS_MAX // 1000} s of the master's")
    says = f"node {number} is {abs(skew_ms) / 1000:.0f} s {'ahead of' if skew_ms > 0 else 'behind'} the master"
    level = Level.BAD if abs(skew_ms) > SKEW_MS_BROKEN else Level.WARNING
    return Finding(level, "clocks", says, "let NTP set the clocks; copies between nodes are refused by wrong ones")


def check_masters(roles: Mapping[str, str]) -> Finding:
    """roles: by address, as Master.fetch_roles tells them."""
    silent = [address for address, role in roles.items() if role == SILENT]
    if silent:
        advice = "start it again: until then fewer masters can fail"
        return Finding(Level.WARNING, "masters", f"no answer from {', '.join(silent)}", advice)
    return Finding(Level.OK, "masters", f"{count(len(roles), 'master')}, answering")


def check_data(judgement: Judgement) -> Finding:
    """Of the survey, as status judges it."""
    if judgement.verdict is Verdict.WELL:
        return Finding(Level.OK, "data", "all pieces are there")
    level = Level.BAD if judgement.verdict is Verdict.LOST else Level.WARNING
    return Finding(
        level,
        "data",
        "; ".join(judgement.reasons),
        "`frostbyte status` says more; `frostbyte repair --watch` looks now",
    )


def check_metadata(failure: str, loss_window: Sequence[str], free_bytes: int | None) -> list[Finding]:
    """failure: empty when it answers. free_bytes: of the disk of SQLite's records, None for PostgreSQL."""
    if failure:
        advice = "start the metadata process or the database; without it no request succeeds"
        return [Finding(Level.BAD, "metadata", f"it does not answer: {failure}", advice)]
    found = [
        Finding(Level.WARNING, "metadata", sentence, "see PostgreSQL's settings in ARCHITECTURE.md")
        for sentence in loss_window
    ]
    if free_bytes is not None and free_bytes < METADATA_FREE_BYTES_MIN:
        says = f"{format_size(free_bytes)} free where the records are"
        found.append(Finding(Level.BAD, "metadata", says, "free space there: commits fail when it is full"))
    return found or [Finding(Level.OK, "metadata", "it answers")]


def check_journal(report: JournalReport) -> list[Finding]:
    """How durable the records are."""
    level = Level.WARNING if report.takes_writes else Level.BAD
    advice = "the log of the metadata process says more; start datanodes that are missing"
    found = [Finding(level, "journal", sentence, advice) for sentence in report.warnings]
    return found or [Finding(Level.OK, "journal", sentence) for sentence in report.notes]


def check_gateway(endpoint: str, is_ready: bool) -> Finding:
    """By /-/ready."""
    if is_ready:
        return Finding(Level.OK, "gateway", f"{endpoint} says that a write would succeed")
    says = f"{endpoint}/-/ready does not say 200"
    return Finding(Level.BAD, "gateway", says, "the findings above say why, or the log of `frostbyte up`")


def check_machine(open_files_max: int, version: str, python: str) -> list[Finding]:
    """open_files_max: the hard limit."""
    found = [Finding(Level.OK, "program", f"frostbyte {version}, Python {python}")]
    if open_files_max < OPEN_FILES_MIN:
        says = f"at most {open_files_max} open files a process"
        found.append(Finding(Level.WARNING, "program", says, f"ulimit -Hn {OPEN_FILES_MIN} or more before the start"))
    return found
