"""The door of objects over real metadata and datanodes in memory: what is put comes back, by any way of asking."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from cluster.objectstore import CopySource, ObjectReading, PutResult
from storage.base.clock import ManualClock
from storage.base.errors import NoSuchKey, NoSuchUpload, NotEnoughNodes, SourceChanged
from storage.metadata.commands import REDUNDANCY_SETTING, Command, CommitVersion, Conditions, DeleteTarget
from storage.model import Attributes, Bucket, ByteRange, Checksum, ChecksumAlgorithm, Node, NodeState, Versioning
from tests.cluster.world import BlocksBody, World, open_world

CRC64 = ChecksumAlgorithm.CRC64NVME


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three nodes, chunks of 256 KiB."""
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_536, 65_537, 262_144, 262_145, 1_000_000, 3_000_000])
async def test_what_is_put_comes_back(world: World, size: int) -> None:
    """Whole, with the MD5 as ETag, on two nodes a chunk unless it is inline."""
    data = os.urandom(size)
    result = await world.put(b"key", data)
    assert result.committed.etag == hashlib.md5(data).hexdigest()
    assert await world.get(b"key") == data
    chunks = -(-size // (256 << 10)) if size > 16_384 else 0
    assert world.copies == 2 * chunks


async def test_ranges(world: World) -> None:
    """Every kind of range over chunk and frame borders."""
    data = os.urandom(1_000_000)
    await world.put(b"key", data)
    for start, end in [(0, 1), (65_535, 65_537), (262_143, 262_145), (500_000, 999_999), (999_999, 1_000_000)]:
        assert await world.get(b"key", ByteRange(start, end - 1)) == data[start:end]
    assert await world.get(b"key", ByteRange(None, None, 70_000)) == data[-70_000:]


# ------------------------------------------------------------------ copies


def source_of(bucket: Bucket, reading: ObjectReading) -> CopySource:
    """What a caller authorised."""
    return CopySource(bucket, reading.version)


async def copy(
    world: World, source: CopySource, key: bytes, bucket: Bucket | None = None, algorithm: ChecksumAlgorithm = CRC64
) -> PutResult:
    """Copy into the bucket."""
    return await world.objects.copy(source, bucket or world.bucket, key, world.request(), algorithm)


@pytest.mark.parametrize("size", [0, 100, 700_000])
async def test_a_copy_within_a_bucket_shares_its_blobs(world: World, size: int) -> None:
    """No byte moves, and deleting either leaves the other whole."""
    data = os.urandom(size)
    put = await world.put(b"key", data)
    chunks = world.copies
    result = await copy(world, source_of(world.bucket, await world.objects.head(world.bucket, b"key")), b"copy")
    assert world.copies == chunks
    assert (result.committed.etag, result.checksum) == (put.committed.etag, put.checksum)
    await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
    assert await world.get(b"copy") == data
    assert await world.metadata.list_released_blobs(2**62, 10) == []


async def test_a_copy_to_another_bucket_is_sealed_again(world: World) -> None:
    """Under the other bucket's key, with the same ETag."""
    other = await world.make_bucket("other")
    data = os.urandom(700_000)
    put = await world.put(b"key", data)
    result = await copy(world, source_of(world.bucket, await world.objects.head(world.bucket, b"key")), b"copy", other)
    assert result.committed.etag == put.committed.etag
    assert world.copies == 12
    assert await world.get(b"copy", bucket=other) == data
    read = await world.metadata.read_version(other.bucket_id, b"copy")
    assert {blob.bucket_key_id for blob in read.blobs} == {other.bucket_key_id}


async def test_a_copy_of_another_redundancy_is_sealed_again(world: World) -> None:
    """The bucket's changed since: the copy gets what it would be written in, which is then shared with the next."""
    data = os.urandom(700_000)
    await world.put(b"key", data)
    await world.put(b"small", b"small")
    await world.cluster.directory.put_setting(world.bucket, REDUNDANCY_SETTING, b"ec:2+1")
    await world.cluster.directory.refresh()
    bucket = await world.cluster.directory.bucket("bucket")
    for source, target in ((b"key", b"copy"), (b"copy", b"again"), (b"small", b"small copy")):
        await copy(world, source_of(bucket, await world.objects.head(bucket, source)), target, bucket)
    blobs = {}
    for key in (b"key", b"copy", b"again", b"small", b"small copy"):
        (blobs[key],) = (await world.metadata.read_version(bucket.bucket_id, key)).blobs
    assert blobs[b"key"].redundancy == "replica:2"
    assert blobs[b"copy"].redundancy == "ec:2+1"
    assert blobs[b"again"].blob_id == blobs[b"copy"].blob_id
    assert blobs[b"small copy"].blob_id == blobs[b"small"].blob_id
    assert await world.get(b"again") == data


async def test_a_copy_with_another_checksum_is_streamed(world: World) -> None:
    """The checksum that was asked for is computed."""
    data = os.urandom(700_000)
    await world.put(b"key", data)
    source = source_of(world.bucket, await world.objects.head(world.bucket, b"key"))
    result = await copy(world, source, b"copy", algorithm=ChecksumAlgorithm.SHA256)
    expected = Checksum(ChecksumAlgorithm.SHA256, base64.b64encode(hashlib.sha256(data).digest()).decode())
    assert result.checksum == expected
    assert (await world.objects.head(world.bucket, b"copy")).version.attributes.checksum == expected
    assert await world.get(b"copy") == data


async def test_a_source_that_was_replaced_is_refused(world: World) -> None:
    """The caller's conditions were checked against another body; also when it was deleted."""
    await world.put(b"key", b"first")
    source = source_of(world.bucket, await world.objects.head(world.bucket, b"key"))
    await world.put(b"key", b"second")
    with pytest.raises(SourceChanged):
        await copy(world, source, b"copy")
    await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
    with pytest.raises(SourceChanged):
        await copy(world, source, b"copy")


async def test_a_source_deleted_during_the_copy_is_copied_all_the_same(world: World) -> None:
    """The copy is of what it began with: its chunks are kept for the read, and sealed again."""
    data = os.urandom(700_000)
    await world.put(b"key", data)
    source = source_of(world.bucket, await world.objects.head(world.bucket, b"key"))
    apply = world.metadata.apply

    async def delete_first(command: Command) -> object:
        if isinstance(command, CommitVersion) and command.shared:
            await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
        return await apply(command)

    world.objects._metadata.apply = delete_first  # type: ignore[method-assign]
    await copy(world, source, b"copy")
    world.objects._metadata.apply = apply  # type: ignore[method-assign]
    assert await world.get(b"copy") == data


async def test_a_refusal_of_the_destination_is_not_one_of_the_source(world: World) -> None:
    """If-Match on a missing destination is NoSuchKey, not SourceChanged."""
    await world.put(b"key", b"data")
    source = source_of(world.bucket, await world.objects.head(world.bucket, b"key"))
    request = world.request()._replace(conditions=Conditions(if_match="x"))
    with pytest.raises(NoSuchKey):
        await world.objects.copy(source, world.bucket, b"copy", request, CRC64)


async def test_an_older_version_is_copied_by_its_id(world: World) -> None:
    """In a versioned bucket the source is the version, not the key."""
    bucket = await world.make_bucket("versioned", Versioning.ENABLED)
    first = await world.put(b"key", b"first", bucket=bucket)
    await world.put(b"key", b"second", bucket=bucket)
    reading = await world.objects.head(bucket, b"key", first.committed.version_id)
    assert not reading.is_current
    await copy(world, source_of(bucket, reading), b"key", bucket)
    assert await world.get(b"key", bucket=bucket) == b"first"


# ------------------------------------------------------------------ multipart


MIB5 = 5 << 20


async def multipart(world: World, sizes: list[int], key: bytes = b"key") -> bytes:
    """Upload and complete parts of these sizes; their bytes."""
    upload = await world.objects.create_upload(
        world.bucket, key, world.owner.canonical_id, Attributes(content_type="text/x"), None, None
    )
    parts, whole = [], b""
    for number, size in enumerate(sizes, 1):
        data = os.urandom(size)
        whole += data
        part = await world.objects.put_part(world.bucket, upload, number, BlocksBody([data] if data else []))
        assert part.etag == hashlib.md5(data).hexdigest()
        parts.append(part)
    page = await world.objects.list_parts(world.bucket, key, upload.upload_id, 0, 1000)
    assert list(page.parts) == parts
    await world.objects.complete_upload(world.bucket, upload, parts, "etag-1", upload.attributes, Conditions())
    done = await world.objects.find_completed_upload(world.bucket, key, upload.upload_id)
    assert done is not None
    assert done.etag == "etag-1"
    return whole


@pytest.mark.parametrize("sizes", [[0], [10], [100_000], [MIB5, 10], [MIB5, MIB5, 300_000], [MIB5, 0]])
async def test_multipart_comes_back_whole_by_range_and_by_part(world: World, sizes: list[int]) -> None:
    """Parts of all sizes, inline ones too."""
    whole = await multipart(world, sizes)
    assert await world.get(b"key") == whole
    reading = await world.objects.head(world.bucket, b"key")
    assert (reading.version.size, reading.version.part_count) == (len(whole), len(sizes))
    start = 0
    for number, size in enumerate(sizes, 1):
        head = await world.objects.head(world.bucket, b"key", part_number=number)
        assert (head.start, head.end) == (start, start + size)
        async with world.objects.open(world.bucket, b"key", part_number=number) as part:
            assert (part.start, part.end) == (start, start + size)
            assert b"".join([bytes(block) async for block in part]) == whole[start : start + size]
        start += size
    if len(whole) > MIB5:
        for first, last in [(MIB5 - 10, MIB5 + 9), (MIB5 - 1, len(whole) - 1), (MIB5, MIB5)]:
            assert await world.get(b"key", ByteRange(first, last)) == whole[first : last + 1]


async def test_a_copy_of_a_multipart_object_has_a_plain_etag(world: World) -> None:
    """It is streamed: the MD5 of the whole, and no parts."""
    whole = await multipart(world, [MIB5, 1000])
    result = await copy(world, source_of(world.bucket, await world.objects.head(world.bucket, b"key")), b"copy")
    assert result.committed.etag == hashlib.md5(whole).hexdigest()
    reading = await world.objects.head(world.bucket, b"copy")
    assert reading.version.part_count == 0
    assert await world.get(b"copy") == whole


async def test_a_part_is_copied_from_a_range(world: World) -> None:
    """UploadPartCopy, with and without a range, and of nothing."""
    data = os.urandom(900_000)
    await world.put(b"source", data)
    await world.put(b"empty", b"")
    source = source_of(world.bucket, await world.objects.head(world.bucket, b"source"))
    upload = await world.objects.create_upload(
        world.bucket, b"key", world.owner.canonical_id, Attributes(), ChecksumAlgorithm.CRC32, None
    )
    for byte_range, expected in [((1_000, 500_000), data[1_000:500_000]), (None, data), ((5, 6), data[5:6])]:
        part = await world.objects.copy_part(source, byte_range, world.bucket, upload, 1)
        assert part.etag == hashlib.md5(expected).hexdigest()
        assert part.size == len(expected)
        assert part.checksum is not None
        assert part.checksum.algorithm is ChecksumAlgorithm.CRC32
        assert base64.b64decode(part.checksum.value) == zlib.crc32(expected).to_bytes(4, "big")
    empty = source_of(world.bucket, await world.objects.head(world.bucket, b"empty"))
    assert (await world.objects.copy_part(empty, None, world.bucket, upload, 1)).size == 0


async def test_uploads_of_a_key_are_listed_by_their_age(tmp_path: Path) -> None:
    """As S3 lists them, and so that paging on (key, upload id) never passes over a newer one."""
    clock = ManualClock()
    async with open_world(tmp_path, clock=clock) as world:
        made = []
        for _ in range(5):
            clock.advance(0.001)
            upload = await world.objects.create_upload(
                world.bucket, b"key", world.owner.canonical_id, Attributes(), None, None
            )
            made.append(upload.upload_id)
        page = await world.objects.list_uploads(world.bucket, prefix=b"", delimiter=b"", after=(b"", ""), limit=9)
        assert [upload.upload_id for upload in page.uploads] == made


async def test_an_upload_that_is_gone_takes_no_part(world: World) -> None:
    """And nothing of the part stays on the datanodes."""
    upload = await world.objects.create_upload(world.bucket, b"key", world.owner.canonical_id, Attributes(), None, None)
    await world.objects.abort_upload(world.bucket, b"key", upload.upload_id)
    with pytest.raises(NoSuchUpload):
        await world.objects.put_part(world.bucket, upload, 1, BlocksBody([os.urandom(300_000)]))
    assert world.copies == 0


# ------------------------------------------------------------------ readiness and health


async def test_ready_asks_the_nodes(world: World) -> None:
    """The map may name some that have not started, or have just died: as many must answer as a write needs, and one
    that is stalled keeps nobody waiting."""
    operations = world.cluster.operations
    world.nodes[1].get_stalls = True
    assert await operations.ready()  # False, had it waited for that one
    world.nodes[2].down = True
    assert not await operations.ready()
    world.nodes[1].get_stalls = False
    assert await operations.ready()


def full(node: Node) -> Node:
    """As it reports itself when only its reserve is left."""
    return replace(node, report=replace(node.report, free_bytes=node.report.reserve_bytes))


async def test_ready_while_some_nodes_are_full(world: World) -> None:
    """As long as enough have room a write succeeds, and the worker says so; below that it fails and says so, while
    what is there is read and deleted. It does not matter whether the map has heard of it yet."""
    operations = world.cluster.operations
    await world.put(b"key", body := os.urandom(300_000))
    nodes = [node.node() for node in world.nodes.values()]
    for count, is_ready in ((1, True), (2, False), (3, False)):
        await world.map.change([*map(full, nodes[:count]), *nodes[count:]])
        assert await operations.ready() == is_ready
        if is_ready:
            await world.put(b"other", os.urandom(300_000))
        else:
            with pytest.raises(NotEnoughNodes):
                await world.put(b"another", os.urandom(300_000))
        assert await world.get(b"key") == body
    await world.objects.delete(world.bucket, [DeleteTarget(b"key"), DeleteTarget(b"other")])
    await world.map.change(nodes)
    assert await operations.ready()
    for number in (1, 2):
        world.nodes[number].full = True
        world.nodes[number].inner._reserve_bytes = world.nodes[number].inner.capacity_bytes
        assert await operations.ready() == (number == 1)
    with pytest.raises(NotEnoughNodes):
        await world.put(b"another", os.urandom(300_000))


async def test_ready_follows_nodes_and_session(world: World) -> None:
    """200 only when a write would succeed."""
    operations = world.cluster.operations
    assert await operations.ready()
    await world.map.change([world.nodes[1].node()])
    assert not await operations.ready()
    await world.map.change(node.node() for node in world.nodes.values())
    assert await operations.ready()
    world.objects._writer._services.session.enter().renewed_s -= 20
    assert not await operations.ready()


async def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    """Honest about one disk beneath all nodes, about nodes that are away, and silent when all is well."""
    async with open_world(tmp_path, failure_domain="zone/host/disk") as world:
        health = await world.cluster.operations.health()
        assert (health.writable, health.failure_domains, health.redundancy) == (True, 1, "replica:2")
        assert any("share a disk" in warning for warning in health.warnings)
        for number, node in world.nodes.items():
            node.failure_domain = f"zone/host/disk-{number}"
        await world.map.change(node.node() for node in world.nodes.values())
        assert (await world.cluster.operations.health()).warnings == ()
        states = {1: NodeState.UP, 2: NodeState.DEAD, 3: NodeState.SUSPECT}
        await world.map.change(node.node(states[number]) for number, node in world.nodes.items())
        warnings = (await world.cluster.operations.health()).warnings
        assert any("is dead" in warning for warning in warnings)
        assert any("is suspect" in warning for warning in warnings)
