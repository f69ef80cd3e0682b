"""The fork server that is begun before anything else of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3gw.cli import forks
from s3gw.cli.roles import open_forks

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Whatever a test leaves."""
    yield
    forks.end_early()


def is_there(pid: int) -> bool:
    """Whether a child of this process runs."""
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


def test_the_one_that_was_begun_is_gone_on_with() -> None:
    """By who opens forks first; then it is ended by them, not as one that nobody wanted."""
    forks.begin_early()
    ((_, started),) = forks._early
    with open_forks() as first, open_forks() as second:
        assert first is not None
        assert second is not None
        assert first.server_pid == started.process.pid != second.server_pid
        forks.end_early()
        assert is_there(first.server_pid)
        assert first.server.command == forks.fork_server_command()


def test_one_that_nobody_takes_is_ended() -> None:
    """With nothing left to wait for."""
    forks.begin_early()
    ((_, started),) = forks._early
    forks.end_early()
    assert started.process.returncode is not None
    assert forks.take_early() is None


@pytest.mark.parametrize(("arguments", "is_begun"), [(("up", "--help"), True), (("--help",), False)])
def test_only_up_begins_one(arguments: tuple[str, ...], is_begun: bool) -> None:
    """And ends it when there is nothing to fork."""
    program = (
        "import sys\n"
        "from s3gw.cli import forks, main\n"
        "begun = []\n"
        "start = forks.start_fork_server\n"
        "def start_and_tell(command):\n"
        "    begun.append(start(command))\n"
        "    return begun[-1]\n"
        "forks.start_fork_server = start_and_tell\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print([it.process.returncode for it in begun], file=sys.stderr)\n"
    )
    command = (sys.executable, "-c", program, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert done.stderr == ("[-9]\n" if is_begun else "[]\n")
