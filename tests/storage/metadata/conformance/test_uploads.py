"""Multipart uploads: parts, completion and its idempotence, aborts, listings."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from storage.base.errors import (
    EntityTooSmall,
    InvalidPart,
    InvalidPartOrder,
    LimitExceeded,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
    Refused,
)
from storage.metadata.commands import Conditions, CreateUpload, PutPart
from storage.model import Attributes, Checksum, ChecksumAlgorithm, ChecksumType, Versioning
from tests.storage.metadata.builders import OWNER, PART_BYTES, Worker
from tests.storage.metadata.engines import Engine


async def test_an_upload_is_read_as_it_was_created(engine: Engine, worker: Worker) -> None:
    """Attributes and the asked checksum come back."""
    attributes = Attributes("text/plain", {"cache-control": "no"}, {"a": "b"})
    upload = await worker.apply(
        CreateUpload(
            "u" * 32,
            worker.bucket.bucket_id,
            b"k",
            OWNER,
            attributes,
            ChecksumAlgorithm.SHA256,
            ChecksumType.COMPOSITE,
        )
    )
    assert upload.initiated_ms == engine.clock.now_ms()
    assert await worker.metadata.read_upload(worker.bucket.bucket_id, b"k", "u" * 32) == upload
    with pytest.raises(Refused):
        await worker.create_upload(b"k", "u" * 32)
    for bucket_id, object_key, upload_id in (
        (worker.bucket.bucket_id, b"other", "u" * 32),
        (worker.bucket.bucket_id, b"k", "v" * 32),
        (404, b"k", "u" * 32),
    ):
        with pytest.raises(NoSuchUpload):
            await worker.metadata.read_upload(bucket_id, object_key, upload_id)


async def test_an_upload_needs_a_bucket(worker: Worker) -> None:
    """NoSuchBucket."""
    with pytest.raises(NoSuchBucket):
        await worker.apply(CreateUpload("u" * 32, 404, b"k", OWNER, Attributes()))


async def test_parts_are_listed_by_number_in_pages(worker: Worker) -> None:
    """The page carries the upload; next_after only when something follows."""
    upload = await worker.create_upload(b"k")
    parts = {number: await worker.put_part(upload, number, etag=f"p{number}") for number in (3, 1, 10, 2)}
    at = (worker.bucket.bucket_id, b"k", upload.upload_id)
    page = await worker.metadata.list_parts(*at, limit=2)
    assert (page.upload, page.parts, page.next_after) == (upload, (parts[1], parts[2]), 2)
    page = await worker.metadata.list_parts(*at, after=2, limit=2)
    assert (page.parts, page.next_after) == ((parts[3], parts[10]), None)
    with pytest.raises(NoSuchUpload):
        await worker.metadata.list_parts(worker.bucket.bucket_id, b"k", "none")


async def test_a_part_put_again_replaces_and_releases(worker: Worker) -> None:
    """The checksum is kept with the part."""
    upload = await worker.create_upload(b"k")
    old = await worker.put_part(upload, 1)
    checksum = Checksum(ChecksumAlgorithm.CRC32C, "AAAAAA==")
    blob = worker.chunked(7)
    new = await worker.apply(
        PutPart(worker.session_id, worker.bucket.bucket_id, b"k", upload.upload_id, 1, 7, "new", blob, checksum)
    )
    page = await worker.metadata.list_parts(worker.bucket.bucket_id, b"k", upload.upload_id)
    assert page.parts == (new,)
    assert (new.checksum, new.blob_id) == (checksum, blob.blob_id)
    assert await worker.released() == {old.blob_id}


async def test_a_part_needs_its_upload_and_its_size(worker: Worker) -> None:
    """NoSuchUpload for a stranger; a blob of another size is refused."""
    upload = await worker.create_upload(b"k")
    with pytest.raises(NoSuchUpload):
        await worker.put_part(msgspec.structs.replace(upload, object_key=b"other"), 1)
    command = PutPart(worker.session_id, worker.bucket.bucket_id, b"k", upload.upload_id, 1, 8, "x", worker.chunked(7))
    with pytest.raises(LimitExceeded):
        await worker.apply(command)


async def test_completing_makes_a_version_of_the_listed_parts(worker: Worker) -> None:
    """Extents carry the part numbers; parts left out are released; the upload is gone."""
    upload = await worker.create_upload(b"k")
    parts = [await worker.put_part(upload, number, etag=f"p{number}") for number in (1, 2, 5, 9)]
    chosen = [parts[0], parts[2], parts[3]]
    committed = await worker.complete(upload, chosen, "m-3")
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert (read.version.part_count, read.version.size, read.version.etag) == (3, 3 * PART_BYTES, "m-3")
    assert committed.last_modified_ms == read.version.last_modified_ms
    assert [(extent.blob_id, extent.offset, extent.part_number) for extent in read.extents] == [
        (part.blob_id, at * PART_BYTES, part.part_number) for at, part in enumerate(chosen)
    ]
    assert await worker.released() == {parts[1].blob_id}
    with pytest.raises(NoSuchUpload):
        await worker.metadata.read_upload(worker.bucket.bucket_id, b"k", upload.upload_id)
    with pytest.raises(NoSuchUpload):
        await worker.put_part(upload, 1)


@pytest.mark.parametrize("versioning", list(Versioning))
async def test_a_retried_completion_answers_the_same(worker: Worker, versioning: Versioning) -> None:
    """Also after the key was written again; the record names what was made."""
    other = await worker.in_bucket("other", versioning)
    upload = await other.create_upload(b"k")
    part = await other.put_part(upload, 1)
    committed = await other.complete(upload, [part])
    await other.put(b"k", "later")
    assert await other.complete(upload, [part], "different") == committed
    found = await other.metadata.find_completed_upload(other.bucket.bucket_id, b"k", upload.upload_id)
    assert found is not None
    assert (found.version_id, found.etag, found.object_key) == (committed.version_id, "m-1", b"k")
    assert found.last_modified_ms == committed.last_modified_ms
    assert await other.etag(b"k") == "later"
    assert await other.metadata.find_completed_upload(other.bucket.bucket_id, b"k", "none") is None


async def test_records_of_old_completions_go(engine: Engine, worker: Worker) -> None:
    """A week later the id is unknown again; a younger record stays."""
    uploads = []
    for object_key in (b"a", b"b", b"c"):
        upload = await worker.create_upload(object_key)
        await worker.complete(upload, [await worker.put_part(upload, 1)])
        uploads.append(upload)
        engine.clock.advance(4 * 24 * 3600)
    found = [
        await worker.metadata.find_completed_upload(upload.bucket_id, upload.object_key, upload.upload_id)
        for upload in uploads
    ]
    assert [record is None for record in found] == [True, False, False]


async def test_a_changed_part_list_is_refused_and_the_upload_stays(worker: Worker) -> None:
    """InvalidPart names the part; order and sizes have errors of their own."""
    upload = await worker.create_upload(b"k")
    first, second = [await worker.put_part(upload, number) for number in (1, 2)]
    for changed in (
        {"etag": "other"},
        {"blob_id": os.urandom(16)},
        {"size": PART_BYTES + 1},
        {"part_number": 3},
    ):
        with pytest.raises(InvalidPart) as refused:
            await worker.complete(upload, [first, msgspec.structs.replace(second, **changed)])
        assert refused.value.details["part_number"] in ("2", "3")
    with pytest.raises(InvalidPart):
        await worker.complete(upload, [])
    for disordered in ([second, first], [first, first]):
        with pytest.raises(InvalidPartOrder):
            await worker.complete(upload, disordered)
    assert (await worker.complete(upload, [first, second])).etag == "m-1"


async def test_only_the_last_part_may_be_small(worker: Worker) -> None:
    """EntityTooSmall names the part and its size."""
    upload = await worker.create_upload(b"k")
    small = await worker.put_part(upload, 1, PART_BYTES - 1)
    last = await worker.put_part(upload, 2, 1)
    with pytest.raises(EntityTooSmall) as refused:
        await worker.complete(upload, [small, last])
    assert refused.value.details == {"part_number": "1", "size": str(PART_BYTES - 1)}
    assert (await worker.complete(upload, [last])).etag == "m-1"


async def test_a_part_of_no_bytes_keeps_its_number(worker: Worker) -> None:
    """As the last part, or alone."""
    upload = await worker.create_upload(b"k")
    first = await worker.put_part(upload, 1)
    empty = await worker.put_part(upload, 2, 0)
    assert empty.blob_id == b""
    await worker.complete(upload, [first, empty])
    bucket_id = worker.bucket.bucket_id
    read = await worker.metadata.read_version(bucket_id, b"k")
    assert [extent.part_number for extent in read.extents] == [1]
    assert (read.version.part_count, len(read.blobs)) == (2, 1)
    read = await worker.metadata.read_version(bucket_id, b"k", part_number=2)
    assert [(extent.offset, extent.length) for extent in read.extents] == [(PART_BYTES, 0)]
    assert read.blobs == ()
    alone = await worker.create_upload(b"alone")
    await worker.complete(alone, [await worker.put_part(alone, 1, 0)])
    read = await worker.metadata.read_version(bucket_id, b"alone")
    assert (read.version.size, read.extents) == (0, ())


async def test_a_completion_is_conditional_like_a_put(worker: Worker) -> None:
    """A refused one leaves the upload open."""
    await worker.put(b"k", "one")
    upload = await worker.create_upload(b"k")
    part = await worker.put_part(upload, 1)
    with pytest.raises(PreconditionFailed):
        await worker.complete(upload, [part], conditions=Conditions(if_none_match="*"))
    await worker.complete(upload, [part], conditions=Conditions(if_match="one"))
    gone = await worker.create_upload(b"gone")
    part = await worker.put_part(gone, 1)
    with pytest.raises(NoSuchKey):
        await worker.complete(gone, [part], conditions=Conditions(if_match="*"))


async def test_completing_replaces_or_stacks(worker: Worker) -> None:
    """As the bucket's versioning says."""
    versioned = await worker.in_bucket("v", Versioning.ENABLED)
    for target, kept in ((worker, False), (versioned, True)):
        first = await target.put(b"k", "one", blob=target.chunked(9))
        upload = await target.create_upload(b"k")
        committed = await target.complete(upload, [await target.put_part(upload, 1)])
        assert (committed.version_id is not None) == kept
        assert await target.etag(b"k") == "m-1"
        if kept:
            assert await target.etag(b"k", first.version_id) == "one"
    assert len(await worker.released()) == 1


