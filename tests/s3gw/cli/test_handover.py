"""A process that prepares, and goes on as the program that only supervises."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 60.0
PREPARES = """
import json, os, sys
from s3gw.cli.handover import Plan, hand_over
from s3gw.cli.launch import ChildSpec, ForkLauncher
from s3gw.cli.roles import open_forks
from s3gw.cli.supervisor import Stage

said = json.loads(sys.argv[1])
kept, given = (os.open(said["file"], os.O_RDONLY) for _ in range(2))
command = (sys.executable, "-c", said["child"], said["told"], str(given))
child = ChildSpec("child", command, (given,), (("FROSTBYTE_MASTER_KEY", "of the child"),))
with open_forks() as forks:
    server = forks.server if said["forks"] else None
    plan = Plan("tests", (Stage((child,)),), 20.0, (f"kept {kept}",), server, said["metrics"])
    hand_over(plan, (kept,), asks_tls=said["tls"])
"""
TELLS = """
import json, os, sys, time
told = {"pid": os.getpid(), "parent": os.getppid(), "environment": dict(os.environ)}
told["given"] = os.readlink(f"/proc/self/fd/{sys.argv[2]}")
open(sys.argv[1] + "+", "w").write(json.dumps(told))
os.replace(sys.argv[1] + "+", sys.argv[1])
time.sleep(60)
"""


async def prepare(tmp_path: Path, child: str, *, forks: bool = False, tls: bool = False) -> asyncio.subprocess.Process:
    """A process that hands over to a supervisor of one child, which is told where to say what it knows."""
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter.db").write_text("7")
    (tmp_path / "file").write_text("x")
    said = {
        "file": str(tmp_path / "file"),
        "told": str(tmp_path / "told"),
        "metrics": str(tmp_path / "metrics"),
        "child": child,
        "forks": forks,
        "tls": tls,
    }
    secrets = {"FROSTBYTE_MASTER_KEY": "of the parent", "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": "of the parent"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PREPARES, json.dumps(said)),
        env={**os.environ, "PYTHONPATH": str(ROOT), **secrets},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def is_asleep(pid: int) -> bool:
    """Whether it is the program that waits for something to do."""
    return b"sleeper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("forks", [False, True])
@pytest.mark.parametrize("tls", [False, True])
async def test_the_same_process_goes_on(tmp_path: Path, forks: bool, tls: bool) -> None:
    """With the descriptors that it was told to keep, none of the operator's secrets but those of a child's spec, and
    without OpenSSL unless it is asked for; where children are forked it sleeps by then. SIGTERM stops in order; the
    directory of counters goes."""
    process = await prepare(tmp_path, TELLS, forks=forks, tls=tls)
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        line = (await process.stdout.readline()).decode().split()
        while not (tmp_path / "told").exists() or is_asleep(process.pid) != forks:
            await asyncio.sleep(0.02)
    proc = Path(f"/proc/{process.pid}")
    assert line[0] == "kept"
    assert (proc / "fd" / line[1]).resolve() == tmp_path / "file"
    assert b"s3gw.cli.supervise" in (proc / "cmdline").read_bytes()
    assert b"of the parent" not in (proc / "environ").read_bytes()
    assert ("libssl" in (proc / "maps").read_text()) == (tls and not forks)
    told = json.loads((tmp_path / "told").read_text())
    assert told["parent"] == process.pid
    assert told["given"] == str(tmp_path / "file")
    assert told["environment"]["FROSTBYTE_MASTER_KEY"] == "of the child"
    assert told["environment"]["PYTHONPATH"] == str(ROOT)
    assert "FROSTBYTE_ROOT_SECRET_ACCESS_KEY" not in told["environment"]
    assert not any("TLS" in name for name in told["environment"])
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert not (tmp_path / "metrics").exists()


async def test_a_child_that_cannot_start(tmp_path: Path) -> None:
    """One line on stderr after what was logged, and exit status 1."""
    process = await prepare(tmp_path, "raise SystemExit(3)")
    async with asyncio.timeout(WAIT_S):
        _, errors = await process.communicate()
    assert process.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("frostbyte: child cannot start: it ended 5 times at once, the last time with status 3")
    assert not (tmp_path / "metrics").exists()


async def test_a_child_that_ends_wakes_the_supervisor(tmp_path: Path) -> None:
    """One that is only stopped does not. The next one is a program of its own, has the same parent, descriptor and
    secrets, and ends with it."""
    process = await prepare(tmp_path, TELLS, forks=True)
    assert process.stderr is not None
    async with asyncio.timeout(WAIT_S):
        while not (tmp_path / "told").exists() or not is_asleep(process.pid):
            await asyncio.sleep(0.02)
    first = json.loads((tmp_path / "told").read_text())
    os.kill(first["pid"], signal.SIGSTOP)
    os.kill(first["pid"], signal.SIGCONT)
    await asyncio.sleep(0.2)
    assert is_asleep(process.pid)
    (tmp_path / "told").unlink()
    os.kill(first["pid"], signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while not (tmp_path / "told").exists():
            await asyncio.sleep(0.02)
    second = json.loads((tmp_path / "told").read_text())
    assert not is_asleep(process.pid)
    assert second["pid"] != first["pid"]
    assert {**second, "pid": 0} == {**first, "pid": 0}
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        _, errors = await process.communicate()
    assert process.returncode == 0
    assert errors.decode().count("child ended with status -9; starting it again") == 1
    assert not Path(f"/proc/{second['pid']}").exists()


async def test_a_killed_sleeper_takes_its_children_with_it(tmp_path: Path) -> None:
    """As a killed supervisor does."""
    process = await prepare(tmp_path, TELLS, forks=True)
    async with asyncio.timeout(WAIT_S):
        while not (tmp_path / "told").exists() or not is_asleep(process.pid):
            await asyncio.sleep(0.02)
    child = json.loads((tmp_path / "told").read_text())["pid"]
    process.kill()
    async with asyncio.timeout(WAIT_S):
        await process.communicate()
        while Path(f"/proc/{child}").exists() and b"State:\tZ" not in Path(f"/proc/{child}/status").read_bytes():
            await asyncio.sleep(0.02)
