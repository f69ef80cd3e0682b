"""Completing an upload: the list's rules, ETag and checksum of the whole from the parts."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.checksums import encode_digest, new_hasher
from s3gw.protocol.errors import S3Error
from s3gw.protocol.part_list import (
    PART_BYTES_MIN,
    ListedPart,
    choose_parts,
    combine_checksums,
    combine_etags,
    parse_part_list,
    parse_part_number,
)
from storage.model import Checksum, ChecksumAlgorithm, ChecksumType, PartInfo

MD5 = hashlib.md5(b"").hexdigest()


def checksum_of(data: bytes, algorithm: ChecksumAlgorithm) -> Checksum:
    """The full-object checksum of some bytes."""
    hasher = new_hasher(algorithm)
    hasher.update(data)
    return Checksum(algorithm, encode_digest(hasher.digest()))


def part(number: int, size: int = PART_BYTES_MIN, checksum: Checksum | None = None, etag: str = MD5) -> PartInfo:
    """An uploaded part."""
    return PartInfo(number, size, etag, 0, bytes(16), checksum)


def listing(*items: str) -> bytes:
    """A request body of these Part contents."""
    inner = "".join(f"<Part>{item}</Part>" for item in items)
    return f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()


def item(number: object, etag: str = MD5) -> str:
    """The content of one Part."""
    return f"<PartNumber>{number}</PartNumber><ETag>{etag}</ETag>"


def refused(raw: bytes) -> str:
    """The code that a list is refused with."""
    with pytest.raises(S3Error) as caught:
        parse_part_list(raw)
    return caught.value.code


def test_quoted_and_bare_etags_are_alike() -> None:
    """Also written as entities; checksums are kept by algorithm."""
    raw = listing(item(1, f"&quot;{MD5}&quot;"), item(3) + "<ChecksumCRC32>AAAAAA==</ChecksumCRC32>")
    assert parse_part_list(raw) == [
        ListedPart(1, MD5, {}),
        ListedPart(3, MD5, {ChecksumAlgorithm.CRC32: "AAAAAA=="}),
    ]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (listing(), "MalformedXML"),
        (listing("<PartNumber>1</PartNumber>"), "MalformedXML"),
        (listing("<ETag>x</ETag>"), "MalformedXML"),
        (listing(item(1) + "<ETag>y</ETag>"), "MalformedXML"),
        (listing(item("one")), "InvalidArgument"),
        (listing(item(0)), "InvalidArgument"),
        (listing(item(10_001)), "InvalidArgument"),
        (listing(item("9" * 5000)), "InvalidArgument"),
        (listing(item(2), item(1)), "InvalidPartOrder"),
        (listing(item(1), item(1)), "InvalidPartOrder"),
        (b"<Other/>", "MalformedXML"),
        (b"", "MalformedXML"),
    ],
)
def test_bad_lists(raw: bytes, code: str) -> None:
    """Each with AWS's code."""
    assert refused(raw) == code


def test_the_longest_list_is_taken() -> None:
    """10,000 parts with a checksum each fit the XML bounds."""
    checksum = f"<ChecksumSHA256>{'A' * 43}=</ChecksumSHA256>"
    raw = listing(*(f"\n    {item(number)}{checksum}\n" for number in range(1, 10_001)))
    assert len(parse_part_list(raw)) == 10_000


@given(st.text(max_size=12))
def test_part_numbers(text: str) -> None:
    """1 to 10,000 or InvalidArgument."""
    try:
        number = parse_part_number(text)
    except S3Error as error:
        assert error.code == "InvalidArgument"
    else:
        assert 1 <= number <= 10_000 and number == int(text)


def test_chooses_listed_parts_only() -> None:
    """What is not listed is left out."""
    uploaded = {number: part(number) for number in (1, 2, 3)}
    chosen = choose_parts([ListedPart(1, MD5, {}), ListedPart(3, MD5, {})], uploaded, "u")
    assert [one.part_number for one in chosen] == [1, 3]