async def test_an_abort_releases_the_parts(worker: Worker) -> None:
    """And is refused the second time, and after completion."""
    upload = await worker.create_upload(b"k")
    parts = [await worker.put_part(upload, number) for number in (1, 2)]
    await worker.abort(upload)
    assert await worker.released() == {part.blob_id for part in parts}
    with pytest.raises(NoSuchUpload):
        await worker.abort(upload)
    with pytest.raises(NoSuchUpload):
        await worker.complete(upload, parts)
    done = await worker.create_upload(b"k")
    await worker.complete(done, [await worker.put_part(done, 1)])
    with pytest.raises(NoSuchUpload):
        await worker.abort(done)


async def test_the_parts_of_a_large_upload_move_in_one_command(worker: Worker) -> None:
    """A thousand parts, read back in order, and released with their version."""
    upload = await worker.create_upload(b"k")
    parts = await asyncio.gather(*[worker.put_part(upload, number) for number in range(1, 1001)])
    await worker.complete(upload, parts)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert [extent.part_number for extent in read.extents] == list(range(1, 1001))
    await worker.delete(b"k")
    assert await worker.released() == {part.blob_id for part in parts}


async def test_uploads_are_listed_by_key_and_id(worker: Worker) -> None:
    """Several of one key page on their ids."""
    made = []
    for object_key, upload_id in ((b"b", "2"), (b"a", "9"), (b"b", "1"), (b"c/d", "5"), (b"c/e", "4")):
        made.append(await worker.create_upload(object_key, upload_id * 32))
    expected = sorted(made, key=lambda upload: (upload.object_key, upload.upload_id))
    bucket_id = worker.bucket.bucket_id
    assert (await worker.metadata.list_uploads(bucket_id)).uploads == tuple(expected)
    page = await worker.metadata.list_uploads(bucket_id, limit=2)
    assert (page.uploads, page.next_after) == (tuple(expected[:2]), (b"b", "1" * 32))
    page = await worker.metadata.list_uploads(bucket_id, after=(b"b", "1" * 32), limit=2)
    assert (page.uploads, page.next_after) == (tuple(expected[2:4]), (b"c/d", "5" * 32))
    page = await worker.metadata.list_uploads(bucket_id, after=(b"b", ""))
    assert page.uploads == tuple(expected[3:])


