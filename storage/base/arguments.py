"""The command line of a role: `--name value` for each of its options.

Whoever starts a role is nearly always the supervisor, which says each option once and in full. That is read here;
anything else is a person's, who may ask for --help or be mistaken, and is argparse's. Every role that ran through
argparse at its start would hold 0.3 MiB of it for as long as it lives.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One that takes a value."""

    name: str
    """with its dashes"""
    convert: Callable[[str], Any]
    """ValueError for a value that is none"""
    help: str
    required: bool = True
    default: Any = None
    """where it is not required and not given"""


def parse_options(
    program: str, description: str | None, options: Sequence[Option], words: Sequence[str] | None = None
) -> Any:
    """→ the values as attributes, by their names without dashes at the start and with _ for the others. words: None for
    those of this process. SystemExit after --help, and with status 2 for what is no such command line."""
    given = sys.argv[1:] if words is None else words
    values = _parse_pairs(options, given)
    return _ask_argparse(program, description, options, given) if values is None else SimpleNamespace(**values)


def _parse_pairs(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any] | None:
    """None when the words are not each a whole option and its value, or one is said twice, or one is missing."""
    known = {option.name: option for option in options}
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    if len(pairs) * 2 != len(words) or any(option.required and option.name not in pairs for option in options):
        return None
    values = {_attribute(option): option.default for option in options}
    for name, word in pairs.items():
        if name not in known or word.startswith("-"):
            return None
        try:
            values[_attribute(known[name])] = known[name].convert(word)
        except ValueError:
            return None
    return values


def _ask_argparse(program: str, description: str | None, options: Sequence[Option], words: Sequence[str]) -> Any:
    parser = importlib.import_module("argparse").ArgumentParser(prog=program, description=description)
    for option in options:
        name, convert, text, required, default = option
        parser.add_argument(name, type=convert, required=required, default=default, help=text)
    return parser.parse_args(words)


def _attribute(option: Option) -> str:
    return option.name.lstrip("-").replace("-", "_")
