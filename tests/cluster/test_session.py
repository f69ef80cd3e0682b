"""The write session against the real metadata: ids, leases, fencing, and the reads that it reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.session import ROTATE_AFTER_S, ReadTracker, WriteSession
from storage.base.clock import ManualClock
from storage.base.errors import SessionFenced, Unavailable
from storage.metadata.commands import Command, FenceSessions, OpenSession, RenewSession
from storage.metadata.interface import Metadata
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import SessionState
from storage.model import WriteSession as Record


class Flaky:
    """Metadata that fails as told. `failure`: raised instead of applying; `stuck`: waits for ever."""

    def __init__(self, inner: Metadata) -> None:
        self.inner = inner
        self.failure: Exception | None = None
        self.stuck = False
        self.commands: list[Command] = []

    async def apply(self, command: Command) -> Any:
        self.commands.append(command)
        if self.stuck:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return await self.inner.apply(command)


class Scene:
    """A session over real metadata, and its clock."""

    def __init__(self, metadata: Metadata, clock: ManualClock) -> None:
        self.metadata = metadata
        self.clock = clock
        self.flaky = Flaky(metadata)
        self.reads = ReadTracker(clock)
        self.session = WriteSession(self.flaky, self.reads, clock)  # type: ignore[arg-type]

    async def record(self, session_id: bytes) -> Record:
        """As the metadata has it."""
        return next(it for it in await self.metadata.list_sessions() if it.session_id == session_id)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Started and stopped."""
    clock = ManualClock()
    metadata = await open_owned_metadata(tmp_path, clock=clock)
    made = Scene(metadata, clock)
    await made.session.start()
    yield made
    await made.session.stop()
    await metadata.close()


async def test_blob_ids_count_up_under_the_session(scene: Scene) -> None:
    """16 bytes: the session's 8 and a counter from 1."""
    session_id = scene.session.session_id
    ids = [scene.session.next_blob_id() for _ in range(3)]
    assert ids == [session_id + number.to_bytes(8, "big") for number in (1, 2, 3)]
    assert (await scene.record(session_id)).state is SessionState.OPEN


async def test_renewal_keeps_the_lease(scene: Scene) -> None:
    """For longer than it lasts by itself."""
    for _ in range(10):
        scene.clock.advance(20)
        await scene.session.renew()
        assert await scene.metadata.apply(FenceSessions(30_000)) == []
    assert scene.session.is_open


async def test_a_lease_that_ran_out_writes_nothing(scene: Scene) -> None:
    """Even before the worker was told that it is fenced."""
    scene.clock.advance(30)
    assert not scene.session.is_open
    with pytest.raises(Unavailable):
        scene.session.next_blob_id()
    await scene.session.renew()
    scene.session.next_blob_id()


async def test_a_fenced_session_is_replaced(scene: Scene) -> None:
    """By one with another id, whose blobs count from 1 again."""
    old = scene.session.session_id
    scene.session.next_blob_id()
    await scene.metadata.apply(FenceSessions(-1))
    await scene.session.renew()
    new = scene.session.session_id
    assert new != old
    assert scene.session.next_blob_id() == new + (1).to_bytes(8, "big")
    assert (await scene.record(old)).state is SessionState.FENCED
    with pytest.raises(SessionFenced):
        await scene.metadata.apply(RenewSession(old, 0))


async def test_metadata_that_is_away_is_asked_again(scene: Scene) -> None:
    """The session stays the same when the metadata comes back within the lease."""
    session_id = scene.session.session_id
    scene.flaky.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await scene.session.renew()
    scene.flaky.failure = None
    scene.clock.advance(20)
    await scene.session.renew()
    assert scene.session.session_id == session_id


async def test_fenced_while_the_metadata_is_away(scene: Scene) -> None:
    """Told that it is fenced and then unable to open a new one: there is no session until that works."""
    await scene.metadata.apply(FenceSessions(-1))
    inner = scene.flaky.inner

    class NoNewOnes:
        async def apply(self, command: Command) -> Any:
            if isinstance(command, OpenSession):
                raise Unavailable("away")
            return await inner.apply(command)

    scene.flaky.inner = NoNewOnes()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await scene.session.renew()
    assert not scene.session.is_open
    scene.flaky.inner = inner
    await scene.session.renew()
    assert scene.session.is_open


async def test_a_session_is_replaced_every_day(scene: Scene) -> None:
    """The new one takes all further writes; the old one is kept alive for the writes that hold it, then closed."""
    old = scene.session.session_id
    long_write = scene.session.enter()
    scene.clock.advance(ROTATE_AFTER_S)
    await scene.session.renew()
    new = scene.session.session_id
    assert new != old
    assert scene.session.enter().next_blob_id() == new + (1).to_bytes(8, "big")
    for _ in range(10):
        scene.clock.advance(20)
        await scene.session.renew()
        assert await scene.metadata.apply(FenceSessions(30_000)) == []
    assert long_write.next_blob_id()[:8] == old
    assert (await scene.record(old)).state is SessionState.OPEN
    long_write.leave()
    for _ in range(2):
        assert (await scene.record(old)).state is SessionState.OPEN
        scene.clock.advance(20)
        await scene.session.renew()
    assert (await scene.record(old)).state is SessionState.CLOSED
    assert (await scene.record(new)).state is SessionState.OPEN


