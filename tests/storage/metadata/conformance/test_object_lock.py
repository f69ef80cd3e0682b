"""What a retention and a legal hold keep from being deleted, replaced or weakened, decided by the owner's clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import NamedTuple

import pytest

from storage.base.errors import InvalidBucketState, NoSuchVersion, ObjectLocked
from storage.metadata.commands import (
    OBJECT_LOCK_SETTING,
    ChangeObject,
    Conditions,
    CreateBucket,
    Deleted,
    DeleteTarget,
    DeleteVersions,
    PutBucketSetting,
    Retention,
    SetVersioning,
    VersionCommitted,
)
from storage.metadata.rules import choose_lock, is_locked
from storage.model import Attributes, LockMode, ObjectLock, Versioning
from tests.storage.metadata.builders import OWNER, PART_BYTES, Worker
from tests.storage.metadata.engines import Engine

HOLD = ObjectLock(legal_hold=True)
LOCKED = Deleted("null", refusal="ObjectLocked")


class Times(NamedTuple):
    """Around the engine's clock."""

    past: int
    now: int
    soon: int
    later: int


def times(engine: Engine) -> Times:
    now_ms = engine.clock.now_ms()
    return Times(now_ms - 1, now_ms, now_ms + 1_000, now_ms + 2_000)


def locked(lock: ObjectLock) -> Attributes:
    return Attributes(lock=lock)


async def delete(
    worker: Worker, object_key: bytes, version_id: str | None = None, *, bypass_governance: bool = False
) -> Deleted:
    """One target."""
    targets = (DeleteTarget(object_key, version_id),)
    (outcome,) = await worker.apply(DeleteVersions(worker.bucket.bucket_id, targets, bypass_governance))
    assert isinstance(outcome, Deleted)
    return outcome


async def test_deletes_by_version_follow_the_table(engine: Engine, versioned: Worker) -> None:
    """Every lock, with and without the right to bypass governance; what is refused is still there."""
    at = times(engine)
    locks = [
        ObjectLock(mode, until, hold)
        for mode, until, hold in itertools.product(LockMode, (at.past, at.now, at.soon), (False, True))
    ]
    for lock, bypass in itertools.product(locks, (False, True)):
        put = await versioned.put(b"k", attributes=locked(lock))
        outcome = await delete(versioned, b"k", put.version_id, bypass_governance=bypass)
        expected = (
            lock.legal_hold
            or (lock.mode == LockMode.COMPLIANCE and lock.retain_until_ms > at.now)
            or (lock.mode == LockMode.GOVERNANCE and lock.retain_until_ms > at.now and not bypass)
        )
        assert (outcome.refusal == "ObjectLocked") == expected == is_locked(lock, at.now, bypass_governance=bypass)
        assert outcome.version_id == put.version_id
        page = await versioned.metadata.list_versions(versioned.bucket.bucket_id)
        assert (put.version_id in [entry.version_id for entry in page.entries]) == expected


async def test_retentions_change_as_the_table_says(engine: Engine, versioned: Worker) -> None:
    """Every lock to every other: compliance is only prolonged, governance is weakened with the bypass only."""
    at = times(engine)
    before = [ObjectLock(), *(ObjectLock(mode, until) for mode in list(LockMode)[1:] for until in (at.past, at.soon))]
    wanted = [ObjectLock(), *(ObjectLock(mode, until) for mode in list(LockMode)[1:] for until in at[2:])]
    for lock, other, bypass in itertools.product(before, wanted, (False, True)):
        retention = Retention(other.mode, other.retain_until_ms)
        command = ChangeObject(versioned.bucket.bucket_id, b"k", retention=retention, bypass_governance=bypass)
        is_prolonged = other.mode == lock.mode and other.retain_until_ms >= lock.retain_until_ms
        may_weaken = lock.retain_until_ms <= at.now or (lock.mode == LockMode.GOVERNANCE and bypass)
        await versioned.put(b"k", attributes=locked(lock))
        if is_prolonged or may_weaken:
            await versioned.apply(command)
            assert choose_lock(lock, command, at.now) == other
        else:
            with pytest.raises(ObjectLocked):
                choose_lock(lock, command, at.now)
            with pytest.raises(ObjectLocked):
                await versioned.apply(command)
        read = await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k")
        assert read.version.attributes.lock == (other if is_prolonged or may_weaken else lock)


