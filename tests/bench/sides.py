"""The endpoints that are compared, each started as its users start it and ended by its own process ids."""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cluster
import s3gw
import storage
from storage.metadata.settings import JOURNAL_AUTO, JOURNAL_REPLICATED
from tests.bench.processes import find_tree
from tests.bench.requests import SignedConnection
from tests.clients.endpoint import Endpoint
from tests.clients.programs import find_program, run_program
from tests.probe.server import free_port

ACCESS_KEY_ID = "BENCHBENCHBENCHBENCH"
SECRET_ACCESS_KEY = "bench-secret-bench-secret-bench-secret-00"
START_DEADLINE_S = 90
STOP_DEADLINE_S = 40
IN_FLIGHT = 16
POLL_INTERVAL_S = 0.02
WEED_VOLUME_SIZE_MB = 1024
WEED_VOLUMES_MAX = 100


class Command(NamedTuple):
    """One process of a side."""

    words: Sequence[str]
    environment: dict[str, str] = {}


@dataclass
class Side:
    """A server, or several that make one; `commands` are started in order."""

    name: str
    endpoint: Endpoint
    fsync: str
    version: str
    commands: list[Command]
    log: Path
    after_start: list[tuple[Sequence[str], bytes]] = field(default_factory=list)
    """programs that configure the running server, with what they read on standard input"""
    bucket: str = "bench"
    in_flight: int = IN_FLIGHT
    twins: list[Side] = field(default_factory=list)
    """further gateways of the same store, which are loaded at the same time"""
    roots: list[int] = field(default_factory=list)
    """processes that others start and stop, and that belong to what this side costs"""
    start_up_s: float = 0.0
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start and wait until an object can be written; `start_up_s` counts from the first process."""
        began = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            for command in self.commands:
                environment = os.environ | command.environment
                self._processes.append(
                    subprocess.Popen(command.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
                )
        while not self._accepts_writes():
            if any(process.poll() is not None for process in self._processes) or (
                time.monotonic() - began > START_DEADLINE_S
            ):
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(POLL_INTERVAL_S)
        self.start_up_s = time.monotonic() - began
        for words, stdin in self.after_start:
            run_program(words, stdin=stdin)
        for twin in self.twins:
            twin.start()

    def stop(self) -> None:
        """SIGTERM to each process, last started first; SIGKILL to what does not end."""
        for twin in self.twins:
            twin.stop()
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def pids(self) -> list[int]:
        """All processes of this side now."""
        members = [self, *self.twins]
        return find_tree([*self.roots, *(process.pid for member in members for process in member._processes)])

    def _accepts_writes(self) -> bool:
        connection = SignedConnection(self.endpoint)
        try:
            connection.send("PUT", "/start-up")
            connection.send("PUT", "/start-up/object", b"x")
        except (OSError, RuntimeError):
            return False
        finally:
            connection.close()
        return True


def frostbyte(home: Path, copies: int, arguments: Sequence[str] = (), journal: str = JOURNAL_AUTO) -> Side:
    """`frostbyte up` with its defaults: three datanodes, a worker per processor, every acknowledgement synced.

    journal: of the metadata, by a config.json. With `auto` it is local, as the datanodes share this machine's disk."""
    _compile_packages()
    port = free_port()
    program = _program("frostbyte")
    words = [program, "up", "--data", str(home / "data"), "--listen", f"127.0.0.1:{port}"]
    words += ["--replicas", str(copies), *arguments]
    if journal != JOURNAL_AUTO:
        home.mkdir(parents=True, exist_ok=True)
        config = home / "config.json"
        config.write_text(json.dumps({"metadata": {"journal": journal}}))
        words += ["--config", str(config)]
    credentials = {
        "FROSTBYTE_ROOT_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    }
    version = _first_line([program, "--version"], "working tree")
    fsync = "synced before every answer; sealed with AES-256-GCM"
    if journal == JOURNAL_REPLICATED:
        fsync += "; every record of the metadata also in the journal of two datanodes, synced (`journal: replicated`)"
    return Side("Frostbyte", _endpoint(port), fsync, version, [Command(words, credentials)], home / "frostbyte.log")


def _compile_packages() -> None:
    """As pip does when it installs: a start from a fresh clone would compile everything (half a second), and where
    PYTHONDONTWRITEBYTECODE is set so would each one, and hold 4 MiB more."""
    for package in (s3gw, cluster, storage):
        for directory in package.__path__:
            compileall.compile_dir(directory, quiet=1)


def further_gateway(first: Side, home: Path) -> Side:
    """One more gateway beside the `frostbyte up` of another side, over the same metadata and datanodes."""
    port = free_port()
    words = [_program("frostbyte"), "gateway", "--config", str(home / "data" / "run" / "gateway.json")]
    words += ["--listen", f"127.0.0.1:{port}", "--workers", "1"]
    command = Command(words, first.commands[0].environment)
    name = f"{first.name}, further"
    return Side(name, _endpoint(port), "", "", [command], home / "further.log", bucket="bench-2")


def seaweedfs(home: Path, copies: int, *, fsync: bool = False) -> Side:
    """`weed server -s3`; for two copies with two further volume servers and replication 001. No telemetry."""
    program = _program("weed")
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    home.mkdir(parents=True, exist_ok=True)
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (home / "server").mkdir(exist_ok=True)
    port, master, filer = free_port(), _weed_port(), _weed_port()
    words = [program, "server", "-ip=127.0.0.1", f"-dir={home / 'server'}", "-s3", f"-s3.port={port}"]
    words += [f"-s3.config={home / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-filer.port={filer}"]
    words += [f"-master.port={master}", "-master.telemetry=false", f"-volume.port={_weed_port()}"]
    words += [f"-master.volumeSizeLimitMB={WEED_VOLUME_SIZE_MB}", f"-volume.max={WEED_VOLUMES_MAX}"]
    words += [f"-master.defaultReplication={copies - 1:03}"]
    commands = [Command(words)]
    for number in range(2 if copies > 1 else 0):
        directory = home / f"volume-{number}"
        directory.mkdir(exist_ok=True)
        further = [program, "volume", "-ip=127.0.0.1", f"-dir={directory}", f"-port={_weed_port()}"]
        commands.append(Command([*further, f"-mserver=127.0.0.1:{master}", f"-max={WEED_VOLUMES_MAX}"]))
    version = _first_line([program, "version"], "unknown").removeprefix("version ")
    name, mode = ("SeaweedFS synced", "fs.configure -fsync") if fsync else ("SeaweedFS", "no sync (its default)")
    side = Side(name, _endpoint(port), f"{mode}; not encrypted", version, commands, home / "weed.log")
    if fsync:
        shell = [program, "shell", f"-master=127.0.0.1:{master}", f"-filer=127.0.0.1:{filer}"]
        side.after_start.append((shell, b"lock\nfs.configure -locationPrefix=/buckets/ -fsync -apply\nunlock\n"))
    return side


def rclone_serve(home: Path) -> Side:
    """`rclone serve s3` over a directory."""
    program, port = _program("rclone"), free_port()
    (home / "files").mkdir(parents=True, exist_ok=True)
    words = [program, "serve", "s3", str(home / "files"), "--addr", f"127.0.0.1:{port}"]
    words += ["--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}", "--vfs-cache-mode", "off"]
    version = _first_line([program, "version"], "unknown")
    return Side("rclone serve", _endpoint(port), "no sync", version, [Command(words)], home / "rclone.log")


def moto_server(home: Path) -> Side:
    """`moto_server`, which keeps everything in memory and checks no signature."""
    program, port = _program("moto_server"), free_port()
    words = [program, "-H", "127.0.0.1", "-p", str(port)]
    return Side(
        "moto_server",
        _endpoint(port),
        "in memory",
        importlib.metadata.version("moto"),
        [Command(words)],
        home / "moto.log",
    )


def running_endpoint(url: str, home: Path) -> Side:
    """Any endpoint that runs already; credentials from the AWS variables. No memory or start-up figures."""
    endpoint = Endpoint(url.rstrip("/"), os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    return Side(url, endpoint, "unknown", "", [], home / "none.log")


def _endpoint(port: int) -> Endpoint:
    return Endpoint(f"http://127.0.0.1:{port}", ACCESS_KEY_ID, SECRET_ACCESS_KEY)


def _weed_port() -> int:
    """SeaweedFS adds 10,000 to a port for its gRPC twin."""
    port = free_port()
    while port > 55_000:
        port = free_port()
    return port


def _program(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise SystemExit(f"{name} is missing; `make bench` installs it")
    return program


def _first_line(command: Sequence[str], otherwise: str) -> str:
    try:
        return run_program(command).stdout.decode().splitlines()[0]
    except (AssertionError, IndexError):
        return otherwise
