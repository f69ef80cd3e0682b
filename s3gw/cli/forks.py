"""The fork server as a process of the command line: started first of all, since its imports are what a start waits for.

`frostbyte up` needs as long for its own libraries, its configuration and its data directory as the fork server for the
roles, so that both begin at once, on a processor each. Nothing but subprocess and sockets is imported for that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from storage.base.secret_variables import SECRET_VARIABLES


class ForkServer(NamedTuple):
    """One that runs, for whoever goes on with it in the process that started it."""

    command: tuple[str, ...]
    pid: int
    requests_fd: int


class Started(NamedTuple):
    """One that was started here. process: to be kept for as long as it may run, or subprocess would wait for it."""

    process: subprocess.Popen[bytes]
    requests: socket.socket


_early: list[tuple[tuple[str, ...], Started]] = []
"""at most one"""
_kept: list[Started] = []


def fork_server_command() -> tuple[str, ...]:
    """Without its --fd."""
    return role_command("s3gw.fork_server")


def start_fork_server(command: Sequence[str]) -> Started:
    """command: as fork_server_command. OSError."""
    requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
            (*command, "--fd", str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=inherited_variables(),
            start_new_session=True,
        )
    return Started(process, requests)


def begin_early() -> None:
    """Start one that `take_early` gives, unless this system has none."""
    if can_fork():
        command = fork_server_command()
        _early.append((command, start_fork_server(command)))


def take_early() -> ForkServer | None:
    """The one that was begun; it is the caller's from now on."""
    if not _early:
        return None
    command, started = _early.pop()
    _kept.append(started)
    return ForkServer(command, started.process.pid, started.requests.detach())


def end_early() -> None:
    """The one that was begun and that nobody took."""
    for _, started in _early:
        started.requests.close()
        started.process.kill()
        started.process.wait()
    _early.clear()


def can_fork() -> bool:
    """Whether this system tells of the end of a process that it was not asked to start (pidfd_open(2))."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def role_command(module: str, *arguments: str) -> tuple[str, ...]:
    """How a role is started. A directory `storage` or `cluster` where the command is given, a data directory for
    example, must not be taken for the package of that name; in the source tree that is where the package is."""
    # Without pathlib, which the supervisor does not hold for this alone.
    source_tree = os.path.realpath(f"{__file__}/../../..")
    safe_path = () if source_tree == os.getcwd() else ("-P",)  # noqa: PTH109
    return (sys.executable, *safe_path, "-m", module, *arguments)


def inherited_variables() -> dict[str, str]:
    """The environment without the secrets that an operator may have put there: a child has those that its spec says."""
    return {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
