"""What the store that a datanode keeps must do besides, as tests to inherit from: checks, damage and figures.

A test module subclasses `OwnChunkStoreConformance` and gives the same `subject` as for `ChunkStoreConformance`.
"""

from __future__ import annotations

from typing import cast

import pytest

from storage.base.errors import ChunkNotFound
from storage.base.ids import chunk_id_from_bytes
from storage.chunks.store import Figures, OwnChunkStore
from tests.storage.chunks.conformance import ChunkStoreConformance, StoreUnderTest, chunk_id, put, read, some_bytes


class OwnChunkStoreConformance(ChunkStoreConformance):
    """What a datanode asks of its own store besides."""

    @pytest.fixture
    def own(self, subject: StoreUnderTest) -> OwnChunkStore:
        """The store of the subject, which can do more here."""
        return cast(OwnChunkStore, subject.store)

    async def test_a_check_verifies(self, own: OwnChunkStore) -> None:
        """A chunk that is right stays, and is verified."""
        await put(own, chunk_id(1), some_bytes(5000))
        assert await own.check(chunk_id(1))
        assert await read(own, chunk_id(1)) == some_bytes(5000)
        assert (await own.inventory(None, 1))[0].verified_ms > 0
        assert await own.list_damaged(None, 10) == []
        with pytest.raises(ChunkNotFound):
            await own.check(chunk_id(2))

    @pytest.mark.parametrize("harm", ["damage", "shorten"])
    async def test_damage_is_set_aside_and_listed(self, own: OwnChunkStore, subject: StoreUnderTest, harm: str) -> None:
        """Until it is forgotten, whatever is purged meanwhile."""
        await own.put_many([(chunk_id(n), some_bytes(100)) for n in range(5)])
        before_ms = subject.now_ms()
        for n in (3, 1):
            getattr(subject, harm)(chunk_id(n))
            assert not await own.check(chunk_id(n))
        with pytest.raises(ChunkNotFound):
            await own.check(chunk_id(1))
        assert [chunk_id_from_bytes(entry.chunk_id) for entry in await own.inventory(None, 10)] == [
            chunk_id(n) for n in (0, 2, 4)
        ]
        assert await own.purge_quarantine(subject.now_ms() + 1000) == 0
        listed = await own.list_damaged(None, 10)
        assert [of for of, _ in listed] == [chunk_id(1), chunk_id(3)]
        assert all(before_ms <= found_ms <= subject.now_ms() for _, found_ms in listed)
        assert await own.list_damaged(None, 1) == listed[:1]
        assert await own.list_damaged(chunk_id(1), 10) == listed[1:]
        assert await own.list_damaged(chunk_id(3), 10) == []
        assert own.figures.damaged_count == 2
        assert await own.forget_damaged([chunk_id(3), chunk_id(0), chunk_id(3)]) == [True, False, True]
        assert await own.list_damaged(None, 10) == listed[:1]
        assert own.figures.damaged_count == 1
        assert await own.purge_quarantine(subject.now_ms() + 1000) == 1
        assert await own.forget_damaged([]) == []

    async def test_what_is_stored_anew_is_damaged_no_more(self, own: OwnChunkStore, subject: StoreUnderTest) -> None:
        """Nobody need acknowledge what was healed in place; what is left of it goes with a purge."""
        await own.put_many([(chunk_id(n), some_bytes(100)) for n in range(4)])
        for n in range(3):
            subject.damage(chunk_id(n))
            assert not await own.check(chunk_id(n))
        await own.put_many([(chunk_id(n), some_bytes(100)) for n in range(2)])
        assert [of for of, _ in await own.list_damaged(None, 1)] == [chunk_id(2)]
        assert own.figures.damaged_count == 1
        assert await own.forget_damaged([chunk_id(0)]) == [False]
        assert await own.purge_quarantine(subject.now_ms() + 1000) == 2

    async def test_a_chunk_that_was_damaged_twice_is_listed_once(
        self, own: OwnChunkStore, subject: StoreUnderTest
    ) -> None:
        """And forgotten in one call."""
        for _ in range(2):
            await put(own, chunk_id(1), some_bytes(100))
            subject.damage(chunk_id(1))
            assert not await own.check(chunk_id(1))
        assert [of for of, _ in await own.list_damaged(None, 10)] == [chunk_id(1)]
        assert await own.forget_damaged([chunk_id(1)]) == [True]
        assert await own.list_damaged(None, 10) == []
        assert own.figures.damaged_count == 0

    async def test_figures_follow_what_happens(self, own: OwnChunkStore, subject: StoreUnderTest) -> None:
        """Without another count; and a count finds the same."""
        assert await own.count() == Figures()
        await own.put_many([(chunk_id(n), some_bytes(100 + n)) for n in range(8)])
        await put(own, chunk_id(7), some_bytes(107))
        await own.delete_many([chunk_id(0), chunk_id(99)])
        await own.quarantine_many([chunk_id(1)])
        first_ms = subject.now_ms()
        for n in (2, 3):
            await own.verify(chunk_id(n))
        subject.damage(chunk_id(4))
        assert not await own.check(chunk_id(4))
        await own.delete_many([chunk_id(3)])
        found = own.figures
        stored_bytes = sum(100 + n for n in (2, 5, 6, 7))
        assert found == Figures(4, stored_bytes, found.unverified_count, found.oldest_verified_ms, 1)
        assert found.unverified_count == 2, "chunk 7 was verified when it was put again"
        assert 0 < found.oldest_verified_ms <= first_ms
        assert await own.count() == found == own.figures
