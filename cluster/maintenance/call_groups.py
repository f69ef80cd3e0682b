"""Joins calls of one kind that wait at the same time into one: while a group is under way, what is asked meanwhile is
gathered and goes with the next. A caller who is alone waits for nobody, and the busier it is the larger the groups are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from storage.base.settling import settle

GROUP_MAX = 64
"""items of one call"""

_Key = TypeVar("_Key", bound=Hashable)
_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class CallGroups(Generic[_Key, _Item, _Answer]):
    """send: one call for many items, one answer for each, in their order; an answer that is an error is raised to who
    asked for that item, an error of the call to all whose items it had. Groups of one key go one after the other."""

    def __init__(
        self,
        send: Callable[[_Key, Sequence[_Item]], Awaitable[Sequence[_Answer | Exception]]],
        group_max: int = GROUP_MAX,
    ) -> None:
        self._send = send
        self._group_max = group_max
        self._waiting: dict[_Key, deque[tuple[_Item, asyncio.Future[_Answer]]]] = {}
        """of keys that have a task"""
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, key: _Key, item: _Item) -> _Answer:
        """The item's answer. One who is cancelled leaves; the call of the others goes on."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append((item, answer))
        else:
            self._waiting[key] = deque([(item, answer)])
            task = loop.create_task(self._work(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _work(self, key: _Key) -> None:
        """Until nobody waits for this key."""
        waiting = self._waiting[key]
        try:
            while waiting:
                taken = [waiting.popleft() for _ in range(min(len(waiting), self._group_max))]
                wanted = [(item, answer) for item, answer in taken if not answer.done()]
                if wanted:
                    await self._call(key, wanted)
        finally:
            del self._waiting[key]
            for _, answer in waiting:
                answer.cancel()

    async def _call(self, key: _Key, group: Sequence[tuple[_Item, asyncio.Future[_Answer]]]) -> None:
        found: Sequence[_Answer | Exception]
        try:
            found = await self._send(key, [item for item, _ in group])
            if len(found) != len(group):
                raise ValueError(f"{len(found)} answers to {len(group)} items")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised to everyone who asked
            found = [error] * len(group)
        for (_, answer), value in zip(group, found, strict=True):
            settle(answer, value)
