"""Both ways of starting a child, over real processes: what it is given, and what it is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3gw.cli import launch as launch_module
from s3gw.cli.forks import role_command
from s3gw.cli.launch import ChildSpec, ForkLauncher, Launch, launch_program
from s3gw.cli.roles import open_forks

TELLS = """
import json, os, signal, sys
told = {
    "pid": os.getpid(),
    "parent": os.getppid(),
    "session": os.getsid(0),
    "stdin": os.readlink("/proc/self/fd/0"),
    "open": {fd: os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")},
    "environment": dict(os.environ),
    "ignored": [int(it) for it in signal.Signals if signal.getsignal(it) is signal.SIG_IGN],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
}
with open(sys.argv[1] + "+", "w") as file:
    json.dump(told, file)
os.replace(sys.argv[1] + "+", sys.argv[1])
"""
SLEEPS = "import time; time.sleep(60)"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkLauncher]:
    """One fork server for all tests."""
    with ForkLauncher(role_command("s3gw.fork_server")) as launcher:
        yield launcher


@pytest.fixture(params=["a program", "forked"])
def launch(request: pytest.FixtureRequest) -> Launch:
    """Either way."""
    if request.param == "a program":
        return launch_program
    forks: ForkLauncher = request.getfixturevalue("forks")
    return forks.launch


def python(code: str, *arguments: str, **more: Any) -> ChildSpec:
    """A child that runs a line of Python."""
    return ChildSpec("child", (sys.executable, "-c", code, *arguments), **more)


async def test_what_a_child_is_given(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of its own under the supervisor, no standard input, the descriptors of its spec under the same numbers
    and no others, and the environment without the secrets that are not its own."""
    monkeypatch.setenv("FROSTBYTE_MASTER_KEY", "of the supervisor")
    monkeypatch.setenv("FROSTBYTE_ROOT_SECRET_ACCESS_KEY", "of the supervisor")
    first, second = ((tmp_path / name).open("w") for name in ("first", "second"))
    with first, second:
        numbers = (second.fileno(), first.fileno())
        variables = (("FROSTBYTE_MASTER_KEY", "its own"), ("SPACED", "a b"))
        child = await launch(python(TELLS, str(tmp_path / "told"), pass_fds=numbers, variables=variables))
        assert await asyncio.wait_for(child.wait(), WAIT_S) == 0
    told = json.loads((tmp_path / "told").read_text())
    assert told["parent"] == os.getpid()
    assert told["session"] == told["pid"] != os.getsid(0)
    assert told["stdin"] == "/dev/null"
    beyond = {int(fd): path for fd, path in told["open"].items() if int(fd) > 2 and not path.startswith("/proc/")}
    assert beyond == {numbers[0]: str(tmp_path / "second"), numbers[1]: str(tmp_path / "first")}
    assert told["environment"]["FROSTBYTE_MASTER_KEY"] == "its own"
    assert told["environment"]["SPACED"] == "a b"
    assert "FROSTBYTE_ROOT_SECRET_ACCESS_KEY" not in told["environment"]
    assert told["blocked"] == []
    assert signal.SIGTERM not in told["ignored"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_a_child(launch: Launch, number: signal.Signals) -> None:
    """By a signal, and by itself with a status; who has ended takes no signal."""
    child = await launch(python(SLEEPS))
    assert child.returncode is None
    child.send_signal(number)
    assert await asyncio.wait_for(child.wait(), WAIT_S) == -number
    assert child.returncode == -number
    with pytest.raises(ProcessLookupError):
        child.send_signal(number)
    exits = await launch(python("raise SystemExit(7)"))
    assert await asyncio.wait_for(exits.wait(), WAIT_S) == 7


async def test_a_role_is_forked_and_shown_as_if_it_were_started(
    forks: ForkLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command line and environment are what ps and operators look for; nothing tells that it was not executed."""
    monkeypatch.chdir(tmp_path)
    command = role_command("storage.metadata", "--data", str(tmp_path / "a b"), "--socket", str(tmp_path / "socket"))
    child = await forks.launch(ChildSpec("metadata", command, variables=(("MARK", "x y"),)))
    try:
        async with asyncio.timeout(WAIT_S):
            while not (tmp_path / "socket").exists():
                await asyncio.sleep(0.02)
        proc = Path(f"/proc/{child.pid}")
        assert (proc / "cmdline").read_bytes() == "\0".join((*command, "")).encode()
        environment = (proc / "environ").read_bytes().split(b"\0")
        assert b"MARK=x y" in environment
        assert f"PATH={os.environ['PATH']}".encode() in environment
    finally:
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), WAIT_S) == 0


async def test_a_role_that_refuses_its_arguments(forks: ForkLauncher, tmp_path: Path) -> None:
    """It ends with the role's own status, and the fork server lives on."""
    missing = str(tmp_path / "missing.json")
    for module, status in (("storage.datanode", 2), ("cluster", 1)):
        more = ("--data", str(tmp_path)) if module == "storage.datanode" else ()
        child = await forks.launch(ChildSpec("role", role_command(module, "--config", missing, *more)))
        assert await asyncio.wait_for(child.wait(), WAIT_S) == status


async def test_a_killed_fork_server_is_started_again(forks: ForkLauncher) -> None:
    """Its children live on, and the next one is forked by a new one."""
    before = await forks.launch(python(SLEEPS))
    os.kill(forks.server_pid, signal.SIGKILL)
    after = await forks.launch(python(SLEEPS))
    assert before.returncode is None
    for child in (before, after):
        child.send_signal(signal.SIGKILL)
        assert await asyncio.wait_for(child.wait(), WAIT_S) == -signal.SIGKILL


async def test_a_fork_server_at_rest() -> None:
    """It has ended, its children live on, and a next one is a program of its own."""
    with ForkLauncher(role_command("s3gw.fork_server")) as launcher:
        before = await launcher.launch(python(SLEEPS))
        launcher.rest()
        assert not Path(f"/proc/{launcher.server_pid}").exists()
        assert before.returncode is None
        after = await launcher.launch(python(SLEEPS))
        assert not Path(f"/proc/{launcher.server_pid}").exists()
        for child in (before, after):
            child.send_signal(signal.SIGKILL)
            assert await asyncio.wait_for(child.wait(), WAIT_S) == -signal.SIGKILL


async def test_a_fork_server_that_another_program_started() -> None:
    """In this process: it is gone on with, and its end is noticed."""
    with ForkLauncher(role_command("s3gw.fork_server")) as started:
        server = started.server
        handed = server._replace(requests_fd=os.dup(server.requests_fd))
        with ForkLauncher(handed.command, handed) as adopting:
            assert adopting.server_pid == server.pid
            for is_alive in (True, False):
                child = await adopting.launch(python(SLEEPS))
                child.send_signal(signal.SIGKILL)
                assert await asyncio.wait_for(child.wait(), WAIT_S) == -signal.SIGKILL
                assert (adopting.server_pid == server.pid) == is_alive
                if is_alive:
                    os.kill(server.pid, signal.SIGKILL)


async def test_a_fork_server_that_cannot_start() -> None:
    """An OSError in a line, not a wait for ever."""
    with ForkLauncher((sys.executable, "-c", "raise SystemExit(3)")) as broken:
        with pytest.raises(OSError, match="the fork server forks nothing"):
            await broken.launch(python(SLEEPS))


async def test_a_stopped_fork_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline."""
    monkeypatch.setattr(launch_module, "LAUNCH_TIMEOUT_S", 0.1)
    with ForkLauncher((sys.executable, "-c", SLEEPS)) as deaf:
        with pytest.raises(OSError, match="the fork server forks nothing"):
            await deaf.launch(python(SLEEPS))


async def test_a_launch_that_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    """What was forked for it finds nobody to ask, and ends without a word; the next one is served."""
    with ForkLauncher(role_command("s3gw.fork_server")) as forks:
        os.kill(forks.server_pid, signal.SIGSTOP)
        launching = asyncio.create_task(forks.launch(python(SLEEPS)))
        await asyncio.sleep(0)  # until it waits for an answer
        launching.cancel()
        await asyncio.wait((launching,))
        os.kill(forks.server_pid, signal.SIGCONT)
        child = await forks.launch(python("import time; time.sleep(0.5)"))
        assert await asyncio.wait_for(child.wait(), WAIT_S) == 0
    assert capfd.readouterr().err == ""


async def test_a_system_that_tells_of_no_strange_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roles are programs of their own there."""

    def refuse(pid: int) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with open_forks() as forks:
        assert forks is None
