"""GetObjectAttributes: what is asked for, pages of parts, checksums of parts that come back as they were kept."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.checksums import DIGEST_BYTES, encode_digest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_attributes import (
    find_checksum,
    format_object_attributes,
    pack_part_digests,
    parse_object_attributes,
)
from storage.model import Attributes, Checksum, ChecksumAlgorithm, Extent, PartInfo, Version

ALL = "ETag, Checksum,ObjectParts,StorageClass,ObjectSize"


def version_of(parts: int, attributes: Attributes = Attributes()) -> Version:  # noqa: B008 (immutable)
    """A version made of so many parts."""
    return Version(1, b"k", 1, b"u" * 16, True, False, 7, "etag", 0, "owner", attributes, part_count=parts)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "InvalidRequest"),
        ({"x-amz-object-attributes": ""}, "InvalidRequest"),
        ({"x-amz-object-attributes": "ETag,Colour"}, "InvalidArgument"),
        ({"x-amz-object-attributes": "etag"}, "InvalidArgument"),
        ({"x-amz-object-attributes": "ETag", "x-amz-max-parts": "x"}, "InvalidArgument"),
        ({"x-amz-object-attributes": "ETag", "x-amz-part-number-marker": "-1"}, "InvalidArgument"),
    ],
)
def test_what_cannot_be_asked_for(headers: dict[str, str], code: str) -> None:
    """Nothing, unknown names, pages that are none."""
    with pytest.raises(S3Error) as refused:
        parse_object_attributes(headers)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"])
def test_only_what_is_asked_for_is_told(name: str) -> None:
    """One element each."""
    attributes = Attributes(checksum=Checksum(ChecksumAlgorithm.CRC32, "AAAAAA=="))
    query = parse_object_attributes({"x-amz-object-attributes": name})
    document = format_object_attributes(query, version_of(1, attributes), [Extent(b"", 0, 7, 1)]).decode()
    inner = document.partition("/2006-03-01/")[2]
    found = set(re.findall("<(ETag|Checksum|ObjectParts|StorageClass|ObjectSize)>", inner))
    assert found == {name}


def test_a_plain_object_has_no_parts() -> None:
    """Though they were asked for."""
    query = parse_object_attributes({"x-amz-object-attributes": ALL})
    assert b"ObjectParts" not in format_object_attributes(query, version_of(0), [Extent(b"", 0, 7)])


NUMBERS = st.lists(st.integers(1, 10_000), unique=True, min_size=1, max_size=40).map(sorted)


def read_parts(document: str) -> list[tuple[int, int, str]]:
    """Number, size and checksum of each part of a page."""
    pattern = r"<Part>(?:<Checksum\w+>([^<]*)</Checksum\w+>)?<PartNumber>(\d+)</PartNumber><Size>(\d+)</Size></Part>"
    return [(int(number), int(size), value) for value, number, size in re.findall(pattern, document)]


@given(NUMBERS, st.sampled_from(ChecksumAlgorithm), st.integers(1, 50), st.booleans(), st.data())
def test_every_part_is_told_once(
    numbers: list[int], algorithm: ChecksumAlgorithm, page: int, with_checksum: bool, data: st.DataObject
) -> None:
    """Over all pages, in order, each with its checksum where the object has one; parts without bytes as well."""
    size = DIGEST_BYTES[algorithm]
    digests = st.binary(min_size=size, max_size=size)
    sums = [Checksum(algorithm, encode_digest(data.draw(digests))) for _ in numbers]
    whole = sums[0] if with_checksum else None
    parts = [PartInfo(number, number % 7, "e", 0, b"b", one) for number, one in zip(numbers, sums, strict=True)]
    attributes = Attributes(checksum=whole, part_digests=pack_part_digests(parts, whole))
    extents = [Extent(b"", 0, part.size, part.part_number) for part in parts if part.size]
    told: list[tuple[int, int, str]] = []
    after, truncated = "0", "true"
    while truncated == "true":
        query = parse_object_attributes(
            {"x-amz-object-attributes": ALL, "x-amz-max-parts": str(page), "x-amz-part-number-marker": after}
        )
        document = format_object_attributes(query, version_of(len(parts), attributes), extents).decode()
        assert f"<PartsCount>{len(parts)}</PartsCount>" in document
        told += read_parts(document)
        truncated = re.findall("<IsTruncated>(.*)</IsTruncated>", document)[0]
        after = re.findall("<NextPartNumberMarker>(.*)</NextPartNumberMarker>", document)[0]
    version = version_of(len(parts), attributes)
    kept = [Checksum(algorithm, one.value) if whole else None for one in sums]
    assert [find_checksum(version, number) for number in numbers] == kept
    assert find_checksum(version, None) == whole
    shown = [one.value if with_checksum else "" for one in sums]
    assert told == [(part.part_number, part.size, value) for part, value in zip(parts, shown, strict=True)]


def test_no_page_at_all() -> None:
    """max-parts 0 is an empty page of which more follows."""
    query = parse_object_attributes({"x-amz-object-attributes": "ObjectParts", "x-amz-max-parts": "0"})
    document = format_object_attributes(query, version_of(1), [Extent(b"", 0, 7, 1)]).decode()
    assert "<IsTruncated>true</IsTruncated>" in document and not read_parts(document)


def test_a_version_from_before_digests_were_kept() -> None:
    """Its parts are known all the same, without their checksums."""
    attributes = Attributes(checksum=Checksum(ChecksumAlgorithm.CRC32, "AAAAAA=="))
    query = parse_object_attributes({"x-amz-object-attributes": "ObjectParts"})
    document = format_object_attributes(query, version_of(1, attributes), [Extent(b"", 0, 7, 1)]).decode()
    assert read_parts(document) == [(1, 7, "")]
