"""Blobs laid out anew in another redundancy: the new layout as a whole or not at all, the old one until it is swept."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from storage.base.errors import LimitExceeded, SourceChanged
from storage.base.ids import GENERATION_MAX
from storage.metadata.commands import ChunkLayout, CommitVersion, ForgetBlobs, Relayout, ReleaseBlobs, SetReplicas
from storage.metadata.interface import Metadata
from storage.model import Blob, ByteRange
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine

EC = "ec:2+1"
EVER = 2**62


def new_layout(blob: Blob, nodes: tuple[int, ...] = (4, 5, 6)) -> tuple[ChunkLayout, ...]:
    """Three fragments of each chunk."""
    return tuple(ChunkLayout(chunk.index, os.urandom(24), nodes) for chunk in blob.chunks)


def laid_out(blob: Blob, chunks: tuple[ChunkLayout, ...], redundancy: str = EC) -> Blob:
    """The blob as it must read afterwards: what was sealed, and its keys, stay."""
    changed = tuple(
        msgspec.structs.replace(chunk, digest=layout.digest, nodes=layout.nodes)
        for chunk, layout in zip(blob.chunks, chunks, strict=True)
    )
    return msgspec.structs.replace(blob, redundancy=redundancy, chunks=changed, generation=blob.generation + 1)


def retired(blob: Blob) -> Blob:
    """As an old layout is listed: without keys."""
    chunks = tuple(msgspec.structs.replace(chunk, wrapped_key=b"") for chunk in blob.chunks)
    return msgspec.structs.replace(blob, chunks=chunks, bucket_key_id="", bucket_key_version=0)


async def lay_out(worker: Worker, blob: Blob, nodes: tuple[int, ...] = (4, 5, 6)) -> Blob:
    """Anew; it must succeed."""
    chunks = new_layout(blob, nodes)
    assert await worker.apply(Relayout(blob.blob_id, blob.generation, EC, chunks)) is True
    return laid_out(blob, chunks)


async def put_chunked(worker: Worker, object_key: bytes = b"k") -> Blob:
    """An object of three chunks. → its blob"""
    blob = worker.chunked(25, 10)
    await worker.put(object_key, blob=blob)
    return blob


async def released(metadata: Metadata) -> list[Blob]:
    """All that waits to be swept."""
    return await metadata.list_released_blobs(EVER, 100)


async def test_a_new_layout_is_read_as_a_whole_and_the_old_one_is_listed(engine: Engine, worker: Worker) -> None:
    """By every way to read a blob; again and again, each old one under its own generation."""
    first = await put_chunked(worker)
    engine.clock.advance(1)
    second = await lay_out(worker, first)
    bucket_id, metadata = worker.bucket.bucket_id, worker.metadata
    assert (await metadata.read_version(bucket_id, b"k")).blobs == (second,)
    ranged = await metadata.read_version(bucket_id, b"k", byte_range=ByteRange(12, 13))
    assert ranged.blobs == (msgspec.structs.replace(second, chunks=second.chunks[1:2]),)
    assert await metadata.read_chunks(first.blob_id, 0) == list(second.chunks)
    assert await metadata.list_released_blobs(engine.clock.now_ms(), 10) == []
    engine.clock.advance(1)
    third = await lay_out(worker, second, (7, 0, 9))
    assert (await metadata.read_version(bucket_id, b"k")).blobs == (third,)
    assert await released(metadata) == [retired(first), retired(second)]
    assert await metadata.list_released_blobs(engine.clock.now_ms(), 10) == [retired(first)]
    assert await metadata.list_released_blobs(EVER, 1) == [retired(first)]


async def test_a_layout_of_the_past_or_of_other_chunks_changes_nothing(worker: Worker) -> None:
    """A wrong generation, a blob that is gone, released or inline, and lists that are not its chunks."""
    blob, other = await put_chunked(worker), await put_chunked(worker, b"other")
    inline = worker.inline(10)
    await worker.put(b"inline", blob=inline)
    await worker.delete(b"other")
    chunks = new_layout(blob)
    for refused in (
        Relayout(blob.blob_id, 1, EC, chunks),
        Relayout(worker.blob_id(), 0, EC, chunks),
        Relayout(other.blob_id, 0, EC, new_layout(other)),
        Relayout(inline.blob_id, 0, EC, chunks[:1]),
        Relayout(inline.blob_id, 0, EC, ()),
        Relayout(blob.blob_id, 0, EC, ()),
        Relayout(blob.blob_id, 0, EC, chunks[:2]),
        Relayout(blob.blob_id, 0, EC, chunks[1:]),
        Relayout(blob.blob_id, 0, EC, (*chunks, chunks[0])),
        Relayout(blob.blob_id, 0, EC, (*chunks[:2], chunks[0])),
        Relayout(blob.blob_id, 0, EC, (*chunks, ChunkLayout(3, b"", (1,)))),
    ):
        assert await worker.apply(refused) is False, refused
    assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).blobs == (blob,)
    assert await released(worker.metadata) == [other]
    assert await worker.apply(Relayout(blob.blob_id, 0, EC, tuple(reversed(chunks)))) is True
    assert await worker.apply(Relayout(blob.blob_id, 0, EC, chunks)) is False
    assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).blobs == (laid_out(blob, chunks),)


async def test_an_attempt_chooses_its_generation(worker: Worker) -> None:
    """Any above the last; who looked before it finds another one."""
    blob = await put_chunked(worker)
    chunks = new_layout(blob)
    for generation, chosen in ((0, 7), (7, 0), (8, GENERATION_MAX)):
        assert await worker.apply(Relayout(blob.blob_id, generation, EC, chunks, 0, chosen)) is True
        assert await worker.apply(Relayout(blob.blob_id, generation, EC, chunks, 0, chosen)) is False
    (read,) = (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).blobs
    assert read.generation == GENERATION_MAX
    assert [blob.generation for blob in await released(worker.metadata)] == [0, 7, 8]
    await worker.apply(ForgetBlobs((blob.blob_id,) * 3, (7, 1, 8)))
    assert [blob.generation for blob in await released(worker.metadata)] == [0]


async def test_generations_end_where_chunk_ids_do(worker: Worker) -> None:
    """And a new blob is of the first one; chunks of another are no failed write's."""
    blob = await put_chunked(worker)
    for before, after in ((GENERATION_MAX, 0), (-1, 0), (0, GENERATION_MAX + 1), (3, 3), (3, 2), (3, -1)):
        with pytest.raises(LimitExceeded):
            await worker.apply(Relayout(blob.blob_id, before, EC, new_layout(blob), 0, after))
    later = msgspec.structs.replace(worker.chunked(10), generation=1)
    with pytest.raises(LimitExceeded):
        await worker.put(b"later", blob=later)
    await worker.apply(ReleaseBlobs(worker.session_id, (later,)))
    assert await released(worker.metadata) == []


