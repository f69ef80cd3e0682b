"""Reads of one object: exactly the extents, blobs and chunk rows that a range or a part touches, in one snapshot."""

from __future__ import annotations

import pytest

from storage.base.errors import InvalidPart
from storage.metadata.commands import CommitVersion, PutBucketSetting
from storage.metadata.interface import CHUNK_PAGE_ROWS
from storage.model import Attributes, Blob, ByteRange, Checksum, ChecksumAlgorithm, Chunk
from tests.storage.metadata.builders import OWNER, PART_BYTES, Worker


async def test_a_version_comes_back_as_it_was_committed(worker: Worker) -> None:
    """Attributes, MAC and body."""
    attributes = Attributes(
        "text/plain",
        {"content-encoding": "gzip"},
        {"näme": "väl"},
        "GLACIER",
        Checksum(ChecksumAlgorithm.CRC64NVME, "AAAAAAAAAAA="),
        {"tag": "1"},
        {"mode": "AES256"},
    )
    blob = worker.inline(33)
    version = worker.version(33, "e", attributes)
    await worker.apply(CommitVersion(worker.session_id, worker.bucket.bucket_id, b"\x00k\xff", version, (blob,)))
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"\x00k\xff")
    found = read.version
    assert (found.object_key, found.uid, found.owner_id, found.mac) == (b"\x00k\xff", version.uid, OWNER, version.mac)
    assert (found.attributes, found.sequence, found.part_count) == (attributes, 1, 0)
    assert read.blobs == (blob,)


async def test_the_whole_is_what_a_range_over_all_of_it_brings(worker: Worker) -> None:
    """However it is stored: inline, in chunks, in one chunk, and inline again over what was there."""
    bucket_id = worker.bucket.bucket_id
    for blob in (worker.inline(10), worker.chunked(250, 100), worker.chunked(70, 100), worker.inline(16_000)):
        await worker.put(b"k", blob=blob)
        whole = await worker.metadata.read_version(bucket_id, b"k")
        assert whole == await worker.metadata.read_version(bucket_id, b"k", byte_range=ByteRange(0, None))
        assert whole.blobs == (blob,)
        assert [(extent.blob_id, extent.offset, extent.length) for extent in whole.extents] == [
            (blob.blob_id, 0, blob.size)
        ]


async def test_a_head_brings_no_body(worker: Worker) -> None:
    """Neither extents nor blobs."""
    await worker.put(b"k")
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", with_body=False)
    assert (read.extents, read.blobs, read.version.size) == ((), (), 10)


async def test_the_configuration_sequence_is_of_the_same_snapshot(worker: Worker) -> None:
    """It moves with every setting."""
    await worker.put(b"k")
    bucket_id = worker.bucket.bucket_id
    before = (await worker.metadata.read_version(bucket_id, b"k")).configuration_sequence
    assert before == await worker.metadata.configuration_sequence()
    await worker.apply(PutBucketSetting(bucket_id, "cors", b"x"))
    after = (await worker.metadata.read_version(bucket_id, b"k")).configuration_sequence
    assert (after, after > before) == (await worker.metadata.configuration_sequence(), True)


