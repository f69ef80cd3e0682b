"""What every ChunkStore must do, as tests to inherit from.

A test module subclasses `ChunkStoreConformance` and gives a fixture `subject`: a StoreUnderTest around a fresh, empty
store. The suite knows nothing of disks or sockets; what it cannot do through the protocol (damaging a stored chunk,
filling the medium) it asks the subject for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import NamedTuple

import msgspec
import pytest

from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, ChunkTruncated, Corrupt, NodeFull
from storage.base.ids import ChunkId, chunk_id_from_bytes, make_blob_id
from storage.chunks.footer import digest_of
from storage.chunks.store import BATCH_BYTES_MAX, Buffer, ChunkReceipt, ChunkStore

SESSION = b"session1"
LARGE_BYTES = (2 << 20) + 77
"""more than any store moves at once, so that it streams"""


class StoreUnderTest(NamedTuple):
    """A store and what a test may do behind its back."""

    store: ChunkStore
    damage: Callable[[ChunkId], None]
    """change one byte of the stored chunk, which keeps its length"""
    shorten: Callable[[ChunkId], None]
    """cut the end off the stored chunk"""
    fill_up: Callable[[], None]
    """leave less than a KiB above the reserve"""
    leftovers: Callable[[], list[str]]
    """names of half-written things that are still there"""
    now_ms: Callable[[], int]
    """by the store's clock"""


def chunk_id(number: int, chunk_index: int = 0, session_id: bytes = SESSION) -> ChunkId:
    """The id of a chunk of the number-th blob of a session."""
    return ChunkId(make_blob_id(session_id, number), chunk_index)


def some_bytes(length: int, seed: int = 1) -> bytes:
    """Bytes that do not repeat, the same for the same seed."""
    return random.Random(seed).randbytes(length)


async def pieces(blocks: Iterable[Buffer]) -> AsyncIterator[Buffer]:
    """A body."""
    for block in blocks:
        await asyncio.sleep(0)
        yield block


def cut(data: bytes, block_bytes: int) -> AsyncIterator[Buffer]:
    """A body of blocks of one size, of all the types that a block may have."""
    kinds: tuple[Callable[[bytes], Buffer], ...] = (bytes, bytearray, memoryview)
    starts = range(0, len(data), block_bytes)
    return pieces(kinds[n % 3](data[start : start + block_bytes]) for n, start in enumerate(starts))


async def read(store: ChunkStore, of: ChunkId, offset: int = 0, length: int | None = None) -> bytes:
    """A span of a chunk, whole."""
    return b"".join([block async for block in store.get(of, offset, length)])


async def put(store: ChunkStore, of: ChunkId, data: bytes) -> None:
    """Store a chunk and check the receipt."""
    assert await store.put(of, len(data), cut(data, 65_552)) == digest_of(data)


