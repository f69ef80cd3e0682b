"""A real `frostbyte up` for tests: started, watched, killed and stopped like an operator would."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.clients.certificates import CertificateFiles
from tests.postgres_server import PostgresServer, server_processes

ACCESS_KEY_ID = "AKIAPROBEPROBEPROBE1"
SECRET_ACCESS_KEY = "probe/secret+of/the+tests/0123456789abcd"
REGION = "us-east-1"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
BACKEND_MARK = b"[local]"
"""what PostgreSQL calls its processes that serve a client of this machine"""
FIRST_PORT, PORTS_EACH, PORT_RANGES = 20_000, 1_500, 8
"""up to 31,999"""
ROLE_MODULES = {
    "metadata": "storage.metadata",
    "datanode": "storage.datanode",
    "master": "cluster",
    "gateway": "s3gw",
}

_ports = itertools.count(secrets.randbelow(PORTS_EACH))


def free_port() -> int:
    """A port that was free a moment ago and that nobody takes meanwhile: each worker of pytest-xdist has a range of its
    own, below the one that the kernel takes the ports of connections from."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PORT_RANGES
    for _ in range(PORTS_EACH):
        port = FIRST_PORT + worker * PORTS_EACH + next(_ports) % PORTS_EACH
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


class Server:
    """One `frostbyte up` over one data directory, as often as it is started."""

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, Any] | None = None,
        *flags: str,
        certificates: CertificateFiles | None = None,
        as_users_do: bool = False,
        database: PostgresServer | None = None,
    ) -> None:
        """settings: of its config.json, over what suits tests. as_users_do: without one. certificates: over https.
        database: the one that the settings name; whose it is to start and stop."""
        self.home = home
        self.data = home / "data"
        self.port = free_port()
        self.endpoint = f"{'https' if certificates else 'http'}://127.0.0.1:{self.port}"
        self.log = home / "server.log"
        self.database = database
        self._flags = flags
        self._settings = None if as_users_do else {"reserve_bytes": 0, "drain_timeout_s": 10, **(settings or {})}
        self._certificates = certificates
        self._tls = ssl.create_default_context(cafile=str(certificates.ca)) if certificates else None
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def start(self, *, wait: bool = True) -> None:
        """Start and wait until a write would succeed, unless the test does."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "s3gw.cli", "up", "--data", str(self.data)]
        command += ["--listen", f"127.0.0.1:{self.port}", *self._flags]
        if self._settings is not None:
            config = self.home / "config.json"
            config.write_text(json.dumps(self._settings))
            command += ["--config", str(config)]
        if self._certificates is not None:
            command += ["--tls-cert", str(self._certificates.certificate)]
            command += ["--tls-key", str(self._certificates.private_key)]
        environment = {
            **os.environ,
            "FROSTBYTE_ROOT_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            **self.environment,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> float:
        """Seconds until /-/ready said 200; the end of the log when it does not."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < timeout_s:
            if self.ready():
                return time.monotonic() - began_s
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"not ready; the log ends with:\n{self.log.read_text()[-4000:]}")

    def ready(self) -> bool:
        """One HTTP question, without a client library in between."""
        try:
            with ExitStack() as opened:
                connection = opened.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=5))
                if self._tls is not None:
                    connection = opened.enter_context(self._tls.wrap_socket(connection, server_hostname="127.0.0.1"))
                connection.sendall(b"GET /-/ready HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                return b" 200 " in connection.recv(200).split(b"\r\n")[0]
        except OSError:
            return False

    def client(self, **options: Any) -> Any:
        """A boto3 client that retries nothing by itself, so that a test sees each answer."""
        options.setdefault("retries", {"total_max_attempts": 1})
        options.setdefault("s3", {"addressing_style": "path"})
        config = Config(connect_timeout=5, read_timeout=120, max_pool_connections=64, **options)
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            verify=str(self._certificates.ca) if self._certificates else None,
            config=config,
        )

    def pids(self, role: str) -> list[int]:
        """The running processes of a role, children of this server only; of the metadata, the backends of its database
        where it has one: the kill of one makes the database recover as from a crash."""
        if role == "metadata" and self.database is not None:
            return [pid for pid in server_processes(self.database) if BACKEND_MARK in _arguments_of(pid)[0]]
        module = ROLE_MODULES[role]
        return [pid for pid in self._descendants() if module_of(pid) == module]

    def kill(self, role: str, index: int = 0) -> int:
        """kill -9 of one process of a role; its id."""
        pid = self.pids(role)[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and every child at once, as a power cut does to processes."""
        assert self._process is not None
        for pid in [self._process.pid, *self._descendants()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None

    def kill_supervisor(self) -> None:
        """kill -9 of the supervisor alone: its children are told by the kernel, and end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit status. Nothing may be left running."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise
        finally:
            self._process = None

    def restart(self) -> None:
        """Stop in order and start again."""
        assert self.stop() == 0
        self.start()

    def _descendants(self) -> list[int]:
        assert self._process is not None
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if fields[0] != "Z":
                    parents[int(entry.name)] = int(fields[1])
        found, wave = [], [self._process.pid]
        while wave:
            wave = [pid for pid, parent in parents.items() if parent in wave]
            found += wave
        return found


def _arguments_of(pid: int) -> list[bytes]:
    """Its command line; empty of a process that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def module_of(pid: int) -> str:
    """What follows -m on a Python command line."""
    for flag, value in itertools.pairwise(_arguments_of(pid)):
        if flag == b"-m":
            return value.decode()
    return ""
