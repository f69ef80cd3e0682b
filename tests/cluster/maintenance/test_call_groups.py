"""Calls that wait at the same time go as one, and everyone gets the answer, or the error, of the item he asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cluster.maintenance.call_groups import CallGroups


class Counted:
    """A call that answers each item with its double, an odd one above 100 with an error, and keeps what it was sent."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[int]]] = []
        self.may_answer = asyncio.Event()
        self.fails = False

    async def send(self, key: str, items: Sequence[int]) -> list[int | Exception]:
        self.groups.append((key, list(items)))
        await self.may_answer.wait()
        if self.fails:
            raise OSError("all of it")
        return [ValueError(item) if item > 100 and item % 2 else 2 * item for item in items]


async def test_what_waits_at_the_same_time_goes_together() -> None:
    """The first goes at once; the others with the next call of their key, in their order, up to the bound."""
    counted = Counted()
    groups: CallGroups[str, int, int] = CallGroups(counted.send, group_max=3)
    asked = [asyncio.create_task(groups.ask("a", number)) for number in range(6)]
    asked.append(asyncio.create_task(groups.ask("b", 7)))
    await asyncio.sleep(0.01)
    assert counted.groups == [("a", [0, 1, 2]), ("b", [7])]
    counted.may_answer.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8, 10, 14]
    assert counted.groups[2:] == [("a", [3, 4, 5])]
    assert await groups.ask("a", 9) == 18


async def test_errors_are_told_to_whom_they_concern() -> None:
    """Of one item to who asked for it; of the call to all; and the next call is not affected."""
    counted = Counted()
    counted.may_answer.set()
    groups: CallGroups[str, int, int] = CallGroups(counted.send)
    found = await asyncio.gather(*(groups.ask("a", number) for number in (1, 101, 2)), return_exceptions=True)
    assert [found[0], type(found[1]), found[2]] == [2, ValueError, 4]
    counted.fails = True
    found = await asyncio.gather(*(groups.ask("a", number) for number in (1, 2)), return_exceptions=True)
    assert [type(it) for it in found] == [OSError, OSError]
    counted.fails = False
    assert await groups.ask("a", 3) == 6


async def test_who_is_cancelled_leaves_the_others_their_answers() -> None:
    """While the call is under way, and while waiting for the next: then it is not asked for at all."""
    counted = Counted()
    groups: CallGroups[str, int, int] = CallGroups(counted.send, group_max=2)
    asked = [asyncio.create_task(groups.ask("a", number)) for number in range(4)]
    await asyncio.sleep(0.01)
    for number in (1, 2):
        asked[number].cancel()
    counted.may_answer.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [found[0], found[3]] == [0, 6]
    assert all(isinstance(it, asyncio.CancelledError) for it in found[1:3])
    assert counted.groups == [("a", [0, 1]), ("a", [3])]


async def test_an_answer_that_is_missing_is_an_error() -> None:
    """Never somebody else's answer, and nobody waits for ever."""

    async def send(_: str, items: Sequence[int]) -> list[int]:
        return list(items)[:-1]

    groups: CallGroups[str, int, int] = CallGroups(send)
    found = await asyncio.gather(*(groups.ask("a", number) for number in range(3)), return_exceptions=True)
    with pytest.raises(ValueError, match="answers"):
        raise found[2]  # type: ignore[misc]
