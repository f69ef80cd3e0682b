"""MemoryChunkStore keeps the contract, and fails when told to."""

from __future__ import annotations

import pytest

from storage.base.clock import SystemClock
from storage.base.errors import NodeUnreachable
from storage.base.ids import ChunkId
from storage.chunks.memory import MemoryChunkStore
from tests.storage.chunks.conformance import StoreUnderTest, chunk_id, cut, read
from tests.storage.chunks.own_conformance import OwnChunkStoreConformance


class TestMemoryChunkStore(OwnChunkStoreConformance):
    """The suite over the twin."""

    @pytest.fixture
    def subject(self) -> StoreUnderTest:
        """A twin without bounds until it is filled up."""
        store = MemoryChunkStore(reserve_bytes=1000)

        def damage(of: ChunkId) -> None:
            data = store.chunks[of]
            store.chunks[of] = data[:-1] + bytes([data[-1] ^ 1])

        def shorten(of: ChunkId) -> None:
            store.chunks[of] = store.chunks[of][:-10]

        def fill_up() -> None:
            store.capacity_bytes = sum(map(len, store.chunks.values())) + 1500

        return StoreUnderTest(store, damage, shorten, fill_up, list, SystemClock().now_ms)


async def test_a_set_failure_is_raised_by_everything() -> None:
    """A node that is down answers nothing, and is as it was when it comes back."""
    store = MemoryChunkStore()
    await store.put(chunk_id(1), 3, cut(b"abc", 1))
    store.failure = NodeUnreachable("down")
    for attempt in (
        store.put(chunk_id(2), 3, cut(b"abc", 1)),
        store.put_many([]),
        read(store, chunk_id(1)),
        store.get_many([]),
        store.stat(chunk_id(1)),
        store.verify(chunk_id(1)),
        store.inspect_many([]),
        store.delete_many([]),
        store.quarantine_many([]),
        store.quarantine_judged([]),
        store.purge_quarantine(0),
        store.inventory(None, 1),
        store.space(),
    ):
        with pytest.raises(NodeUnreachable, match="down"):
            await attempt
    store.failure = None
    assert await read(store, chunk_id(1)) == b"abc"
