"""Objects of every kind in an erasure-coded bucket: read right with all nodes, and with as few as there may be."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.chunk_writes import BUDGET_BYTES_MIN
from cluster.objectstore import CopySource, PutRequest, Seal
from storage.base.errors import CustomerKeyMismatch, Unavailable
from storage.crypto.customer import CustomerKey
from storage.crypto.envelope import FRAME_BYTES
from storage.metadata.commands import Conditions
from storage.model import Attributes, ByteRange, ChecksumAlgorithm, PartInfo, Upload
from tests.cluster.layouts import read_blobs
from tests.cluster.world import SETTINGS, BlocksBody, World, open_world

CHUNK = 13 * FRAME_BYTES
ERASURE = replace(SETTINGS, redundancy="ec:4+2", chunk_bytes=CHUNK)
DATA = os.urandom(3 * CHUNK + 40_000)
KEY, OTHER_KEY = CustomerKey(b"a" * 32), CustomerKey(b"b" * 32)
CUSTOMER = {"mode": "customer"}
MIB5 = 5 << 20


@pytest.fixture
async def world(tmp_path: Path, is_near: bool) -> AsyncIterator[World]:
    """Seven nodes; everything large is in ec:4+2."""
    async with open_world(tmp_path, node_count=7, settings=ERASURE, near=is_near) as opened:
        opened.keyring.create_named_key("payroll")
        yield opened


def lose_two(world: World, seed: int) -> None:
    """Two nodes go, whichever."""
    for number in random.Random(seed).sample(sorted(world.nodes), 2):
        world.nodes[number].down = True


async def get(
    world: World, key: bytes, byte_range: ByteRange | None = None, customer_key: CustomerKey | None = None
) -> bytes:
    """With a customer's key, or none."""
    async with world.objects.open(world.bucket, key, None, byte_range, None, customer_key) as reading:
        return b"".join([bytes(block) async for block in reading])


async def check_ranges(world: World, key: bytes, whole: bytes, customer_key: CustomerKey | None = None) -> None:
    """All of it, and parts of it by chance."""
    assert await get(world, key, None, customer_key) == whole
    chance = random.Random(len(whole))
    for _ in range(20):
        start, end = sorted(chance.sample(range(len(whole)), 2))
        assert await get(world, key, ByteRange(start, end), customer_key) == whole[start : end + 1]
    assert world.cluster.operations.budget.held_bytes == 0


@pytest.mark.parametrize("size", [4 * FRAME_BYTES + 64, CHUNK, CHUNK + 1, len(DATA)])
@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_plain_objects(world: World, size: int, seed: int) -> None:
    """Chunks of many stripes, of one frame, of one byte."""
    await world.put(b"key", DATA[:size])
    assert [blob.redundancy for blob in await read_blobs(world, b"key")] == ["ec:4+2"]
    await check_ranges(world, b"key", DATA[:size])
    lose_two(world, seed)
    await check_ranges(world, b"key", DATA[:size])


async def test_a_third_loss_is_unavailable_and_passes(world: World) -> None:
    """No wrong byte and no short end, and everything when it is back."""
    await world.put(b"key", DATA)
    [blob] = await read_blobs(world, b"key")
    lost = blob.chunks[0].nodes[:3]
    for number in lost:
        world.nodes[number].down = True
    with pytest.raises(Unavailable):
        await world.get(b"key")
    world.nodes[lost[0]].down = False
    await check_ranges(world, b"key", DATA)


@pytest.mark.parametrize("loses", [False, True])
async def test_sealed_by_request(world: World, loses: bool) -> None:
    """Under a customer's key and under a named one; another key opens nothing."""
    blocks = [DATA[at : at + 100_000] for at in range(0, len(DATA), 100_000)]
    customer, named = Seal(customer_key=KEY), Seal("named-payroll")
    for key, sse, seal in ((b"c", CUSTOMER, customer), (b"k", {"mode": "aws:kms", "key": "payroll"}, named)):
        request = PutRequest(world.owner.canonical_id, Attributes(sse=sse), seal=seal)
        await world.objects.put(world.bucket, key, BlocksBody(blocks), request)
    world.keyring.add_version("named-payroll")
    if loses:
        lose_two(world, 5)
    await check_ranges(world, b"c", DATA, KEY)
    await check_ranges(world, b"k", DATA)
    with pytest.raises(CustomerKeyMismatch):
        await get(world, b"c", None, OTHER_KEY)


async def upload_parts(
    world: World, upload: Upload, sizes: list[int], seal: Seal | None = None
) -> tuple[list[PartInfo], bytes]:
    """(the parts, their bytes)"""
    parts: list[PartInfo] = []
    whole = b""
    for number, size in enumerate(sizes, 1):
        data = random.Random(number).randbytes(size)
        parts.append(await world.objects.put_part(world.bucket, upload, number, BlocksBody([data]), seal))
        whole += data
    return parts, whole


