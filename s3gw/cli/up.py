"""`frostbyte up`: prepare the data directory, start every process in stages, say how to use it, stop in order."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping

from s3gw.cli.home import SECRET_KEY_VARIABLE, Home, Origin, prepare_home
from s3gw.cli.offline import put_root_user
from s3gw.cli.roles import plan_stages
from s3gw.cli.supervisor import Supervisor
from s3gw.config import Config, ConfigError, parse_listen
from storage.base.log import configure_logging

LISTEN_BACKLOG = 4096


def run_up(config: Config, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Until SIGTERM or SIGINT. ConfigError in one line for whatever keeps it from starting."""
    configure_logging("up")
    home = prepare_home(config, environment)
    try:
        put_root_user(home)
        with open_listener(config.listen) as listener:
            asyncio.run(_supervise(home, listener, say))
    finally:
        home.lock.close()


async def _supervise(home: Home, listener: socket.socket, say: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stopped.set)
    supervisor = Supervisor(plan_stages(home, listener.fileno()), home.config.drain_timeout_s)
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            for line in describe_start(home):
                say(line)
            await stopped.wait()
    finally:
        starting.cancel()
        stopping.cancel()
        await supervisor.stop()


def open_listener(listen: str) -> socket.socket:
    """The socket that all gateway workers accept on. ConfigError when it cannot be had."""
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {listen}: {error.strerror or error}") from error
    return listener


def describe_start(home: Home) -> list[str]:
    """What a person needs first. The secret is shown at the start that made it, and never again."""
    config, credentials = home.config, home.credentials
    shown, origin = {
        Origin.MADE: (credentials.secret_access_key, f"made now and kept in {config.home / 'credentials.json'}"),
        Origin.FILE: ("…", f"in {config.home / 'credentials.json'}"),
        Origin.ENVIRONMENT: (f"${SECRET_KEY_VARIABLE}", "from the environment"),
    }[home.credentials_origin]
    insecure = " --no-verify-ssl" if config.tls_cert else ""
    return [
        f"Frostbyte is ready at {config.endpoint}",
        f"  access key id      {credentials.access_key_id}",
        f"  secret access key  {shown}   ({origin})",
        f"  try it:  AWS_ACCESS_KEY_ID={credentials.access_key_id} AWS_SECRET_ACCESS_KEY={shown}"
        f" AWS_DEFAULT_REGION={config.region} aws --endpoint-url {config.endpoint}{insecure} s3 mb s3://my-bucket",
        f"  {len(home.datanodes)} datanodes, {config.replicas} replicas, {config.worker_count} workers, "
        f"durability {config.durability}; everything is in {config.home}",
        f"  keep a copy of {config.home / 'master.key'} elsewhere: without it nothing can be read",
    ]