async def test_uploads_roll_up_under_a_delimiter(worker: Worker) -> None:
    """A common prefix counts as one entry and is not given twice."""
    for number, object_key in enumerate((b"a", b"d/1", b"d/2", b"d/2", b"e/1", b"f")):
        await worker.create_upload(object_key, f"{number:032d}")
    bucket_id = worker.bucket.bucket_id
    page = await worker.metadata.list_uploads(bucket_id, delimiter=b"/", limit=2)
    assert ([upload.object_key for upload in page.uploads], page.common_prefixes) == ([b"a"], (b"d/",))
    assert page.next_after == (b"d/", "")
    page = await worker.metadata.list_uploads(bucket_id, delimiter=b"/", after=(b"d/", ""))
    assert ([upload.object_key for upload in page.uploads], page.common_prefixes) == ([b"f"], (b"e/",))
    assert page.next_after is None
    page = await worker.metadata.list_uploads(bucket_id, prefix=b"d/", delimiter=b"/")
    assert [upload.object_key for upload in page.uploads] == [b"d/1", b"d/2", b"d/2"]
    page = await worker.metadata.list_uploads(bucket_id, prefix=b"d/", after=(b"d/2", f"{2:032d}"))
    assert [upload.upload_id for upload in page.uploads] == [f"{3:032d}"]
