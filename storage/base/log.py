"""Logging of every role: to stderr, one line an event, level from the environment variable FROSTBYTE_LOG.

A line is `time level role[pid] logger: text`, UTC. Line breaks inside a text (a traceback, or a hostile header) are
written as `\\n`, so that nothing can forge a second event.
"""

from __future__ import annotations

import logging
import os
import sys
import time

LEVEL_VARIABLE = "FROSTBYTE_LOG"
LEVELS = ("debug", "info", "warning", "error")
LINE_CHARACTERS_MAX = 8192

_QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "asyncio")
"""libraries whose info lines are about themselves; their warnings stay"""


class LineFormatter(logging.Formatter):
    """One event, one line, bounded."""

    converter = staticmethod(time.gmtime)

    def __init__(self, role: str) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03dZ %(levelname)s {role}[%(process)d] %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if "\n" in line or "\r" in line:
            line = line.replace("\r", "\\r").replace("\n", "\\n")
        return line if len(line) <= LINE_CHARACTERS_MAX else line[:LINE_CHARACTERS_MAX] + "…"


def configure_logging(role: str) -> None:
    """Call once at the start of a process. An unknown level in FROSTBYTE_LOG means info, and is said so."""
    asked = os.environ.get(LEVEL_VARIABLE, "info").lower()
    level = asked if asked in LEVELS else "info"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
    if level != asked:
        logging.getLogger(__name__).warning("%s=%r is none of %s", LEVEL_VARIABLE, asked, ", ".join(LEVELS))
