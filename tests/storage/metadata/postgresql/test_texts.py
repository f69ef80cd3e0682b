"""Texts and numbers that PostgreSQL cannot hold, which clients may send all the same."""

from __future__ import annotations

import pytest

from storage.base.errors import NoSuchUpload, Unavailable
from storage.metadata.commands import AbortUpload, CreateUser, PutBucketSetting
from storage.metadata.postgresql.database import BIGINT_MAX
from storage.model import ByteRange, User
from tests.storage.metadata.builders import OWNER, Worker

UNSTORABLE = ["\x00", "a\x00b", "\ud800"]


@pytest.mark.parametrize("text", UNSTORABLE)
async def test_what_cannot_be_stored_is_not_found(worker: Worker, text: str) -> None:
    """Access keys, users, buckets and uploads of such a name do not exist; no error, no broken connection."""
    metadata, bucket_id = worker.metadata, worker.bucket.bucket_id
    upload = await worker.create_upload(b"k")
    assert await metadata.find_access_key(text) is None
    assert await metadata.find_user(text) is None
    assert await metadata.find_bucket(text) is None
    assert await metadata.list_buckets(text) == []
    assert await metadata.list_buckets(OWNER, after=text) in ([], [worker.bucket])
    assert await metadata.find_completed_upload(bucket_id, b"k", text) is None
    for call in (
        metadata.read_upload(bucket_id, b"k", text),
        metadata.list_parts(bucket_id, b"k", text),
        worker.apply(AbortUpload(bucket_id, b"k", text)),
    ):
        with pytest.raises(NoSuchUpload):
            await call
    assert (await metadata.list_uploads(bucket_id, after=(b"", text))).uploads == (upload,)
    assert (await metadata.list_uploads(bucket_id, after=(b"k", text))).uploads in ((), (upload,))


@pytest.mark.parametrize("text", UNSTORABLE)
async def test_what_cannot_be_stored_is_not_stored(worker: Worker, text: str) -> None:
    """Unavailable, with nothing of it applied; the next command works."""
    for command in (
        CreateUser(User("id", text, "display")),
        PutBucketSetting(worker.bucket.bucket_id, text, b""),
    ):
        with pytest.raises(Unavailable) as refused:
            await worker.apply(command)
        assert "outcome" not in refused.value.details
    with pytest.raises(Unavailable):
        await worker.put(b"k", text)
    await worker.put(b"k")
    assert await worker.metadata.list_users() == []


async def test_numbers_beyond_the_database_are_bounded(worker: Worker) -> None:
    """A range may end far behind everything; a bucket id that large exists nowhere."""
    await worker.put(b"k", size=10)
    bucket_id = worker.bucket.bucket_id
    huge = BIGINT_MAX + 10
    for byte_range in (ByteRange(0, huge), ByteRange(None, None, huge), ByteRange(9, huge)):
        read = await worker.metadata.read_version(bucket_id, b"k", byte_range=byte_range)
        assert len(read.blobs) == 1
    read = await worker.metadata.read_version(bucket_id, b"k", byte_range=ByteRange(huge, None))
    assert read.blobs == ()
    with pytest.raises(Unavailable):
        await worker.metadata.read_version(huge, b"k")
