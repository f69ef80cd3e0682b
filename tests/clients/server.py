"""A real `frostbyte up`, started as its users start it and ended by its process id."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.clients.certificates import CertificateFiles
from tests.clients.endpoint import Endpoint

ROOT_ACCESS_KEY_ID = "FROSTBYTETESTROOT"
ROOT_SECRET_ACCESS_KEY = "a-secret-that-only-tests-know/+0"
READY_DEADLINE_S = 60
STOP_DEADLINE_S = 30
POLL_INTERVAL_S = 0.05
LOG_TAIL_LINES = 40


class ServerFailed(RuntimeError):
    """`frostbyte up` ended or never became ready; the message carries the end of its log."""


def choose_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def frostbyte_program() -> Path:
    """The console script beside the running interpreter."""
    return Path(sys.executable).with_name("frostbyte")


@contextmanager
def running_frostbyte(
    data: Path, *, certificates: CertificateFiles | None = None, arguments: Sequence[str] = ()
) -> Iterator[Endpoint]:
    """Start `frostbyte up` on `data`, yield its endpoint once it is ready, and stop it.

    The log goes to `data` with `.log` appended. Raises ServerFailed when it does not become ready."""
    port = choose_port()
    command = [str(frostbyte_program()), "up", "--data", str(data), "--listen", f"127.0.0.1:{port}", *arguments]
    if certificates is not None:
        command += ["--tls-cert", str(certificates.certificate), "--tls-key", str(certificates.private_key)]
    scheme = "https" if certificates else "http"
    endpoint = Endpoint(
        url=f"{scheme}://127.0.0.1:{port}",
        access_key_id=ROOT_ACCESS_KEY_ID,
        secret_access_key=ROOT_SECRET_ACCESS_KEY,
        ca_file=certificates.ca if certificates else None,
    )
    environment = os.environ | {
        "FROSTBYTE_ROOT_ACCESS_KEY_ID": ROOT_ACCESS_KEY_ID,
        "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": ROOT_SECRET_ACCESS_KEY,
    }
    log_path = data.with_name(data.name + ".log")
    with log_path.open("ab") as log:
        process = _start(command, environment, log)
        try:
            _wait_until_ready(process, endpoint, log_path)
            yield endpoint
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM and wait; SIGKILL to this one process when it does not end in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)


def is_ready(endpoint: Endpoint) -> bool:
    """Whether GET /-/ready answers 200."""
    connection: http.client.HTTPConnection
    if endpoint.scheme == "https":
        connection = http.client.HTTPSConnection(endpoint.host, timeout=2, context=endpoint.ssl_context())
    else:
        connection = http.client.HTTPConnection(endpoint.host, timeout=2)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start(command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    except OSError as error:
        raise ServerFailed(f"cannot start {command[0]}: {error}") from error


def _wait_until_ready(process: subprocess.Popen[bytes], endpoint: Endpoint, log_path: Path) -> None:
    deadline = time.monotonic() + READY_DEADLINE_S
    while not is_ready(endpoint):
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            what = f"ended with status {ended}" if ended is not None else f"was not ready in {READY_DEADLINE_S} s"
            raise ServerFailed(f"frostbyte up {what}; the end of its log:\n{tail}")
        time.sleep(POLL_INTERVAL_S)
