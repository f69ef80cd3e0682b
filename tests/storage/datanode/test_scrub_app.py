"""Scrub and damage over HTTP: orders, statuses, pages of damage, and suspicions that requests raise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import Corrupt
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token
from storage.chunks.memory import MemoryChunkStore
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.peers import Peers
from storage.datanode.scrubber import Scrubber
from storage.datanode.wire import DamagedChunk, ScrubOrder
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id, read, some_bytes
from tests.storage.datanode.nodes import NODE_KEY


class Subject:
    """A served store with its scrubber, which runs when told, and a client."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryChunkStore(clock=self.clock)
        self.scrubber = Scrubber(self.store, self.clock)
        self.app = DatanodeApp(self.store, NODE_KEY, self.clock, Peers(), scrubber=self.scrubber)
        self.client: DatanodeClient

    async def rot(self, *numbers: int) -> None:
        """Let these be found and set aside."""
        for number in numbers:
            self.flip(chunk_id(number))
            assert not await self.store.check(chunk_id(number))

    def flip(self, of: ChunkId) -> None:
        """A bit of a chunk."""
        data = self.store.chunks[of]
        self.store.chunks[of] = bytes([data[0] ^ 1]) + data[1:]


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    """With five chunks."""
    subject = Subject()
    await subject.store.put_many([(chunk_id(n), some_bytes(100)) for n in range(5)])
    subject.clock.advance(1)
    async with serving(subject.app, f"unix:{tmp_path / 's'}") as address:
        subject.client = DatanodeClient(address, access_token(NODE_KEY))
        yield subject
        await subject.client.close()


async def test_an_order_and_its_status(subject: Subject) -> None:
    """The answer tells of the pass that was begun."""
    status = await subject.client.scrub_status()
    assert (status.is_running, status.pass_started_ms) == (False, 0)
    ordered = await subject.client.order_scrub(ScrubOrder(1 << 39, begin=True))
    assert (ordered.is_running, ordered.pass_started_ms) == (True, subject.clock.now_ms())
    assert ordered.pace_bytes_per_s == 1 << 39
    subject.flip(chunk_id(2))
    await subject.scrubber.run()
    status = await subject.client.scrub_status()
    assert (status.is_running, status.checked_chunks, status.total_chunks, status.damaged) == (False, 5, 5, 1)
    assert status.pass_ended_ms == subject.clock.now_ms()


async def test_damage_is_listed_in_pages_until_it_is_forgotten(subject: Subject) -> None:
    """By chunk, with the time."""
    await subject.rot(3, 1, 2)
    found_ms = subject.clock.now_ms()
    expected = [DamagedChunk(chunk_id(n).to_bytes(), found_ms) for n in (1, 2, 3)]
    assert await subject.client.list_damaged(None, 10) == expected
    assert await subject.client.list_damaged(chunk_id(1), 1) == expected[1:2]
    assert await subject.client.forget_damaged([chunk_id(n) for n in range(3)]) == [False, True, True]
    assert await subject.client.list_damaged(None, 10) == expected[2:]
    assert await subject.client.purge_quarantine(found_ms + 1) == 2


@pytest.mark.parametrize("route", ["get", "span", "get_many", "stat", "verify"])
async def test_what_a_request_finds_damaged_is_looked_at_soon(subject: Subject, route: str) -> None:
    """Whichever found it: it is set aside before the next pass is due."""
    await subject.scrubber.run()
    if route == "verify":
        subject.flip(chunk_id(2))
    else:
        subject.store.chunks[chunk_id(2)] = b"short"
    if route == "get_many":
        found = await subject.client.get_many([(chunk_id(1), 0, 5), (chunk_id(2), 0, 5)])
        assert isinstance(found[1], Corrupt)
    else:
        attempts = {
            "get": lambda: read(subject.client, chunk_id(2)),
            "span": lambda: read(subject.client, chunk_id(2), 1, 2),
            "stat": lambda: subject.client.stat(chunk_id(2)),
            "verify": lambda: subject.client.verify(chunk_id(2)),
        }
        with pytest.raises(Corrupt):
            await attempts[route]()
    assert await subject.client.list_damaged(None, 10) == []
    await subject.scrubber.run()
    assert [damaged.chunk_id for damaged in await subject.client.list_damaged(None, 10)] == [chunk_id(2).to_bytes()]
    assert chunk_id(2) not in subject.store.chunks
    assert (await subject.client.scrub_status()).pass_started_ms == subject.clock.now_ms()


async def test_requests_under_way_are_counted(subject: Subject) -> None:
    """Those that failed are not under way any more."""
    seen: list[int] = []

    class CountingStore(MemoryChunkStore):
        async def stat(self, chunk_id: ChunkId):  # type: ignore[no-untyped-def]
            seen.append(subject.app.requests)
            raise Corrupt("bad")

    subject.app._store = CountingStore()
    for _ in range(2):
        with pytest.raises(Corrupt):
            await subject.client.stat(chunk_id(1))
    assert seen == [1, 1]
    assert subject.app.requests == 0
