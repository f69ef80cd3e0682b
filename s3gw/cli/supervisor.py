"""One parent for all processes of a machine: starts them in stages, restarts what crashes, stops them in reverse.

A child that dies is started again after a pause that doubles with every early death, so that a broken role cannot
spin. A child that has never lived for LIVED_S and dies START_FAILURES_MAX times cannot work as it is configured: the
supervisor gives up then, and says which one. Children are killed by the kernel when the parent is gone (prctl
PR_SET_PDEATHSIG on Linux), so that a killed supervisor leaves no orphan holding the port, the sockets or the metadata
lock against the next start; being killed loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from s3gw.cli.launch import Child, ChildSpec, ForkedChild, Launch, launch_program
from s3gw.cli.sleeper import WAKE_SIGNALS
from storage.base.errors import FrostbyteError

log = logging.getLogger(__name__)

RESTART_PAUSE_MIN_S = 0.2
RESTART_PAUSE_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
LIVED_S = 5.0
"""a child that ran for this long has started"""
START_FAILURES_MAX = 5
KILL_WAIT_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
TURNS_UNTIL_SEEN = 3
"""of the event loop, after which it has acted on what had come before them"""


class StartFailed(FrostbyteError):
    """A child cannot be started, however often it is tried; the text is one line for a person."""


Ready = Callable[[], Awaitable[None]]


class Stage(NamedTuple):
    """Children started together; `ready` returns once the next stage may start."""

    children: tuple[ChildSpec, ...]
    ready: Ready | None = None


class Running(NamedTuple):
    """A child that runs and was never started again, for another program in this process."""

    pid: int
    began_s: float
    """by the monotonic clock"""


Rest = Callable[[Sequence[Running]], None]
"""becomes a program that only waits, with the children of all stages, in order; returns only by OSError"""


class Supervisor:
    """Runs stages of children until stopped. Made and used on one event loop."""

    def __init__(self, stages: Sequence[Stage], drain_timeout_s: float, launch: Launch = launch_program) -> None:
        self._stages = stages
        self._drain_timeout_s = drain_timeout_s
        self._launch = launch
        self._keepers: list[list[_Keeper]] = []
        self._gave_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Start every stage in turn."""
        for stage in self._stages:
            keepers = [_Keeper(spec, self._launch, self._give_up) for spec in stage.children]
            self._keepers.append(keepers)
            for keeper in keepers:
                await keeper.start()
            if stage.ready is not None:
                await stage.ready()

    def go_on(self, running: Sequence[Running]) -> None:
        """Instead of `start`: all of them run, by `running` of another supervisor of this process."""
        following = iter(running)
        for stage in self._stages:
            keepers = [_Keeper(spec, self._launch, self._give_up) for spec in stage.children]
            self._keepers.append(keepers)
            for keeper in keepers:
                keeper.go_on(next(following))

    def running(self) -> list[Running] | None:
        """All children; None when one was started again, or as a program, or does not run."""
        found = [keeper.running() for keepers in self._keepers for keeper in keepers]
        children = [child for child in found if child is not None]
        return children if len(children) == len(found) else None

    async def failed(self) -> None:
        """Wait until a child cannot be started: StartFailed. Never returns otherwise."""
        raise StartFailed(await asyncio.shield(self._gave_up))

    async def stop(self) -> None:
        """SIGTERM stage by stage, last stage first; SIGKILL for what has not drained in time."""
        for keepers in reversed(self._keepers):
            await asyncio.gather(*(keeper.stop(self._drain_timeout_s) for keeper in keepers))

    def kill(self) -> None:
        """SIGKILL everything now: for who cannot wait for `stop`, which then returns soon."""
        for keepers in self._keepers:
            for keeper in keepers:
                keeper.kill()

    def _give_up(self, reason: str) -> None:
        if not self._gave_up.done():
            self._gave_up.set_result(reason)


def run_supervised(
    stages: Sequence[Stage],
    drain_timeout_s: float,
    on_ready: Callable[[], None],
    launch: Launch = launch_program,
    rest: Rest | None = None,
) -> None:
    """Start, call on_ready, and run until SIGTERM or SIGINT; a second one kills at once. rest: after on_ready, where
    that is possible. StartFailed, OSError."""

    async def run() -> None:
        supervisor = Supervisor(stages, drain_timeout_s, launch)
        await _run_until_asked(supervisor, supervisor.start(), on_ready, rest)

    asyncio.run(run())


