"""The tables and the sections of BENCHMARKS.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.memory import Transfer, render
from tests.bench.report import Cell, Row, Table, format_number, format_spread, render_table, replace_section
from tests.bench.statistics import summarize

PUT = Row(
    "PUT 1 KiB",
    "requests/s",
    True,
    {
        "Ours": Cell(summarize([4000.0, 4200.0, 3900.0]), 0.1, 1.5, p99_ms=12.25),
        "Theirs": Cell(summarize([2000.0]), 0.05, 1.2, p99_ms=250.0, errors=3),
    },
)
DELETE = Row("Delete", "ms", False, {"Ours": Cell(summarize([10.0])), "Theirs": Cell(summarize([40.0]))})
FAILED = Row("List", "keys/s", True, {"Ours": Cell(summarize([5.0]))})


def test_a_table() -> None:
    """Medians with ranges, ratios to the first side, errors, p99 and processor shares."""
    lines = render_table(Table("Two", ["Ours", "Theirs"], ["a note"], [PUT, DELETE, FAILED])).splitlines()
    assert lines == [
        "### Two",
        "",
        "- a note",
        "",
        "|  | Ours | Theirs | Ours : Theirs | p99, ms | generator CPU | server CPU |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| PUT 1 KiB, requests/s | 4,000 (3,900–4,200) | 2,000, 3 errors | 2.00 | 12.2 / 250 "
        "| 0.10 / 0.05 | 1.50 / 1.20 |",
        "| Delete, ms | 10.0 | 40.0 | 4.00 | – / – | – / – | – / – |",
        "| List, keys/s | 5.00 | failed | – | – / – | – / – | – / – |",
    ]


def test_a_busy_generator() -> None:
    """No ratio where the generator took more of the machine than either side's server."""
    cells = {"Ours": Cell(summarize([700.0]), 0.9, 0.5), "Theirs": Cell(summarize([500.0]), 0.6, 0.7)}
    line = render_table(Table("", ["Ours", "Theirs"], [], [Row("Down", "MB/s", True, cells)])).splitlines()[-1]
    assert line == "| Down, MB/s | 700 | 500 | (generator) | – / – | 0.90 / 0.60 | 0.50 / 0.70 |"


def test_one_side_alone() -> None:
    """Without a second side there is no ratio column."""
    assert "Ours :" not in render_table(Table("One", ["Ours"], [], [PUT]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.126, "0.13"), (9.994, "9.99"), (12.34, "12.3"), (123.4, "123"), (1e6, "1,000,000")],
)
def test_numbers(value: float, text: str) -> None:
    """Three digits that mean something, separators in large ones."""
    assert format_number(value) == text


def test_spreads() -> None:
    """One round has no range."""
    assert format_spread(summarize([5.0])) == "5.00"
    assert format_spread(summarize([1.0, 2.0, 3.0])) == "2.00 (1.00–3.00)"


plain = st.text(alphabet=st.characters(exclude_characters="<\r", codec="utf-8")).map(str.rstrip)


@given(plain, plain, plain)
def test_sections_are_replaced_alone(title: str, first: str, second: str) -> None:
    """A section is added once, replaced in place, and its neighbour stays as it was."""
    document = replace_section(replace_section(title, "one", first), "two", "neighbour")
    changed = replace_section(document, "one", second)
    assert changed == replace_section(replace_section(title, "one", second), "two", "neighbour")
    assert replace_section(changed, "one", second) == changed


def test_an_open_section() -> None:
    """A file whose section has lost its end is not overwritten."""
    with pytest.raises(ValueError, match="not closed"):
        replace_section("<!-- one -->\ntext\n", "one", "new")


def test_the_memory_section() -> None:
    """Peaks are shown beside what they are above idle."""
    body = render(5, 100.0, 400.0, [Transfer("up", 12.0, 180.0, 700.0)])
    assert body.splitlines()[-1] == "| up | 12.0 | 180 | 80.0 | 700 |"
    assert "idle: 100 MiB and 400 MiB" in body
