"""Bodies whose end comes as a surprise: what is sure of them and their tail are two blobs of one version."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.body import BodyDigests, HeldBody
from cluster.objectstore import CopySource, PutResult
from storage.base.errors import PreconditionFailed, Unavailable
from storage.metadata.commands import Command, CommitVersion, Conditions
from storage.model import ByteRange, ChecksumAlgorithm
from tests.cluster.world import BlocksBody, World, open_world


class TailedBody(BlocksBody):
    """A body whose tail shows when it is finished."""

    def __init__(self, data: bytes, sure: int) -> None:
        super().__init__([data[:sure]] if sure else [])
        self.tail = b""
        self._later = data[sure:]

    async def finish(self) -> BodyDigests:
        self.tail = self._later
        self._md5.update(self.tail)
        self._crc.update(self.tail)
        return await super().finish()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three nodes, chunks of 256 KiB."""
    async with open_world(tmp_path) as opened:
        yield opened


async def put(world: World, data: bytes, sure: int, conditions: Conditions = Conditions()) -> PutResult:  # noqa: B008
    """Put the data, of which the first `sure` bytes are sure."""
    request = world.request()._replace(conditions=conditions)
    return await world.objects.put_open_ended(world.bucket, b"key", TailedBody(data, sure), request)


@pytest.mark.parametrize(
    ("sure", "tail"), [(0, 0), (0, 5), (5, 0), (5, 5), (16_385, 1), (700_000, 0), (700_000, 16_000), (600_000, 40_000)]
)
async def test_it_comes_back_as_one_object(world: World, sure: int, tail: int) -> None:
    """Whole and in ranges over the seam, under one ETag, and a copy of it shares its blobs or streams them."""
    data = os.urandom(sure + tail)
    result = await put(world, data, sure)
    assert result.committed.etag == hashlib.md5(data).hexdigest()
    assert await world.get(b"key") == data
    for start, end in [(max(sure - 3, 0), sure + 3), (sure, sure + 1), (0, len(data))]:
        if start < len(data):
            assert await world.get(b"key", ByteRange(start, end - 1)) == data[start:end]
    reading = await world.objects.head(world.bucket, b"key")
    assert (reading.version.size, reading.version.part_count) == (len(data), 0)
    source = CopySource(world.bucket, reading.version)
    await world.objects.copy(source, world.bucket, b"copy", world.request(), ChecksumAlgorithm.CRC64NVME)
    assert await world.get(b"copy") == data


async def test_a_refused_commit_leaves_nothing(world: World) -> None:
    """Neither of the sure part nor of the tail."""
    await put(world, b"first", 0)
    with pytest.raises(PreconditionFailed):
        await put(world, os.urandom(700_000), 660_000, Conditions(if_none_match="*"))
    assert world.copies == 0
    assert await world.get(b"key") == b"first"


@pytest.mark.parametrize("applied", [False, True])
async def test_an_unknown_outcome_deletes_nothing(world: World, monkeypatch: pytest.MonkeyPatch, applied: bool) -> None:
    """Both blobs stay for as long as the metadata may refer to them."""
    apply = world.metadata.apply

    async def lose_the_answer(command: Command) -> Any:
        if not isinstance(command, CommitVersion):
            return await apply(command)
        if applied:
            await apply(command)
        raise Unavailable("lost", outcome="unknown")

    monkeypatch.setattr(world.metadata, "apply", lose_the_answer)
    data = os.urandom(700_000)
    with pytest.raises(Unavailable):
        await put(world, data, 650_000)
    assert world.copies > 0
    if applied:
        assert await world.get(b"key") == data


async def test_a_body_in_memory() -> None:
    """One block, none when it is empty."""
    assert [block async for block in HeldBody(b"abc")] == [b"abc"]
    assert [block async for block in HeldBody(b"")] == []
