"""Text for a terminal, and for a pipe: there nothing is wrapped or cut, so that scripts can search it."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 1000


def make_table(*columns: str, title: str = "") -> Table:
    """Plain columns; long cells fold instead of losing their end."""
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Cells are shown as they are: brackets in a name are no markup."""
    table.add_row(*(Text(cell) for cell in cells))


def show(*shown: Table | str, style: str = "") -> None:
    """Tables and sentences, in order."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    for item in shown:
        if isinstance(item, str):
            console.print(Text(item, style=style))
        else:
            console.print(item)
