"""The stripe log: what comes out of its fragments is what cutting the sealed chunk gives, within the budget."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.byte_budget import ByteBudget
from cluster.chunk_sealer import ChunkSealer
from cluster.chunk_writes import BUDGET_BYTES_MIN
from cluster.frame_log import Cursor
from cluster.stripe_log import StripeLog
from storage.base.errors import Unavailable
from storage.base.ids import ChunkId
from storage.chunks.erasure import FRAGMENT_HEADER_BYTES, SEALED_FRAME_BYTES, Striping
from storage.chunks.footer import digest_of
from storage.chunks.store import ChunkReceipt
from storage.crypto.envelope import FRAME_BYTES, Sealer, sealed_length
from tests.storage.chunks.fragments import split_chunk

CLUSTER_ID = bytes(16)
CHUNK = ChunkId(b"b" * 16, 3)
DATA_KEY = b"d" * 32
PATIENCE_S = 0.05
LONG_PATIENCE_S = 1.0
"""for a test that must not use it up on a busy machine"""


class Bench:
    """A stripe log with its budgets, and a sealer in front of it."""

    def __init__(
        self,
        needed: int,
        width: int,
        plain_length: int,
        budget_bytes: int = BUDGET_BYTES_MIN,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._patience_s = patience_s
        self.striping = Striping(needed, width, sealed_length(plain_length))
        self.budget = ByteBudget(budget_bytes)
        self.shared = ByteBudget(budget_bytes // 2)
        self.log = self.open_log()
        self.sealer = ChunkSealer(Sealer(CLUSTER_ID, CHUNK, DATA_KEY), plain_length, self.log)

    def open_log(self) -> StripeLog:
        """Another one over the same budgets."""
        return StripeLog(self.budget, self.shared, self.striping, self._patience_s)

    def open_cursors(self) -> list[Cursor]:
        """One for each fragment, from its start."""
        cursors = [log.open_cursor() for log in self.log.fragments]
        return [cursor for cursor in cursors if cursor is not None]

    async def feed(self, data: bytes, block_bytes: int) -> None:
        """In blocks of this size."""
        for at in range(0, len(data), block_bytes):
            rest = memoryview(data)[at : at + block_bytes]
            while rest:
                rest = rest[await self.sealer.take(rest) :]


async def read(cursor: Cursor, pace: int = 0) -> bytes:
    """Everything up to the end, with turns of the loop between pieces."""
    got = []
    async for piece in cursor:
        got.append(bytes(piece))
        for _ in range(pace):
            await asyncio.sleep(0)
    cursor.close()
    return b"".join(got)


@settings(max_examples=40, deadline=None)
@given(
    needed=st.integers(1, 6),
    parity=st.integers(1, 3),
    length=st.one_of(st.integers(1, 900_000), st.integers(1, 14).map(lambda count: count * FRAME_BYTES)),
    block_bytes=st.sampled_from([10_000, 65_536, 100_000, 1 << 20]),
    paces=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    absent=st.integers(0, 8),
)
def test_the_fragments_are_those_of_the_sealed_chunk(
    needed: int, parity: int, length: int, block_bytes: int, paces: list[int], absent: int
) -> None:
    """Whatever the blocks and the pace of each reader; also the digest of one that nobody reads."""
    data = random.Random(length).randbytes(length)
    expected = split_chunk(bytes(Sealer(CLUSTER_ID, CHUNK, DATA_KEY).seal_whole(data)), needed, needed + parity)

    async def run() -> None:
        bench = Bench(needed, needed + parity, length)
        cursors = bench.open_cursors()
        if absent < len(cursors):
            cursors[absent].close()
        readers = {
            number: asyncio.create_task(read(cursor, paces[number]))
            for number, cursor in enumerate(cursors)
            if number != absent
        }
        async with asyncio.timeout(60):
            await bench.feed(data, block_bytes)
            for number, reader in readers.items():
                assert await reader == expected[number]
        for number, log in enumerate(bench.log.fragments):
            assert ChunkReceipt(log.length, log.digest) == digest_of(expected[number])
        bench.log.discard()
        assert bench.budget.held_bytes == bench.shared.held_bytes == 0

    asyncio.run(run())


async def test_parity_counts_and_a_slow_reader_holds_the_producer_back() -> None:
    """With one fragment that nobody takes, no more than the windows is held, however long the chunk."""
    bench = Bench(4, 6, 8 << 20, budget_bytes=32 << 20)
    first, *others = bench.open_cursors()
    readers = [asyncio.create_task(read(cursor)) for cursor in others]
    feeding = asyncio.create_task(bench.feed(os.urandom(8 << 20), 1 << 20))
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert not feeding.done()
    stripe_bytes = 6 * SEALED_FRAME_BYTES
    # What the slow one has not taken, the kept starts of the others, and at most one stripe that is gathered.
    assert bench.budget.held_bytes <= 6 * (256 << 10) + 2 * stripe_bytes + 6 * FRAGMENT_HEADER_BYTES
    readers.append(asyncio.create_task(read(first)))
    await feeding
    await asyncio.gather(*readers)
    bench.log.discard()
    assert bench.budget.held_bytes == 0


async def test_who_stops_in_a_stripe_is_given_up_when_others_wait() -> None:
    """Not before: a slow client that is in nobody's way goes on."""
    bench = Bench(4, 6, 20 * FRAME_BYTES, budget_bytes=20 * SEALED_FRAME_BYTES)
    for cursor in bench.open_cursors():
        cursor.close()
    data = os.urandom(20 * FRAME_BYTES)
    await bench.feed(data[:FRAME_BYTES], FRAME_BYTES)
    await asyncio.sleep(3 * PATIENCE_S)
    other = bench.open_log()
    waiting = asyncio.create_task(other.reserve(1))
    async with asyncio.timeout(60):
        await waiting
    with pytest.raises(Unavailable, match="too slowly"):
        await bench.feed(data[FRAME_BYTES:], FRAME_BYTES)
    for log in (bench.log, other):
        log.discard()
    assert bench.budget.held_bytes == bench.shared.held_bytes == 0


