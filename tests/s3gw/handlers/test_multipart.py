"""Multipart uploads from create to complete, listed on the way."""

from __future__ import annotations

import base64
import hashlib
import io
import zlib
from datetime import timedelta
from typing import Any

import pytest
from awscrt.checksums import crc64nvme
from boto3.s3.transfer import TransferConfig

from s3gw.call import Settings
from s3gw.protocol.checksums import encode_digest
from s3gw.protocol.part_list import PART_BYTES_MIN
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send, sign
from tests.s3gw.refusal import refusal

BIG = b"a" * PART_BYTES_MIN


def create(s3: Any, bucket: str, key: str = "m", **arguments: Any) -> str:
    """A new upload's id. No algorithm unless asked for."""
    return str(s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"])


def put(
    s3: Any, bucket: str, upload: str, number: int, body: bytes, key: str = "m", **arguments: Any
) -> dict[str, Any]:
    """Upload a part → its entry for Complete."""
    done = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **arguments)
    sums = {name: text for name, text in done.items() if name.startswith("Checksum") and name != "ChecksumType"}
    return {"PartNumber": number, "ETag": done["ETag"]} | sums


def complete(s3: Any, bucket: str, upload: str, parts: list[dict[str, Any]], key: str = "m", **arguments: Any) -> Any:
    """Complete with this list."""
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **arguments
    )