@pytest.mark.parametrize("loses", [False, True])
async def test_multipart_objects(world: World, loses: bool) -> None:
    """Parts in fragments, in replicas (a small last one) and inline; by ranges over their ends and by part number."""
    sizes = [MIB5, MIB5 + 17, MIB5, 100_000]
    upload = await world.objects.create_upload(
        world.bucket, b"key", world.owner.canonical_id, Attributes(), ChecksumAlgorithm.CRC32, None
    )
    parts, whole = await upload_parts(world, upload, sizes)
    await world.objects.complete_upload(world.bucket, upload, parts, "etag-4", upload.attributes, Conditions())
    assert [blob.redundancy for blob in await read_blobs(world, b"key")] == ["ec:4+2"] * 3 + ["replica:3"]
    if loses:
        lose_two(world, 3)
    await check_ranges(world, b"key", whole)
    start = 0
    for number, size in enumerate(sizes, 1):
        assert await get(world, b"key", ByteRange(start, start + 9)) == whole[start : start + 10]
        async with world.objects.open(world.bucket, b"key", part_number=number) as part:
            assert b"".join([bytes(block) async for block in part]) == whole[start : start + size]
        start += size
    assert await get(world, b"key", ByteRange(MIB5 - 5, MIB5 + 4)) == whole[MIB5 - 5 : MIB5 + 5]


async def test_a_multipart_object_under_a_customers_key(world: World) -> None:
    """Every part under the same key, each in fragments of its own."""
    upload = await world.objects.create_upload(
        world.bucket, b"key", world.owner.canonical_id, Attributes(sse=CUSTOMER), None, None, Seal(customer_key=KEY)
    )
    parts, whole = await upload_parts(world, upload, [MIB5, MIB5 // 2], Seal(customer_key=KEY))
    await world.objects.complete_upload(
        world.bucket, upload, parts, "etag-2", upload.attributes, Conditions(), customer_key=KEY
    )
    lose_two(world, 4)
    await check_ranges(world, b"key", whole, KEY)


async def test_copies(world: World) -> None:
    """One that shares fragments, one that is sealed anew under another key, and a part out of a range."""
    await world.put(b"key", DATA)
    lose_two(world, 1)
    source = CopySource(world.bucket, (await world.objects.head(world.bucket, b"key")).version)
    crc = ChecksumAlgorithm.CRC64NVME
    pieces = world.copies
    await world.objects.copy(source, world.bucket, b"shared", world.request(), crc)
    assert world.copies == pieces
    for node in world.nodes.values():
        node.down = False
    request = PutRequest(world.owner.canonical_id, Attributes(sse=CUSTOMER), seal=Seal(customer_key=KEY))
    result = await world.objects.copy(source, world.bucket, b"sealed", request, crc)
    assert result.size == len(DATA)
    upload = await world.objects.create_upload(
        world.bucket, b"parts", world.owner.canonical_id, Attributes(), None, None
    )
    part = await world.objects.copy_part(source, (1_000, CHUNK + 5_000), world.bucket, upload, 1)
    assert part.etag == hashlib.md5(DATA[1_000 : CHUNK + 5_000]).hexdigest()
    lose_two(world, 2)
    await check_ranges(world, b"shared", DATA)
    await check_ranges(world, b"sealed", DATA, KEY)


async def test_many_degraded_reads_within_a_small_budget(tmp_path: Path) -> None:
    """What they hold together is bounded by it, and all of them come to their end."""
    settings = replace(ERASURE, budget_bytes=BUDGET_BYTES_MIN)
    async with open_world(tmp_path, node_count=7, settings=settings) as world:
        await world.put(b"key", DATA)
        lose_two(world, 6)
        ranges = [ByteRange(start, start + CHUNK) for start in range(0, 2 * CHUNK, 50_000)]
        budget = world.cluster.operations.budget
        async with asyncio.timeout(60):
            read = await asyncio.gather(*(get(world, b"key", byte_range) for byte_range in ranges))
        assert read == [DATA[it.first or 0 : (it.first or 0) + CHUNK + 1] for it in ranges]
        assert budget.held_bytes == 0
        assert budget.held_bytes_peak <= BUDGET_BYTES_MIN


async def test_stripes_wider_than_a_span(tmp_path: Path) -> None:
    """Each slice is a whole stripe then, within the smallest budget."""
    settings = replace(SETTINGS, redundancy="ec:20+2", chunk_bytes=50 * FRAME_BYTES, budget_bytes=BUDGET_BYTES_MIN)
    data = os.urandom(70 * FRAME_BYTES + 5)
    async with open_world(tmp_path, node_count=22, settings=settings) as world:
        await world.put(b"key", data)
        await check_ranges(world, b"key", data)
        lose_two(world, 1)
        await check_ranges(world, b"key", data)
