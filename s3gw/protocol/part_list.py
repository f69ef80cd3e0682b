"""PURE. CompleteMultipartUpload: the client's list of parts held against the uploaded ones.

Source: Amazon S3 API Reference, CompleteMultipartUpload; User Guide, "Checking object integrity" for how the checksums
of parts become one: hash of the parts' hashes with `-N` (COMPOSITE), or a CRC combined by length (FULL_OBJECT).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from awscrt import checksums as crc

from s3gw.protocol.errors import S3Error
from s3gw.protocol.list_page import PART_NUMBER_MAX
from s3gw.protocol.xml import parse_xml
from storage.model import Checksum, ChecksumAlgorithm, ChecksumType, PartInfo

PART_BYTES_MIN = 5 << 20
"""of every part but the last"""

_ALGORITHMS = tuple((f"Checksum{algorithm.value}", algorithm) for algorithm in ChecksumAlgorithm)


class ListedPart(NamedTuple):
    """A part as the client lists it; etag without quotes."""

    part_number: int
    etag: str
    checksums: dict[ChecksumAlgorithm, str]


def parse_part_number(text: str) -> int:
    """1 to 10,000; InvalidArgument."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= PART_NUMBER_MAX):
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text[:64],
        )
    return int(text)


def parse_part_list(document: bytes) -> list[ListedPart]:
    """The body of CompleteMultipartUpload. MalformedXML for none or too many, InvalidPartOrder unless ascending."""
    root = parse_xml(document, "CompleteMultipartUpload")
    listed: list[ListedPart] = []
    for element in root.all("Part"):
        number, etag = element.child_text("PartNumber"), element.child_text("ETag")
        if number is None or etag is None:
            raise S3Error("MalformedXML")
        sums = {algorithm: text for name, algorithm in _ALGORITHMS if (text := element.child_text(name)) is not None}
        listed.append(ListedPart(parse_part_number(number.strip()), etag.strip().strip('"'), sums))
    if not 1 <= len(listed) <= PART_NUMBER_MAX:
        raise S3Error("MalformedXML")
    if any(one.part_number >= two.part_number for one, two in pairwise(listed)):
        raise S3Error("InvalidPartOrder")
    return listed


def choose_parts(
    listed: Sequence[ListedPart], uploaded: Mapping[int, PartInfo], upload_id: str, required: ChecksumAlgorithm | None
) -> list[PartInfo]:
    """The uploaded parts that the list names, in order. InvalidPart, EntityTooSmall, InvalidRequest.

    required: the algorithm whose checksum every listed part must carry (a composite one asked for at Create).
    """
    chosen: list[PartInfo] = []
    for item in listed:
        part = uploaded.get(item.part_number)
        if part is None or part.etag != item.etag or not _checksums_match(item, part):
            raise S3Error("InvalidPart", UploadId=upload_id, PartNumber=str(item.part_number), ETag=item.etag)
        if required is not None and required not in item.checksums:
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using a {required.lower()} checksum. The complete request must include the"
                f" checksum for each part. It was missing for part {item.part_number} in the request.",
            )
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < PART_BYTES_MIN:
            raise S3Error(
                "EntityTooSmall",
                ProposedSize=str(part.size),
                MinSizeAllowed=str(PART_BYTES_MIN),
                PartNumber=str(part.part_number),
                ETag=part.etag,
            )
    return chosen


def combine_etags(parts: Sequence[PartInfo]) -> str:
    """The ETag of a multipart object: MD5 of the parts' MD5s, and their number."""
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


def combine_checksums(
    parts: Sequence[PartInfo], algorithm: ChecksumAlgorithm, checksum_type: ChecksumType
) -> Checksum | None:
    """The object's checksum from those of its parts; None when a part has none of this algorithm."""
    values: list[bytes] = []
    for part in parts:
        if part.checksum is None or part.checksum.algorithm is not algorithm:
            return None
        values.append(base64.b64decode(part.checksum.value))
    if checksum_type is ChecksumType.COMPOSITE:
        digest = _HASHES[algorithm](b"".join(values))
        return Checksum(algorithm, f"{base64.b64encode(digest).decode()}-{len(parts)}", checksum_type)
    width, combine = _COMBINES[algorithm]
    total = int.from_bytes(values[0], "big")
    for part, value in zip(parts[1:], values[1:], strict=True):
        total = combine(total, int.from_bytes(value, "big"), part.size)
    return Checksum(algorithm, base64.b64encode(total.to_bytes(width, "big")).decode(), checksum_type)


def choose_checksum_type(algorithm: ChecksumAlgorithm, asked: str | None) -> ChecksumType:
    """The checksum type of a multipart upload: what was asked for, or the algorithm's default. InvalidRequest."""
    if not asked:
        return ChecksumType.FULL_OBJECT if algorithm is ChecksumAlgorithm.CRC64NVME else ChecksumType.COMPOSITE
    try:
        chosen = ChecksumType(asked.upper())
    except ValueError:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.") from None
    hashes = (ChecksumAlgorithm.SHA1, ChecksumAlgorithm.SHA256)
    impossible = algorithm in hashes if chosen is ChecksumType.FULL_OBJECT else algorithm is ChecksumAlgorithm.CRC64NVME
    if impossible:
        raise S3Error(
            "InvalidRequest",
            f"The {chosen.value} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return chosen


def _checksums_match(item: ListedPart, part: PartInfo) -> bool:
    """Whether every checksum the client lists is the stored one; those of other algorithms cannot be checked: no."""
    return all(
        part.checksum is not None and part.checksum.algorithm is algorithm and _same_base64(part.checksum.value, text)
        for algorithm, text in item.checksums.items()
    )


def _same_base64(stored: str, text: str) -> bool:
    try:
        return base64.b64decode(text.strip(), validate=True) == base64.b64decode(stored)
    except (binascii.Error, ValueError):
        return False


def _crc_bytes(function: Callable[[bytes], int], width: int) -> Callable[[bytes], bytes]:
    return lambda joined: function(joined).to_bytes(width, "big")


_HASHES: dict[ChecksumAlgorithm, Callable[[bytes], bytes]] = {
    ChecksumAlgorithm.CRC32: _crc_bytes(zlib.crc32, 4),
    ChecksumAlgorithm.CRC32C: _crc_bytes(crc.crc32c, 4),
    ChecksumAlgorithm.CRC64NVME: _crc_bytes(crc.crc64nvme, 8),
    ChecksumAlgorithm.SHA1: lambda joined: hashlib.sha1(joined, usedforsecurity=False).digest(),
    ChecksumAlgorithm.SHA256: lambda joined: hashlib.sha256(joined).digest(),
}
_COMBINES: dict[ChecksumAlgorithm, tuple[int, Callable[[int, int, int], int]]] = {
    ChecksumAlgorithm.CRC32: (4, crc.combine_crc32),
    ChecksumAlgorithm.CRC32C: (4, crc.combine_crc32c),
    ChecksumAlgorithm.CRC64NVME: (8, crc.combine_crc64nvme),
}
