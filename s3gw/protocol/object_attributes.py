"""PURE. GetObjectAttributes: what is asked for, and the document that tells it; the checksums of an object's parts.

Source: Amazon S3 API Reference, GetObjectAttributes. The parts of a completed object are its extents; what those do
not say is kept with the object's attributes: the checksums of the parts, and the number of one without bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from s3gw.protocol.checksums import DIGEST_BYTES, decode_value, encode_digest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.list_page import PAGE_KEYS_MAX, PART_NUMBER_MAX, parse_count
from s3gw.protocol.xml import document, element
from storage.model import Attributes, Checksum, Extent, PartInfo, Version

_HEADER = "x-amz-object-attributes"
_NUMBER_BYTES = 2
_NAMES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


class AttributesQuery(NamedTuple):
    """What is asked for. after, max_parts: the page of parts, those with higher numbers than `after`."""

    names: frozenset[str]
    after: int
    max_parts: int


def parse_object_attributes(headers: Mapping[str, str]) -> AttributesQuery:
    """InvalidRequest without x-amz-object-attributes, InvalidArgument for what is none."""
    asked = headers.get(_HEADER)
    if not asked:
        raise S3Error("InvalidRequest", f"Missing required header for this request: {_HEADER}")
    names = frozenset(word.strip() for word in asked.split(","))
    if not names <= frozenset(_NAMES):
        raise S3Error(
            "InvalidArgument", "Invalid attribute name specified.", ArgumentName=_HEADER, ArgumentValue=asked[:256]
        )
    return AttributesQuery(
        names,
        parse_count(headers, "x-amz-part-number-marker", PART_NUMBER_MAX, default=0),
        parse_count(headers, "x-amz-max-parts", PAGE_KEYS_MAX),
    )


def pack_part_digests(parts: Sequence[PartInfo], checksum: Checksum | None) -> bytes:
    """As the attributes of the object keep them. Without digests where the object has no checksum, which would be made
    from theirs."""
    if checksum is None:
        return b"".join(part.part_number.to_bytes(_NUMBER_BYTES, "big") for part in parts)
    packed: list[bytes] = []
    for part in parts:
        assert part.checksum is not None, "the object's checksum was made from those of all parts"
        packed.append(part.part_number.to_bytes(_NUMBER_BYTES, "big"))
        packed.append(decode_value(checksum.algorithm, part.checksum.value))
    return b"".join(packed)


def find_checksum(version: Version, part_number: int | None) -> Checksum | None:
    """What a read of the object, or of one of its parts, is told; None where nothing is known of it. That of a part
    says, as AWS has it, how the object's checksum is made."""
    checksum = version.attributes.checksum
    if checksum is None or part_number is None or not version.part_count:
        return checksum
    digest = dict(_unpack_part_digests(version.attributes)).get(part_number)
    return Checksum(checksum.algorithm, encode_digest(digest), checksum.type) if digest else None


def format_object_attributes(query: AttributesQuery, version: Version, extents: Sequence[Extent]) -> bytes:
    """GetObjectAttributesResponse. extents: all of the version, each a part of it where it was made by multipart."""
    names, attributes = query.names, version.attributes
    lines = []
    if "ETag" in names:
        lines.append(element("ETag", version.etag))
    checksum = attributes.checksum
    if "Checksum" in names and checksum is not None:
        value = element(f"Checksum{checksum.algorithm}", checksum.value)
        lines.append(f"<Checksum>{value}{element('ChecksumType', checksum.type)}</Checksum>")
    if "ObjectParts" in names and version.part_count:
        lines.append(_format_parts(query, version, extents))
    if "StorageClass" in names:
        lines.append(element("StorageClass", attributes.storage_class))
    if "ObjectSize" in names:
        lines.append(element("ObjectSize", str(version.size)))
    return document("GetObjectAttributesResponse", "".join(lines))


def _format_parts(query: AttributesQuery, version: Version, extents: Sequence[Extent]) -> str:
    """A page of parts; the number of all of them is told in any case."""
    checksum = version.attributes.checksum
    sums = {
        number: element(f"Checksum{checksum.algorithm}", encode_digest(digest)) if checksum and digest else ""
        for number, digest in _unpack_part_digests(version.attributes)
    }
    sizes = {extent.part_number: extent.length for extent in extents}
    following = sorted(number for number in sizes.keys() | sums.keys() if number > query.after)
    page = following[: query.max_parts]
    last = page[-1] if page else query.after
    parts = "".join(
        f"<Part>{sums.get(number, '')}<PartNumber>{number}</PartNumber><Size>{sizes.get(number, 0)}</Size></Part>"
        for number in page
    )
    return (
        f"<ObjectParts><IsTruncated>{'true' if len(following) > len(page) else 'false'}</IsTruncated>"
        f"<MaxParts>{query.max_parts}</MaxParts><NextPartNumberMarker>{last}</NextPartNumberMarker>{parts}"
        f"<PartNumberMarker>{query.after}</PartNumberMarker><PartsCount>{version.part_count}</PartsCount></ObjectParts>"
    )


def _unpack_part_digests(attributes: Attributes) -> Iterator[tuple[int, bytes]]:
    """(part number, digest) of each part; the digest is empty where there is none."""
    checksum, packed = attributes.checksum, attributes.part_digests
    size = _NUMBER_BYTES + (0 if checksum is None else DIGEST_BYTES[checksum.algorithm])
    for at in range(0, len(packed) - size + 1, size):
        yield int.from_bytes(packed[at : at + _NUMBER_BYTES], "big"), packed[at + _NUMBER_BYTES : at + size]
