"""The program that waits until there is something to do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from s3gw.cli import sleeper

WAIT_S = 60.0
SLEEPS = """
import os, signal, subprocess, sys
from s3gw.cli.sleeper import WAKE_SIGNALS

signal.pthread_sigmask(signal.SIG_BLOCK, WAKE_SIGNALS)
child = subprocess.Popen(("sleep", sys.argv[2]))
print(child.pid, flush=True)
os.execv(sys.executable, (sys.executable, "-S", "-P", sys.argv[1], sys.executable, "-c", sys.argv[3]))
"""
TELLS = """
import os, signal
pending = sorted(int(number) for number in signal.sigpending())
pid, status = os.waitpid(-1, os.WNOHANG)
print(pending, bool(pid), flush=True)
os.killpg(0, signal.SIGKILL)
"""


def sleep(child_s: float) -> subprocess.Popen[str]:
    """A process with a child that lives for so long; it sleeps, and tells at last what woke it."""
    return subprocess.Popen(
        (sys.executable, "-c", SLEEPS, str(sleeper.__file__), str(child_s), TELLS),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_left_for_the_command(number: signal.Signals) -> None:
    """It waits until the command listens to it."""
    process = sleep(WAIT_S)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate(timeout=WAIT_S)[0] == f"[{int(number)}] False\n"


def test_the_end_of_a_child_is_left_for_the_command() -> None:
    """Also when it comes before the program waits for it."""
    process = sleep(0.0)
    assert process.stdout is not None
    process.stdout.readline()
    assert process.communicate(timeout=WAIT_S)[0] == "[] True\n"
