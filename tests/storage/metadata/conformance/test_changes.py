"""Tags, ACL, retention and legal hold of a version that stays the same version."""

from __future__ import annotations

from typing import Any

import pytest

from storage.base.errors import NoSuchBucket, NoSuchKey, NoSuchVersion
from storage.metadata.commands import ChangeObject, ObjectChanged, Retention, SetVersioning
from storage.model import Attributes, ByteRange, Grant, LockMode, ObjectLock, Version, Versioning
from tests.storage.metadata.builders import OWNER, Worker
from tests.storage.metadata.engines import Engine

FULL = (Grant(OWNER, "FULL_CONTROL"),)
SHARED = (*FULL, Grant("group:AllUsers", "READ"))
SAID = Attributes("text/plain", {"expires": "never"}, {"a": "b"}, tags={"old": "1"}, acl=FULL)


async def change(
    worker: Worker, object_key: bytes, version_id: str | None = None, bucket_id: int | None = None, **changes: Any
) -> ObjectChanged:
    """One ChangeObject."""
    place = worker.bucket.bucket_id if bucket_id is None else bucket_id
    changed = await worker.apply(ChangeObject(place, object_key, version_id, **changes))
    assert isinstance(changed, ObjectChanged)
    return changed


async def read(worker: Worker, object_key: bytes, version_id: str | None = None) -> Version:
    """The version as a HEAD finds it."""
    found = await worker.metadata.read_version(worker.bucket.bucket_id, object_key, version_id, with_body=False)
    return found.version


async def test_what_was_said_at_the_commit_is_read_back(worker: Worker) -> None:
    """The lock too, which is kept apart."""
    lock = ObjectLock(LockMode.COMPLIANCE, 5, legal_hold=True)
    said = Attributes("text/plain", tags={"t": "1"}, acl=SHARED, lock=lock)
    await worker.put(b"k", attributes=said)
    assert (await read(worker, b"k")).attributes == said


async def test_a_change_leaves_everything_else_as_it_was(engine: Engine, worker: Worker) -> None:
    """Body, ETag, LastModified, version id, and those of tags, ACL and lock that are not named."""
    await worker.put(b"k", "e", attributes=SAID)
    before = await read(worker, b"k")
    engine.clock.advance(5)
    assert await change(worker, b"k", tags={"new": "2"}) == ObjectChanged("null")
    after = await read(worker, b"k")
    assert after.attributes == Attributes("text/plain", {"expires": "never"}, {"a": "b"}, tags={"new": "2"}, acl=FULL)
    assert (after.row_id, after.etag, after.last_modified_ms) == (before.row_id, before.etag, before.last_modified_ms)
    await change(worker, b"k", acl=SHARED)
    await change(worker, b"k", legal_hold=True)
    await change(worker, b"k", retention=Retention(LockMode.GOVERNANCE, 7))
    now = (await read(worker, b"k")).attributes
    assert (now.tags, now.acl, now.lock) == ({"new": "2"}, SHARED, ObjectLock(LockMode.GOVERNANCE, 7, True))
    await change(worker, b"k", tags={}, legal_hold=False, retention=Retention(LockMode.NONE, 9))
    now = (await read(worker, b"k")).attributes
    assert (now.tags, now.acl, now.lock) == ({}, SHARED, ObjectLock())


async def test_every_way_to_read_shows_the_change(worker: Worker) -> None:
    """Inline and chunked bodies, whole, by range, by id."""
    for blob in (worker.inline(10), worker.chunked(30, 10)):
        await worker.put(b"k", blob=blob, attributes=SAID)
        await change(worker, b"k", tags={"n": "1"}, legal_hold=True)
        for version_id in (None, "null"):
            for byte_range in (None, ByteRange(1, 2)):
                found = await worker.metadata.read_version(
                    worker.bucket.bucket_id, b"k", version_id, byte_range=byte_range
                )
                assert found.version.attributes.tags == {"n": "1"}
                assert found.version.attributes.lock == ObjectLock(legal_hold=True)
                assert len(found.blobs) == 1
        await change(worker, b"k", legal_hold=False)


async def test_a_lock_set_at_the_commit_can_be_lifted(worker: Worker) -> None:
    """What the version was committed with does not come back."""
    await worker.put(b"k", attributes=Attributes(lock=ObjectLock(legal_hold=True)))
    await change(worker, b"k", legal_hold=False)
    assert (await read(worker, b"k")).attributes.lock == ObjectLock()


async def test_a_change_names_any_version(versioned: Worker) -> None:
    """The current one unless another is named; others stay as they are."""
    ids = [(await versioned.put(b"k", attributes=SAID)).version_id or "" for _ in range(2)]
    assert await change(versioned, b"k", tags={"to": "current"}) == ObjectChanged(ids[1])
    assert await change(versioned, b"k", ids[0], tags={"to": "older"}) == ObjectChanged(ids[0])
    assert (await read(versioned, b"k", ids[0])).attributes.tags == {"to": "older"}
    assert (await read(versioned, b"k", ids[1])).attributes.tags == {"to": "current"}
    await versioned.apply(SetVersioning(versioned.bucket.bucket_id, Versioning.SUSPENDED))
    await versioned.put(b"k", attributes=SAID)
    assert await change(versioned, b"k", "null", tags={"to": "null"}) == ObjectChanged("null")
    assert (await read(versioned, b"k")).attributes.tags == {"to": "null"}
    assert (await read(versioned, b"k", ids[1])).attributes.tags == {"to": "current"}


async def test_what_is_not_there_cannot_be_changed(versioned: Worker) -> None:
    """Each is refused by its name."""
    for bucket_id, object_key, version_id, refused in (
        (999, b"k", None, NoSuchBucket),
        (None, b"none", None, NoSuchKey),
        (None, b"none", "0" * 32, NoSuchVersion),
        (None, b"k", "null", NoSuchVersion),
        (None, b"k", "f" * 32, NoSuchVersion),
        (None, b"k", "nonsense", NoSuchVersion),
    ):
        await versioned.put(b"k")
        with pytest.raises(refused):
            await change(versioned, object_key, version_id, bucket_id, tags={"a": "b"})


async def test_a_marker_cannot_be_changed(versioned: Worker) -> None:
    """When it is current there is no such key; named, the refusal says what it is."""
    await versioned.put(b"k")
    marker = await versioned.delete(b"k")
    with pytest.raises(NoSuchKey) as current:
        await change(versioned, b"k", tags={"a": "b"})
    last_modified_ms = (await read(versioned, b"k", marker.version_id)).last_modified_ms
    assert current.value.details == {
        "delete_marker_version_id": marker.version_id,
        "last_modified_ms": str(last_modified_ms),
    }
    with pytest.raises(NoSuchVersion) as named:
        await change(versioned, b"k", marker.version_id, tags={"a": "b"})
    assert named.value.details == {"is_marker": "true"}
    await versioned.apply(SetVersioning(versioned.bucket.bucket_id, Versioning.SUSPENDED))
    await versioned.delete(b"k")
    with pytest.raises(NoSuchKey) as null_marker:
        await change(versioned, b"k", tags={"a": "b"})
    assert null_marker.value.details["delete_marker_version_id"] == "null"


async def test_a_change_goes_with_its_version(worker: Worker) -> None:
    """A later null version starts from what was said with it."""
    await worker.put(b"k", attributes=SAID)
    await change(worker, b"k", tags={"n": "1"}, acl=SHARED)
    await worker.put(b"k", attributes=Attributes())
    assert (await read(worker, b"k")).attributes == Attributes()
