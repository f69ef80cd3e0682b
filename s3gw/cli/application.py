"""The commands that stand alone, and the flags of `frostbyte up`; the groups are in modules of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from s3gw.cli import bucket, key, node, user
from s3gw.cli.alone import become_role, run_gateway
from s3gw.cli.master import find_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, run
from s3gw.cli.status import fetch_status, print_status
from s3gw.cli.up import run_init, run_up
from s3gw.config import load_config

app = typer.Typer(
    name="frostbyte",
    help="An S3-compatible object store that seals every chunk with its own key.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(user.app, name="user")
app.add_typer(bucket.app, name="bucket")
app.add_typer(node.app, name="node")
app.add_typer(key.app, name="key")

RoleConfigOption = Annotated[Path, typer.Option("--config", help="The role's own config.json.")]


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
    run_up(load_config(config, flags, os.environ), os.environ, _say)


@app.command()
def init(
    data: Annotated[list[Path] | None, typer.Option(help="Data directory, as for up.")] = None,
    cluster_id: Annotated[str, typer.Option(help="32 hex digits; made at random when none is given.")] = "",
    config: ConfigOption = None,
) -> None:
    """Make everything that a first `up` makes, and each role's config.json in DIR/run, without starting anything."""
    flags = {"data": [str(directory) for directory in data or ()]}
    run_init(load_config(config, flags, os.environ), os.environ, cluster_id, _say)


@app.command()
def gateway(
    config: RoleConfigOption,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT, instead of the file's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, instead of the file's number.")] = None,
) -> None:
    """Run the S3 gateways of this machine alone."""
    run_gateway(config, listen, workers, _say)


@app.command()
def master(config: RoleConfigOption) -> None:
    """Run the master alone: the registry of datanodes and the maintenance jobs."""
    become_role("cluster", "--config", str(config))


@app.command()
def metadata(
    data: Annotated[Path, typer.Option(help="Directory of the records.")],
    socket: Annotated[Path, typer.Option(help="Path of the Unix socket to listen on.")],
) -> None:
    """Run the owner of the records alone."""
    become_role("storage.metadata", "--data", str(data), "--socket", str(socket))


@app.command()
def datanode(
    data: Annotated[Path, typer.Option(help="Directory of this datanode alone.")], config: RoleConfigOption
) -> None:
    """Run one datanode alone."""
    become_role("storage.datanode", "--data", str(data), "--config", str(config))


@app.command()
def status(
    as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None, master: MasterOption = None
) -> None:
    """Show nodes, what losses are survived, jobs, and what an operator should know."""
    print_status(run(fetch_status(*find_master(data, config, master))), as_json=as_json)


def _say(line: str) -> None:
    print(line, flush=True)
