"""Objects under named keys and under customers' keys: what opens them, what does not, and what is kept of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from cluster.objectstore import CopySource, PutRequest, PutResult, Seal
from storage.base.errors import (
    CustomerKeyMismatch,
    CustomerKeyMissing,
    CustomerKeyNotApplicable,
    NoSuchKey,
    SealBroken,
    UnknownKeyId,
)
from storage.crypto.customer import CustomerKey
from storage.metadata.commands import Conditions
from storage.model import Attributes, ByteRange, ChecksumAlgorithm, Version
from tests.cluster.world import BlocksBody, World, open_world

SMALL, LARGE = b"a small secret", os.urandom(700_000)
KEY_A, KEY_B = CustomerKey(b"a" * 32), CustomerKey(b"b" * 32)
CUSTOMER = {"mode": "customer"}
KMS = {"mode": "aws:kms", "key": "payroll"}
PAYROLL = Seal("named-payroll")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """With a named key, `payroll`, and another one."""
    async with open_world(tmp_path) as opened:
        opened.keyring.create_named_key("payroll")
        opened.keyring.create_named_key("other")
        yield opened


async def put(world: World, key: bytes, data: bytes, sse: dict[str, str], seal: Seal | None) -> PutResult:
    """PUT in blocks of an odd size."""
    blocks = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    request = PutRequest(world.owner.canonical_id, Attributes(sse=sse), seal=seal)
    return await world.objects.put(world.bucket, key, BlocksBody(blocks), request)


async def get(
    world: World, key: bytes, customer_key: CustomerKey | None = None, part: ByteRange | None = None
) -> bytes:
    """GET with a key."""
    async with world.objects.open(world.bucket, key, None, part, None, customer_key) as reading:
        return b"".join([bytes(block) async for block in reading])


async def head(world: World, key: bytes) -> Version:
    """As it is kept."""
    return (await world.objects.head(world.bucket, key)).version


@pytest.mark.parametrize("data", [SMALL, LARGE, b""], ids=["inline", "chunks", "empty"])
async def test_a_customers_key(world: World, data: bytes) -> None:
    """Only with the key that it was put with is an object read, whole and in ranges; the ETag is no MD5."""
    result = await put(world, b"k", data, CUSTOMER, Seal(customer_key=KEY_A))
    assert await get(world, b"k", KEY_A) == data
    if data:
        assert await get(world, b"k", KEY_A, ByteRange(3, 9)) == data[3:10]
    for wrong, refusal in ((None, CustomerKeyMissing), (KEY_B, CustomerKeyMismatch)):
        with pytest.raises(refusal):
            await get(world, b"k", wrong)
        with pytest.raises(refusal):
            world.objects.unlock(world.bucket, await head(world, b"k"), wrong)
    plain = await world.put(b"plain", data)
    assert plain.committed.etag != result.committed.etag
    assert len(plain.committed.etag) == len(result.committed.etag)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "chunks"])
async def test_the_bytes_themselves_stay_shut(world: World, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check in the way, another key and none at all still open nothing: the seal is made with the key."""
    await put(world, b"k", data, CUSTOMER, Seal(customer_key=KEY_A))
    monkeypatch.setattr("cluster.customer_seals.CustomerSeals.verify", lambda *_: None)
    monkeypatch.setattr("cluster.customer_seals.CustomerSeals.show", lambda *_: None)
    assert await get(world, b"k", KEY_A) == data
    for wrong in (None, KEY_B, CustomerKey(world.keyring.bucket_key(world.bucket.bucket_key_id, 1))):
        with pytest.raises(SealBroken):
            await get(world, b"k", wrong)


