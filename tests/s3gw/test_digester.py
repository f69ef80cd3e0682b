"""What is hashed where: all of a body, in order, and no more of it held than the bound says."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from s3gw.digester import BATCH_BYTES, CROWDED_BATCH_BYTES, FEW_BODIES_MAX, INLINE_BYTES_MAX, Digester

BLOCK_BYTES = 64 * 1024


class CountingPool:
    """Runs at once what it is given, and remembers how many bytes that was."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, function: Callable[..., None], *args: Any) -> asyncio.Future[None]:
        self.batches.append(sum(len(block) for block, _ in args[0]))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(function(*args))
        return future


async def hash_body(size: int) -> list[int]:
    """The batches that a body of this size was handed over in; what came out is right."""
    data, pool = os.urandom(size), CountingPool()
    hashers = [hashlib.md5(usedforsecurity=False), hashlib.sha256()]
    digester = Digester(hashers, pool=pool)
    for start in range(0, size, BLOCK_BYTES):
        await digester.add(data[start : start + BLOCK_BYTES])
    await digester.finish()
    assert [hasher.digest() for hasher in hashers] == [hashlib.md5(data).digest(), hashlib.sha256(data).digest()]
    return pool.batches


@pytest.mark.parametrize(
    ("size", "batches"),
    [
        (INLINE_BYTES_MAX, []),
        (INLINE_BYTES_MAX + 1, [INLINE_BYTES_MAX + 1]),
        (BATCH_BYTES, [BATCH_BYTES]),
        (2 * BATCH_BYTES + 5, [BATCH_BYTES, BATCH_BYTES]),
        (BATCH_BYTES + INLINE_BYTES_MAX + 1, [BATCH_BYTES, INLINE_BYTES_MAX + 1]),
    ],
)
async def test_large_amounts_are_handed_over(size: int, batches: list[int]) -> None:
    """And a small one is hashed in place."""
    assert await hash_body(size) == batches


async def test_many_bodies_hold_less_each() -> None:
    """While they are under way, and no longer."""
    gc.collect()  # those of other tests
    before = Digester.under_way
    others = [Digester([]) for _ in range(FEW_BODIES_MAX + 1)]
    assert await hash_body(2 * CROWDED_BATCH_BYTES) == [CROWDED_BATCH_BYTES] * 2
    del others
    gc.collect()
    assert Digester.under_way == before
    assert await hash_body(2 * CROWDED_BATCH_BYTES) == [2 * CROWDED_BATCH_BYTES]
