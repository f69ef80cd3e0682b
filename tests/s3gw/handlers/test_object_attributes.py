"""GetObjectAttributes through the socket."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw.protocol.part_list import PART_BYTES_MIN
from storage.model import Versioning
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

ALL = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]


@pytest.fixture(scope="module")
def gateway() -> Any:
    """Real doors: parts are read back from the metadata."""
    with running_gateway() as running:
        yield running


def upload(s3: Any, bucket: str, algorithm: str | None, *bodies: bytes) -> tuple[Any, list[dict[str, Any]]]:
    """A finished multipart upload with odd part numbers."""
    chosen = {"ChecksumAlgorithm": algorithm} if algorithm else {}
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="m", **chosen)["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        named = {"Bucket": bucket, "Key": "m", "UploadId": upload_id, "PartNumber": 2 * number - 1}
        done = s3.upload_part(**named, Body=body, **chosen)
        sums = {name: done[name] for name in done if name.startswith("Checksum") and name != "ChecksumType"}
        parts.append({"PartNumber": 2 * number - 1, "ETag": done["ETag"]} | sums)
    done = s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload_id, MultipartUpload={"Parts": parts})
    return done, parts


def test_a_plain_object(s3: Any, bucket: str) -> None:
    """All but parts; the ETag has no quotes here."""
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"foo", ChecksumAlgorithm="SHA256", StorageClass="STANDARD_IA")
    got = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=ALL)
    assert (got["ETag"], got["ObjectSize"], got["StorageClass"]) == (put["ETag"].strip('"'), 3, "STANDARD_IA")
    assert got["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert "ObjectParts" not in got and "VersionId" not in got
    assert got["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32", "CRC32C", "CRC64NVME"])
def test_parts_keep_their_checksums(s3: Any, bucket: str, algorithm: str) -> None:
    """Numbers, sizes and checksums of the parts as they were uploaded."""
    done, parts = upload(s3, bucket, algorithm, b"a" * PART_BYTES_MIN, b"tail")
    got = s3.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=ALL)
    assert got["Checksum"][f"Checksum{algorithm}"] == done[f"Checksum{algorithm}"]
    assert [
        (part["PartNumber"], part["Size"], part[f"Checksum{algorithm}"]) for part in got["ObjectParts"]["Parts"]
    ] == [
        (part["PartNumber"], size, part[f"Checksum{algorithm}"])
        for part, size in zip(parts, [PART_BYTES_MIN, 4], strict=True)
    ]
    assert got["ObjectParts"]["TotalPartsCount"] == 2


def test_reading_a_part_tells_its_checksum(s3: Any, bucket: str) -> None:
    """By GET and HEAD, with how the object's own is made; a range has none, the only part of a plain object all."""
    _, parts = upload(s3, bucket, "SHA256", b"a" * PART_BYTES_MIN, b"tail")
    asked = {"Bucket": bucket, "Key": "m", "PartNumber": 3, "ChecksumMode": "ENABLED"}
    got = s3.get_object(**asked)
    assert (got["Body"].read(), got["ChecksumSHA256"]) == (b"tail", parts[1]["ChecksumSHA256"])
    head = s3.head_object(**asked)
    assert (head["ChecksumSHA256"], head["ChecksumType"]) == (parts[1]["ChecksumSHA256"], "COMPOSITE")
    assert "ChecksumSHA256" not in s3.head_object(Bucket=bucket, Key="m", PartNumber=3)
    assert "ChecksumSHA256" not in s3.get_object(Bucket=bucket, Key="m", Range="bytes=0-3", ChecksumMode="ENABLED")
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"foo", ChecksumAlgorithm="SHA256")
    only = s3.get_object(Bucket=bucket, Key="k", PartNumber=1, ChecksumMode="ENABLED")
    assert only["ChecksumSHA256"] == put["ChecksumSHA256"]


def test_pages_of_parts(s3: Any, bucket: str) -> None:
    """By number, going on behind the marker; an empty last part is a part."""
    upload(s3, bucket, None, b"a" * PART_BYTES_MIN, b"b" * PART_BYTES_MIN, b"")
    page = s3.get_object_attributes(
        Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts"], MaxParts=1, PartNumberMarker=1
    )["ObjectParts"]
    assert (page["IsTruncated"], page["NextPartNumberMarker"], page["MaxParts"]) == (True, 3, 1)
    assert [part["PartNumber"] for part in page["Parts"]] == [3]
    rest = s3.get_object_attributes(Bucket=bucket, Key="m", ObjectAttributes=["ObjectParts"], PartNumberMarker=3)
    assert [(part["PartNumber"], part["Size"]) for part in rest["ObjectParts"]["Parts"]] == [(5, 0)]
    assert not rest["ObjectParts"]["IsTruncated"]


def test_a_copy_of_a_multipart_object_has_no_parts(s3: Any, bucket: str) -> None:
    """Nor their checksums."""
    upload(s3, bucket, "SHA256", b"a" * PART_BYTES_MIN, b"tail")
    s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "m"})
    got = s3.get_object_attributes(Bucket=bucket, Key="c", ObjectAttributes=ALL)
    assert "ObjectParts" not in got
    assert got["Checksum"]["ChecksumType"] == "FULL_OBJECT"


def test_versions(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Of a named version; a delete marker has none."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"one")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"second")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    got = s3.get_object_attributes(Bucket=bucket, Key="k", VersionId=first, ObjectAttributes=["ObjectSize"])
    assert (got["ObjectSize"], got["VersionId"]) == (3, first)
    asked = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ETag"]}
    current = refusal(s3.get_object_attributes, **asked)
    assert (current.status, current.headers["x-amz-delete-marker"]) == (404, "true")
    named = refusal(s3.get_object_attributes, **asked, VersionId=marker)
    assert (named.code, named.headers["x-amz-delete-marker"]) == ("MethodNotAllowed", "true")


def test_refusals(gateway: Gateway, s3: Any, bucket: str) -> None:
    """No object, no list of attributes, somebody else."""
    assert refusal(s3.get_object_attributes, Bucket=bucket, Key="k", ObjectAttributes=["ETag"]).code == "NoSuchKey"
    s3.put_object(Bucket=bucket, Key="k", Body=b"foo")
    assert send(gateway, "GET", f"/{bucket}/k?attributes").code == "InvalidRequest"
    bob = gateway.client("bob")
    assert refusal(bob.get_object_attributes, Bucket=bucket, Key="k", ObjectAttributes=["ETag"]).code == "AccessDenied"


def test_no_object_has_a_torrent(s3: Any, bucket: str) -> None:
    """404 whether there is an object or not."""
    for sentence in ("The specified key does not exist.", "The object has no torrent."):
        refused = refusal(s3.get_object_torrent, Bucket=bucket, Key="k")
        assert (refused.code, refused.status, refused.error["Message"]) == ("NoSuchKey", 404, sentence)
        s3.put_object(Bucket=bucket, Key="k", Body=b"foo")
