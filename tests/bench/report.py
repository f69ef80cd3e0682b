"""PURE. Tables of a run as Markdown, and replacing one section of a file that several programs write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.bench.statistics import Spread, compare


class Cell(NamedTuple):
    """What one side gave in one row."""

    spread: Spread
    generator_share: float | None = None
    """processor time of the load generator for a second of wall time, median of the rounds; 1.0 is one processor"""
    side_share: float | None = None
    p99_ms: float | None = None
    errors: int = 0

    @property
    def is_generator_bound(self) -> bool:
        """Whether the load generator took more processor time than the side."""
        if self.generator_share is None or self.side_share is None:
            return False
        return self.generator_share > self.side_share


class Row(NamedTuple):
    """One measured thing on all sides; a side that could not run it is missing from `cells`."""

    name: str
    unit: str
    higher_is_better: bool
    cells: Mapping[str, Cell]


class Table(NamedTuple):
    """One comparison. The first of `sides` is compared with each other one."""

    title: str
    sides: Sequence[str]
    notes: Sequence[str]
    rows: Sequence[Row]


def render_table(table: Table) -> str:
    """Markdown: medians with ranges, the ratio to the first side, p99 and processor shares."""
    first, others = table.sides[0], table.sides[1:]
    heads = ["", *(f"{side}" for side in table.sides), *(f"{first} : {side}" for side in others)]
    heads += ["p99, ms", "generator CPU", "server CPU"]
    lines = [f"### {table.title}", "", *(f"- {note}" for note in table.notes), ""]
    lines += [_markdown_row(heads), _markdown_row(["---", *("---:" for _ in heads[1:])])]
    lines += [_markdown_row(_row_words(row, table.sides)) for row in table.rows]
    return "\n".join(lines) + "\n"


def format_spread(spread: Spread) -> str:
    """`median (low–high)`; the range is left out for one round."""
    if spread.rounds == 1:
        return format_number(spread.median)
    return f"{format_number(spread.median)} ({format_number(spread.low)}–{format_number(spread.high)})"


def format_number(value: float) -> str:
    """Three significant digits below a thousand, whole numbers with separators above."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def replace_section(document: str, name: str, body: str) -> str:
    """Put `body` between the marks of section `name`; a document without them gets the section at its end."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{body.rstrip()}\n{end}\n"
    before, found, rest = document.partition(f"{begin}\n")
    if not found:
        return f"{document.rstrip()}\n\n{section}" if document.strip() else section
    _, closed, after = rest.partition(f"{end}\n")
    if not closed:
        raise ValueError(f"section {name} is not closed")
    return f"{before}{section}{after}"


def _row_words(row: Row, sides: Sequence[str]) -> list[str]:
    cells = [row.cells.get(side) for side in sides]
    words = [f"{row.name}, {row.unit}"]
    words += [_cell_words(cell) for cell in cells]
    words += [_ratio_words(row, cells[0], other) for other in cells[1:]]
    words.append(_listed(cell and cell.p99_ms for cell in cells))
    words.append(_listed(cell and cell.generator_share for cell in cells))
    words.append(_listed(cell and cell.side_share for cell in cells))
    return words


def _ratio_words(row: Row, first: Cell | None, other: Cell | None) -> str:
    """No ratio where a load generator took more than half of the processor time: it would measure the generator."""
    if first is None or other is None:
        return "–"
    if first.is_generator_bound or other.is_generator_bound:
        return "(generator)"
    ratio = compare(first.spread, other.spread, higher_is_better=row.higher_is_better)
    return "–" if ratio is None else f"{ratio:.2f}"


def _cell_words(cell: Cell | None) -> str:
    if cell is None:
        return "failed"
    errors = f", {cell.errors} errors" if cell.errors else ""
    return format_spread(cell.spread) + errors


def _listed(values: Iterable[float | None]) -> str:
    return " / ".join("–" if value is None else format_number(value) for value in values)


def _markdown_row(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"
