"""Watching: lines for a pipe, bars for a terminal, patience with a master that is away, and an end by Ctrl-C."""

from __future__ import annotations

import sys

import pytest

from s3gw.cli import watch as watching
from s3gw.cli.progress import Bar, Look
from s3gw.cli.watch import describe, follow_to_the_end, watch
from storage.base.errors import Unavailable


class Job:
    """Looks at something that is over after ten."""

    def __init__(self, failures: int = 0) -> None:
        self.done = 0
        self.failures = failures

    async def look(self) -> Look:
        if self.done == 3 and self.failures:
            self.failures -= 1
            raise Unavailable("the master is away")
        self.done += 1
        return Look((Bar("sweep", self.done, 10, "of ten"),), self.done == 10, ("All is done.",))


def test_a_pipe_gets_the_first_and_the_last_line_and_few_between(capsys: pytest.CaptureFixture[str]) -> None:
    """And then the summary."""
    look = watch(lambda: follow_to_the_end(Job().look, 0), "it goes on")
    assert look is not None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sweep 10 % of ten"
    assert lines[-2:] == ["sweep 100 % of ten", "All is done."]
    assert len(lines) == 3


def test_lines_come_again_after_a_while(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that say something new."""
    monkeypatch.setattr(watching, "LINE_INTERVAL_S", 0)
    watch(lambda: follow_to_the_end(Job().look, 0), "it goes on")
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_a_terminal_gets_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each thing."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    watch(lambda: follow_to_the_end(Job().look, 0), "it goes on")
    said = capsys.readouterr().out
    assert "sweep" in said
    assert "100%" in said
    assert "All is done." in said


def test_a_master_that_is_away_for_a_moment_is_waited_for() -> None:
    """Not for ever."""
    job = Job(failures=5)
    assert watch(lambda: follow_to_the_end(job.look, 0), "it goes on") is not None
    assert job.failures == 0


def test_a_master_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its reason."""
    monkeypatch.setattr(watching, "PATIENCE_S", 0)
    with pytest.raises(Unavailable, match="the master is away"):
        watch(lambda: follow_to_the_end(Job(failures=10**9).look, 0), "it goes on")


def test_ctrl_c_ends_the_watching_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """And says so."""

    async def interrupt() -> Look:
        raise KeyboardInterrupt

    assert watch(interrupt, "the sweep goes on") is None
    assert capsys.readouterr().out == "no longer watched; the sweep goes on\n"


def test_a_line_of_several_bars() -> None:
    """Without a share where the whole is not known."""
    assert describe((Bar("node 1", 1, 4, "x"), Bar("node 2", 0, 0, "does not answer"))) == (
        "node 1 25 % x; node 2 does not answer"
    )
    assert describe(()) == ""
