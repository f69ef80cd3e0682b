"""The sides as they are started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cluster
import s3gw
import storage
from tests.bench.sides import frostbyte


@pytest.mark.parametrize("journal", ["local", "replicated"])
def test_the_journal_is_forced_by_a_configuration(tmp_path: Path, journal: str) -> None:
    """As the datanodes of one machine are on one disk; the table says where records are in two places."""
    side = frostbyte(tmp_path / "home", 2, journal=journal)
    (command,) = side.commands
    config = Path(command.words[command.words.index("--config") + 1])
    assert json.loads(config.read_text()) == {"metadata": {"journal": journal}}
    assert ("journal: replicated" in side.fsync) == (journal == "replicated")


def test_a_side_of_its_own_defaults_has_no_configuration(tmp_path: Path) -> None:
    """It is started as its users start it."""
    (command,) = frostbyte(tmp_path / "home", 1).commands
    assert "--config" not in command.words


def test_what_is_measured_was_compiled_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation, and whatever the environment says of writing bytecode."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    for package in (s3gw, cluster, storage):
        directory = tmp_path / package.__name__
        directory.mkdir()
        (directory / "module.py").write_text("x = 1\n")
        monkeypatch.setattr(package, "__path__", [str(directory)])
    frostbyte(tmp_path / "home", 1)
    assert len(list(tmp_path.glob("*/__pycache__/module.*.pyc"))) == 3
