"""Where chunks are and whose they are: every chunk once in pages of any size, whatever else is in the store."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.metadata.commands import ChunkLayout, ForgetBlobs, Relayout
from storage.metadata.interface import BlobUser, ChunkPlace, Metadata
from storage.model import Blob, Extent, Versioning
from tests.storage.metadata.builders import PART_BYTES, Worker


def places_of(blob: Blob, *, is_released: bool = False) -> list[ChunkPlace]:
    """As the records must give them."""
    return [
        ChunkPlace(
            blob.blob_id,
            chunk.index,
            chunk.length,
            chunk.digest,
            chunk.nodes,
            blob.redundancy,
            blob.generation,
            is_released,
        )
        for chunk in blob.chunks
    ]


async def walk_places(metadata: Metadata, limit: int) -> list[ChunkPlace]:
    """All pages."""
    places: list[ChunkPlace] = []
    while page := await metadata.list_chunk_places((places[-1][:2]) if places else None, limit):
        assert len(page) <= limit
        places += page
    return places


async def walk_blobs(metadata: Metadata, bucket_id: int, limit: int) -> list[Blob]:
    """All pages."""
    blobs: list[Blob] = []
    after: int | None = 0
    while after is not None:
        page = await metadata.list_bucket_blobs(bucket_id, after, limit)
        assert page.next_after is None or page.next_after > after
        blobs += page.blobs
        after = page.next_after
    return blobs


async def extents_of(worker: Worker, object_key: bytes) -> Sequence[Extent]:
    """Of the current version."""
    return (await worker.metadata.read_version(worker.bucket.bucket_id, object_key)).extents


async def test_places_are_of_the_current_layout_and_say_what_is_released(worker: Worker) -> None:
    """Inline blobs and old layouts are nowhere; what was forgotten is gone."""
    kept, gone, forgotten = (worker.chunked(25, 10, nodes) for nodes in ((1, 2), (2, 3), (3, 1)))
    for number, blob in enumerate((kept, gone, forgotten)):
        await worker.put(b"%d" % number, blob=blob)
    await worker.put(b"inline")
    await worker.delete(b"1")
    await worker.delete(b"2")
    await worker.apply(ForgetBlobs((forgotten.blob_id,)))
    expected = [*places_of(kept), *places_of(gone, is_released=True)]
    assert await walk_places(worker.metadata, 100) == expected
    layouts = tuple(ChunkLayout(index, b"d" * 24, (4, 0, 6)) for index in range(3))
    await worker.apply(Relayout(kept.blob_id, 0, "ec:2+1", layouts))
    places = await walk_places(worker.metadata, 2)
    assert places[3:] == expected[3:]
    assert [place[4:] for place in places[:3]] == [((4, 0, 6), "ec:2+1", 1, False)] * 3
    asked = [(kept.blob_id, 2), (gone.blob_id, 0), (gone.blob_id, 3), (forgotten.blob_id, 0), (b"?" * 16, 0)]
    found = await worker.metadata.find_chunk_places(asked)
    assert sorted(found) == [places[2], expected[3]]
    assert await worker.metadata.find_chunk_places([]) == []


async def test_many_chunks_are_looked_up_at_once(worker: Worker) -> None:
    """More than one query's worth."""
    blob = worker.chunked(700, 1)
    await worker.put(b"k", blob=blob)
    asked = [(blob.blob_id, index) for index in range(0, 1400, 2)]
    assert sorted(await worker.metadata.find_chunk_places(asked)) == places_of(blob)[::2]


async def test_users_are_versions_and_parts(worker: Worker) -> None:
    """By the ids that clients see, in every bucket; copies share; markers and finished uploads use nothing."""
    versioned = await worker.in_bucket("versioned", Versioning.ENABLED)
    blob, other, unused = worker.chunked(10), worker.chunked(10), worker.chunked(10)
    await worker.put(b"k\xff", blob=blob)
    copied = await versioned.share(await extents_of(worker, b"k\xff"), b"copy")
    newer = await versioned.put(b"copy", blob=other)
    await versioned.delete(b"copy")
    upload = await worker.create_upload(b"m")
    part = await worker.put_part(upload, 3)
    await worker.put(b"unused", blob=unused)
    await worker.delete(b"unused")
    asked = [blob.blob_id, other.blob_id, part.blob_id, unused.blob_id, b"?" * 16]
    expected = {
        BlobUser(blob.blob_id, "bucket", b"k\xff", "null"),
        BlobUser(blob.blob_id, "versioned", b"copy", str(copied.version_id)),
        BlobUser(other.blob_id, "versioned", b"copy", str(newer.version_id)),
        BlobUser(part.blob_id, "bucket", b"m", "", upload.upload_id),
    }
    found = await worker.metadata.find_blob_users(asked, 100)
    assert (len(found), set(found)) == (4, expected)
    some = await worker.metadata.find_blob_users(asked, 2)
    assert len(some) == 2
    assert set(some) < expected
    assert await worker.metadata.find_blob_users([], 10) == []
    await worker.complete(upload, [part])
    assert await worker.metadata.find_blob_users([part.blob_id], 10) == [BlobUser(part.blob_id, "bucket", b"m", "null")]


