"""What is hashed where: all of a body, in order, and no more of it held than the bound says."""

from __future__ import annotations

import gc
import hashlib
import os
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from s3gw.digester import BATCH_BYTES, CROWDED_BATCH_BYTES, FEW_BODIES_MAX, INLINE_BYTES_MAX, Digester

BLOCK_BYTES = 64 * 1024


class CountingExecutor(Executor):
    """Runs at once what it is given, and remembers how many bytes that was."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.batches.append(sum(len(block) for block, _ in args[0]))
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


async def hash_body(size: int) -> list[int]:
    """The batches that a body of this size was handed over in; what came out is right."""
    data, executor = os.urandom(size), CountingExecutor()
    hashers = [hashlib.md5(usedforsecurity=False), hashlib.sha256()]
    digester = Digester(hashers, executor=executor)
    for start in range(0, size, BLOCK_BYTES):
        await digester.add(data[start : start + BLOCK_BYTES])
    await digester.finish()
    assert [hasher.digest() for hasher in hashers] == [hashlib.md5(data).digest(), hashlib.sha256(data).digest()]
    return executor.batches


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
