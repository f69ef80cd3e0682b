"""`frostbyte …` inside the test's own process: what it prints, and that a refusal is one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import s3gw.cli

Refused = Callable[..., str]
"""arguments → the one line of a command that must fail"""


class Program:
    """Runs one command after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["frostbyte", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            s3gw.cli.main()
        said = self._capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    def succeed(self, *arguments: str | Path) -> str:
        """What a command that must succeed prints."""
        status, output, errors = self.run(*arguments)
        assert status == 0, errors
        return output

    def load(self, *arguments: str | Path) -> Any:
        """What it prints with --json."""
        return json.loads(self.succeed(*arguments, "--json"))

    def refused(self, *arguments: str | Path) -> str:
        """The line of a command that must end with status 1 and print nothing else."""
        status, output, errors = self.run(*arguments)
        assert (status, output) == (1, ""), errors
        assert errors.startswith("frostbyte: ")
        assert errors.count("\n") == 1, errors
        return errors
