"""`frostbyte object health`: where the pieces of one object are, and when each was last read from its disk."""

from __future__ import annotations

import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress

from cluster.chunk_health import ChunkHealth
from cluster.maintenance.survey import Health
from cluster.nodes import NodePool
from cluster.object_health import ObjectExamination, examine_object
from cluster.registry.config import MasterConfig, load_internal_key
from s3gw.cli.formats import printable
from s3gw.cli.master import find_master, open_master
from s3gw.cli.object_report import (
    CHUNKS_LISTED_MAX,
    VERDICTS,
    ObjectReport,
    as_document,
    describe_object,
    make_rows,
)
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, run
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import ConfigError
from storage.base.clock import SystemClock
from storage.base.errors import NoSuchKey, NoSuchVersion, Unavailable
from storage.datanode.client import make_connect
from storage.metadata.interface import Metadata
from storage.metadata.open import open_metadata
from storage.model import ClusterMap

METADATA_DEADLINE_S = 5.0
SCHEME = "s3://"
SHORT_CHUNKS_MAX = 16
"""an object of no more is shown with every piece; of a longer one what is not healthy"""

app = typer.Typer(no_args_is_help=True, help="Objects.")


class Asked(NamedTuple):
    """What is to be looked at."""

    bucket_name: str
    object_key: bytes
    version_id: str | None
    verify: bool
    all_chunks: bool


@app.callback()
def objects() -> None:
    """Objects."""


@app.command("health")
def health(
    name: Annotated[str, typer.Argument(metavar="s3://BUCKET/KEY")],
    version_id: Annotated[str | None, typer.Option("--version-id", help="A version of it. [the current one]")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every piece from its disk now.")] = False,
    chunks: Annotated[bool, typer.Option("--chunks", help="Show every piece, however long the object is.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit status: 0 healthy, 1 degraded or endangered, 2 lost or not readable.")
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Show how an object is: each chunk's pieces, where they are, and when each was last read from its disk."""
    bucket_name, object_key = parse_name(name)
    asked = Asked(bucket_name, object_key, version_id, verify, chunks)
    report = run(_examine(*find_master(data, config, master), asked))
    if as_json:
        print(json.dumps(as_document(report), indent=2))
    else:
        _print(report)
    if check:
        sys.exit(VERDICTS[report.health.health].value)


def parse_name(name: str) -> tuple[str, bytes]:
    """(bucket, key): the key is whatever bytes follow. ConfigError."""
    bucket_name, slash, object_key = name.removeprefix(SCHEME).partition("/")
    if not name.startswith(SCHEME) or not bucket_name or not slash or not object_key:
        raise ConfigError(f"an object is named s3://BUCKET/KEY, not {name[:200]!r}")
    return bucket_name, os.fsencode(object_key)


async def _examine(config: MasterConfig, home: Path | None, asked: Asked) -> ObjectReport:
    async with AsyncExitStack() as opened:
        metadata = await open_metadata(config.metadata, deadline_s=METADATA_DEADLINE_S)
        opened.push_async_callback(metadata.close)
        cluster_map, is_recorded = await _find_map(config, home, metadata)
        internal_key = load_internal_key(Path(config.internal_key_file))
        nodes = NodePool(internal_key, SystemClock(), make_connect(internal_key, config.tls_ca or None))
        opened.push_async_callback(nodes.close)
        await nodes.adopt(cluster_map)
        bucket = await metadata.find_bucket(asked.bucket_name)
        if bucket is None:
            raise ConfigError(f"there is no bucket {printable(asked.bucket_name)[:64]}")
        shown = SCHEME + printable(f"{asked.bucket_name}/{asked.object_key.decode('utf-8', 'backslashreplace')}")
        try:
            examination = await examine_object(
                metadata, nodes, cluster_map, bucket, asked.object_key, asked.version_id, verify=asked.verify
            )
            listed, unlisted = await _list_chunks(examination, shown, asked)
        except (NoSuchKey, NoSuchVersion) as error:
            version = f" of version {asked.version_id}" if asked.version_id else ""
            reason = "" if str(error) == type(error).__name__ else f": {error}"
            raise ConfigError(f"there is no object {shown}{version}{reason}") from None
        return ObjectReport(shown, examination.summary, tuple(listed), unlisted, is_recorded)


async def _find_map(config: MasterConfig, home: Path | None, metadata: Metadata) -> tuple[ClusterMap, bool]:
    """The master's, or, while it is away, what was recorded last (True)."""
    try:
        async with open_master(config, home) as master:
            return await master.fetch_map(), False
    except Unavailable:
        return await metadata.cluster_map(), True


async def _list_chunks(examination: ObjectExamination, shown: str, asked: Asked) -> tuple[list[ChunkHealth], int]:
    """(chunks to show, how many more there are of that kind). A short object is shown whole."""
    first: list[ChunkHealth] = []
    listed: list[ChunkHealth] = []
    seen = wanted = 0
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(shown, total=max(1, examination.size))
        async for chunk in examination:
            seen += 1
            if seen <= SHORT_CHUNKS_MAX:
                first.append(chunk)
            if asked.all_chunks or chunk.health is not Health.HEALTHY:
                wanted += 1
                if len(listed) < CHUNKS_LISTED_MAX:
                    listed.append(chunk)
            progress.update(task, completed=chunk.offset + chunk.length)
    return (first, 0) if seen <= SHORT_CHUNKS_MAX else (listed, wanted - len(listed))


def _print(report: ObjectReport) -> None:
    show(*describe_object(report, SystemClock().now_ms()))
    if report.chunks:
        table = make_table("chunk", "at", "health", "piece", "node", "failure domain", "state", "read from disk")
        for chunk in report.chunks:
            for row in make_rows(chunk):
                add_row(table, *row)
        show(table)
