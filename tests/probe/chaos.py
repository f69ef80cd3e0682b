"""What is done to a running server beneath its clients: kills, pairs of kills, stalls, restarts, in a random order."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from tests.probe.server import ROLE_MODULES, Server

ROLES = tuple(ROLE_MODULES)
STALL_S_MAX = 4.5
"""beyond the lease of the probe's servers, so that a stalled gateway is fenced"""


class Chaos:
    """Random trouble from a seed; every step ends with a server that is ready again."""

    def __init__(self, server: Server, seed: int) -> None:
        self.steps: list[str] = []
        self._server = server
        self._random = random.Random(seed)
        self._kinds: list[Callable[[], str]] = [
            self.kill_one,
            self.kill_one,
            self.kill_twice,
            self.kill_two,
            self.kill_two,
            self.stall,
            self.stall,
            self.stall_and_kill,
            self.kill_supervisor,
            self.kill_everything,
            self.restart,
        ]
        self._left: list[Callable[[], str]] = []

    def step(self) -> str:
        """One kind of trouble, each as often as the others; what it was."""
        if not self._left:
            self._left = self._random.sample(self._kinds, len(self._kinds))
        told = self._left.pop()()
        self.steps.append(told)
        self._server.wait_ready()
        return told

    def kill_one(self) -> str:
        """kill -9 of one process."""
        role = self._random.choice(ROLES)
        self._signal(role, signal.SIGKILL)
        return f"kill {role}"

    def kill_twice(self) -> str:
        """Of one role again while it starts."""
        role = self._random.choice(ROLES)
        self._signal(role, signal.SIGKILL)
        pause_s = self._random.uniform(0, 1.5)
        time.sleep(pause_s)
        self._signal(role, signal.SIGKILL)
        return f"kill {role} twice, {pause_s:.2f} s apart"

    def kill_two(self) -> str:
        """Two different roles in the same moment."""
        roles = self._random.sample(ROLES, 2)
        for role in roles:
            self._signal(role, signal.SIGKILL)
        return f"kill {roles[0]} and {roles[1]}"

    def stall(self) -> str:
        """SIGSTOP, SIGCONT."""
        role = self._random.choice(ROLES)
        pause_s = self._random.uniform(0.1, STALL_S_MAX)
        pid = self._signal(role, signal.SIGSTOP)
        time.sleep(pause_s)
        _send(pid, signal.SIGCONT)
        return f"stall {role} for {pause_s:.2f} s"

    def stall_and_kill(self) -> str:
        """Another role dies while one is stalled."""
        stalled, killed = self._random.sample(ROLES, 2)
        pid = self._signal(stalled, signal.SIGSTOP)
        self._signal(killed, signal.SIGKILL)
        time.sleep(self._random.uniform(0.1, STALL_S_MAX))
        _send(pid, signal.SIGCONT)
        return f"stall {stalled}, kill {killed}"

    def kill_supervisor(self) -> str:
        """Its children end by themselves; a new one starts at once."""
        self._server.kill_supervisor()
        self._server.start()
        return "kill the supervisor"

    def kill_everything(self) -> str:
        """As a power cut does to processes."""
        self._server.kill_everything()
        self._server.start()
        return "kill everything"

    def restart(self) -> str:
        """SIGTERM; what is under way is answered."""
        status = self._server.stop()
        assert status == 0, f"a stop ended with status {status}"
        self._server.start()
        return "restart"

    def _signal(self, role: str, number: signal.Signals) -> int:
        """To a random process of the role; 0 when there is none at the moment."""
        pids = self._server.pids(role)
        pid = self._random.choice(pids) if pids else 0
        _send(pid, number)
        return pid


def _send(pid: int, number: signal.Signals) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
