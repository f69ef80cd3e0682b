"""Commands in the test's own process, and a data directory for them."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3gw.cli.home import prepare_home
from s3gw.config import load_config
from tests.s3gw.cli.program import Program, Refused


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Program]:
    """What a command changes in the process is put back."""
    root, before = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    handlers, level = root.handlers[:], root.level
    yield Program(monkeypatch, capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refused(program: Program) -> Refused:
    """Run a command that must fail; its one line."""
    return program.refused


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory that was prepared by an earlier start."""
    prepare_home(load_config(None, {"data": [str(tmp_path / "home")]}, {}), {}).lock.close()
    return tmp_path / "home"
