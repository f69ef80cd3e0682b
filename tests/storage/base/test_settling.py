"""Settling the futures of others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.base.errors import NodeFull
from storage.base.settling import settle


def begin() -> asyncio.Future[Any]:
    """One that somebody could wait for."""
    return asyncio.get_running_loop().create_future()


async def test_a_result_is_given_and_an_exception_raised() -> None:
    """Errors of the project are exceptions like others."""
    answered, failed = begin(), begin()
    settle(answered, [1])
    settle(failed, NodeFull("full"))
    assert await answered == [1]
    with pytest.raises(NodeFull):
        await failed


async def test_who_no_longer_waits_is_left_alone() -> None:
    """Cancelled, or settled before."""
    cancelled, settled = begin(), begin()
    cancelled.cancel()
    settled.set_result("first")
    for outcome in ("second", NodeFull("full")):
        settle(cancelled, outcome)
        settle(settled, outcome)
    assert cancelled.cancelled()
    assert await settled == "first"
