"""Released blobs on their way out: recorded, listed by age, forgotten; never while something references them."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import SessionFenced
from storage.metadata.commands import CloseSession, ForgetBlobs, ForgetSessions, ReleaseBlobs, RenewSession
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine


async def test_released_blobs_are_listed_oldest_first_with_all_their_chunks(engine: Engine, worker: Worker) -> None:
    """Up to the limit, and only from before the given time."""
    blobs = [worker.chunked(200, 2) for _ in range(4)]
    for number, blob in enumerate(blobs):
        await worker.put(b"%d" % number, blob=blob)
    for number in (2, 0, 3):
        engine.clock.advance(1)
        await worker.delete(b"%d" % number)
    now_ms = engine.clock.now_ms()
    assert await worker.metadata.list_released_blobs(now_ms + 1, 2) == [blobs[2], blobs[0]]
    assert await worker.metadata.list_released_blobs(now_ms, 10) == [blobs[2], blobs[0]]
    assert await worker.metadata.list_released_blobs(now_ms + 1, 10) == [blobs[2], blobs[0], blobs[3]]


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_a_clock_that_was_set_back_makes_no_release_older(
    engine: Engine, worker: Worker, is_forgotten: bool
) -> None:
    """Than what a session recorded before it, though it be forgotten: readers of that time may hold the blob. However
    it is released."""
    blobs = [worker.chunked(10) for _ in range(3)]
    await worker.put(b"deleted", blob=blobs[0])
    await worker.put(b"replaced", blob=blobs[1])
    upload = await worker.create_upload(b"m")
    parts = [await worker.put_part(upload, number) for number in (1, 2)]
    engine.clock.advance(60)
    other = await Worker.start(worker.metadata, worker.bucket)
    await worker.apply(RenewSession(other.session_id, 0))
    renewed_ms = engine.clock.now_ms()
    if is_forgotten:
        await worker.apply(CloseSession(other.session_id))
        await worker.apply(ForgetSessions((other.session_id,)))
    engine.clock.set_wall(-7200)
    await worker.delete(b"deleted")
    await worker.put(b"replaced")
    await worker.put_part(upload, 1)
    await worker.abort(upload)
    await worker.apply(ReleaseBlobs(worker.session_id, (blobs[2],)))
    assert await worker.metadata.list_released_blobs(renewed_ms, 10) == []
    released = {blob.blob_id for blob in await worker.metadata.list_released_blobs(renewed_ms + 1, 10)}
    assert released >= {*(blob.blob_id for blob in blobs), *(part.blob_id for part in parts)}


async def test_forgetting_removes_released_blobs_and_spares_the_others(worker: Worker) -> None:
    """Whatever the caller believes."""
    gone, kept, part_blob = worker.chunked(10), worker.chunked(10), worker.chunked(10)
    await worker.put(b"gone", blob=gone)
    await worker.put(b"kept", blob=kept)
    await worker.delete(b"gone")
    await worker.apply(ForgetBlobs((gone.blob_id, kept.blob_id, part_blob.blob_id)))
    assert await worker.released() == set()
    assert await worker.metadata.find_referenced_blobs([gone.blob_id, kept.blob_id]) == {kept.blob_id}
    assert await worker.metadata.read_chunks(gone.blob_id, 0) == []
    assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"kept")).blobs == (kept,)


async def test_a_failed_writes_blobs_are_recorded_as_released(worker: Worker) -> None:
    """Those of this session that no row references; referenced and inline ones and strangers are ignored."""
    failed, kept, inline = worker.chunked(30, 10), worker.chunked(10), worker.inline(10)
    await worker.put(b"kept", blob=kept)
    other = await Worker.start(worker.metadata, worker.bucket)
    foreign = other.chunked(10)
    for _ in range(2):
        await worker.apply(ReleaseBlobs(worker.session_id, (failed, kept, inline, foreign)))
        assert await worker.metadata.list_released_blobs(2**62, 10) == [failed]
    assert await worker.metadata.find_referenced_blobs([kept.blob_id, inline.blob_id, foreign.blob_id]) == {
        kept.blob_id
    }


async def test_a_blob_that_was_given_up_cannot_commit_later(worker: Worker) -> None:
    """The late commit of a call whose answer was lost is refused, so its chunks may be deleted."""
    blob = worker.chunked(10)
    await worker.apply(ReleaseBlobs(worker.session_id, (blob,)))
    with pytest.raises(SessionFenced):
        await worker.put(b"k", blob=blob)
    assert await worker.released() == {blob.blob_id}


async def test_many_ids_are_looked_up_at_once(worker: Worker) -> None:
    """More than one query's worth; released blobs count as recorded."""
    blobs = [worker.chunked(10) for _ in range(20)]
    await asyncio.gather(*[worker.put(b"%d" % number, blob=blob) for number, blob in enumerate(blobs)])
    await worker.delete(b"3")
    unknown = [worker.blob_id() for _ in range(1200)]
    found = await worker.metadata.find_referenced_blobs([*unknown, *(blob.blob_id for blob in blobs)])
    assert found == {blob.blob_id for blob in blobs}
    assert await worker.metadata.find_referenced_blobs([]) == set()
