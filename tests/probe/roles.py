"""Roles that run alone for tests: `frostbyte metadata|master|datanode|gateway`, each from its own config.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.clients.warm_program import warm_program
from tests.probe.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.probe.waiting import wait_until

START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 110.0
NODES_TIMEOUT_S = 60.0
FROSTBYTE = (sys.executable, "-m", "s3gw.cli")
CREDENTIALS = {
    "FROSTBYTE_ROOT_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
}


def run_command(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One `frostbyte …` to its end, in a fork; started by a thread, as that may be on another host (Host.call)."""
    words, variables = [*map(str, arguments)], {**os.environ, **CREDENTIALS, **(environment or {})}
    if threading.current_thread() is threading.main_thread():
        done = warm_program("frostbyte").run(
            ["frostbyte", *words], variables, directory=directory, timeout_s=COMMAND_TIMEOUT_S
        )
    else:
        done = subprocess.run(
            [*FROSTBYTE, *words],
            env=variables,
            cwd=directory,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def succeed(*arguments: str | Path) -> str:
    """What a command that must succeed says."""
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_json(*arguments: str | Path) -> Any:
    """What a command says with --json."""
    return json.loads(succeed(*arguments, "--json"))


def wait_for_nodes(data: Path, count: int) -> None:
    """Until so many datanodes are up: a server is ready as soon as there are enough for one write."""

    def are_up() -> bool:
        return [node["state"] for node in load_json("node", "list", "--data", data)] == ["up"] * count

    wait_until(are_up, NODES_TIMEOUT_S, f"having {count} nodes up")


@contextmanager
def running_role(
    log: Path,
    ready: str,
    *arguments: str | Path,
    program: Sequence[str | Path] = FROSTBYTE,
    directory: Path | None = None,
    with_credentials: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """`frostbyte …`, waited for until its log says that it is ready; killed when the block is left."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*program, *map(str, arguments)],
            env={**os.environ, **CREDENTIALS} if with_credentials else None,
            stdout=output,
            stderr=output,
            cwd=directory,
        )
    try:
        end_s = time.monotonic() + START_TIMEOUT_S
        while ready not in log.read_text():
            assert process.poll() is None and time.monotonic() < end_s, log.read_text()
            time.sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(START_TIMEOUT_S)
