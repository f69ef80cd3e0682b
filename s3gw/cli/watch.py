"""Progress of what runs elsewhere: bars on a terminal, lines now and then without one. Ctrl-C ends the watching, and
nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from s3gw.cli.formats import format_share
from s3gw.cli.options import run
from s3gw.cli.progress import Bar, Look
from s3gw.cli.screen import show
from storage.base.errors import Unavailable

INTERVAL_S = 0.5
LINE_INTERVAL_S = 5.0
"""between two lines where there is no terminal; the first and the last come at once"""
PATIENCE_S = 30.0
"""a master that is started again meanwhile is waited for"""


Looking = Callable[[], Awaitable[Look]]


class _Screen(Protocol):
    def show(self, look: Look) -> None:
        """Another look."""
        ...


class _Lines:
    """For a pipe or a log."""

    def __init__(self) -> None:
        self._shown_s = -LINE_INTERVAL_S
        self._line = ""

    def show(self, look: Look) -> None:
        now_s = asyncio.get_running_loop().time()
        line = describe(look.bars)
        if line and line != self._line and (look.is_over or now_s - self._shown_s >= LINE_INTERVAL_S):
            print(line, flush=True)
            self._line, self._shown_s = line, now_s


class _Bars:
    """For a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, look: Look) -> None:
        for bar in look.bars:
            total = bar.total or None
            task = self._tasks.get(bar.name)
            if task is None:
                task = self._tasks[bar.name] = self._progress.add_task(bar.name, total=total, text=bar.text)
            self._progress.update(task, completed=bar.done, total=total, text=bar.text)


def watch(follow: Callable[[], Awaitable[Look]], what: str) -> Look | None:
    """Run `follow`, which ends with the last look (see `follow_to_the_end`), and show its summary. None after Ctrl-C.
    what: goes on without being watched."""
    try:
        look = run(_await(follow))
    except KeyboardInterrupt:
        show(f"no longer watched; {what}")
        return None
    show(*look.summary)
    return look


async def follow_to_the_end(look: Looking, interval_s: float = INTERVAL_S) -> Look:
    """Show how it goes until it is over; the last look. Unavailable when nobody answers for PATIENCE_S."""
    if not sys.stdout.isatty():
        return await _follow(look, _Lines(), interval_s)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=Console(highlight=False)) as progress:
        return await _follow(look, _Bars(progress), interval_s)


async def _follow(look: Looking, screen: _Screen, interval_s: float) -> Look:
    loop = asyncio.get_running_loop()
    answered_s = loop.time()
    while True:
        try:
            now = await look()
        except Unavailable:
            if loop.time() - answered_s > PATIENCE_S:
                raise
        else:
            answered_s = loop.time()
            screen.show(now)
            if now.is_over:
                return now
        await asyncio.sleep(interval_s)


def describe(bars: tuple[Bar, ...]) -> str:
    """One line."""
    return "; ".join(
        " ".join(part for part in (bar.name, format_share(bar.done, bar.total) if bar.total else "", bar.text) if part)
        for bar in bars
    )


async def _await(follow: Callable[[], Awaitable[Look]]) -> Look:
    return await follow()
