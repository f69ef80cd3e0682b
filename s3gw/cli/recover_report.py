"""What a recovery came to, for a person and as JSON: bounded, and nothing hidden."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from s3gw.cli.formats import format_time, printable
from storage.journal.lost_chunks import USERS_MAX, find_lost
from storage.journal.recovery import Recovered
from storage.metadata.interface import BlobUser
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import connect_reader
from storage.model import Node

_COUNT = "SELECT (SELECT count(*) FROM buckets), (SELECT count(*) FROM versions WHERE is_marker = 0)"


class Built(NamedTuple):
    """What is known before the records are looked at."""

    recovered: Recovered
    unseen: tuple[Node, ...]
    locks: int
    at_ms: int | None
    unreadable: tuple[str, ...]


class RecoveryReport(NamedTuple):
    """lost_chunks: None where nobody looked for them."""

    built: Built
    buckets: int
    versions: int
    problems: tuple[str, ...]
    lost_chunks: int | None
    lost_objects: tuple[BlobUser, ...]
    next_steps: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Times in milliseconds since the epoch."""
        recovered = self.built.recovered
        return {
            "buckets": self.buckets,
            "versions": self.versions,
            "sequence": recovered.sequence,
            "applied_at_ms": recovered.applied_at_ms,
            "replayed": recovered.replayed,
            "at_ms": self.built.at_ms,
            "lost": recovered.lost,
            "unseen_nodes": [node.report.node_id for node in self.built.unseen],
            "locks_kept": self.built.locks,
            "problems": list(self.problems),
            "unreadable": list(self.built.unreadable),
            "lost_chunks": self.lost_chunks,
            "lost_objects": [_as_json(user) for user in self.lost_objects],
            "next_steps": list(self.next_steps),
        }


def make_report(database: Path, built: Built, directories: Sequence[Path]) -> RecoveryReport:
    """directories: of datanodes that are looked through for chunks; none: nobody looks."""
    with closing(connect_reader(database)) as connection:
        buckets, versions = connection.execute(_COUNT).fetchone()
        problems = check_integrity(connection)
        lost = find_lost(connection, directories) if directories else None
    return RecoveryReport(
        built,
        buckets,
        versions,
        tuple(problems),
        None if lost is None else lost.chunks,
        () if lost is None else tuple(lost.users),
    )


def describe_report(report: RecoveryReport) -> list[str]:
    """Lines for a person."""
    built, recovered = report.built, report.built.recovered
    when = format_time(recovered.applied_at_ms)
    lines = [
        f"{report.buckets} buckets, {report.versions} versions; the last record is {recovered.sequence}, of {when}"
    ]
    if recovered.lost:
        lines.append(f"lost: {recovered.lost}")
    lines += [f"not looked at: datanode {node.number} ({node.report.address})" for node in built.unseen]
    if built.at_ms is not None:
        lines.append(f"as it was at {format_time(built.at_ms)}; the present lock is kept on {built.locks} versions")
    lines += [f"could not be read: {text}" for text in built.unreadable]
    lines += [f"not whole: {text}" for text in report.problems]
    if report.lost_chunks is not None:
        lines += _describe_lost(report)
    return [*lines, *report.next_steps]


def plan_start(home: Path, directories: Sequence[Path]) -> tuple[str, ...]:
    """What to do next, by where the datanodes' directories are. Nothing is moved without being asked."""
    shown = shlex.quote(str(home))
    if not directories:
        return (
            f"next: start the master's side with `frostbyte up --data {shown} …`, and let the datanodes know of it",
        )
    if all(path.name == "datanode" for path in directories):
        own = [path.parent for path in directories if path.parent != home]
        more = "".join(f" --data {shlex.quote(str(path))}" for path in own)
        return (f"next: frostbyte up --data {shown}{more}",)
    moved = [path for path in directories if path.parent != home]
    steps = [f"next: mv {shlex.quote(str(path))} {shlex.quote(str(home / path.name))}" for path in moved]
    return (*steps, f"next: frostbyte up --data {shown} --datanodes {_count_datanodes(directories)}")


def _count_datanodes(directories: Sequence[Path]) -> int:
    """`datanode-N`: as many as the highest number, so that each keeps its place."""
    numbers = [int(tail) for path in directories if (tail := path.name.removeprefix("datanode-")).isdigit()]
    return max([len(directories), *numbers])


def _describe_lost(report: RecoveryReport) -> list[str]:
    if not report.lost_chunks:
        return ["every chunk is there"]
    more = ", the first of them" if len(report.lost_objects) >= USERS_MAX else ""
    return [
        f"{report.lost_chunks} chunks were swept since or are on datanodes that were not given; they were in{more}:",
        *(f"  s3://{user.bucket_name}/{_name(user)}" for user in report.lost_objects),
    ]


def _name(user: BlobUser) -> str:
    key = printable(user.object_key.decode(errors="backslashreplace"))
    return f"{key} (upload {user.upload_id})" if user.upload_id else f"{key} (version {user.version_id})"


def _as_json(user: BlobUser) -> dict[str, str]:
    return {
        "bucket": user.bucket_name,
        "object_key": user.object_key.decode(errors="backslashreplace"),
        "version_id": user.version_id,
        "upload_id": user.upload_id,
    }
