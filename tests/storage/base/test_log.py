"""Log lines: one an event, bounded, at the level that was asked for."""

from __future__ import annotations

import logging
import subprocess
import sys

from storage.base.log import LINE_CHARACTERS_MAX, LineFormatter

PROGRAM = """
import logging
from storage.base.log import configure_logging
configure_logging("datanode")
log = logging.getLogger("part")
log.debug("a debug line")
log.info("an info line")
log.error("an error line")
"""


def _lines(level: str | None) -> list[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": "."}
    if level is not None:
        environment["FROSTBYTE_LOG"] = level
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_info_is_the_level_of_a_process_that_says_nothing() -> None:
    """To stderr, with role and logger."""
    lines = _lines(None)
    assert [line.split(" ", 1)[1].partition("[")[0] for line in lines] == ["INFO datanode", "ERROR datanode"]
    assert lines[0].endswith("] part: an info line")


def test_the_environment_sets_the_level() -> None:
    """debug shows all, error only errors."""
    assert len(_lines("debug")) == 3
    assert len(_lines("error")) == 1


def test_an_unknown_level_is_said_and_means_info() -> None:
    """A slip in the environment must not silence a node."""
    lines = _lines("loud")
    assert "FROSTBYTE_LOG='loud' is none of" in lines[0]
    assert len(lines) == 3


def test_line_breaks_cannot_forge_an_event() -> None:
    """Neither in the text nor by way of a traceback."""
    record = logging.LogRecord("n", logging.ERROR, "f", 1, "first\nsecond\r\nthird", None, None)
    try:
        raise ValueError("deep\nbelow")
    except ValueError:
        record.exc_info = sys.exc_info()
    line = LineFormatter("role").format(record)
    assert "\n" not in line
    assert "\r" not in line
    assert "first\\nsecond\\r\\nthird" in line


def test_a_line_is_bounded() -> None:
    """A hostile path cannot fill the disk at once."""
    record = logging.LogRecord("n", logging.ERROR, "f", 1, "x" * (2 * LINE_CHARACTERS_MAX), None, None)
    assert len(LineFormatter("role").format(record)) == LINE_CHARACTERS_MAX + 1
