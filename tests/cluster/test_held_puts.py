"""PUTs that are all in memory: stored and committed as any other, told once, and nothing stays of those that fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.body import BodyDigests
from cluster.held_puts import HeldPut
from storage.base.errors import (
    FrostbyteError,
    NoSuchKey,
    NotEnoughNodes,
    PreconditionFailed,
    SessionFenced,
    Unavailable,
    UnknownKeyId,
)
from storage.metadata.commands import Conditions, VersionCommitted
from storage.model import Checksum, ChecksumAlgorithm
from tests.cluster.test_writer import CHUNK, require_copies, require_nothing_stays, world_of
from tests.cluster.world import SETTINGS, World

SMALL = SETTINGS.inline_bytes_max
LARGER = 100_000
WAIT_S = 20
CHECKSUM = Checksum(ChecksumAlgorithm.CRC64NVME, "AAAAAAAAAAA=")


def put_of(world: World, data: bytes, conditions: Conditions = Conditions()) -> HeldPut:  # noqa: B008 (immutable)
    """Of the object that all tests write."""
    digests = BodyDigests(hashlib.md5(data, usedforsecurity=False).digest(), CHECKSUM)
    request = world.request(content_type="text/x")._replace(conditions=conditions)
    return HeldPut(world.bucket, b"key", memoryview(data), digests, request)


class Told:
    """What on_outcome is told."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []

    def __call__(self, outcome: Any) -> None:
        self.outcomes.append(outcome)

    async def wait(self) -> Any:
        """The one outcome."""
        async with asyncio.timeout(WAIT_S):
            while not self.outcomes:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        (outcome,) = self.outcomes
        return outcome


async def put(world: World, held: HeldPut) -> Any:
    """Small or in one go → the outcome; False where it cannot be written in one go."""
    puts, told, size = world.objects.held, Told(), len(held.plaintext)
    if puts.is_small(size):
        puts.put_small(held, told)
        return await told.wait()
    redundancy = puts.find_redundancy(held.bucket, size)
    assert redundancy is not None
    if not await puts.put_whole(held, redundancy, told):
        assert not told.outcomes
        return False
    return await told.wait()


def writes_under_way(world: World) -> int:
    """What holds the session."""
    session = world.objects._writer._services.session
    assert session._current is not None
    return session._current.writes


@pytest.mark.parametrize("size", [1, SMALL, SMALL + 1, 65_536, 65_537, CHUNK])
async def test_what_is_put_reads_back(tmp_path: Path, size: int) -> None:
    """With all that was said of it; its MAC is verified on the way."""
    data = os.urandom(size)
    async with world_of(tmp_path) as world:
        outcome = await put(world, put_of(world, data))
        assert isinstance(outcome, VersionCommitted) and outcome.etag == hashlib.md5(data).hexdigest()
        assert await world.get(b"key") == data
        version = (await world.objects.head(world.bucket, b"key")).version
        assert (version.size, version.etag, version.owner_id) == (size, outcome.etag, world.owner.canonical_id)
        assert (version.attributes.content_type, version.attributes.checksum) == ("text/x", CHECKSUM)
        if size > SMALL:
            await require_copies(world, data)
        assert world.copies == (2 if size > SMALL else 0) and writes_under_way(world) == 0


async def test_who_puts_what(tmp_path: Path) -> None:
    """What is more than a chunk, and all without a door that answers at once, is for others."""
    async with world_of(tmp_path) as world:
        puts = world.objects.held
        assert puts.is_small(SMALL) and not puts.is_small(SMALL + 1)
        assert puts.find_redundancy(world.bucket, CHUNK) and not puts.find_redundancy(world.bucket, CHUNK + 1)
        puts._at_once = None
        assert not puts.is_small(1) and puts.find_redundancy(world.bucket, CHUNK) is None


@pytest.mark.parametrize("size", [10, LARGER])
async def test_a_refused_commit_leaves_nothing(tmp_path: Path, size: int) -> None:
    """Its chunks are gone when it is told."""
    async with world_of(tmp_path) as world:
        outcome = await put(world, put_of(world, os.urandom(size), Conditions(if_match="no such etag")))
        assert isinstance(outcome, NoSuchKey)
        await require_nothing_stays(world)
        assert writes_under_way(world) == 0
        data = os.urandom(size)
        assert isinstance(await put(world, put_of(world, data)), VersionCommitted)
        outcome = await put(world, put_of(world, os.urandom(size), Conditions(if_none_match="*")))
        assert isinstance(outcome, PreconditionFailed)
        assert await world.get(b"key") == data and world.copies == (0 if size == 10 else 2)