async def test_a_replaced_session_stays_for_the_reads_that_are_older_than_the_new_one(scene: Scene) -> None:
    """The new one cannot vouch for them: its record begins when it was opened."""
    old = scene.session.session_id
    # A renewal under way would be applied after the clock was moved, with an age of before: this one comes behind it.
    await scene.session._loop.stop()
    await scene.session.renew()
    with scene.reads.track():
        begun_ms = scene.clock.now_ms()
        scene.clock.advance(ROTATE_AFTER_S)
        await scene.session.renew()
        for _ in range(5):
            scene.clock.advance(25)
            await scene.session.renew()
        record = await scene.record(old)
        assert (record.state, begun_ms - 10 <= record.oldest_read_ms <= begun_ms) == (SessionState.OPEN, True)
    with scene.reads.track():  # a younger one is the new session's
        for _ in range(3):
            scene.clock.advance(25)
            await scene.session.renew()
        assert (await scene.record(old)).state is SessionState.CLOSED


async def test_a_replaced_session_may_be_fenced_or_stopped(scene: Scene) -> None:
    """Fenced: it is let go. Stopped: both are closed."""
    first = scene.session.session_id
    scene.clock.advance(ROTATE_AFTER_S)
    await scene.session.renew()
    await scene.metadata.apply(FenceSessions(-1))
    await scene.session.renew()  # the current one is replaced because it was fenced
    await scene.session.renew()  # and now the other is let go
    assert (await scene.record(first)).state is SessionState.FENCED
    second = scene.session.session_id
    scene.clock.advance(ROTATE_AFTER_S)
    await scene.session.renew()
    third = scene.session.session_id
    await scene.session.stop()
    assert [(await scene.record(it)).state for it in (second, third)] == [SessionState.CLOSED] * 2


async def test_stop_closes_the_session(scene: Scene) -> None:
    """Its record says so, and a metadata that is away then is no error."""
    session_id = scene.session.session_id
    await scene.session.stop()
    assert (await scene.record(session_id)).state is SessionState.CLOSED
    assert not scene.session.is_open
    await scene.session.start()
    scene.flaky.failure = Unavailable("away")
    await scene.session.stop()


async def test_the_oldest_running_read_is_reported(scene: Scene) -> None:
    """In the metadata's own time, and forgotten when it ends."""
    session_id = scene.session.session_id
    await scene.session.renew()  # so that none is on its way that was sent before the read
    begun_ms = scene.clock.now_ms()
    with scene.reads.track():
        scene.clock.advance(7)
        with scene.reads.track():
            scene.clock.advance(8)
            await scene.session.renew()
            assert begun_ms - 5 <= (await scene.record(session_id)).oldest_read_ms <= begun_ms
        assert scene.reads.running == 1
    scene.clock.advance(1)
    await scene.session.renew()
    assert (await scene.record(session_id)).oldest_read_ms == scene.clock.now_ms()
    assert (scene.reads.running, scene.reads.oldest_age_ms()) == (0, 0)


async def test_the_oldest_read_is_the_oldest_whatever_ends_first(scene: Scene) -> None:
    """Reads end in any order."""
    first, second = scene.reads.track(), scene.reads.track()
    first.__enter__()
    scene.clock.advance(1)
    second.__enter__()
    scene.clock.advance(1)
    first.__exit__(None, None, None)
    assert 1_000 <= scene.reads.oldest_age_ms() <= 1_002
    second.__exit__(None, None, None)


async def test_it_renews_by_itself(tmp_path: Path) -> None:
    """In the background, every sixth of the lease."""
    clock = ManualClock()
    metadata = await open_owned_metadata(tmp_path, clock=clock)
    flaky = Flaky(metadata)
    session = WriteSession(flaky, ReadTracker(clock), clock, lease_ttl_s=0.6)  # type: ignore[arg-type]
    await session.start()
    async with asyncio.timeout(60):
        while sum(isinstance(command, RenewSession) for command in flaky.commands) < 3:
            await asyncio.sleep(0.005)
    await session.stop()
    await metadata.close()


async def test_stuck_metadata_is_unavailable(tmp_path: Path) -> None:
    """Opening, renewing and closing each have a deadline; a session that cannot be opened is, as soon as it can."""
    clock = ManualClock()
    metadata = await open_owned_metadata(tmp_path, clock=clock)
    flaky = Flaky(metadata)
    session = WriteSession(flaky, ReadTracker(clock), clock, lease_ttl_s=0.15)  # type: ignore[arg-type]
    flaky.stuck = True
    await session.start()
    with pytest.raises(Unavailable):
        session.next_blob_id()
    flaky.stuck = False
    await session.renew()
    assert session.next_blob_id()
    flaky.stuck = True
    with pytest.raises(Unavailable):
        await session.renew()
    await session.stop()
    await metadata.close()