async def test_a_stripe_that_comes_in_time_is_not_given_up() -> None:
    """Others wait, and get their turn when it is whole."""
    bench = Bench(4, 6, 20 * FRAME_BYTES, budget_bytes=20 * SEALED_FRAME_BYTES, patience_s=LONG_PATIENCE_S)
    for cursor in bench.open_cursors():
        cursor.close()
    data = os.urandom(20 * FRAME_BYTES)
    await bench.feed(data[:FRAME_BYTES], FRAME_BYTES)
    other = bench.open_log()
    waiting = asyncio.create_task(other.reserve(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    await bench.feed(data[FRAME_BYTES : 4 * FRAME_BYTES], FRAME_BYTES)
    await waiting
    other.discard()
    await asyncio.sleep(1.5 * LONG_PATIENCE_S)
    await bench.feed(data[4 * FRAME_BYTES :], FRAME_BYTES)
    bench.log.discard()
    assert bench.budget.held_bytes == bench.shared.held_bytes == 0


async def test_only_as_many_are_given_up_as_must_be() -> None:
    """Two that stopped, and one that waits for what one of them holds."""
    bench = Bench(1, 2, 4 * FRAME_BYTES, budget_bytes=8 * SEALED_FRAME_BYTES + 1_000)
    stopped = [bench.open_log(), bench.open_log()]
    for log in stopped:
        await log.reserve(1)
    asking = bench.open_log()
    async with asyncio.timeout(60):
        await asking.reserve(1)
    await asyncio.sleep(3 * PATIENCE_S)
    failed = []
    for log in stopped:
        try:
            await log.reserve(1)
        except Unavailable:
            failed.append(log)
    assert len(failed) == 1
    for log in (*stopped, asking):
        log.discard()
    assert bench.budget.held_bytes == bench.shared.held_bytes == 0


async def test_who_is_cancelled_while_it_waits_holds_nothing() -> None:
    """In line for the share, and in line for the budget itself."""
    bench = Bench(4, 6, 4 * FRAME_BYTES, budget_bytes=20 * SEALED_FRAME_BYTES)
    await bench.budget.acquire(19 * SEALED_FRAME_BYTES)
    waiting = [asyncio.create_task(bench.open_log().reserve(1)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert bench.shared.held_bytes == 0
    assert bench.budget.held_bytes == 19 * SEALED_FRAME_BYTES


async def test_a_failure_of_the_readers_stops_the_producer() -> None:
    """At the next stripe at the latest."""
    bench = Bench(2, 3, 40 * FRAME_BYTES)
    bench.open_cursors()
    feeding = asyncio.create_task(bench.feed(os.urandom(40 * FRAME_BYTES), 1 << 20))
    for _ in range(100):
        await asyncio.sleep(0)
    for log in bench.log.fragments:
        log.fail(Unavailable("all gone"))
    with pytest.raises(Unavailable, match="all gone"):
        await feeding
    bench.log.discard()
    assert bench.budget.held_bytes == bench.shared.held_bytes == 0
