"""The configuration sequence: one number that rises with every change of users, access keys, buckets and settings.

Its row is the first thing that a change of configuration takes, so that such changes run one after the other and each
finds what the one before left. Object writes do not touch it, and reads read along.

Every request of a gateway asks for it. Those who ask while a read is under way share the next one: a read that began
after they asked sees all that was acknowledged before, whoever began it. So a busy gateway makes one round trip at a
time for all of its requests, and a lone caller its own at once.
"""

from __future__ import annotations

import asyncio

from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.pool import Connection

JOIN_WAIT_S = 0.1
"""how long the next read waits for the one under way: a connection that stalls must not hold up everybody"""

_RAISE = "UPDATE meta SET value = value + 1 WHERE name = 'configuration_sequence'"
_SELECT = "SELECT value FROM meta WHERE name = 'configuration_sequence'"


async def raise_configuration_sequence(connection: Connection) -> None:
    """In the transaction of the change itself, and before it looks at anything; a refusal takes it back."""
    await connection.execute(_RAISE)


class SequenceReader:
    """One per process; `read` may be called by any number of tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._under_way: asyncio.Future[None] | None = None
        """resolved when the newest read is over"""
        self._next: asyncio.Task[int] | None = None
        """a read that has not begun: whoever comes may join it"""

    async def read(self) -> int:
        """The number as it is at some time after the call. Unavailable."""
        if self._under_way is None:
            return await self._fetch()
        if self._next is None:
            self._next = asyncio.create_task(self._follow(self._under_way))
            self._next.add_done_callback(_look_at_error)
        return await asyncio.shield(self._next)

    async def _follow(self, before: asyncio.Future[None]) -> int:
        await asyncio.wait([before], timeout=JOIN_WAIT_S)
        self._next = None
        return await self._fetch()

    async def _fetch(self) -> int:
        under_way = asyncio.get_running_loop().create_future()
        self._under_way = under_way
        try:
            ((sequence,),) = await self._database.read(_SELECT)
            return int(sequence)
        finally:
            under_way.set_result(None)
            if self._under_way is under_way:
                self._under_way = None


def _look_at_error(task: asyncio.Task[int]) -> None:
    """Of a read that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