async def test_the_blob_of_a_part_is_laid_out_anew(worker: Worker) -> None:
    """And completes all the same; the layout goes with it."""
    upload = await worker.create_upload(b"m")
    part = await worker.put_part(upload, 1)
    (chunk,) = await worker.metadata.read_chunks(part.blob_id, 0)
    layout = (ChunkLayout(0, b"d" * 24, (4, 5, 6)),)
    assert await worker.apply(Relayout(part.blob_id, 0, EC, layout)) is True
    await worker.complete(upload, [part])
    (blob,) = (await worker.metadata.read_version(worker.bucket.bucket_id, b"m")).blobs
    assert (blob.generation, blob.redundancy) == (1, EC)
    assert blob.chunks == (msgspec.structs.replace(chunk, digest=b"d" * 24, nodes=(4, 5, 6)),)


async def test_replicas_of_another_generation_stay(worker: Worker) -> None:
    """Whoever copied a chunk of the old layout finds the new one; a fragment that is nowhere has the number 0."""
    blob = await lay_out(worker, await put_chunked(worker), (1, 2, 3))
    assert await worker.apply(SetReplicas(blob.blob_id, 0, (1, 2, 3), (1, 2, 9))) is False
    assert await worker.apply(SetReplicas(blob.blob_id, 0, (1, 2, 3), (1, 0, 9), 1)) is True
    assert await worker.apply(SetReplicas(blob.blob_id, 0, (1, 2, 3), (1, 2, 9), 2)) is False
    chunks = await worker.metadata.read_chunks(blob.blob_id, 0)
    assert [chunk.nodes for chunk in chunks] == [(1, 0, 9), (1, 2, 3), (1, 2, 3)]


async def test_layouts_are_forgotten_one_by_one(engine: Engine, worker: Worker) -> None:
    """By blob and generation: the current layout of a live blob never, that of a released one without its old ones."""
    first = await put_chunked(worker)
    engine.clock.advance(1)
    second = await lay_out(worker, first)
    engine.clock.advance(1)
    third = await lay_out(worker, second)
    blob_id, metadata = first.blob_id, worker.metadata
    await worker.apply(ForgetBlobs((blob_id, blob_id), (2, 7)))
    assert await released(metadata) == [retired(first), retired(second)]
    await worker.apply(ForgetBlobs((blob_id,), (1,)))
    assert await released(metadata) == [retired(first)]
    engine.clock.advance(1)
    await worker.delete(b"k")
    assert await released(metadata) == [retired(first), third]
    await worker.apply(ForgetBlobs((blob_id,), (1,)))
    assert await released(metadata) == [retired(first), third]
    await worker.apply(ForgetBlobs((blob_id,), (2,)))
    assert await released(metadata) == [retired(first)]
    assert await metadata.read_chunks(blob_id, 0) == []
    await worker.apply(ForgetBlobs((blob_id,)))
    assert await released(metadata) == []
    assert await metadata.find_referenced_blobs([blob_id]) == set()
    with pytest.raises(LimitExceeded):
        await worker.apply(ForgetBlobs((blob_id,), (1, 2)))


