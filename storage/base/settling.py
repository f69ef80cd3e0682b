"""Futures of others, settled from outside, or given up."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(future: asyncio.Future[Any], outcome: Any) -> None:
    """What came, raised to whoever waits where it is an exception; nothing where nobody waits any more."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def abandon(future: asyncio.Future[Any] | None) -> None:
    """Nobody will wait for this any more; its outcome, if it has one, counts as seen."""
    if future is not None and not future.cancel() and not future.cancelled():
        future.exception()
