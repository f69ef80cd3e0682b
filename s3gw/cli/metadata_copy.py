"""`frostbyte metadata copy --to FILE`: moves the records of a data directory to the other engine, or back.

FILE is the config.json that the next start is given; its `metadata` says where to, so that no dsn stands in a command
line. Everything is stopped meanwhile. When every row was compared, the data directory remembers the new engine: a start
with the old one, whose records stay behind as they were, is refused from then on; they are marked as well, for roles
that run alone with a file of before.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from s3gw.cli.home import complete_settings, lock_home, read_cluster_id, record_engine, socket_directory
from s3gw.cli.offline import locate_records
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, find_config, run
from s3gw.config import ConfigError, load_config
from storage.metadata.copy import Source, Target, copy_metadata
from storage.metadata.settings import SQLITE, MetadataSettings
from storage.metadata.sqlite.moved import mark_moved
from storage.metadata.sqlite.rows import open_sqlite_source, open_sqlite_target


def copy(
    to: Annotated[Path, typer.Option(help="The next start's config.json: its `metadata` says where to.")],
    anew: Annotated[bool, typer.Option(help="Drop what an unfinished copy left.")] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Move the records to the other engine: resumable, and compared row by row before anything may use them."""
    settings = find_config(data, config)
    home = settings.home
    read_cluster_id(home)
    source = locate_records(settings)
    told = load_config(to, {"data": [str(home)]}, os.environ).metadata
    target = complete_settings(told, home, socket_directory(home))
    if target.engine == source.engine:
        raise ConfigError(f"the records are in {source.engine} already: {to} names the same engine")
    with lock_home(home):
        counted = run(_copy(source, target, anew=anew, shows=not as_json))
        record_engine(home, target.engine)
        run(_mark_moved(source, target.engine))
    if as_json:
        print(json.dumps({"from": source.engine, "to": target.engine, "rows": counted}, indent=2))
        return
    print(f"{sum(counted.values())} rows copied from {source.engine} to {target.engine}, and every one compared")
    print(f"start with {to} from now on; what is left in {source.engine} is no longer used and can be removed")


async def _copy(source: MetadataSettings, target: MetadataSettings, *, anew: bool, shows: bool) -> dict[str, int]:
    async with _open_source(source) as rows, _open_target(target, anew=anew) as copied:
        return await copy_metadata(rows, copied, anew=anew, on_progress=_show if shows else None)


async def _mark_moved(source: MetadataSettings, engine: str) -> None:
    if source.engine == SQLITE:
        mark_moved(Path(source.path), engine)
        return
    await importlib.import_module("storage.metadata.postgresql.open").mark_postgres_moved(source.dsn)


@asynccontextmanager
async def _open_source(settings: MetadataSettings) -> AsyncIterator[Source]:
    if settings.engine == SQLITE:
        sqlite = await open_sqlite_source(Path(settings.path))
        try:
            yield sqlite
        finally:
            await sqlite.close()
        return
    engine = importlib.import_module("storage.metadata.postgresql.rows")
    await engine.require_no_processes(settings.dsn)
    source = await engine.open_postgres_source(settings.dsn)
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def _open_target(settings: MetadataSettings, *, anew: bool) -> AsyncIterator[Target]:
    """SQLite's is closed by its `finish`."""
    if settings.engine == SQLITE:
        sqlite = await open_sqlite_target(Path(settings.path), anew=anew)
        try:
            yield sqlite
        except BaseException:
            await sqlite.close()
            raise
        return
    engine = importlib.import_module("storage.metadata.postgresql.rows")
    target = await engine.open_postgres_target(settings.dsn)
    try:
        yield target
    finally:
        await target.close()


def _show(table: str, rows: int) -> None:
    """On one line of a terminal, and nowhere else."""
    if sys.stderr.isatty():
        print(f"\r{table}: {rows} rows\033[K", end="", file=sys.stderr, flush=True)
