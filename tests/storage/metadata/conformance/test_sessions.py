"""Write sessions: only an open one commits, and fencing is decided inside the commit."""

from __future__ import annotations

import pytest

from storage.base.errors import SessionFenced
from storage.metadata.commands import (
    CloseSession,
    FenceSessions,
    ForgetSessions,
    OpenSession,
    RenewSession,
)
from storage.metadata.interface import Metadata
from storage.model import SessionState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine


async def test_an_expired_session_is_fenced_once_and_a_renewed_one_is_not(engine: Engine, metadata: Metadata) -> None:
    """FenceSessions answers the ids that it fenced now."""
    await metadata.apply(OpenSession(b"a" * 8, "one"))
    await metadata.apply(OpenSession(b"b" * 8, "two"))
    engine.clock.advance(10)
    await metadata.apply(RenewSession(b"b" * 8, 0))
    engine.clock.advance(1)
    assert await metadata.apply(FenceSessions(5_000)) == [b"a" * 8]
    assert await metadata.apply(FenceSessions(5_000)) == []
    states = {session.session_id: session.state for session in await metadata.list_sessions()}
    assert states == {b"a" * 8: SessionState.FENCED, b"b" * 8: SessionState.OPEN}


async def test_nothing_of_a_fenced_session_commits(engine: Engine, worker: Worker) -> None:
    """PUT, part and complete are all refused, and change nothing."""
    upload = await worker.create_upload(b"m")
    part = await worker.put_part(upload, 1)
    engine.clock.advance(60)
    await worker.apply(FenceSessions(1_000))
    with pytest.raises(SessionFenced):
        await worker.put(b"k")
    with pytest.raises(SessionFenced):
        await worker.put_part(upload, 2)
    with pytest.raises(SessionFenced):
        await worker.complete(upload, [part])
    with pytest.raises(SessionFenced):
        await worker.apply(RenewSession(worker.session_id, 0))
    assert (await worker.metadata.list_heads(worker.bucket.bucket_id)).entries == ()


async def test_a_session_that_was_never_opened_cannot_commit(worker: Worker) -> None:
    """An unknown session is as good as fenced."""
    stranger = Worker(worker.metadata, b"stranger", worker.bucket)
    with pytest.raises(SessionFenced):
        await stranger.put(b"k")


async def test_a_session_id_is_not_opened_twice(worker: Worker) -> None:
    """An incarnation is never resumed, closed or not."""
    with pytest.raises(SessionFenced):
        await worker.apply(OpenSession(worker.session_id, "again"))
    await worker.apply(CloseSession(worker.session_id))
    with pytest.raises(SessionFenced):
        await worker.apply(OpenSession(worker.session_id, "again"))
    with pytest.raises(SessionFenced):
        await worker.put(b"k")


async def test_the_oldest_read_moves_forward_only(engine: Engine, metadata: Metadata) -> None:
    """oldest_read_ms is the time of the renewal minus the age of the oldest read."""
    opened_ms = engine.clock.now_ms()
    await metadata.apply(OpenSession(b"a" * 8, "one"))
    engine.clock.advance(10)
    await metadata.apply(RenewSession(b"a" * 8, 4_000))
    assert (await metadata.list_sessions())[0].oldest_read_ms == opened_ms + 6_000
    await metadata.apply(RenewSession(b"a" * 8, 9_000))
    session = (await metadata.list_sessions())[0]
    assert (session.oldest_read_ms, session.renewed_ms) == (opened_ms + 6_000, opened_ms + 10_000)


async def test_only_sessions_that_are_not_open_are_forgotten(metadata: Metadata) -> None:
    """An open session in the list stays."""
    for name in (b"a", b"b"):
        await metadata.apply(OpenSession(name * 8, "x"))
    await metadata.apply(CloseSession(b"a" * 8))
    await metadata.apply(ForgetSessions((b"a" * 8, b"b" * 8, b"c" * 8)))
    assert [session.session_id for session in await metadata.list_sessions()] == [b"b" * 8]


async def test_a_blob_of_another_session_or_given_up_before_is_refused(worker: Worker) -> None:
    """A commit that was given up (ReleaseBlobs) and still arrives must not bring its blob back."""
    other = await Worker.start(worker.metadata, worker.bucket)
    with pytest.raises(SessionFenced):
        await worker.put(b"k", blob=other.inline(5))
    blob = worker.inline(5)
    await worker.put(b"k", blob=blob)
    with pytest.raises(SessionFenced):
        await worker.put(b"k2", blob=blob)
    assert [entry.object_key for entry in (await worker.metadata.list_heads(worker.bucket.bucket_id)).entries] == [b"k"]