def test_only_the_last_part_may_be_small() -> None:
    """EntityTooSmall names the part."""
    uploaded = {1: part(1, PART_BYTES_MIN - 1), 2: part(2, 1)}
    with pytest.raises(S3Error) as caught:
        choose_parts([ListedPart(1, MD5, {}), ListedPart(2, MD5, {})], uploaded, "u")
    assert caught.value.code == "EntityTooSmall" and caught.value.extra["PartNumber"] == "1"
    assert choose_parts([ListedPart(2, MD5, {})], uploaded, "u") == [uploaded[2]]


@pytest.mark.parametrize(
    "listed",
    [
        ListedPart(2, MD5, {}),
        ListedPart(1, "0" * 32, {}),
        ListedPart(1, MD5, {ChecksumAlgorithm.CRC32: "AAAAAQ=="}),
        ListedPart(1, MD5, {ChecksumAlgorithm.CRC32: "not base64"}),
        ListedPart(1, MD5, {ChecksumAlgorithm.SHA1: "AAAAAA=="}),
    ],
)
def test_a_part_that_differs_is_invalid(listed: ListedPart) -> None:
    """Missing, another ETag, another checksum, or one that cannot be checked."""
    uploaded = {1: part(1, checksum=Checksum(ChecksumAlgorithm.CRC32, "AAAAAA=="))}
    with pytest.raises(S3Error) as caught:
        choose_parts([listed], uploaded, "u")
    assert caught.value.code == "InvalidPart"


def test_checksums_need_not_be_repeated() -> None:
    """The ETag says which part is meant; its checksum was verified when it came."""
    uploaded = {1: part(1, checksum=Checksum(ChecksumAlgorithm.CRC32, "AAAAAA=="))}
    assert choose_parts([ListedPart(1, MD5, {})], uploaded, "u") == [uploaded[1]]


def test_etag_of_the_whole() -> None:
    """MD5 of the MD5s and the count; the value that AWS gives for two empty parts."""
    expected = hashlib.md5(bytes.fromhex(MD5) * 2).hexdigest()
    assert combine_etags([part(1).etag, part(2).etag]) == f"{expected}-2"


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=6))
def test_full_object_crcs_are_those_of_the_joined_bytes(bodies: list[bytes]) -> None:
    """Without reading a byte again."""
    for algorithm in (ChecksumAlgorithm.CRC32, ChecksumAlgorithm.CRC32C, ChecksumAlgorithm.CRC64NVME):
        parts = [part(n, len(body), checksum_of(body, algorithm)) for n, body in enumerate(bodies, 1)]
        combined = combine_checksums(parts, algorithm, ChecksumType.FULL_OBJECT)
        assert combined == checksum_of(b"".join(bodies), algorithm)


def test_composite_is_a_hash_of_hashes() -> None:
    """With the number of parts behind."""
    bodies = [b"a", b"b"]
    parts = [part(n, 1, checksum_of(body, ChecksumAlgorithm.CRC32)) for n, body in enumerate(bodies, 1)]
    joined = b"".join(zlib.crc32(body).to_bytes(4, "big") for body in bodies)
    expected = base64.b64encode(zlib.crc32(joined).to_bytes(4, "big")).decode()
    combined = combine_checksums(parts, ChecksumAlgorithm.CRC32, ChecksumType.COMPOSITE)
    assert combined == Checksum(ChecksumAlgorithm.CRC32, f"{expected}-2", ChecksumType.COMPOSITE)


def test_a_part_without_the_checksum_leaves_none() -> None:
    """Rather none than a wrong one."""
    parts = [part(1, 1, checksum_of(b"a", ChecksumAlgorithm.CRC32)), part(2, 1)]
    assert combine_checksums(parts, ChecksumAlgorithm.CRC32, ChecksumType.FULL_OBJECT) is None
