"""`python -S sleeper.py COMMAND…`: does nothing until there is something to do, then becomes the command.

A supervisor is needed when a child has ended and when it is asked to stop, which is hardly ever. Until then this
program has its place, its children and its descriptors, and holds 4 MiB instead of 10: run by its path, it imports no
package, and of the standard library not even typing. The signals it waits for are blocked before it begins; one that
asks to stop is left for the command.
"""

from __future__ import annotations

import os
import signal
import sys

WAKE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def main(command: list[str]) -> None:
    """Never returns. command: with the path of its program. OSError."""
    while (number := signal.sigwait(WAKE_SIGNALS)) == signal.SIGCHLD and not _has_ended():
        pass  # a child was stopped or went on
    if number != signal.SIGCHLD:
        os.kill(os.getpid(), number)
    os.execv(command[0], command)  # noqa: S606 - what it was told, no shell


def _has_ended() -> bool:
    """Whether there is a child whose end was not looked at; it stays so."""
    return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main(sys.argv[1:])