def go_on_supervising(stages: Sequence[Stage], drain_timeout_s: float, running: Sequence[Running]) -> None:
    """What `run_supervised` does once it is ready, for children that run. StartFailed."""

    async def run() -> None:
        supervisor = Supervisor(stages, drain_timeout_s)
        supervisor.go_on(running)
        await _run_until_asked(supervisor, asyncio.sleep(0), lambda: None, None)

    asyncio.run(run())


async def _run_until_asked(
    supervisor: Supervisor, start: Coroutine[Any, Any, None], on_ready: Callable[[], None], rest: Rest | None
) -> None:
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            log.warning("asked to stop twice: killing what has not ended")
            supervisor.kill()
        asked.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKE_SIGNALS)  # blocked since this process was another program
    starting = asyncio.create_task(start)
    stopping = asyncio.create_task(asked.wait())
    failing = asyncio.create_task(supervisor.failed())
    try:
        await asyncio.wait((starting, stopping, failing), return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not stopping.done():
            starting.result()
            on_ready()
            if rest is not None:
                await _rest(supervisor, asked, rest)
            await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        for task in (starting, stopping, failing):
            task.cancel()
        await asyncio.wait((starting, stopping, failing))
        await supervisor.stop()


async def _rest(supervisor: Supervisor, asked: asyncio.Event, rest: Rest) -> None:
    """Unless there is something to do. What comes from now on waits for the program that waits for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKE_SIGNALS)
    try:
        for _ in range(TURNS_UNTIL_SEEN):
            await asyncio.sleep(0)
        running = supervisor.running()
        if running is not None and not asked.is_set():
            rest(running)
    except OSError as error:
        log.warning("the supervisor stays as large as it is: %s", error)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKE_SIGNALS)


class _Keeper:
    """Keeps one child alive."""

    def __init__(self, spec: ChildSpec, launch: Launch, give_up: Callable[[str], None]) -> None:
        self._spec = spec
        self._launch = launch
        self._give_up = give_up
        self._stopping = False
        self._process: Child | None = None
        self._began_s = 0.0
        self._was_started_again = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._keep(await self._launch(self._spec), time.monotonic())

    def go_on(self, running: Running) -> None:
        self._keep(ForkedChild(running.pid), running.began_s)

    def running(self) -> Running | None:
        process = self._process
        if self._was_started_again or not isinstance(process, ForkedChild) or process.returncode is not None:
            return None
        return Running(process.pid, self._began_s)

    async def stop(self, drain_timeout_s: float) -> None:
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), drain_timeout_s)
            except TimeoutError:
                log.warning("%s did not drain in %g s and is killed", self._spec.name, drain_timeout_s)
                self.kill()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_WAIT_S)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def _keep(self, process: Child, began_s: float) -> None:
        self._process, self._began_s = process, began_s
        self._task = asyncio.create_task(self._keep_running(process), name=f"keep {self._spec.name}")

    async def _keep_running(self, process: Child) -> None:
        pause_s = RESTART_PAUSE_MIN_S
        deaths_at_start: int | None = 0
        while True:
            code = await process.wait()
            if self._stopping:
                return
            lived_s = time.monotonic() - self._began_s
            if lived_s > HEALTHY_AFTER_S:
                pause_s = RESTART_PAUSE_MIN_S
            deaths_at_start = None if deaths_at_start is None or lived_s > LIVED_S else deaths_at_start + 1
            if deaths_at_start == START_FAILURES_MAX:
                self._give_up(
                    f"{self._spec.name} cannot start: it ended {START_FAILURES_MAX} times at once, the last time with"
                    f" status {code}; what it logged says why"
                )
                return
            log.warning("%s ended with status %s; starting it again in %g s", self._spec.name, code, pause_s)
            process, pause_s = await self._start_again(pause_s)

    async def _start_again(self, pause_s: float) -> tuple[Child, float]:
        """→ the new child, and for how long to pause before the next one."""
        self._was_started_again = True
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_PAUSE_MAX_S)
            try:
                self._process = await self._launch(self._spec)
            except OSError as error:
                log.warning("%s cannot be started for now: %s; trying again in %g s", self._spec.name, error, pause_s)
            else:
                self._began_s = time.monotonic()
                return self._process, pause_s
