"""The command line of a role, held to argparse."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.base.arguments import Option, parse_options

OPTIONS = (
    Option("--data", Path, "a directory"),
    Option("--board-fd", int, "a number", required=False),
    Option("--worker", int, "a number", required=False, default=7),
)
WORDS = st.sampled_from(
    [
        "--data",
        "--board-fd",
        "--worker",
        "--dat",
        "--data=x",
        "--worker=1",
        "x",
        "/a b",
        "",
        "3",
        "-3",
        "x3",
        "-",
        "--",
        "-h",
    ]
)


def read_slowly(words: Sequence[str]) -> object:
    """What argparse makes of them."""
    parser = argparse.ArgumentParser(prog="python -m role", description="A role.")
    parser.add_argument("--data", type=Path, required=True, help="a directory")
    parser.add_argument("--board-fd", type=int, help="a number")
    parser.add_argument("--worker", type=int, default=7, help="a number")
    return observe(lambda: parser.parse_args(words))


def observe(parse: object) -> object:
    """The values; or exit status and everything said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            return vars(parse())  # type: ignore[operator]
        except SystemExit as exit_:
            return exit_.code, said.getvalue()


@given(st.lists(WORDS, max_size=8))
@example(["--data", "x", "--worker", "3", "--board-fd", "4"])
@example(["--data", "x", "--data", "y"])
@example(["--data", "x", "--worker", "x3"])
@example(["--worker", "3"])
def test_it_says_what_argparse_says(words: list[str]) -> None:
    """Of whole command lines and of mistaken ones."""
    assert observe(lambda: parse_options("python -m role", "A role.", OPTIONS, words)) == read_slowly(words)


def test_the_words_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are read where no others are given."""
    monkeypatch.setattr(sys, "argv", ["role", "--worker", "1", "--data", "x"])
    assert parse_options("role", None, OPTIONS) == SimpleNamespace(data=Path("x"), board_fd=None, worker=1)


def test_what_a_supervisor_says_is_read_without_argparse() -> None:
    """That is what it is for."""
    code = (
        "import sys; from storage.base.arguments import Option, parse_options\n"
        "print(parse_options('role', None, [Option('--fd', int, '')]).fd, 'argparse' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    words = (sys.executable, "-c", code, "--fd", "3")
    assert subprocess.run(words, cwd=root, capture_output=True, check=True).stdout == b"3 False\n"