async def test_a_refused_change_changes_nothing(engine: Engine, versioned: Worker) -> None:
    """Neither the tags nor the hold that came with it."""
    lock = ObjectLock(LockMode.COMPLIANCE, times(engine).soon)
    await versioned.put(b"k", attributes=locked(lock))
    with pytest.raises(ObjectLocked):
        await versioned.apply(
            ChangeObject(
                versioned.bucket.bucket_id,
                b"k",
                tags={"a": "b"},
                legal_hold=True,
                retention=Retention(LockMode.NONE),
                bypass_governance=True,
            )
        )
    assert (await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k")).version.attributes == locked(lock)


async def test_a_legal_hold_and_tags_change_under_any_retention(engine: Engine, versioned: Worker) -> None:
    """Only the retention itself is protected."""
    lock = ObjectLock(LockMode.COMPLIANCE, times(engine).soon)
    await versioned.put(b"k", attributes=locked(lock))
    for hold in (True, False):
        await versioned.apply(ChangeObject(versioned.bucket.bucket_id, b"k", tags={"a": "b"}, legal_hold=hold))
    read = await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k")
    assert (read.version.attributes.tags, read.version.attributes.lock) == ({"a": "b"}, lock)


async def test_a_retention_ends_by_the_owners_clock(engine: Engine, versioned: Worker) -> None:
    """To the millisecond; that it was there is still shown."""
    until = times(engine).soon
    put = await versioned.put(b"k", attributes=locked(ObjectLock(LockMode.COMPLIANCE, until)))
    engine.clock.advance(0.999)
    assert (await delete(versioned, b"k", put.version_id)).refusal == "ObjectLocked"
    engine.clock.advance(0.001)
    read = await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k")
    assert read.version.attributes.lock == ObjectLock(LockMode.COMPLIANCE, until)
    assert (await delete(versioned, b"k", put.version_id)).refusal == ""


async def test_a_marker_hides_a_locked_version(versioned: Worker) -> None:
    """Nothing is lost by it, and the marker itself can be deleted."""
    put = await versioned.put(b"k", attributes=locked(HOLD))
    marker = await versioned.delete(b"k")
    assert marker.is_marker
    assert await versioned.delete(b"k", marker.version_id) == marker
    assert await versioned.etag(b"k", put.version_id) == "e"


async def test_a_locked_version_keeps_its_neighbours_deletable(versioned: Worker) -> None:
    """A refusal is an outcome of its own target."""
    ids = [(await versioned.put(b"k", attributes=locked(lock))).version_id or "" for lock in (ObjectLock(), HOLD)]
    other = await versioned.put(b"l")
    targets = tuple(DeleteTarget(*target) for target in ((b"k", ids[1]), (b"k", ids[0]), (b"l", other.version_id)))
    assert await versioned.apply(DeleteVersions(versioned.bucket.bucket_id, targets)) == [
        Deleted(ids[1], refusal="ObjectLocked"),
        Deleted(ids[0]),
        Deleted(other.version_id),
    ]


async def test_a_locked_null_version_is_not_replaced(worker: Worker) -> None:
    """By no put, copy, completed upload, marker or delete; the upload stays open."""
    await worker.put(b"k", "locked", blob=worker.chunked(10), attributes=locked(HOLD))
    extents = (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).extents
    upload = await worker.create_upload(b"k")
    part = await worker.put_part(upload, 1, PART_BYTES)
    for versioning in (None, Versioning.ENABLED, Versioning.SUSPENDED):
        if versioning is not None:
            await worker.apply(SetVersioning(worker.bucket.bucket_id, versioning))
        if versioning == Versioning.ENABLED:
            continue
        blob = worker.chunked(10)
        with pytest.raises(ObjectLocked):
            await worker.put(b"k", "put", blob=blob)
        with pytest.raises(ObjectLocked):
            await worker.share(extents, b"k", "copy")
        with pytest.raises(ObjectLocked):
            await worker.complete(upload, [part])
        assert await worker.delete(b"k") == Deleted(refusal="ObjectLocked")
        assert await worker.delete(b"k", "null") == LOCKED
        assert await worker.metadata.find_referenced_blobs([blob.blob_id]) == set()
        assert await worker.etag(b"k") == "locked"
    await worker.apply(ChangeObject(worker.bucket.bucket_id, b"k", legal_hold=False))
    await worker.complete(upload, [part], "complete")
    assert await worker.etag(b"k") == "complete"


async def test_a_locked_null_version_beneath_others_stays(engine: Engine, worker: Worker) -> None:
    """An enabled bucket stacks upon it; when suspended, a null version would replace it."""
    governed = ObjectLock(LockMode.GOVERNANCE, times(engine).soon)
    await worker.put(b"k", "locked", attributes=locked(governed))
    await worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.ENABLED))
    stacked = await worker.put(b"k", "stacked")
    await worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.SUSPENDED))
    with pytest.raises(ObjectLocked):
        await worker.put(b"k", "null")
    assert await delete(worker, b"k") == Deleted(refusal="ObjectLocked")
    assert await delete(worker, b"k", stacked.version_id) == Deleted(stacked.version_id)
    assert await worker.etag(b"k") == "locked"
    assert (await delete(worker, b"k", bypass_governance=True)).is_marker
    assert await delete(worker, b"k", "null") == Deleted("null", is_marker=True)


