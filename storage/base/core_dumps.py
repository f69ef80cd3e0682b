"""A core dump holds every key that the process holds: none is written by those that hold any."""

from __future__ import annotations

import resource


def forbid_core_dumps() -> None:
    """For this process and whatever it starts, for good (setrlimit(2), RLIMIT_CORE)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
