"""One parent for all processes of a machine: starts them in stages, restarts what crashes, stops them in reverse.

A child that dies is started again after a pause that doubles with every early death, so that a broken role cannot
spin. Children are told by the kernel when the parent is gone (prctl PR_SET_PDEATHSIG on Linux), so that a killed
supervisor leaves no orphan holding the port, the sockets or the metadata lock.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

log = logging.getLogger(__name__)

RESTART_PAUSE_MIN_S = 0.2
RESTART_PAUSE_MAX_S = 10.0
HEALTHY_AFTER_S = 30.0
KILL_WAIT_S = 5.0
_PR_SET_PDEATHSIG = 1

if sys.platform == "linux":
    _libc = ctypes.CDLL(None)

    def _die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
else:  # pragma: no cover - other systems have no such call; there a killed parent leaves its children running

    def _die_with_parent() -> None:
        return None


class ChildSpec(NamedTuple):
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    pass_fds: tuple[int, ...] = ()


class Stage(NamedTuple):
    """Children started together; `ready` returns once the next stage may start."""

    children: tuple[ChildSpec, ...]
    ready: Callable[[], Awaitable[None]] | None = None


class Supervisor:
    """Runs stages of children until stopped."""

    def __init__(self, stages: Sequence[Stage], drain_timeout_s: float) -> None:
        self._stages = stages
        self._drain_timeout_s = drain_timeout_s
        self._keepers: list[list[_Keeper]] = []

    async def start(self) -> None:
        """Start every stage in turn."""
        for stage in self._stages:
            keepers = [_Keeper(spec) for spec in stage.children]
            self._keepers.append(keepers)
            for keeper in keepers:
                await keeper.start()
            if stage.ready is not None:
                await stage.ready()

    async def stop(self) -> None:
        """SIGTERM stage by stage, last stage first; SIGKILL for what has not drained in time."""
        for keepers in reversed(self._keepers):
            await asyncio.gather(*(keeper.stop(self._drain_timeout_s) for keeper in keepers))


class _Keeper:
    """Keeps one child alive."""

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._stopping = False
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process = await self._spawn()
        self._task = asyncio.create_task(self._keep(self._process), name=f"keep {self._spec.name}")

    async def stop(self, drain_timeout_s: float) -> None:
        self._stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), drain_timeout_s)
            except TimeoutError:
                log.warning("%s did not drain in %g s and is killed", self._spec.name, drain_timeout_s)
                with suppress(ProcessLookupError):
                    process.kill()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_WAIT_S)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._spec.argv,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=self._spec.pass_fds,
            preexec_fn=_die_with_parent,
            start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which then stops them in order
        )

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        pause_s = RESTART_PAUSE_MIN_S
        while True:
            began_s = loop.time()
            code = await process.wait()
            if self._stopping:
                return
            if loop.time() - began_s > HEALTHY_AFTER_S:
                pause_s = RESTART_PAUSE_MIN_S
            log.warning("%s ended with status %s; starting it again in %g s", self._spec.name, code, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_PAUSE_MAX_S)
            process = self._process = await self._spawn()
