"""Datanodes for tests: inside a thread, where many tests share one listening socket, and as a real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from storage.base.address import Address, parse_address
from storage.base.internal_auth import access_token
from storage.base.internal_server import TlsFiles, serve
from storage.base.lean_head import LeanHead
from storage.base.lean_protocol import LeanCall, LeanCalls, LeanProtocol
from storage.datanode.client import DatanodeClient

CLUSTER_ID = "c" * 32
NODE_KEY = bytes(range(32))
START_TIMEOUT_S = 60.0


class SharedServer:
    """One internal server in a thread of its own; `app` is what it serves now and may be replaced between tests."""

    def __init__(self, address: str, tls: TlsFiles | None = None) -> None:
        self.app: Any = None
        self.address = parse_address(address)
        self._tls = tls
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(START_TIMEOUT_S)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def run(self, work: Any) -> Any:
        """Run a coroutine on the server's loop and return its result."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def close(self) -> None:
        """Drain and join."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await serve(
            self,
            self.address,
            self._tls,
            on_started=self._note_start,
            stop=self._stop,
            make_protocol=partial(LeanProtocol, self),
        )

    def begin(self, head: LeanHead) -> LeanCall | None:
        """As LeanCalls, of the present app."""
        calls: LeanCalls | None = getattr(self.app, "lean_calls", None)
        return None if calls is None else calls.begin(head)

    def _note_start(self, bound: Address) -> None:
        self.address = bound
        self._started.set()


class NodeProcess(NamedTuple):
    """A running `python -m storage.datanode`."""

    process: subprocess.Popen[bytes]
    """the datanode, or the program that it runs under"""
    pid: int
    """of the datanode itself"""
    address: Address
    data: Path
    log: Path

    def client(self, token: str = "", **options: Any) -> DatanodeClient:
        """A client of it, by default with the right token."""
        return DatanodeClient(self.address, token or access_token(NODE_KEY), **options)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait(START_TIMEOUT_S)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(START_TIMEOUT_S)


def write_config(directory: Path, **fields: Any) -> Path:
    """A config.json that is complete: a Unix socket in `directory`, a node key, no reserve; `fields` change it."""
    document = {
        "listen": f"unix:{directory / 'node.sock'}",
        "cluster_id": CLUSTER_ID,
        "node_key": NODE_KEY.hex(),
        "reserve_bytes": 0,
        **fields,
    }
    path = directory / "config.json"
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))
    return path


def node_command(directory: Path) -> list[str]:
    """As a supervisor starts it."""
    config, data = directory / "config.json", directory / "data"
    return [sys.executable, "-m", "storage.datanode", "--data", str(data), "--config", str(config)]


@contextmanager
def running_node(directory: Path, *, prefix: Sequence[str] = (), **fields: Any) -> Iterator[NodeProcess]:
    """A datanode process over `directory`/data that accepts; ended when the block is left. prefix: a program to run it
    under."""
    write_config(directory, **fields)
    log = directory / "node.log"
    offset = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen([*prefix, *node_command(directory)], stdout=output, stderr=output, env=os.environ)
    pid = process.pid
    try:
        pid, address = _wait_for_start(process, log, offset)
        yield NodeProcess(process, pid, address, directory / "data", log)
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(START_TIMEOUT_S)


def refused_start(directory: Path) -> tuple[int, str]:
    """Start with the config as it lies there; the exit code and what was said. For starts that must fail."""
    done = subprocess.run(node_command(directory), capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    return done.returncode, done.stderr


def _wait_for_start(process: subprocess.Popen[bytes], log: Path, offset: int) -> tuple[int, Address]:
    """The line that says where it serves comes after the socket accepts; it begins with the process's id."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s:
        for line in log.read_bytes()[offset:].decode().splitlines():
            if " serves " in line:
                pid = int(line.partition("[")[2].partition("]")[0])
                return pid, parse_address(line.rpartition(" at ")[2])
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    raise AssertionError(f"never accepted: {log.read_text()}")