@pytest.mark.parametrize("error", [Unavailable("gone", outcome="unknown"), SessionFenced()])
async def test_an_unknown_outcome_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: FrostbyteError
) -> None:
    """The chunks stay for whoever can tell, and the one who asked is told."""
    data = os.urandom(LARGER)
    async with world_of(tmp_path) as world:
        door = type(world.objects.held._at_once)
        submit = door.submit

        def lose_the_answer(self: Any, command: Any, on_outcome: Callable[[Any], None]) -> None:
            submit(self, command, lambda _: on_outcome(error))

        monkeypatch.setattr(door, "submit", lose_the_answer)
        assert await put(world, put_of(world, data)) is error
        monkeypatch.undo()
        assert await world.get(b"key") == data
        assert world.copies == 2 and writes_under_way(world) == 0


async def test_a_commit_waits_for_the_owner_to_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it takes nothing at once, for it was stored already; a small one is the caller's again."""
    data = os.urandom(LARGER)
    async with world_of(tmp_path) as world:

        def refuse(*_: Any) -> None:
            raise Unavailable("the connection is broken")

        monkeypatch.setattr(type(world.objects.held._at_once), "submit", refuse)
        assert isinstance(await put(world, put_of(world, data)), VersionCommitted)
        with pytest.raises(Unavailable):
            await put(world, put_of(world, b"small"))
        monkeypatch.undo()
        await require_copies(world, data)
        assert writes_under_way(world) == 0


async def test_a_commit_that_is_cancelled_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come yet: nothing is deleted that it would reference, and it is told as unknown."""
    async with world_of(tmp_path) as world:
        told, asked = Told(), asyncio.Event()

        def refuse(*_: Any) -> None:
            raise Unavailable("the connection is broken")

        apply = world.metadata.apply

        async def wait_for_ever(command: Any) -> Any:
            if type(command).__name__ != "CommitVersion":
                return await apply(command)
            asked.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr(type(world.objects.held._at_once), "submit", refuse)
        monkeypatch.setattr(world.metadata, "apply", wait_for_ever)
        redundancy = world.objects.held.find_redundancy(world.bucket, LARGER)
        assert redundancy is not None
        putting = asyncio.ensure_future(
            world.objects.held.put_whole(put_of(world, os.urandom(LARGER)), redundancy, told)
        )
        await asyncio.wait_for(asked.wait(), WAIT_S)
        putting.cancel()
        outcome = await told.wait()
        assert isinstance(outcome, Unavailable) and outcome.details == {"outcome": "unknown"}
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert world.copies == 2 and writes_under_way(world) == 0


async def test_what_cannot_be_written_in_one_go_is_the_callers(tmp_path: Path) -> None:
    """A node that fails: what was tried is taken back, and nobody is told."""
    async with world_of(tmp_path, node_count=2) as world:
        for node in world.nodes.values():
            node.full = True
        assert await put(world, put_of(world, os.urandom(LARGER))) is False
        assert writes_under_way(world) == 0
        await require_nothing_stays(world)


async def test_errors_before_anything_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No session, no key, too few nodes: nothing is held."""
    async with world_of(tmp_path) as world:
        unknown = put_of(world, os.urandom(LARGER))
        unknown = unknown._replace(bucket=msgspec.structs.replace(world.bucket, bucket_key_id="bk-0"))
        with pytest.raises(UnknownKeyId):
            await put(world, unknown)
        monkeypatch.setattr(world.objects._writer._services.session, "_lease_ttl_s", 0.0)
        for size in (10, LARGER):
            with pytest.raises(Unavailable):
                await put(world, put_of(world, os.urandom(size)))
        monkeypatch.undo()
        assert writes_under_way(world) == 0
        await world.map.change([])
        assert await put(world, put_of(world, os.urandom(LARGER))) is False
        with pytest.raises(NotEnoughNodes):
            await world.put(b"key", os.urandom(LARGER))


async def test_a_cancelled_one_leaves_nothing(tmp_path: Path) -> None:
    """It was on its nodes already."""
    async with world_of(tmp_path) as world:
        for node in world.nodes.values():
            node.put_is_never_durable = True
        told, redundancy = Told(), world.objects.held.find_redundancy(world.bucket, LARGER)
        assert redundancy is not None
        putting = asyncio.ensure_future(
            world.objects.held.put_whole(put_of(world, os.urandom(LARGER)), redundancy, told)
        )
        async with asyncio.timeout(WAIT_S):
            while world.copies < 2:
                await asyncio.sleep(0.001)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await require_nothing_stays(world)
        assert writes_under_way(world) == 0 and not told.outcomes