def test_from_create_to_complete(s3: Any, bucket: str) -> None:
    """Attributes are those of Create; the ETag is that of the parts; a retry is answered alike."""
    upload = create(s3, bucket, ContentType="text/x", Metadata={"a": "1"}, StorageClass="STANDARD_IA")
    parts = [put(s3, bucket, upload, 1, BIG), put(s3, bucket, upload, 9, b"tail")]
    done = complete(s3, bucket, upload, parts)
    digests = hashlib.md5(BIG).digest() + hashlib.md5(b"tail").digest()
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-2"'
    assert done["Location"].endswith(f"/{bucket}/m") and (done["Bucket"], done["Key"]) == (bucket, "m")
    got = s3.get_object(Bucket=bucket, Key="m")
    assert got["Body"].read() == BIG + b"tail"
    assert (got["ContentType"], got["Metadata"], got["StorageClass"]) == ("text/x", {"a": "1"}, "STANDARD_IA")
    again = complete(s3, bucket, upload, parts)
    told = ("ETag", "Location", "ChecksumCRC64NVME", "ChecksumType")
    assert [again[name] for name in told] == [done[name] for name in told]
    assert refusal(s3.list_parts, Bucket=bucket, Key="m", UploadId=upload).code == "NoSuchUpload"


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32C", "COMPOSITE"),
        ("SHA1", "COMPOSITE"),
        ("SHA256", "COMPOSITE"),
        ("CRC32", "FULL_OBJECT"),
        ("CRC32C", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
    ],
)
def test_checksums(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    """Row 5: composite and full-object, as asked for at Create."""
    upload = create(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    parts = [put(s3, bucket, upload, n, body, ChecksumAlgorithm=algorithm) for n, body in ((1, BIG), (2, b"x"))]
    done = complete(s3, bucket, upload, parts, ChecksumType=kind)
    value = done[f"Checksum{algorithm}"]
    assert (done["ChecksumType"], value.endswith("-2")) == (kind, kind == "COMPOSITE")
    if (algorithm, kind) == ("CRC32", "FULL_OBJECT"):
        assert value == base64.b64encode(zlib.crc32(BIG + b"x").to_bytes(4, "big")).decode()
    head = s3.head_object(Bucket=bucket, Key="m", ChecksumMode="ENABLED")
    assert (head[f"Checksum{algorithm}"], head["ChecksumType"]) == (value, kind)


def test_without_an_algorithm_aws_computes_one(gateway: Gateway, bucket: str) -> None:
    """CRC64NVME of the whole object."""
    client = gateway.client(request_checksum_calculation="when_required")
    upload = create(client, bucket)
    parts = [put(client, bucket, upload, 1, BIG), put(client, bucket, upload, 2, b"x")]
    done = complete(client, bucket, upload, [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in parts])
    assert done["ChecksumCRC64NVME"] and done["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize("with_checksums", [True, False])
def test_parts_with_checksums_of_an_upload_without_an_algorithm(s3: Any, bucket: str, with_checksums: bool) -> None:
    """boto3's defaults: CRC32 with every part and none at Create. Each is verified; CRC64NVME of the whole is kept."""
    upload = create(s3, bucket)
    parts = [put(s3, bucket, upload, 1, BIG), put(s3, bucket, upload, 2, b"x", ChecksumAlgorithm="SHA256")]
    assert {"ChecksumCRC32", "ChecksumSHA256"} < parts[0].keys() | parts[1].keys()
    wrong = base64.b64encode(bytes(4)).decode()
    refused = refusal(
        s3.upload_part, Bucket=bucket, Key="m", UploadId=upload, PartNumber=2, Body=b"y", ChecksumCRC32=wrong
    )
    assert refused.code == "BadDigest"
    if not with_checksums:
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
    done = complete(s3, bucket, upload, parts)
    whole = encode_digest(crc64nvme(BIG + b"x").to_bytes(8, "big"))
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (whole, "FULL_OBJECT")
    head = s3.head_object(Bucket=bucket, Key="m", ChecksumMode="ENABLED")
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (whole, "FULL_OBJECT")


def test_the_location_behind_a_proxy() -> None:
    """Scheme and host are those that a trusted proxy was addressed by; anybody else's word is not taken."""
    for proxies, location in ((("127.0.0.1",), "https://s3.example/loc/m"), ((), "http://s3.example/loc/m")):
        with running_gateway(Settings(trusted_proxies=proxies)) as gateway:
            s3 = gateway.client()
            s3.create_bucket(Bucket="loc")
            upload = create(s3, "loc")
            etag = put(s3, "loc", upload, 1, b"x")["ETag"]
            part = f"<Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part>"
            document = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
            path = f"/loc/m?uploadId={upload}"
            signed = sign(gateway, "POST", path, document, {"Host": "s3.example", "x-forwarded-proto": "https"})
            answer = send(gateway, "POST", path, document, signed, name=None)
            assert f"<Location>{location}</Location>".encode() in answer.body


def test_a_retry_with_other_parts_is_no_retry(s3: Any, bucket: str) -> None:
    """It must not be told that those parts are the object now; one after the object's deletion is still a retry."""
    upload = create(s3, bucket)
    parts = [put(s3, bucket, upload, 1, BIG), put(s3, bucket, upload, 2, b"x")]
    done = complete(s3, bucket, upload, parts)
    for others in (parts[:1], [parts[0] | {"ETag": "none"}], [parts[0], parts[1] | {"ETag": parts[0]["ETag"]}]):
        assert refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=others).code == "NoSuchUpload"
    s3.delete_object(Bucket=bucket, Key="m")
    assert complete(s3, bucket, upload, parts)["ETag"] == done["ETag"]


def test_the_checksum_of_the_whole_is_held_against_the_client(s3: Any, bucket: str) -> None:
    """BadDigest for another, and for another size or type InvalidRequest; the upload stays open."""
    upload = create(s3, bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    parts = [put(s3, bucket, upload, 1, b"x", ChecksumAlgorithm="CRC32")]
    wrong = base64.b64encode(bytes(4)).decode()
    assert refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=parts, ChecksumCRC32=wrong).code == "BadDigest"
    for bad in ({"MpuObjectSize": 2}, {"ChecksumType": "COMPOSITE"}):
        assert refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=parts, **bad).code == "InvalidRequest"
    right = base64.b64encode(zlib.crc32(b"x").to_bytes(4, "big")).decode()
    complete(s3, bucket, upload, parts, ChecksumCRC32=right, MpuObjectSize=1)


def test_bad_part_lists(s3: Any, bucket: str) -> None:
    """Row 15: order, size, ETag, presence."""
    upload = create(s3, bucket, ChecksumAlgorithm="CRC32")
    one, two = put(s3, bucket, upload, 1, b"small"), put(s3, bucket, upload, 2, b"x")
    for parts, code in (
        ([two, one], "InvalidPartOrder"),
        ([one, one], "InvalidPartOrder"),
        ([one, two], "EntityTooSmall"),
        ([one | {"ETag": '"0"'}], "InvalidPart"),
        ([one | {"PartNumber": 3}], "InvalidPart"),
        ([], "MalformedXML"),
    ):
        assert refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=parts).code == code
    done = complete(s3, bucket, upload, [{"PartNumber": 1, "ETag": one["ETag"]}])
    assert done["ChecksumType"] == "COMPOSITE", "checksums need not be repeated"


