"""The commands. `up` is what people wait for, so the modules of all others are imported when they are asked for."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Annotated

import typer

from s3gw.cli.options import ConfigOption
from s3gw.cli.up import run_init, run_up
from s3gw.config import load_config

COMMANDS = {
    "gateway": "s3gw.cli.alone:gateway",
    "master": "s3gw.cli.alone:master",
    "metadata": "s3gw.cli.metadata:app",
    "datanode": "s3gw.cli.alone:datanode",
    "status": "s3gw.cli.status:status",
    "doctor": "s3gw.cli.doctor:doctor",
    "user": "s3gw.cli.user:app",
    "bucket": "s3gw.cli.bucket:app",
    "node": "s3gw.cli.node:app",
    "object": "s3gw.cli.object:app",
    "repair": "s3gw.cli.jobs:repair",
    "scrub": "s3gw.cli.jobs:scrub",
    "sweep": "s3gw.cli.jobs:sweep",
    "rebalance": "s3gw.cli.jobs:rebalance",
    "key": "s3gw.cli.key:app",
    "recover": "s3gw.cli.recover:recover",
}
"""name → module and what in it: a function is one command, a Typer a group of them"""
_HERE = ("up", "init")


def load_commands(asked: str) -> typer.Typer:
    """A new application with the command that is asked for (the first argument), or with all of them."""
    app = typer.Typer(
        name="frostbyte",
        help="An S3-compatible object store that seals every chunk with its own key.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(up)
    app.command()(init)
    if asked not in _HERE:
        for name in [asked] if asked in COMMANDS else COMMANDS:
            module, _, attribute = COMMANDS[name].partition(":")
            defined = getattr(importlib.import_module(module), attribute)
            if isinstance(defined, typer.Typer):
                app.add_typer(defined, name=name)
            else:
                app.command(name)(defined)
    return app


def up(
    data: Annotated[list[Path] | None, typer.Option(help="Data directory; several: one datanode in each.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT of the S3 endpoint. [127.0.0.1:9000]")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM): serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    datanodes: Annotated[int | None, typer.Option(help="With a single --data. [3]")] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of every chunk. [2]")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes. [one per processor]")] = None,
    config: ConfigOption = None,
) -> None:
    """Start everything on this machine: metadata, master, datanodes and gateway workers."""
    flags = {
        "data": [str(directory) for directory in data or ()],
        "listen": listen,
        "tls_cert": tls_cert and str(tls_cert),
        "tls_key": tls_key and str(tls_key),
        "datanodes": datanodes,
        "replicas": replicas,
        "workers": workers,
    }
    run_up(load_config(config, flags, os.environ), os.environ)


def init(
    data: Annotated[list[Path] | None, typer.Option(help="Data directory, as for up.")] = None,
    cluster_id: Annotated[str, typer.Option(help="32 hex digits; made at random when none is given.")] = "",
    config: ConfigOption = None,
) -> None:
    """Make everything that a first `up` makes, and each role's config.json in DIR/run, without starting anything."""
    flags = {"data": [str(directory) for directory in data or ()]}
    run_init(load_config(config, flags, os.environ), os.environ, cluster_id, _say)


def _say(line: str) -> None:
    print(line, flush=True)
