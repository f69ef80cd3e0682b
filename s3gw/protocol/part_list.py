"""PURE. CompleteMultipartUpload: the client's list of parts held against the uploaded ones.

Source: Amazon S3 API Reference, CompleteMultipartUpload.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from s3gw.protocol.checksums import combine_composite, combine_full_object
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


def choose_parts(listed: Sequence[ListedPart], uploaded: Mapping[int, PartInfo], upload_id: str) -> list[PartInfo]:
    """The uploaded parts that the list names, in order. InvalidPart, EntityTooSmall.

    A list need not repeat the checksums of the parts: each was verified when it came, and its ETag says that it is the
    one meant. AWS refuses such a list where a composite checksum was asked for at Create; Ceph takes it.
    """
    chosen: list[PartInfo] = []
    for item in listed:
        part = uploaded.get(item.part_number)
        if part is None or part.etag != item.etag or not _checksums_match(item, part):
            raise S3Error("InvalidPart", UploadId=upload_id, PartNumber=str(item.part_number), ETag=item.etag)
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


def drop_other_checksums(listed: Sequence[ListedPart], algorithm: ChecksumAlgorithm) -> list[ListedPart]:
    """The list without checksums of other algorithms, for an upload created without one: each part may have come with
    any, which was verified then, and only those of this algorithm are kept. The ETags still say which bytes are meant.
    """
    return [
        item._replace(checksums={name: text for name, text in item.checksums.items() if name is algorithm})
        for item in listed
    ]


def combine_etags(etags: Sequence[str]) -> str:
    """The ETag of a multipart object: MD5 of the parts' MD5s, and their number. ValueError for what is no MD5."""
    joined = b"".join(map(bytes.fromhex, etags))
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


def combine_checksums(
    parts: Sequence[PartInfo], algorithm: ChecksumAlgorithm, checksum_type: ChecksumType
) -> Checksum | None:
    """The object's checksum from those of its parts; None when a part has none of this algorithm."""
    values: list[tuple[str, int]] = []
    for part in parts:
        if part.checksum is None or part.checksum.algorithm is not algorithm:
            return None
        values.append((part.checksum.value, part.size))
    if checksum_type is ChecksumType.COMPOSITE:
        return combine_composite(algorithm, [value for value, _ in values])
    return combine_full_object(algorithm, values)


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
