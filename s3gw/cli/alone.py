"""One role on its own, from its own config.json: `frostbyte gateway|master|datanode`.

Master and datanode become the role's process (as the owner of SQLite's records does, see metadata). The gateway binds
its socket and supervises its workers.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from s3gw.cli.forks import role_command
from s3gw.cli.handover import Plan, hand_over
from s3gw.cli.listener import make_readiness, open_listener, require_tls_files
from s3gw.cli.roles import open_forks, plan_gateways
from s3gw.cli.supervisor import Stage
from s3gw.config import WORKERS_MAX, ConfigError, format_endpoint
from s3gw.worker_config import load_worker_config
from storage.base.log import configure_logging

RoleConfigOption = Annotated[Path, typer.Option("--config", help="The role's own config.json.")]


def gateway(
    config: RoleConfigOption,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT, instead of the file's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, instead of the file's number.")] = None,
) -> None:
    """Run the S3 gateways of this machine alone."""
    run_gateway(config, listen, workers)


def master(config: RoleConfigOption) -> None:
    """Run the master alone: the registry of datanodes and the maintenance jobs."""
    become_role("cluster", "--config", str(config))


def datanode(
    data: Annotated[Path, typer.Option(help="Directory of this datanode alone.")], config: RoleConfigOption
) -> None:
    """Run one datanode alone."""
    become_role("storage.datanode", "--data", str(data), "--config", str(config))


def become_role(module: str, *arguments: str) -> NoReturn:
    """Nothing of the command line stays in memory, and signals reach the role itself."""
    command = role_command(module, *arguments)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - our own interpreter, no shell


def run_gateway(file: Path, listen: str | None, workers: int | None) -> NoReturn:
    """Until SIGTERM or SIGINT, most of it as another program (handover.py). ConfigError in one line for
    what keeps it from that."""
    configure_logging("gateways")
    config = load_worker_config(file)
    listen = listen or config.listen
    count = workers or config.workers or os.cpu_count() or 1
    if not 1 <= count <= WORKERS_MAX:
        raise ConfigError(f"between 1 and {WORKERS_MAX} workers, not {count}")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError(f"{file}: tls_cert and tls_key go together")
    require_tls_files(config.tls_cert, config.tls_key)
    is_tls = bool(config.tls_cert)
    with ExitStack() as opened:
        listener = opened.enter_context(open_listener(listen))
        forks = opened.enter_context(open_forks())
        metrics = opened.enter_context(tempfile.TemporaryDirectory(prefix="frostbyte-metrics-"))
        readiness = make_readiness(listener, is_tls=is_tls)
        gateways = Stage(plan_gateways(file.absolute(), count, listener.fileno(), Path(metrics)), readiness)
        endpoint = format_endpoint(listen, is_tls=is_tls)
        lines = (f"Frostbyte is ready at {endpoint}",)
        plan = Plan("gateways", (gateways,), config.drain_timeout_s, lines, forks.server if forks else None, metrics)
        hand_over(plan, (), asks_tls=is_tls)
