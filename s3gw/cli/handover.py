"""From the program that prepared everything to the one that only supervises, in the same process (execve(2)).

Preparing takes the command line's libraries, the formats and the keys: 27 MiB that would stay for as long as the server
runs. What is left of it are the lines to say, the stages, and the descriptors. They are told through a file without a
name, in memory, as a stage may name a secret of its children; the environment that follows holds none. Process id,
lock, listening socket and fork server stay what they are. SIGTERM and SIGINT wait while the one has ended and the other
does not listen yet.

In the same way the supervisor, once everything is ready, becomes a program that only waits (sleeper.py), and after that
the supervisor again, which is told the ids of the children that run.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple, NoReturn

import s3gw
from s3gw.cli import describe_os_error, fail, sleeper
from s3gw.cli.forks import ForkServer, inherited_variables
from s3gw.cli.launch import ForkLauncher, launch_program
from s3gw.cli.supervise import TLS_VARIABLE
from s3gw.cli.supervisor import STOP_SIGNALS, Running, Stage, go_on_supervising, run_supervised
from storage.base.errors import FrostbyteError
from storage.base.log import configure_logging

PATH_VARIABLE = "PYTHONPATH"
PYTHON = (sys.executable, "-S", "-P")


class Plan(NamedTuple):
    """Everything that the supervisor knows. It can be pickled: what `ready` of a stage is comes from readiness.py."""

    role: str
    """as the log names it"""
    stages: tuple[Stage, ...]
    drain_timeout_s: float
    lines: tuple[str, ...]
    """said once all stages are ready"""
    fork_server: ForkServer | None = None
    """None where roles are programs of their own"""
    metrics: str = ""
    """a directory of files that goes when everything has ended"""


class _Told(NamedTuple):
    plan: Plan
    environment: dict[str, str]
    running: tuple[Running, ...] = ()
    """empty: nothing was started yet"""


def hand_over(plan: Plan, descriptors: Sequence[int], *, asks_tls: bool) -> NoReturn:
    """Become the supervisor of the plan. descriptors: that stay open beside those of the stages. asks_tls: a readiness
    does. OSError."""
    kept = {*descriptors, *(fd for stage in plan.stages for child in stage.children for fd in child.pass_fds)}
    for descriptor in kept | ({plan.fork_server.requests_fd} if plan.fork_server else set()):
        os.set_inheritable(descriptor, True)
    told = _Told(plan, inherited_variables())
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        _become((), told, {TLS_VARIABLE: "1"} if asks_tls else {}, sys.argv[1:])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _become(waits: Sequence[str], told: _Told, variables: Mapping[str, str], shown: Sequence[str]) -> NoReturn:
    """The supervisor. waits: words of a program that it is only after. shown: for whoever looks at the processes."""
    file = os.memfd_create("plan")
    try:
        os.write(file, pickle.dumps(told))
        os.set_inheritable(file, True)
        supervisor = (*PYTHON, "-m", "s3gw.cli.supervise", "--fd", str(file), *shown)
        packages = ":".join(f"{it}/.." for it in s3gw.__path__)
        sys.stdout.flush()
        command = (*waits, *supervisor)
        os.execve(command[0], command, {**told.environment, **variables, PATH_VARIABLE: packages})  # noqa: S606 - no shell
    finally:
        os.close(file)


def resume(told: int) -> int:
    """What `hand_over` became. told: the descriptor of its plan. → the exit status; what goes wrong is one line on
    stderr and exit status 1."""
    with os.fdopen(told, "rb") as file:
        file.seek(0)
        plan, environment, running = _Told(*pickle.load(file))  # noqa: S301 - this process wrote it
    os.environ.clear()
    os.environ.update(environment)
    configure_logging(plan.role)
    try:
        if running:
            go_on_supervising(plan.stages, plan.drain_timeout_s, running)
        else:
            _supervise(plan, environment)
    except OSError as error:
        fail(describe_os_error(error))
    except FrostbyteError as error:
        fail(str(error))
    finally:
        if plan.metrics:
            _remove(plan.metrics)
    return 0


def _supervise(plan: Plan, environment: dict[str, str]) -> None:
    with ExitStack() as opened:
        forks = (
            opened.enter_context(ForkLauncher(plan.fork_server.command, plan.fork_server)) if plan.fork_server else None
        )

        def on_ready() -> None:
            if forks is not None:
                forks.rest()
            for line in plan.lines:
                print(line, flush=True)

        def rest(running: Sequence[Running]) -> None:
            told = _Told(plan._replace(fork_server=None), environment, tuple(running))
            _become((*PYTHON, sleeper.__file__), told, {}, sys.argv[3:])

        launch = launch_program if forks is None else forks.launch
        run_supervised(plan.stages, plan.drain_timeout_s, on_ready, launch, rest)


def _remove(directory: str) -> None:
    for file in os.scandir(directory):
        os.unlink(file)  # noqa: PTH108 - no pathlib for this alone
    os.rmdir(directory)  # noqa: PTH106