async def test_what_is_kept_tells_nothing(world: World, tmp_path: Path) -> None:
    """No row and no file holds the key, its MD5, the plaintext or the plaintext's checksum in any spelling."""
    data = os.urandom(8)  # a CRC of 8 bytes would be as good as the bytes
    result = await put(world, b"k", data, CUSTOMER, Seal(customer_key=KEY_A))
    assert result.checksum is not None
    kept = (await head(world, b"k")).attributes
    assert set(kept.sse) == {"mode", "check"}
    assert kept.checksum is not None
    assert kept.checksum.value != result.checksum.value
    assert KEY_A.secret.hex() not in repr(kept)
    shown = world.objects.unlock(world.bucket, await head(world, b"k"), KEY_A)
    assert shown.attributes.checksum == result.checksum
    again = await put(world, b"k2", data, CUSTOMER, Seal(customer_key=KEY_A))
    other = (await head(world, b"k2")).attributes
    assert again.checksum == result.checksum
    assert other.sse["check"] != kept.sse["check"]
    assert other.checksum != kept.checksum
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (KEY_A.secret, KEY_A.md5_base64.encode(), data, result.checksum.value.encode()):
        assert secret not in written


async def test_a_key_where_none_belongs(world: World) -> None:
    """A customer's key for an object that was put without is refused."""
    await world.put(b"k", SMALL)
    with pytest.raises(CustomerKeyNotApplicable):
        await get(world, b"k", KEY_A)
    await put(world, b"k", SMALL, KMS, PAYROLL)
    with pytest.raises(CustomerKeyNotApplicable):
        await get(world, b"k", KEY_A)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["inline", "chunks"])
async def test_a_named_key(world: World, data: bytes) -> None:
    """Blobs record the named key; a new version of it seals what comes, and what there is stays readable."""
    first = await put(world, b"k", data, KMS, PAYROLL)
    world.keyring.add_version("named-payroll")
    await put(world, b"k2", data, KMS, PAYROLL)
    for key, version in ((b"k", 1), (b"k2", 2)):
        async with world.objects.open(world.bucket, key) as reading:
            assert [(blob.bucket_key_id, blob.bucket_key_version) for blob in reading.blobs] == [
                ("named-payroll", version)
            ]
            assert b"".join([bytes(block) async for block in reading]) == data
    assert first.committed.etag != (await world.put(b"plain", data)).committed.etag


async def test_a_destroyed_named_key(world: World) -> None:
    """What it sealed is lost, what others sealed is not; nothing more is sealed with it."""
    await put(world, b"k", SMALL, KMS, PAYROLL)
    await world.put(b"plain", SMALL)
    world.keyring.destroy("named-payroll")
    with pytest.raises(UnknownKeyId):
        await get(world, b"k")
    with pytest.raises(UnknownKeyId):
        await put(world, b"k2", SMALL, KMS, PAYROLL)
    with pytest.raises(NoSuchKey):
        await head(world, b"k2")
    assert await get(world, b"plain") == SMALL


MODES: dict[str, tuple[dict[str, str], Seal | None, CustomerKey | None]] = {
    "plain": ({}, None, None),
    "named": (KMS, PAYROLL, None),
    "other": ({**KMS, "key": "other"}, Seal("named-other"), None),
    "a": (CUSTOMER, Seal(customer_key=KEY_A), KEY_A),
    "b": (CUSTOMER, Seal(customer_key=KEY_B), KEY_B),
}


@pytest.mark.parametrize("size", [20, 700_000])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(MODES, MODES)))
async def test_copies_between_every_pair(world: World, source: str, target: str, size: int) -> None:
    """A copy holds the same bytes under the target's seal; blobs are shared where the seal is the very same only."""
    data = os.urandom(size)
    sse, seal, source_key = MODES[source]
    await put(world, b"from", data, sse, seal)
    sse, seal, target_key = MODES[target]
    version = world.objects.unlock(world.bucket, await head(world, b"from"), source_key)
    request = PutRequest(world.owner.canonical_id, Attributes(sse=sse), seal=seal)
    copies = world.copies
    result = await world.objects.copy(
        CopySource(world.bucket, version, source_key), world.bucket, b"to", request, ChecksumAlgorithm.CRC64NVME
    )
    assert await get(world, b"to", target_key) == data
    assert await get(world, b"from", source_key) == data
    assert result.checksum == version.attributes.checksum
    shared = source == target and target_key is None
    if size > 20_000:
        assert (world.copies == copies) is shared
    blobs = []
    for key, customer_key in ((b"from", source_key), (b"to", target_key)):
        async with world.objects.open(world.bucket, key, customer_key=customer_key) as reading:
            blobs.append([blob.blob_id for blob in reading.blobs])
    assert (blobs[0] == blobs[1]) is shared