async def test_the_blobs_of_a_bucket_are_those_that_datanodes_keep(worker: Worker) -> None:
    """Of every version of it and of no other bucket, with their redundancy and generation; a page may be empty."""
    other = await worker.in_bucket("other", Versioning.ENABLED)
    blobs = [worker.chunked(25, 10) for _ in range(4)]
    await other.put(b"k", blob=blobs[0])
    for number in range(5):
        await worker.put(b"%d" % number, blob=worker.chunked(5) if number % 2 else None)
    await other.put(b"k", blob=blobs[1])
    await other.delete(b"k")
    await other.put(b"inline")
    upload = await other.create_upload(b"m")
    parts = [await other.put_part(upload, number) for number in (1, 2)]
    await other.put_part(upload, 3)
    await other.complete(upload, parts)
    layouts = tuple(ChunkLayout(index, b"", (4, 5, 6)) for index in range(3))
    await other.apply(Relayout(blobs[1].blob_id, 0, "ec:2+1", layouts))
    expected = [
        Blob(blobs[0].blob_id, 25, "bk-1", 1, "replica:2"),
        Blob(blobs[1].blob_id, 25, "bk-1", 1, "ec:2+1", generation=1),
        *(Blob(part.blob_id, PART_BYTES, "bk-1", 1, "replica:2") for part in parts),
    ]
    for limit in (1, 2, 3, 100):
        assert await walk_blobs(worker.metadata, other.bucket.bucket_id, limit) == expected
    assert await walk_blobs(worker.metadata, 999, 2) == []


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    fates=st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["kept", "inline", "released", "laid out", "laid out, released"])),
        max_size=12,
    ),
    limit=st.integers(1, 7),
    at=st.integers(0, 30),
    asked_for=st.sets(st.integers(0, 40)),
)
async def test_any_page_is_what_a_plain_computation_says(
    worker: Worker, fates: list[tuple[int, str]], limit: int, at: int, asked_for: set[int]
) -> None:
    """Blobs of some chunks each, and what became of them; a page may begin after any chunk, one that is none too."""
    expected: list[ChunkPlace] = []
    for number, (chunk_count, fate) in enumerate(fates):
        object_key = b"%d" % number
        blob = worker.inline(10) if fate == "inline" else worker.chunked(chunk_count, 1)
        await worker.put(object_key, blob=blob)
        if fate.startswith("laid out"):
            layouts = tuple(ChunkLayout(index, b"d" * 24, (4, 5, 6)) for index in range(chunk_count))
            assert await worker.apply(Relayout(blob.blob_id, 0, "ec:2+1", layouts))
            chunks = tuple(msgspec.structs.replace(chunk, digest=b"d" * 24, nodes=(4, 5, 6)) for chunk in blob.chunks)
            blob = msgspec.structs.replace(blob, chunks=chunks, redundancy="ec:2+1", generation=1)
        if fate.endswith("released"):
            await worker.delete(object_key)
        if fate != "inline":
            expected += places_of(blob, is_released=fate.endswith("released"))
    assert await walk_places(worker.metadata, limit) == expected
    starts = [(place.blob_id, place.chunk_index + more) for place in expected for more in (0, 9)]
    after = starts[at % len(starts)] if starts else (b"", at)
    page = await worker.metadata.list_chunk_places(after, limit)
    assert page == [place for place in expected if place[:2] > after][:limit]
    wanted = [place for number, place in enumerate(expected) if number in asked_for]
    asked = [*(place[:2] for place in wanted), (b"?" * 16, 0)]
    assert sorted(await worker.metadata.find_chunk_places(asked)) == wanted
    for number in range(len(fates)):
        await worker.delete(b"%d" % number)
    blob_ids = {place.blob_id: place.generation for place in expected}
    await worker.apply(ForgetBlobs((*blob_ids, *blob_ids), (*blob_ids.values(), *[0] * len(blob_ids))))
    assert await walk_places(worker.metadata, limit) == []
    assert await worker.released() == set()