def test_a_part_is_replaced(s3: Any, bucket: str) -> None:
    """The later one counts."""
    upload = create(s3, bucket)
    put(s3, bucket, upload, 1, b"first")
    complete(s3, bucket, upload, [put(s3, bucket, upload, 1, b"second")])
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == b"second"


def test_conditional_complete(s3: Any, bucket: str) -> None:
    """412 when the key was taken meanwhile."""
    upload = create(s3, bucket)
    parts = [put(s3, bucket, upload, 1, b"x")]
    s3.put_object(Bucket=bucket, Key="m", Body=b"y")
    assert refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=parts, IfNoneMatch="*").status == 412


def test_abort(s3: Any, bucket: str) -> None:
    """Once; then there is no such upload."""
    upload = create(s3, bucket)
    put(s3, bucket, upload, 1, b"x")
    s3.abort_multipart_upload(Bucket=bucket, Key="m", UploadId=upload)
    named = {"Bucket": bucket, "Key": "m", "UploadId": upload}
    assert refusal(s3.abort_multipart_upload, **named).code == "NoSuchUpload"
    assert refusal(s3.upload_part, **named, PartNumber=1, Body=b"x").code == "NoSuchUpload"
    refused = refusal(complete, s3=s3, bucket=bucket, upload=upload, parts=[{"PartNumber": 1, "ETag": "x"}])
    assert (refused.code, refused.error["UploadId"]) == ("NoSuchUpload", upload)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", ""])
def test_bad_part_numbers(gateway: Gateway, s3: Any, bucket: str, number: str) -> None:
    """InvalidArgument."""
    answer = send(gateway, "PUT", f"/{bucket}/m?partNumber={number}&uploadId={create(s3, bucket)}", b"x")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_half_a_part_request(gateway: Gateway, bucket: str) -> None:
    """Neither half is stored as an object."""
    assert send(gateway, "PUT", f"/{bucket}/m?partNumber=1", b"x").code == "InvalidArgument"
    assert send(gateway, "PUT", f"/{bucket}/m?uploadId=x", b"x").code == "InvalidArgument"
    assert send(gateway, "HEAD", f"/{bucket}/m").status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-algorithm": "MD4"},
        {"x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "SHA1", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "X"},
    ],
)
def test_impossible_checksums(gateway: Gateway, bucket: str, headers: dict[str, str]) -> None:
    """InvalidRequest at Create."""
    assert send(gateway, "POST", f"/{bucket}/m?uploads", headers=headers).code == "InvalidRequest"


def test_a_part_of_another_algorithm(s3: Any, bucket: str) -> None:
    """InvalidRequest: it could never be combined."""
    upload = create(s3, bucket, ChecksumAlgorithm="SHA256")
    refused = refusal(
        s3.upload_part, Bucket=bucket, Key="m", UploadId=upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="CRC32"
    )
    assert refused.code == "InvalidRequest" and "sha256" in refused.error["Message"]


def test_copied_parts(s3: Any, bucket: str) -> None:
    """Whole and by range; a range must lie inside its source."""
    s3.put_object(Bucket=bucket, Key="s", Body=BIG + b"tail")
    upload = create(s3, bucket, ChecksumAlgorithm="CRC32")
    named = {"Bucket": bucket, "Key": "m", "UploadId": upload, "CopySource": {"Bucket": bucket, "Key": "s"}}
    whole = s3.upload_part_copy(**named, PartNumber=1)["CopyPartResult"]
    span = f"bytes={PART_BYTES_MIN}-{PART_BYTES_MIN + 3}"
    tail = s3.upload_part_copy(**named, PartNumber=2, CopySourceRange=span)["CopyPartResult"]
    parts = [
        {"PartNumber": n, "ETag": part["ETag"], "ChecksumCRC32": part["ChecksumCRC32"]}
        for n, part in ((1, whole), (2, tail))
    ]
    complete(s3, bucket, upload, parts)
    assert s3.get_object(Bucket=bucket, Key="m")["Body"].read() == BIG + b"tailtail"