async def test_a_copy_onto_itself_takes_the_newest_version_of_a_key(world: World) -> None:
    """So that a rotation can be carried through by copying."""
    await put(world, b"k", SMALL, KMS, PAYROLL)
    world.keyring.add_version("named-payroll")
    source = CopySource(world.bucket, await head(world, b"k"))
    request = PutRequest(world.owner.canonical_id, Attributes(sse=KMS), seal=PAYROLL)
    await world.objects.copy(source, world.bucket, b"k", request, ChecksumAlgorithm.CRC64NVME)
    async with world.objects.open(world.bucket, b"k") as reading:
        assert [blob.bucket_key_version for blob in reading.blobs] == [2]


async def test_an_upload_under_a_customers_key(world: World) -> None:
    """Parts are refused without the very key; their checksums show with it only; the object opens with it only."""
    objects, bucket, seal = world.objects, world.bucket, Seal(customer_key=KEY_A)
    attributes = Attributes(sse=CUSTOMER)
    upload = await objects.create_upload(bucket, b"k", world.owner.canonical_id, attributes, None, None, seal)
    for wrong, refusal in ((None, CustomerKeyMissing), (Seal(customer_key=KEY_B), CustomerKeyMismatch)):
        with pytest.raises(refusal):
            await objects.put_part(bucket, upload, 1, BlocksBody([SMALL]), wrong)
    part = await objects.put_part(bucket, upload, 1, BlocksBody([LARGE[:100_000], LARGE[100_000:]]), seal)
    for shown, key in ((part.checksum, KEY_A), (None, None)):
        page = await objects.list_parts(bucket, b"k", upload.upload_id, 0, 10, key)
        assert [it.checksum for it in page.parts] == [shown]
    with pytest.raises(CustomerKeyMismatch):
        await objects.list_parts(bucket, b"k", upload.upload_id, 0, 10, KEY_B)
    page = await objects.list_parts(bucket, b"k", upload.upload_id, 0, 10, KEY_A)
    finished = msgspec.structs.replace(upload.attributes, checksum=part.checksum)
    await objects.complete_upload(bucket, upload, page.parts, "e-1", finished, Conditions(), KEY_A)
    assert await get(world, b"k", KEY_A) == LARGE
    kept = await head(world, b"k")
    assert kept.attributes.checksum != part.checksum
    assert objects.unlock(bucket, kept, KEY_A).attributes.checksum == part.checksum
    with pytest.raises(CustomerKeyMissing):
        await get(world, b"k")


async def test_an_upload_that_is_completed_without_the_key(world: World) -> None:
    """The object is whole and opens with the key; it has no checksum, since nobody could tell one."""
    objects, bucket, seal = world.objects, world.bucket, Seal(customer_key=KEY_A)
    attributes = Attributes(sse=CUSTOMER)
    upload = await objects.create_upload(bucket, b"k", world.owner.canonical_id, attributes, None, None, seal)
    await objects.put_part(bucket, upload, 1, BlocksBody([SMALL]), seal)
    page = await objects.list_parts(bucket, b"k", upload.upload_id, 0, 10)
    await objects.complete_upload(bucket, upload, page.parts, "e-1", upload.attributes, Conditions())
    assert await get(world, b"k", KEY_A) == SMALL
    assert (await head(world, b"k")).attributes.checksum is None


async def test_an_upload_under_an_unknown_key(world: World) -> None:
    """Refused when it is created."""
    with pytest.raises(UnknownKeyId):
        await world.objects.create_upload(
            world.bucket, b"k", world.owner.canonical_id, Attributes(sse=KMS), None, None, Seal("named-nobody")
        )
