"""The commands, and the flags of `frostbyte up`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from s3gw.cli import key, user
from s3gw.cli.options import ConfigOption
from s3gw.cli.up import run_up
from s3gw.config import load_config

app = typer.Typer(
    name="frostbyte",
    help="An S3-compatible object store that seals every chunk with its own key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(user.app, name="user")
app.add_typer(key.app, name="key")


@app.command()
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
    run_up(load_config(config, flags, os.environ), os.environ, lambda line: print(line, flush=True))