def test_a_copied_part_keeps_to_its_conditions(s3: Any, bucket: str) -> None:
    """On the source's ETag and time, as for whole copies."""
    source = s3.put_object(Bucket=bucket, Key="s", Body=b"12345")
    at = s3.head_object(Bucket=bucket, Key="s")["LastModified"]
    named = {"Bucket": bucket, "Key": "m", "UploadId": create(s3, bucket), "PartNumber": 1}
    named["CopySource"] = {"Bucket": bucket, "Key": "s"}
    for condition in (
        {"CopySourceIfMatch": '"x"'},
        {"CopySourceIfNoneMatch": source["ETag"]},
        {"CopySourceIfModifiedSince": at},
        {"CopySourceIfUnmodifiedSince": at - timedelta(seconds=5)},
    ):
        assert refusal(s3.upload_part_copy, **named, **condition).code == "PreconditionFailed"
    done = s3.upload_part_copy(**named, CopySourceIfMatch=source["ETag"], CopySourceRange="bytes=1-2")
    assert done["CopyPartResult"]["ETag"] == f'"{hashlib.md5(b"23").hexdigest()}"'


@pytest.mark.parametrize(
    ("span", "code"), [("bytes=0-5", "InvalidRange"), ("bytes=0-", "InvalidArgument"), ("0-1", "InvalidArgument")]
)
def test_bad_copy_ranges(gateway: Gateway, s3: Any, bucket: str, span: str, code: str) -> None:
    """Of a source of five bytes."""
    s3.put_object(Bucket=bucket, Key="s", Body=b"12345")
    path = f"/{bucket}/m?partNumber=1&uploadId={create(s3, bucket)}"
    headers = {"x-amz-copy-source": f"{bucket}/s", "x-amz-copy-source-range": span}
    assert send(gateway, "PUT", path, headers=headers).code == code


def test_list_parts_pages(s3: Any, bucket: str) -> None:
    """Every part once; algorithm and type are told."""
    upload = create(s3, bucket, ChecksumAlgorithm="CRC32")
    for number in (1, 3, 5, 7, 9):
        put(s3, bucket, upload, number, b"x" * number, ChecksumAlgorithm="CRC32")
    found: list[int] = []
    marker = 0
    while True:
        page = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, MaxParts=2, PartNumberMarker=marker)
        found += [part["PartNumber"] for part in page["Parts"]]
        assert all(part["Size"] == part["PartNumber"] and part["ChecksumCRC32"] for part in page["Parts"])
        assert (page["ChecksumAlgorithm"], page["ChecksumType"]) == ("CRC32", "COMPOSITE")
        if not page["IsTruncated"]:
            break
        assert page["NextPartNumberMarker"] > marker
        marker = page["NextPartNumberMarker"]
    assert found == [1, 3, 5, 7, 9]
    none = s3.list_parts(Bucket=bucket, Key="m", UploadId=upload, MaxParts=0)
    assert "Parts" not in none and not none["IsTruncated"]


def test_list_uploads_pages(s3: Any, bucket: str) -> None:
    """Row 18: paged on (key, upload id), rolled up under a delimiter."""
    opened = sorted((key, create(s3, bucket, key)) for key in ("a", "a", "a", "b", "dir/x", "dir/y", "e+é"))
    for size in (1, 2, 1000):
        found: list[tuple[str, str]] = []
        marker: dict[str, str] = {}
        while True:
            page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=size, **marker)
            found += [(one["Key"], one["UploadId"]) for one in page["Uploads"]]
            if not page["IsTruncated"]:
                break
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        assert found == opened
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", Prefix="")
    assert [one["Prefix"] for one in rolled["CommonPrefixes"]] == ["dir/"]
    assert [one["Key"] for one in rolled["Uploads"]] == ["a", "a", "a", "b", "e+é"]
    assert not s3.list_multipart_uploads(Bucket=bucket, MaxUploads=0).get("Uploads")


def test_the_transfer_manager(s3: Any, bucket: str) -> None:
    """boto3 in parallel with its defaults, up and down."""
    body = bytes(range(256)) * (12 << 12)
    config = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, "t", Config=config)
    received = io.BytesIO()
    s3.download_fileobj(bucket, "t", received, Config=config)
    assert received.getvalue() == body
