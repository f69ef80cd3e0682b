"""PURE. The results page of ceph/s3-tests: for each test how it ended, and why where it did not pass."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

PASSED = "passed"
_LINE_WIDTH = 110


class Result(NamedTuple):
    """How one test ended; `message` is the first line of its failure.

    outcome: passed, failed, timeout (no end within the limit), skipped (by the suite) or missing (not in the checkout).
    """

    test: str
    outcome: str
    seconds: float
    message: str = ""


class Reason(NamedTuple):
    """Why tests do not pass. tests: patterns of ids. applicable: False for what only Ceph has."""

    tests: tuple[str, ...]
    text: str
    applicable: bool = True


def read_reasons(text: str) -> list[Reason]:
    """From TOML: `[[reason]]` tables with tests, text and applicable."""
    tables = tomllib.loads(text).get("reason", [])
    return [Reason(tuple(table["tests"]), table["text"], table.get("applicable", True)) for table in tables]


def render_page(results: Sequence[Result], reasons: Sequence[Reason], run_count: int = 1) -> str:
    """Markdown: the counts, every test that did not pass with its reason, and the names of those that did."""
    passed = [result for result in results if result.outcome == PASSED]
    others = [(result, _find_reason(result.test, reasons)) for result in results if result.outcome != PASSED]
    failed = [(result, reason) for result, reason in others if reason is None or reason.applicable]
    not_applicable = [(result, reason) for result, reason in others if reason is not None and not reason.applicable]
    lines = [
        "# ceph/s3-tests: results",
        "",
        f"Made by `s3tests.py page` from {_count_runs(run_count)}; see README.md. Reasons are kept in `reasons.toml`.",
        "",
        f"{len(results)} tests: {len(passed)} passed, {len(failed)} failed, {len(not_applicable)} not applicable.",
        "",
    ]
    for title, chosen in (("Failed", failed), ("Not applicable", not_applicable)):
        if chosen:
            lines += [f"## {title}", "", "| test | how | why |", "|---|---|---|"]
            lines += [_row(result, reason) for result, reason in chosen] + [""]
    lines += ["## Passed", "", *_wrap([_short(result.test) for result in passed])]
    return "\n".join(lines) + "\n"


def _count_runs(run_count: int) -> str:
    """A page that is pieced together says so."""
    return "one run" if run_count == 1 else f"{run_count} runs, of which the last of each test counts"


def _row(result: Result, reason: Reason | None) -> str:
    why = reason.text if reason else f"not looked into: {result.message}".rstrip(": ")
    return f"| `{_short(result.test)}` | {result.outcome} | {' '.join(why.split()).replace('|', '¦')} |"


def _find_reason(test: str, reasons: Sequence[Reason]) -> Reason | None:
    """The first that speaks of the test. Brackets of parametrized ids are no patterns."""
    plain = test.replace("[", "(").replace("]", ")")
    for reason in reasons:
        if any(fnmatchcase(plain, pattern.replace("[", "(").replace("]", ")")) for pattern in reason.tests):
            return reason
    return None


def _short(test: str) -> str:
    """Nearly all are of one file, whose name is left out."""
    return test.removeprefix("test_s3.py::")


def _wrap(names: Sequence[str]) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > _LINE_WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{name}"
    return lines
