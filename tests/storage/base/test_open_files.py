"""The limit of open files is lifted as far as the system allows."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from storage.base.open_files import raise_open_files_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
assert raise_open_files_limit() == hard == raise_open_files_limit()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """In a process of its own, whose limit is lowered first; again changes nothing."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