@pytest.mark.parametrize(
    ("byte_range", "indexes"),
    [
        (ByteRange(0, 0), [0]),
        (ByteRange(99, 99), [0]),
        (ByteRange(100, 100), [1]),
        (ByteRange(99, 100), [0, 1]),
        (ByteRange(250, None), [2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (ByteRange(None, None, 1), [10]),
        (ByteRange(None, None, 51), [9, 10]),
        (ByteRange(1049, 5000), [10]),
        (ByteRange(None, None, 5000), list(range(11))),
    ],
)
async def test_only_the_chunk_rows_of_the_range_come_along(
    worker: Worker, byte_range: ByteRange, indexes: list[int]
) -> None:
    """Chunks of 100 bytes, the last one of 50."""
    blob = worker.chunked(1050, 100)
    await worker.put(b"k", blob=blob)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", byte_range=byte_range)
    assert [chunk.index for chunk in read.blobs[0].chunks] == indexes
    assert read.blobs[0].chunks == tuple(blob.chunks[index] for index in indexes)
    assert len(read.extents) == 1


@pytest.mark.parametrize("byte_range", [ByteRange(10, None), ByteRange(10, 12), ByteRange(None, None, 0)])
async def test_an_unsatisfiable_range_brings_the_version_alone(worker: Worker, byte_range: ByteRange) -> None:
    """The caller answers 416 with the size."""
    await worker.put(b"k", size=10)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", byte_range=byte_range)
    assert (read.version.size, read.extents, read.blobs) == (10, (), ())


async def test_chunks_of_uneven_lengths_are_found_too(worker: Worker) -> None:
    """Nothing but speed relies on chunks being cut evenly."""
    lengths = [1, 50, 3, 200, 7, 7, 100, 2]
    chunks, offset = [], 0
    for index, length in enumerate(lengths):
        chunks.append(Chunk(index, offset, length, b"w" * 48, b"d" * 8, (1, 2, 3)))
        offset += length
    blob = Blob(worker.blob_id(), offset, "bk-1", 1, "replica:3", tuple(chunks))
    await worker.put(b"k", blob=blob)
    for position in range(offset):
        read = await worker.metadata.read_version(
            worker.bucket.bucket_id, b"k", byte_range=ByteRange(position, position)
        )
        (chunk,) = read.blobs[0].chunks
        assert chunk.offset <= position < chunk.offset + chunk.length


async def test_chunk_rows_are_bounded_and_page_on(worker: Worker) -> None:
    """All blobs of a read together bring at most a page; read_chunks continues by index."""
    blobs = (worker.chunked(1000, 20), worker.chunked(1000, 20), worker.chunked(1000, 20))
    await worker.apply(
        CommitVersion(worker.session_id, worker.bucket.bucket_id, b"k", worker.version(3000, "e"), blobs)
    )
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert [len(blob.chunks) for blob in read.blobs] == [50, CHUNK_PAGE_ROWS - 50, 0]
    rest = await worker.metadata.read_chunks(blobs[1].blob_id, CHUNK_PAGE_ROWS - 50)
    assert (*read.blobs[1].chunks, *rest) == blobs[1].chunks
    assert tuple(await worker.metadata.read_chunks(blobs[2].blob_id, 10, 3)) == blobs[2].chunks[10:13]
    assert await worker.metadata.read_chunks(blobs[2].blob_id, 50) == []
    assert await worker.metadata.read_chunks(b"?" * 16, 0) == []


async def test_the_chunk_of_an_inline_blob_is_read_as_a_row(worker: Worker) -> None:
    """read_chunks answers for every kind of blob."""
    blob = worker.inline(9)
    await worker.put(b"k", blob=blob)
    assert await worker.metadata.read_chunks(blob.blob_id, 0) == list(blob.chunks)
    assert await worker.metadata.read_chunks(blob.blob_id, 1) == []


async def test_a_range_touches_only_the_parts_it_needs(worker: Worker) -> None:
    """Ten parts; a range over the border of two brings two extents."""
    upload = await worker.create_upload(b"k")
    parts = [await worker.put_part(upload, number) for number in range(1, 11)]
    await worker.complete(upload, parts)
    border = 4 * PART_BYTES
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", byte_range=ByteRange(border - 1, border))
    assert [extent.part_number for extent in read.extents] == [4, 5]
    assert [blob.blob_id for blob in read.blobs] == [parts[3].blob_id, parts[4].blob_id]
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", byte_range=ByteRange(None, None, 1))
    assert [extent.part_number for extent in read.extents] == [10]


async def test_a_part_is_read_by_its_number(worker: Worker) -> None:
    """A HEAD gets the part's span as its extent; InvalidPart for a number that is not there."""
    upload = await worker.create_upload(b"k")
    parts = [await worker.put_part(upload, number) for number in (2, 7)]
    await worker.complete(upload, parts)
    bucket_id = worker.bucket.bucket_id
    read = await worker.metadata.read_version(bucket_id, b"k", part_number=7)
    assert [(extent.offset, extent.length) for extent in read.extents] == [(PART_BYTES, PART_BYTES)]
    assert [blob.blob_id for blob in read.blobs] == [parts[1].blob_id]
    assert read.blobs[0].chunks != ()
    read = await worker.metadata.read_version(bucket_id, b"k", part_number=2, with_body=False)
    assert ([extent.offset for extent in read.extents], read.blobs) == ([0], ())
    for absent in (1, 3, 8):
        with pytest.raises(InvalidPart):
            await worker.metadata.read_version(bucket_id, b"k", part_number=absent)


async def test_part_one_of_a_plain_version_is_the_whole(worker: Worker) -> None:
    """And it has no other."""
    blob = worker.chunked(30, 10)
    await worker.put(b"k", blob=blob)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k", part_number=1)
    assert read.blobs == (blob,)
    with pytest.raises(InvalidPart):
        await worker.metadata.read_version(worker.bucket.bucket_id, b"k", part_number=2)


async def test_a_write_is_seen_by_every_worker_once_it_is_answered(worker: Worker) -> None:
    """Reads of another worker that begin after the answer."""
    other = await Worker.start(worker.metadata, worker.bucket)
    for number in range(50):
        await worker.put(b"k", f"e{number}")
        assert await other.etag(b"k") == f"e{number}"