async def test_a_condition_is_asked_before_the_lock(versioned: Worker) -> None:
    """As everywhere: what was not meant is not judged."""
    put = await versioned.put(b"k", "e", attributes=locked(HOLD))
    outcome = await versioned.delete(b"k", put.version_id, Conditions(if_match="other"))
    assert outcome == Deleted(put.version_id, refusal="PreconditionFailed")
    outcome = await versioned.delete(b"k", put.version_id, Conditions(if_match="e"))
    assert outcome == Deleted(put.version_id, refusal="ObjectLocked")


async def test_a_lock_that_came_with_an_upload_holds(versioned: Worker) -> None:
    """Effective in the transaction that makes the version visible."""
    upload = await versioned.create_upload(b"k")
    part = await versioned.put_part(upload, 1)
    version = versioned.version(part.size, "m-1", locked(HOLD))
    put = await versioned.complete(upload, [part], version=version)
    assert (await delete(versioned, b"k", put.version_id, bypass_governance=True)).refusal == "ObjectLocked"


async def test_object_lock_needs_versioning(worker: Worker) -> None:
    """The setting is refused without it, and versioning then stays enabled; other settings do not care."""
    bucket_id = worker.bucket.bucket_id
    await worker.apply(PutBucketSetting(bucket_id, "cors", b"x"))
    for versioning in (None, Versioning.SUSPENDED):
        if versioning is not None:
            await worker.apply(SetVersioning(bucket_id, versioning))
        with pytest.raises(InvalidBucketState):
            await worker.apply(PutBucketSetting(bucket_id, OBJECT_LOCK_SETTING, b"x"))
    await worker.apply(SetVersioning(bucket_id, Versioning.ENABLED))
    await worker.apply(PutBucketSetting(bucket_id, OBJECT_LOCK_SETTING, b"x"))
    with pytest.raises(InvalidBucketState):
        await worker.apply(SetVersioning(bucket_id, Versioning.SUSPENDED))
    await worker.apply(SetVersioning(bucket_id, Versioning.ENABLED))
    bucket = await worker.metadata.find_bucket(worker.bucket.name)
    assert bucket is not None
    assert (bucket.versioning, bucket.settings[OBJECT_LOCK_SETTING]) == (Versioning.ENABLED, b"x")


async def test_a_bucket_begins_with_object_lock_only_when_versioned(worker: Worker) -> None:
    """Nothing is made when it is refused."""
    settings = {OBJECT_LOCK_SETTING: b"x"}
    with pytest.raises(InvalidBucketState):
        await worker.apply(CreateBucket("locking", OWNER, "r", "bk", settings=settings))
    made = await worker.apply(CreateBucket("locking", OWNER, "r", "bk", Versioning.ENABLED, settings))
    assert made.settings == settings


async def test_a_hold_that_races_with_a_delete_and_a_put(engine: Engine, worker: Worker) -> None:
    """What was held in time stays; what was deleted or replaced in time cannot be held."""
    others = [await Worker.start(await engine.connect(), worker.bucket) for _ in range(3)]
    bucket_id = worker.bucket.bucket_id
    for number in range(40):
        object_key = b"%d" % number
        await worker.put(object_key, "first")
        held, deleted, put = await asyncio.gather(
            others[0].apply(ChangeObject(bucket_id, object_key, "null", {"t": "held"}, legal_hold=True)),
            others[1].delete(object_key, "null"),
            others[2].put(object_key, "second"),
            return_exceptions=True,
        )
        assert isinstance(deleted, Deleted)
        if isinstance(held, BaseException):
            assert isinstance(held, NoSuchVersion)
            assert deleted.refusal == ""
            continue
        read = await worker.metadata.read_version(bucket_id, object_key)
        assert read.version.attributes.tags == {"t": "held"}
        assert read.version.etag == ("second" if isinstance(put, VersionCommitted) else "first")
        assert isinstance(put, (VersionCommitted, ObjectLocked))
        assert deleted.refusal == "ObjectLocked" or read.version.etag == "second"
