"""The door of objects over real metadata and datanodes in memory: what is put comes back, by any way of asking."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.model import ByteRange
from tests.cluster.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three nodes, chunks of 256 KiB."""
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_536, 65_537, 262_144, 262_145, 1_000_000, 3_000_000])
async def test_what_is_put_comes_back(world: World, size: int) -> None:
    """Whole, with the MD5 as ETag, on two nodes a chunk unless it is inline."""
    data = os.urandom(size)
    result = await world.put(b"key", data)
    assert result.committed.etag == hashlib.md5(data).hexdigest()
    assert await world.get(b"key") == data
    chunks = -(-size // (256 << 10)) if size > 16_384 else 0
    assert world.copies == 2 * chunks


async def test_ranges(world: World) -> None:
    """Every kind of range over chunk and frame borders."""
    data = os.urandom(1_000_000)
    await world.put(b"key", data)
    for start, end in [(0, 1), (65_535, 65_537), (262_143, 262_145), (500_000, 999_999), (999_999, 1_000_000)]:
        assert await world.get(b"key", ByteRange(start, end - 1)) == data[start:end]
    assert await world.get(b"key", ByteRange(None, None, 70_000)) == data[-70_000:]
