"""What the commands share: where the data is, and errors as one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from s3gw.cli.home import open_keyring, read_cluster_id
from s3gw.config import Config, ConfigError, load_config
from storage.crypto.keyring import Keyring

Outcome = TypeVar("Outcome")

DataOption = Annotated[Path | None, typer.Option("--data", help="The data directory of `frostbyte up`.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Its config.json, instead of --data.")]
MasterOption = Annotated[
    Path | None, typer.Option("--master", help="config.json of a master that runs alone, instead of --data.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def require_one_reader(watched: bool, as_json: bool) -> None:
    """ConfigError for --watch and --json together."""
    if watched and as_json:
        raise ConfigError("--watch is for people and --json for programs: give one of them")


def find_config(data: Path | None, config: Path | None) -> Config:
    """The settings of a `frostbyte up`, as far as these options tell them. ConfigError when no data directory is."""
    return load_config(config, {"data": [str(data)] if data else None}, os.environ)


def find_home(data: Path | None, config: Path | None) -> Path:
    """The data directory that holds the keys. ConfigError when neither option names one."""
    return find_config(data, config).home


def open_keyring_of(home: Path) -> Keyring:
    """The keyring of an existing data directory."""
    return open_keyring(home, read_cluster_id(home), os.environ, make=False)


def run(work: Coroutine[None, None, Outcome]) -> Outcome:
    """The event loop of one command."""
    return asyncio.run(work)