class ChunkStoreConformance:
    """Inherit, and give `subject`."""

    @pytest.fixture
    def subject(self) -> StoreUnderTest:
        """The subclass knows."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, subject: StoreUnderTest) -> ChunkStore:
        """The store of the subject."""
        return subject.store

    # --- put and get

    @pytest.mark.parametrize("length", [1, 80, 65_536, 1 << 20, LARGE_BYTES])
    async def test_what_is_put_can_be_read(self, store: ChunkStore, length: int) -> None:
        """All of it, with a receipt that the store worked out itself, and the same from stat and verify."""
        data = some_bytes(length)
        receipt = await store.put(chunk_id(1), length, cut(data, 65_552))
        assert receipt == digest_of(data) == await store.stat(chunk_id(1)) == await store.verify(chunk_id(1))
        assert await read(store, chunk_id(1)) == data

    @pytest.mark.parametrize("block_bytes", [1000, 1 << 20, LARGE_BYTES])
    async def test_blocks_may_have_any_size(self, store: ChunkStore, block_bytes: int) -> None:
        """How a body is cut does not show in what is stored."""
        data = some_bytes(LARGE_BYTES)
        assert await store.put(chunk_id(1), len(data), cut(data, block_bytes)) == digest_of(data)
        assert await read(store, chunk_id(1)) == data

    @pytest.mark.parametrize(
        ("length", "block_bytes"), [(1, 1), (65_536, 65_552), (200_000, 65_552), (1 << 20, 1 << 18)]
    )
    async def test_a_small_chunk_may_be_put_whole(self, store: ChunkStore, length: int, block_bytes: int) -> None:
        """All of its blocks at once are stored as if they had come one by one, and a second time is no other chunk."""
        data = some_bytes(length)
        blocks = [block async for block in cut(data, block_bytes)]
        assert await store.put_whole(chunk_id(1), blocks) == digest_of(data)
        assert await read(store, chunk_id(1)) == data
        assert await store.put(chunk_id(1), length, cut(data, 1000)) == digest_of(data)

    async def test_a_chunk_that_is_put_whole_is_refused_as_any_other(self, store: ChunkStore) -> None:
        """An empty one, and other bytes of a name that is taken."""
        with pytest.raises(ChunkError):
            await store.put_whole(chunk_id(1), [])
        await put(store, chunk_id(1), b"these")
        with pytest.raises(ChunkConflict):
            await store.put_whole(chunk_id(1), [b"th", b"ose"])

    async def test_empty_blocks_are_nothing(self, store: ChunkStore) -> None:
        """A block of no bytes changes nothing."""
        assert await store.put(chunk_id(1), 3, pieces([b"", b"ab", b"", b"c", b""])) == digest_of(b"abc")

    @pytest.mark.parametrize(
        ("offset", "length"),
        [
            (0, 1),
            (5, 0),
            (64, 65_552),
            (1 << 20, 1 << 20),
            (100, None),
            (LARGE_BYTES - 1, 1),
            (LARGE_BYTES - 1, 100),
            (LARGE_BYTES, None),
            (LARGE_BYTES + 9, 9),
            (0, 1 << 40),
        ],
    )
    async def test_spans(self, store: ChunkStore, offset: int, length: int | None) -> None:
        """A span is cut to the chunk, and empty behind its end."""
        data = some_bytes(LARGE_BYTES)
        await put(store, chunk_id(1), data)
        assert await read(store, chunk_id(1), offset, length) == data[offset:][:length]

    async def test_what_was_never_put_is_not_found(self, store: ChunkStore) -> None:
        """Neither read, nor looked at, nor verified."""
        await put(store, chunk_id(1, 0), b"x")
        for missing in (chunk_id(2), chunk_id(1, 1), chunk_id(1, session_id=b"session2")):
            for attempt in (read(store, missing), store.stat(missing), store.verify(missing)):
                with pytest.raises(ChunkNotFound):
                    await attempt

    async def test_a_reader_may_stop_early(self, store: ChunkStore) -> None:
        """The chunk stays readable and deletable."""
        await put(store, chunk_id(1), some_bytes(LARGE_BYTES))
        async with aclosing(store.get(chunk_id(1))) as blocks:  # type: ignore[type-var]
            assert await anext(blocks)
        assert await store.delete_many([chunk_id(1)]) == [True]

    # --- what a put refuses

    async def test_identical_bytes_again_are_answered_alike(self, store: ChunkStore) -> None:
        """By put and by put_many, after the first and at once."""
        data = some_bytes(100_000)
        await put(store, chunk_id(1), data)
        await put(store, chunk_id(1), data)
        assert await store.put_many([(chunk_id(1), data), (chunk_id(1), data)]) == [digest_of(data)] * 2

    @pytest.mark.parametrize("other", [some_bytes(5000, seed=2), some_bytes(4999), some_bytes(5001)])
    async def test_other_bytes_conflict(self, store: ChunkStore, other: bytes) -> None:
        """The first bytes stay."""
        await put(store, chunk_id(1), some_bytes(5000))
        with pytest.raises(ChunkConflict):
            await store.put(chunk_id(1), len(other), cut(other, 1000))
        [outcome] = await store.put_many([(chunk_id(1), other)])
        assert isinstance(outcome, ChunkConflict)
        assert await read(store, chunk_id(1)) == some_bytes(5000)

    @pytest.mark.parametrize("announced", [1, 2999, 3001, LARGE_BYTES])
    async def test_a_wrong_length_leaves_nothing(
        self, store: ChunkStore, subject: StoreUnderTest, announced: int
    ) -> None:
        """Shorter or longer than announced is ChunkTruncated."""
        with pytest.raises(ChunkTruncated):
            await store.put(chunk_id(1), announced, cut(some_bytes(3000), 1000))
        await self._check_nothing_stayed(subject)

    @pytest.mark.parametrize("length", [0, -1, 1 << 40])
    async def test_absurd_lengths_are_refused(self, store: ChunkStore, length: int) -> None:
        """A chunk is never empty and never huge."""
        with pytest.raises(ChunkError):
            await store.put(chunk_id(1), length, pieces([]))

    async def test_an_empty_item_is_refused(self, store: ChunkStore) -> None:
        """Alone among its neighbours."""
        first, empty = await store.put_many([(chunk_id(1), b"x"), (chunk_id(2), b"")])
        assert first == digest_of(b"x")
        assert isinstance(empty, ChunkError)

    async def test_a_broken_body_leaves_nothing(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Whatever the body raises comes out of put."""

        async def body() -> AsyncIterator[Buffer]:
            for _ in range(40):
                yield some_bytes(65_536)
            raise LookupError("the sender died")

        with pytest.raises((LookupError, ChunkError)):
            await store.put(chunk_id(1), 50 * 65_536, body())
        await self._check_nothing_stayed(subject)

    async def test_a_full_medium_takes_nothing_but_deletes(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """NodeFull before a byte of the body is asked for; reading and deleting go on."""
        await put(store, chunk_id(1), some_bytes(5000))
        subject.fill_up()
        asked: list[bool] = []

        async def body() -> AsyncIterator[Buffer]:
            asked.append(True)
            yield some_bytes(2000)

        with pytest.raises(NodeFull):
            await store.put(chunk_id(2), 2000, body())
        assert not asked
        [outcome] = await store.put_many([(chunk_id(2), some_bytes(2000))])
        assert isinstance(outcome, NodeFull)
        assert await read(store, chunk_id(1)) == some_bytes(5000)
        assert await store.delete_many([chunk_id(1)]) == [True]

    # --- many at once

    async def test_put_many_and_get_many(self, store: ChunkStore) -> None:
        """More than one hop of small chunks; outcomes come in the order of the items."""
        items = {chunk_id(n): some_bytes(n * 37 % 5000 + 1, seed=n) for n in range(150)}
        assert await store.put_many(list(items.items())) == [digest_of(data) for data in items.values()]
        spans = [(of, 3, 1000) for of in items]
        assert await store.get_many(spans) == [data[3:1003] for data in items.values()]

    async def test_nothing_at_all(self, store: ChunkStore) -> None:
        """Empty batches are answered with empty lists."""
        assert await store.put_many([]) == []
        assert await store.get_many([]) == []
        assert await store.delete_many([]) == []
        assert await store.quarantine_many([]) == []
        assert await store.inventory(None, 10) == []

    async def test_outcomes_of_get_many_are_its_own(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """A missing and a damaged chunk do not spoil their neighbours."""
        await store.put_many([(chunk_id(n), some_bytes(100)) for n in range(3)])
        subject.shorten(chunk_id(1))
        good, short, missing, beyond = await store.get_many(
            [(chunk_id(0), 10, 20), (chunk_id(1), 10, 20), (chunk_id(9), 0, 1), (chunk_id(2), 0, BATCH_BYTES_MAX)]
        )
        assert good == some_bytes(100)[10:30]
        assert isinstance(short, Corrupt)
        assert isinstance(missing, ChunkNotFound)
        assert isinstance(beyond, ChunkError)

    # --- damage

    async def test_damage_is_found_by_verify(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """And put makes the chunk good again, because the damaged one is set aside."""
        data = some_bytes(LARGE_BYTES)
        await put(store, chunk_id(1), data)
        subject.damage(chunk_id(1))
        with pytest.raises(Corrupt):
            await store.verify(chunk_id(1))
        await put(store, chunk_id(1), data)
        assert await store.verify(chunk_id(1)) == digest_of(data)
        assert await store.purge_quarantine(subject.now_ms() + 1000) == 1

    async def test_a_shortened_chunk_is_never_read_as_whole(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Corrupt, not fewer bytes."""
        await put(store, chunk_id(1), some_bytes(5000))
        subject.shorten(chunk_id(1))
        for attempt in (read(store, chunk_id(1)), store.stat(chunk_id(1)), store.verify(chunk_id(1))):
            with pytest.raises(Corrupt):
                await attempt
        assert [chunk_id_from_bytes(entry.chunk_id) for entry in await store.inventory(None, 10)] == [chunk_id(1)]

    # --- verified times

    async def test_a_chunk_is_verified_when_it_was_read_and_right(
        self, store: ChunkStore, subject: StoreUnderTest
    ) -> None:
        """Not by being stored or read; inventory and inspection agree."""
        await store.put_many([(chunk_id(n), some_bytes(100, n)) for n in range(3)])
        await read(store, chunk_id(0))
        assert [entry.verified_ms for entry in await store.inventory(None, 10)] == [0, 0, 0]
        before_ms = subject.now_ms()
        await store.verify(chunk_id(1))
        after_ms = subject.now_ms()
        await read(store, chunk_id(1))
        found = [entry.verified_ms for entry in await store.inventory(None, 10)]
        assert found[::2] == [0, 0]
        assert before_ms <= found[1] <= after_ms
        states = await store.inspect_many([chunk_id(n) for n in range(3)])
        assert [state and state.verified_ms for state in states] == found

    async def test_damage_is_never_verified(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Nor is it by being written to."""
        await store.put_many([(chunk_id(n), some_bytes(100)) for n in range(2)])
        subject.damage(chunk_id(0))
        subject.shorten(chunk_id(1))
        for n in range(2):
            with pytest.raises(Corrupt):
                await store.verify(chunk_id(n))
        assert [entry.verified_ms for entry in await store.inventory(None, 10)] == [0, 0]

    async def test_a_new_chunk_of_the_same_id_is_not_verified(self, store: ChunkStore) -> None:
        """The time is the chunk's, not the id's."""
        for _ in range(2):
            await put(store, chunk_id(1), b"x")
            assert (await store.inventory(None, 10))[0].verified_ms == 0
            await store.verify(chunk_id(1))
            await store.delete_many([chunk_id(1)])

    async def test_inspect(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Length, digest and time of each, in the order asked for; nothing of what is missing or has no footer."""
        before_ms = subject.now_ms()
        lengths = [n * 37 % 5000 + 1 for n in range(150)]
        await store.put_many([(chunk_id(n), some_bytes(length, n)) for n, length in enumerate(lengths)])
        subject.shorten(chunk_id(7))
        asked = [chunk_id(n) for n in range(200)]
        found = await store.inspect_many(asked[::-1])
        assert [n for n, state in enumerate(found[::-1]) if state is None] == [7, *range(150, 200)]
        for n, state in enumerate(found[::-1]):
            if state is not None:
                assert ChunkReceipt(state.length, state.digest) == digest_of(some_bytes(lengths[n], n))
                assert before_ms <= state.stored_ms <= subject.now_ms()
        assert await store.inspect_many([]) == []

    # --- delete, quarantine, inventory

    async def test_delete(self, store: ChunkStore) -> None:
        """Says what had been there; the id is free afterwards."""
        await store.put_many([(chunk_id(n), b"x") for n in range(100)])
        asked = [chunk_id(n) for n in range(200)] + [chunk_id(5)]
        assert await store.delete_many(asked) == [True] * 100 + [False] * 101
        with pytest.raises(ChunkNotFound):
            await store.stat(chunk_id(7))
        await put(store, chunk_id(7), b"other bytes")

    async def test_quarantine(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Set aside: not readable, not listed, the id free; gone with a purge of its time or later."""
        await store.put_many([(chunk_id(n), some_bytes(50)) for n in range(3)])
        before_ms = subject.now_ms()
        assert await store.quarantine_many([chunk_id(0), chunk_id(8), chunk_id(2)]) == [True, False, True]
        with pytest.raises(ChunkNotFound):
            await read(store, chunk_id(0))
        assert [entry.chunk_id for entry in await store.inventory(None, 10)] == [chunk_id(1).to_bytes()]
        await put(store, chunk_id(0), b"new")
        assert await store.purge_quarantine(before_ms) == 0
        assert await store.purge_quarantine(subject.now_ms() + 1) == 2
        assert await store.purge_quarantine(subject.now_ms() + 1) == 0
        assert await read(store, chunk_id(0)) == b"new"

    async def test_what_was_judged_is_set_aside(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """What is right, rotten or unreadable; a second order finds nothing, and nothing is set aside that is none."""
        ids = [chunk_id(n) for n in range(4)]
        await store.put_many([(of, some_bytes(5000)) for of in ids])
        await put(store, chunk_id(4), some_bytes(LARGE_BYTES))
        subject.damage(chunk_id(1))
        subject.shorten(chunk_id(2))
        asked = [chunk_id(n) for n in (0, 1, 2, 4, 8)]
        judged = list(zip(asked, await store.inspect_many(asked), strict=True))
        assert [state is None for _, state in judged] == [False, False, True, False, True]
        await store.verify(chunk_id(0))  # it is still what it was
        assert await store.quarantine_judged(judged) == [True, True, True, True, False]
        assert await store.quarantine_judged(judged) == [False] * 5
        assert [entry.chunk_id for entry in await store.inventory(None, 10)] == [chunk_id(3).to_bytes()]
        assert await store.purge_quarantine(subject.now_ms() + 1) == 4
        assert await store.quarantine_judged([]) == []

    @pytest.mark.parametrize("length", [5000, LARGE_BYTES])
    async def test_what_is_not_what_was_judged_stays(self, store: ChunkStore, length: int) -> None:
        """The same bytes stored at another time, other bytes, and what can be read where it could not be."""
        await put(store, chunk_id(1), some_bytes(length))
        (state,) = await store.inspect_many([chunk_id(1)])
        assert state is not None
        replace = msgspec.structs.replace
        others = (
            replace(state, stored_ms=state.stored_ms - 1),
            replace(state, digest=digest_of(b"other").digest),
            replace(state, length=state.length - 1),
            None,
        )
        assert await store.quarantine_judged([(chunk_id(1), other) for other in others]) == [False] * 4
        assert await store.verify(chunk_id(1)) == digest_of(some_bytes(length))
        assert await store.quarantine_judged([(chunk_id(1), state)]) == [True]

    async def test_what_was_stored_anew_is_not_what_could_not_be_read(
        self, store: ChunkStore, subject: StoreUnderTest
    ) -> None:
        """An order that comes twice, and a good piece was made between."""
        await put(store, chunk_id(1), some_bytes(5000))
        subject.shorten(chunk_id(1))
        for expected in (True, False):
            assert await store.quarantine_judged([(chunk_id(1), None)]) == [expected]
            await put(store, chunk_id(1), some_bytes(5000))
        assert await store.verify(chunk_id(1)) == digest_of(some_bytes(5000))

    async def test_inventory_pages_in_order(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Every chunk once, ordered by id, whatever the page's size and the order of the puts."""
        before_ms = subject.now_ms()
        ids = [chunk_id(n * 1000, i, s) for n in range(12) for i in (0, 1, 300) for s in (b"session0", SESSION)]
        items = [(of, some_bytes(n + 1)) for n, of in enumerate(ids)]
        await store.put_many(random.Random(5).sample(items, len(items)))
        lengths = {of.to_bytes(): len(data) for of, data in items}
        for limit in (1, 7, 1000):
            found = []
            after: ChunkId | None = None
            while page := await store.inventory(after, limit):
                assert len(page) <= limit
                found += page
                after = chunk_id_from_bytes(page[-1].chunk_id)
            assert [entry.chunk_id for entry in found] == sorted(lengths)
            assert all(entry.length == lengths[entry.chunk_id] for entry in found)
            assert all(before_ms <= entry.stored_ms <= subject.now_ms() for entry in found)

    async def test_inventory_after_a_chunk_that_is_gone(self, store: ChunkStore) -> None:
        """`after` is a place in the order, not a chunk that must exist."""
        await store.put_many([(chunk_id(n), b"x") for n in (1, 3)])
        assert [entry.chunk_id for entry in await store.inventory(chunk_id(2), 10)] == [chunk_id(3).to_bytes()]
        assert await store.inventory(chunk_id(3), 10) == []

    async def test_space(self, store: ChunkStore) -> None:
        """Free never exceeds the capacity."""
        space = await store.space()
        assert 0 < space.free_bytes <= space.capacity_bytes
        assert space.reserve_bytes >= 0

    # --- at once

    async def test_two_writers_of_the_same_bytes(self, store: ChunkStore) -> None:
        """All are answered alike."""
        data = some_bytes(200_000)
        receipts = await asyncio.gather(*[store.put(chunk_id(1), len(data), cut(data, 7000)) for _ in range(6)])
        assert receipts == [digest_of(data)] * 6
        assert await store.verify(chunk_id(1)) == digest_of(data)

    async def test_two_writers_of_other_bytes(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Exactly one wins, the others learn of it, and what is stored is the winner's."""
        bodies = [some_bytes(100_000, seed=n) for n in range(6)]
        outcomes = await asyncio.gather(
            *[store.put(chunk_id(1), len(data), cut(data, 7000)) for data in bodies], return_exceptions=True
        )
        [winner] = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        assert all(isinstance(outcome, ChunkConflict) for n, outcome in enumerate(outcomes) if n != winner)
        assert await read(store, chunk_id(1)) == bodies[winner]
        assert subject.leftovers() == []

    async def test_put_get_and_delete_of_one_chunk_at_once(self, store: ChunkStore) -> None:
        """Every put succeeds; a read gives the whole chunk or none of it; at the end a delete leaves nothing."""
        data = some_bytes(300_000)

        async def write() -> None:
            for _ in range(8):
                await put(store, chunk_id(1), data)

        async def look() -> None:
            for _ in range(20):
                with suppress(ChunkNotFound):
                    assert await read(store, chunk_id(1)) == data

        async def remove() -> None:
            for _ in range(12):
                await store.delete_many([chunk_id(1)])

        await asyncio.gather(write(), write(), look(), look(), remove())
        await store.delete_many([chunk_id(1)])
        with pytest.raises(ChunkNotFound):
            await store.stat(chunk_id(1))

    async def test_a_delete_during_a_read(self, store: ChunkStore) -> None:
        """A read of a local file that began goes on to the end; elsewhere it may fail, but never give other bytes."""
        data = some_bytes(LARGE_BYTES)
        await put(store, chunk_id(1), data)
        found = bytearray()
        with suppress(ChunkError):
            async for block in store.get(chunk_id(1)):
                if not found:
                    assert await store.delete_many([chunk_id(1)]) == [True]
                found += block
            assert found == data
        assert data.startswith(found)

    async def test_a_cancelled_put_leaves_nothing_half(self, store: ChunkStore, subject: StoreUnderTest) -> None:
        """Cut off while its body stalls."""
        stalled = asyncio.Event()

        async def body() -> AsyncIterator[Buffer]:
            for _ in range(20):
                yield some_bytes(65_536)
            stalled.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.put(chunk_id(1), 30 * 65_536, body()))
        await stalled.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self._check_nothing_stayed(subject)

    async def _check_nothing_stayed(self, subject: StoreUnderTest) -> None:
        with pytest.raises(ChunkNotFound):
            await subject.store.stat(chunk_id(1))
        assert await subject.store.inventory(None, 10) == []
        assert subject.leftovers() == []
        await put(subject.store, chunk_id(1), b"the id is free")
