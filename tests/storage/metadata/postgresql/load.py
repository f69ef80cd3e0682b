"""Writers that go on whatever happens to the database, and remember what they were told."""

from __future__ import annotations

import asyncio

from storage.base.errors import Unavailable
from tests.storage.metadata.builders import Worker

ATTEMPTS_MAX = 2000


async def try_until_it_answers(worker: Worker, object_key: bytes) -> None:
    """As a client would; bounded by the attempts, each of which waits for something real."""
    for _ in range(ATTEMPTS_MAX):
        try:
            await worker.put(object_key)
        except Unavailable:
            await asyncio.sleep(0.01)
        else:
            return
    raise AssertionError("the database did not come back")


class Load:
    """Writers that put one object after the other, and what each was told."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.acknowledged: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.in_flight: dict[int, bytes] = {}

    async def write(self, writer: int) -> None:
        """Until it is cancelled."""
        number = 0
        while True:
            number += 1
            object_key = f"{writer}/{number}".encode()
            self.in_flight[writer] = object_key
            try:
                await self.worker.put(object_key)
            except Unavailable as lost:
                if lost.details.get("outcome") == "unknown":
                    self.unknown.add(object_key)
                await asyncio.sleep(0.01)
            else:
                self.acknowledged.add(object_key)


async def list_all(worker: Worker) -> set[bytes]:
    """Every key of the bucket."""
    found: set[bytes] = set()
    after: bytes | None = b""
    while after is not None:
        page = await worker.metadata.list_heads(worker.bucket.bucket_id, after=after)
        found |= {entry.object_key for entry in page.entries}
        after = page.next_after
    return found