async def test_old_layouts_and_released_blobs_are_listed_in_one_order(engine: Engine, worker: Worker) -> None:
    """By age, up to the limit, whichever they are."""
    blobs = [await put_chunked(worker, b"%d" % number) for number in range(6)]
    expected = []
    for number, blob in enumerate(blobs):
        engine.clock.advance(1)
        if number % 2:
            await worker.delete(b"%d" % number)
            expected.append(blob)
        else:
            await lay_out(worker, blob)
            expected.append(retired(blob))
    for limit in range(1, 8):
        assert await worker.metadata.list_released_blobs(EVER, limit) == expected[:limit]


async def test_a_relayout_and_a_delete_have_an_order(engine: Engine, worker: Worker) -> None:
    """Either the blob is released in its new layout and the old one beside it, or it was gone for the relayout."""
    other = await engine.connect()
    seen = set()
    for turn in range(20):
        blob = await put_chunked(worker)
        chunks = new_layout(blob)
        racing = [other.apply(Relayout(blob.blob_id, 0, EC, chunks)), worker.delete(b"k")]
        outcomes = await asyncio.gather(*(racing if turn % 2 else reversed(racing)))
        is_laid_out = outcomes[0 if turn % 2 else 1]
        seen.add(is_laid_out)
        found = {(found.blob_id, found.generation): found for found in await released(worker.metadata)}
        if is_laid_out:
            assert found == {(blob.blob_id, 0): retired(blob), (blob.blob_id, 1): laid_out(blob, chunks)}
        else:
            assert found == {(blob.blob_id, 0): blob}
        await worker.apply(ForgetBlobs((blob.blob_id,) * 2, (0, 1)))
        assert await released(worker.metadata) == []
    assert seen <= {True, False}


async def test_a_relayout_and_changes_of_replicas_have_an_order(engine: Engine, worker: Worker) -> None:
    """A change is in the layout that it was made for: in the old one, which is swept by it, or nowhere."""
    other = await engine.connect()
    for turn in range(20):
        blob = await put_chunked(worker)
        chunks = new_layout(blob, (1, 2))
        changes = [SetReplicas(blob.blob_id, index, (1, 2), (1, 9)) for index in range(3)]
        racing = [worker.apply(change) for change in changes]
        racing.insert(turn % 4, other.apply(Relayout(blob.blob_id, 0, EC, chunks)))
        outcomes = await asyncio.gather(*racing)
        assert outcomes.pop(turn % 4) is True
        assert await worker.metadata.read_chunks(blob.blob_id, 0) == list(laid_out(blob, chunks).chunks)
        (old,) = await released(worker.metadata)
        assert [chunk.nodes for chunk in old.chunks] == [(1, 9) if is_set else (1, 2) for is_set in outcomes]
        await worker.apply(ForgetBlobs((blob.blob_id,)))
        await worker.delete(b"k")
        await worker.apply(ForgetBlobs((blob.blob_id,), (1,)))


async def test_of_two_relayouts_of_one_generation_one_happens(engine: Engine, worker: Worker) -> None:
    """All of it: no chunk of one and chunk of the other."""
    others = [await engine.connect() for _ in range(3)]
    for _ in range(10):
        blob = await put_chunked(worker)
        layouts = [new_layout(blob, (number, number + 1, number + 2)) for number in (1, 4, 7)]
        outcomes = await asyncio.gather(
            *[other.apply(Relayout(blob.blob_id, 0, EC, layout)) for other, layout in zip(others, layouts, strict=True)]
        )
        assert sorted(outcomes) == [False, False, True]
        won = laid_out(blob, layouts[outcomes.index(True)])
        assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).blobs == (won,)


async def test_a_copy_shares_the_layout(worker: Worker) -> None:
    """Both names lead to the new one; the blob stays until both are gone."""
    blob = await put_chunked(worker)
    extents = (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).extents
    await worker.share(extents, b"copy")
    changed = await lay_out(worker, blob)
    await worker.delete(b"k")
    assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"copy")).blobs == (changed,)
    assert await released(worker.metadata) == [retired(blob)]
    await worker.delete(b"copy")
    version = worker.version(blob.size, "e")
    late = CommitVersion(worker.session_id, worker.bucket.bucket_id, b"late", version, shared=extents)
    with pytest.raises(SourceChanged):
        await worker.apply(late)
