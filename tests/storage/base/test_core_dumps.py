"""No core dumps: what a process that dies leaves of its memory."""

from __future__ import annotations

import subprocess
import sys

DIES = (
    "import os, resource\n"
    "from storage.base.core_dumps import forbid_core_dumps\n"
    "forbid_core_dumps()\n"
    "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
    "os.abort()\n"
)


def test_an_abort_dumps_nothing() -> None:
    """The process dies of its signal (status -6), not of the assertion."""
    assert subprocess.run([sys.executable, "-c", DIES], check=False).returncode == -6
