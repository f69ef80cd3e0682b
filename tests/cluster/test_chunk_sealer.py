"""The chunk sealer: whatever the blocks, the same sealed bytes as when the chunk is sealed whole."""

from __future__ import annotations

import asyncio
import os
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.byte_budget import ByteBudget
from cluster.chunk_sealer import ChunkSealer
from cluster.frame_log import FrameLog
from storage.base.ids import ChunkId
from storage.crypto.envelope import FRAME_BYTES, Opener, Sealer, open_whole, sealed_length

CLUSTER_ID = bytes(16)
CHUNK = ChunkId(b"b" * 16, 3)
DATA_KEY = b"d" * 32


async def seal_in(blocks: list[bytes], length: int) -> bytes:
    """Through a sealer and a log."""
    log = FrameLog(ByteBudget(), window_bytes_max=1 << 30)
    cursor = log.open_cursor()
    assert cursor is not None
    sealer = ChunkSealer(Sealer(CLUSTER_ID, CHUNK, DATA_KEY), length, log)
    for block in blocks:
        rest = memoryview(block)
        while rest:
            taken = await sealer.take(rest)
            assert taken > 0
            rest = rest[taken:]
    assert sealer.complete
    sealed = b"".join([bytes(piece) async for piece in cursor])
    assert log.length == sealed_length(length) == len(sealed)
    return sealed


@settings(max_examples=60, deadline=None)
@given(
    length=st.one_of(
        st.integers(1, 400_000),
        st.sampled_from([FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 2 * FRAME_BYTES + 1]),
    ),
    seed=st.integers(0, 10**6),
    largest=st.sampled_from([1_000, 65_535, 65_536, 70_000, 200_000, 500_000]),
)
def test_any_blocks_give_the_same_sealed_bytes(length: int, seed: int, largest: int) -> None:
    """Cut at random: equal to sealing the chunk whole, and it opens."""
    rng = random.Random(seed)
    data = rng.randbytes(length)
    blocks, at = [], 0
    while at < length:
        size = rng.randrange(1, largest + 1)
        blocks.append(data[at : at + size])
        at += size
    sealed = asyncio.run(seal_in(blocks, length))
    assert sealed == bytes(Sealer(CLUSTER_ID, CHUNK, DATA_KEY).seal_whole(data))
    assert open_whole(Opener(CLUSTER_ID, CHUNK, DATA_KEY), sealed) == data


async def test_a_block_beyond_the_chunk_is_taken_only_up_to_its_end() -> None:
    """The rest belongs to the next chunk."""
    log = FrameLog(ByteBudget())
    sealer = ChunkSealer(Sealer(CLUSTER_ID, CHUNK, DATA_KEY), 100_000, log)
    assert log.open_cursor() is not None
    block = memoryview(os.urandom(150_000))
    assert await sealer.take(block) == 100_000
    assert sealer.complete
