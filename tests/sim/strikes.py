"""Waits for calls of one kind, and strikes their caller or their callee down right before or after they are served."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.sim.loop import Process, VirtualLoop

STRUCK = (
    "PUT",
    "/pull",
    "/rebuild",
    "/verify",
    "batch/delete",
    "batch/quarantine",
    "batch/inspect",
    "inventory",
    "heartbeat",
    "CommitVersion",
    "PutPart",
    "CompleteUpload",
    "DeleteVersions",
    "ReleaseBlobs",
    "ForgetBlobs",
    "SetReplicas",
    "Relayout",
    "FenceSessions",
    "SetNodeState",
    "SetNodeClosed",
    "AcquireMasterLease",
)
STRIKE_WAITS_S = 20.0


class Strike(NamedTuple):
    """Waits for a call; then its caller or its callee is stopped or killed, before it is served or is answered."""

    label: str
    phase: str
    of_caller: bool
    how: str
    until_s: float


class Strikes:
    """Those that wait. strike: called with the process, what it was struck at, and how: stop, kill or power."""

    def __init__(
        self, loop: VirtualLoop, generator: random.Random, strike: Callable[[Process, str, str], None]
    ) -> None:
        self._loop = loop
        self._random = generator
        self._strike = strike
        self._waiting: list[Strike] = []

    def arm(self) -> str:
        """One more; what it waits for."""
        label = self._random.choice(STRUCK)
        phase = self._random.choice(("delivered", "served"))
        how = self._random.choice(("stop", "kill", "power"))
        until_s = self._loop.time() + STRIKE_WAITS_S
        strike = Strike(label, phase, self._random.random() < 0.5, how, until_s)
        self._waiting.append(strike)
        return f"{'caller' if strike.of_caller else 'callee'} of the next {label} that is {phase}: {how}"

    def look(self, phase: str, label: str, caller: Process, callee: Process) -> None:
        """A call was delivered or served."""
        now_s = self._loop.time()
        for strike in self._waiting:
            if phase == strike.phase and strike.label in label and now_s < strike.until_s:
                self._waiting.remove(strike)
                self._strike(caller if strike.of_caller else callee, f"{label} {phase}", strike.how)
                return
