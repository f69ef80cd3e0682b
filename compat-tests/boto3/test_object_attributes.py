"""boto3: what is told of objects without reading them: their parts, and each part's checksum."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.same_over_https

PART = 5 << 20
ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


@pytest.mark.s3_operation("GetObjectAttributes")
def test_the_parts_of_an_upload(s3: Any, bucket: str) -> None:
    """As they were uploaded, page by page."""
    where = {"Bucket": bucket, "Key": "k"}
    upload = where | {"UploadId": s3.create_multipart_upload(**where, ChecksumAlgorithm="CRC32C")["UploadId"]}
    parts = []
    for number, body in ((1, b"a" * PART), (2, b"b" * PART), (3, b"tail")):
        done = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32C")
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32C": done["ChecksumCRC32C"]})
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    got = s3.get_object_attributes(**where, ObjectAttributes=ALL, MaxParts=2)
    assert (got["ETag"], got["ObjectSize"], got["StorageClass"]) == (done["ETag"].strip('"'), 2 * PART + 4, "STANDARD")
    assert got["Checksum"]["ChecksumCRC32C"] == done["ChecksumCRC32C"]
    first = got["ObjectParts"]
    assert (first["TotalPartsCount"], first["IsTruncated"]) == (3, True)
    rest = s3.get_object_attributes(
        **where, ObjectAttributes=["ObjectParts"], PartNumberMarker=first["NextPartNumberMarker"]
    )["ObjectParts"]
    told = [(part["PartNumber"], part["Size"], part["ChecksumCRC32C"]) for part in first["Parts"] + rest["Parts"]]
    sizes = (PART, PART, 4)
    assert told == [(part["PartNumber"], size, part["ChecksumCRC32C"]) for part, size in zip(parts, sizes, strict=True)]
