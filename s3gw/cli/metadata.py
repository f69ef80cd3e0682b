"""`frostbyte metadata …`: the owner of SQLite's records as a process of its own, and care for either engine's."""

from __future__ import annotations

import importlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from s3gw.cli.alone import become_role
from s3gw.cli.home import read_cluster_id
from s3gw.cli.metadata_copy import copy
from s3gw.cli.offline import locate_records
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, find_config, run
from storage.base.errors import Corrupt, FrostbyteError
from storage.metadata.settings import POSTGRESQL, MetadataSettings
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import DATABASE_NAME, connect_reader, translate
from storage.metadata.sqlite.open import migrate_owned_metadata
from storage.metadata.sqlite.schema import read_schema_version, require_known_version

app = typer.Typer(help="The records: their owner as a process of its own, and care for either engine's.")
app.command("copy")(copy)


@app.callback(invoke_without_command=True)
def metadata(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Directory of the records.")] = None,
    socket: Annotated[Path | None, typer.Option(help="Path of the Unix socket to listen on.")] = None,
    config: Annotated[Path | None, typer.Option(help="config.json of the journal; without one it is local.")] = None,
) -> None:
    """Without a command: run the owner of SQLite's records alone."""
    if context.invoked_subcommand is not None:
        if data or socket or config:
            raise typer.BadParameter("options follow the command")
        return
    if data is None or socket is None:
        raise typer.BadParameter("the owner of SQLite's records wants --data and --socket")
    journal = ("--config", str(config)) if config else ()
    become_role("storage.metadata", "--data", str(data), "--socket", str(socket), *journal)


@app.command("migrate")
def migrate(as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Bring the records forward to what this program knows. SQLite's server is stopped for it."""
    settings = _locate(data, config)
    before, now = run(_migrate(settings))
    if as_json:
        print(json.dumps({"engine": settings.engine, "before": before, "now": now}))
    elif before == now:
        print(f"{settings.engine}: schema version {now}, nothing to do")
    else:
        print(f"{settings.engine}: schema version {now}, from {before}")


@app.command("check")
def check(as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Verify what every commit must leave true: every row, of one snapshot. Exit status 1 when something is not."""
    settings = _locate(data, config)
    problems = run(_check(settings))
    if as_json:
        print(json.dumps({"engine": settings.engine, "problems": problems}, indent=2))
    else:
        print("\n".join(problems) or f"{settings.engine}: the records are whole")
    if problems:
        raise typer.Exit(1)


def _locate(data: Path | None, config: Path | None) -> MetadataSettings:
    settings = find_config(data, config)
    read_cluster_id(settings.home)
    return locate_records(settings)


async def _migrate(settings: MetadataSettings) -> tuple[int, int]:
    if settings.engine != POSTGRESQL:
        return migrate_owned_metadata(Path(settings.path))
    engine = importlib.import_module("storage.metadata.postgresql.open")
    before, now = await engine.migrate_postgres_metadata(settings.dsn)
    return before, now


async def _check(settings: MetadataSettings) -> list[str]:
    if settings.engine != POSTGRESQL:
        return _check_sqlite(Path(settings.path))
    engine = importlib.import_module("storage.metadata.postgresql.open")
    found: list[str] = await engine.check_postgres_metadata(settings.dsn)
    return found


def _check_sqlite(directory: Path) -> list[str]:
    """Beside a running server: it is a reader like any other."""
    if not (directory / DATABASE_NAME).exists():
        raise FrostbyteError(f"there is no {directory / DATABASE_NAME}")
    try:
        with closing(connect_reader(directory / DATABASE_NAME)) as connection:
            require_known_version(read_schema_version(connection))
            return check_integrity(connection)
    except sqlite3.Error as error:
        problem = translate(error)
        if isinstance(problem, Corrupt):
            return [str(problem)]
        raise problem from error
