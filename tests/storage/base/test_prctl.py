"""What the kernel shows of a process that says so itself, and whose end it shares, in real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no prctl(2)")

SHOWS = (
    "import os, sys\n"
    "from storage.base.prctl import show_arguments\n"
    "print(show_arguments(sys.argv[1:], {'NAME': 'a value', 'EMPTY': ''}), flush=True)\n"
    "print(os.environ['HOME'], flush=True)\n"
    "input()"
)


def test_shown_arguments_and_environment() -> None:
    """Exactly as of a process that was started with them, of whatever length, spaces and bytes included; what the
    process itself knows of its environment stays."""
    arguments = ["python", "-m", "role", "--data", "/a directory", "", "\udcff", "long" * 4096]
    process = subprocess.Popen(
        [sys.executable, "-c", SHOWS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"HOME": "/nowhere", "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        assert process.stdout.readline() == "True\n"
        assert process.stdout.readline() == "/nowhere\n"
        proc = Path(f"/proc/{process.pid}")
        shown = (proc / "cmdline").read_bytes()
        assert shown == b"".join(it.encode(errors="surrogateescape") + b"\0" for it in arguments)
        assert (proc / "environ").read_bytes() == b"NAME=a value\0EMPTY=\0"
        process.stdin.write("\n")
