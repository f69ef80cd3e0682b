"""Buckets and their sub-resource documents."""

from __future__ import annotations

import pytest

from storage.base.errors import (
    BucketAlreadyExists,
    BucketNotEmpty,
    LimitExceeded,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
)
from storage.metadata.commands import CreateBucket, DeleteBucket, DeleteVersions, PutBucketSetting, SetVersioning
from storage.metadata.interface import Metadata
from storage.model import Bucket, Versioning
from tests.storage.metadata.builders import OWNER, Worker
from tests.storage.metadata.engines import Engine


async def test_a_bucket_is_found_as_it_was_made(engine: Engine, metadata: Metadata) -> None:
    """The answer of the creation and the record read later are one."""
    settings = {"cors": b"<xml/>", "tagging": b"\x00"}
    made = await metadata.apply(CreateBucket("b", OWNER, "eu-1", "bk-7", Versioning.ENABLED, settings))
    expected = Bucket(made.bucket_id, "b", OWNER, "eu-1", engine.clock.now_ms(), "bk-7", Versioning.ENABLED, settings)
    assert made == expected
    assert await metadata.find_bucket("b") == expected
    assert await metadata.find_bucket("c") is None


async def test_a_taken_name_names_its_owner(metadata: Metadata) -> None:
    """BucketAlreadyExists carries owner_id, so that S3 can tell 'owned by you' apart."""
    await metadata.apply(CreateBucket("b", OWNER, "r", "bk"))
    with pytest.raises(BucketAlreadyExists) as refused:
        await metadata.apply(CreateBucket("b", "someone else", "r", "bk"))
    assert refused.value.details == {"owner_id": OWNER}


async def test_an_owner_has_a_bounded_number_of_buckets(metadata: Metadata) -> None:
    """The bound counts one owner's buckets only."""
    for name in ("a", "b"):
        await metadata.apply(CreateBucket(name, OWNER, "r", "bk", bucket_count_max=2))
    with pytest.raises(LimitExceeded):
        await metadata.apply(CreateBucket("c", OWNER, "r", "bk", bucket_count_max=2))
    await metadata.apply(CreateBucket("c", "another", "r", "bk", bucket_count_max=2))


async def test_buckets_are_listed_by_name_in_pages(metadata: Metadata) -> None:
    """Of one owner, or of all."""
    for name, owner in (("c", "x"), ("a", "x"), ("b", "y"), ("d", "x")):
        await metadata.apply(CreateBucket(name, owner, "r", "bk"))
    assert [bucket.name for bucket in await metadata.list_buckets(None)] == ["a", "b", "c", "d"]
    assert [bucket.name for bucket in await metadata.list_buckets("x", limit=2)] == ["a", "c"]
    assert [bucket.name for bucket in await metadata.list_buckets("x", after="c", limit=2)] == ["d"]


async def test_settings_are_put_replaced_and_removed(metadata: Metadata) -> None:
    """Each change raises the configuration sequence."""
    bucket = await metadata.apply(CreateBucket("b", OWNER, "r", "bk"))
    sequences = [await metadata.configuration_sequence()]
    seen = []
    for document in (b"one", b"two", None):
        await metadata.apply(PutBucketSetting(bucket.bucket_id, "policy", document))
        sequences.append(await metadata.configuration_sequence())
        found = await metadata.find_bucket("b")
        assert found is not None
        seen.append(found.settings)
    assert seen == [{"policy": b"one"}, {"policy": b"two"}, {}]
    assert sequences == sorted(set(sequences))


async def test_versioning_is_suspended_but_never_removed(metadata: Metadata) -> None:
    """UNVERSIONED cannot come back."""
    bucket = await metadata.apply(CreateBucket("b", OWNER, "r", "bk"))
    await metadata.apply(SetVersioning(bucket.bucket_id, Versioning.UNVERSIONED))
    for state in (Versioning.ENABLED, Versioning.SUSPENDED, Versioning.ENABLED):
        await metadata.apply(SetVersioning(bucket.bucket_id, state))
        found = await metadata.find_bucket("b")
        assert found is not None
        assert found.versioning == state
    with pytest.raises(LimitExceeded):
        await metadata.apply(SetVersioning(bucket.bucket_id, Versioning.UNVERSIONED))


async def test_commands_on_a_missing_bucket_are_refused(worker: Worker) -> None:
    """NoSuchBucket for each that names one."""
    missing = 404
    for command in (
        DeleteBucket(missing),
        PutBucketSetting(missing, "cors", b""),
        SetVersioning(missing, Versioning.ENABLED),
        DeleteVersions(missing, ()),
    ):
        with pytest.raises(NoSuchBucket):
            await worker.apply(command)


async def test_a_bucket_with_anything_in_it_stays(worker: Worker) -> None:
    """A version or a marker alone keeps it."""
    versioned = await worker.in_bucket("v", Versioning.ENABLED)
    marker = await versioned.delete(b"k")
    with pytest.raises(BucketNotEmpty):
        await versioned.apply(DeleteBucket(versioned.bucket.bucket_id))
    await versioned.delete(b"k", marker.version_id)
    await worker.put(b"k")
    with pytest.raises(BucketNotEmpty):
        await worker.apply(DeleteBucket(worker.bucket.bucket_id))
    await worker.delete(b"k")
    for bucket in (worker.bucket, versioned.bucket):
        await worker.apply(DeleteBucket(bucket.bucket_id))
    assert await worker.metadata.list_buckets(None) == []


async def test_open_uploads_go_with_their_bucket(worker: Worker) -> None:
    """More of them than one step takes; their parts are released."""
    uploads = [await worker.create_upload(b"k%d" % number) for number in range(40)]
    parts = [await worker.put_part(upload, 1) for upload in uploads]
    await worker.apply(DeleteBucket(worker.bucket.bucket_id))
    assert await worker.metadata.find_bucket("bucket") is None
    assert await worker.released() == {part.blob_id for part in parts}
    with pytest.raises(NoSuchUpload):
        await worker.metadata.read_upload(worker.bucket.bucket_id, b"k1", uploads[1].upload_id)


async def test_the_id_of_a_deleted_bucket_is_not_used_again(worker: Worker) -> None:
    """A worker that still holds the old id must not write into the new bucket of that name."""
    await worker.apply(DeleteBucket(worker.bucket.bucket_id))
    again = await worker.apply(CreateBucket("bucket", OWNER, "r", "bk"))
    assert again.bucket_id != worker.bucket.bucket_id
    with pytest.raises(NoSuchBucket):
        await worker.put(b"k")
    with pytest.raises(NoSuchKey):
        await worker.metadata.read_version(again.bucket_id, b"k")
