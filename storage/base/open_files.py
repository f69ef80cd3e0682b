"""How many files and sockets a process may have open: as many as the system lets it, since every connection is one."""

from __future__ import annotations

import resource


def raise_open_files_limit() -> int:
    """Lift the soft limit to the hard one, which needs no privilege (getrlimit(2)); the limit from then on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
