"""boto3: TransferManager with its default checksums, multipart by hand, presigned URLs, and a gibibyte."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.clients.endpoint import Endpoint
from tests.clients.material import MIB, file_sha256, relative_files, write_random_file

PART = 5 * MIB


def test_upload_file_and_download_file(s3: Any, bucket: str, tmp_path: Path) -> None:
    """50 MiB by TransferManager's own choice of parts, both ways, with ETag and checksum of a multipart object."""
    source, target = tmp_path / "up.bin", tmp_path / "down.bin"
    expected = write_random_file(source, 50 * MIB + 17)
    s3.upload_file(str(source), bucket, "object", ExtraArgs={"Metadata": {"by": "transfer"}, "ContentType": "x/y"})
    head = s3.head_object(Bucket=bucket, Key="object", ChecksumMode="ENABLED")
    assert head["ETag"].endswith('-7"')
    assert (head["ContentLength"], head["Metadata"], head["ContentType"]) == (50 * MIB + 17, {"by": "transfer"}, "x/y")
    assert any(name.startswith("ChecksumC") for name in head)
    s3.download_file(bucket, "object", str(target))
    assert file_sha256(target) == expected
    source.unlink()
    target.unlink()


def test_fileobj_of_unknown_length(s3: Any, bucket: str) -> None:
    """upload_fileobj and download_fileobj of a small stream take the single-request road."""
    body = b"streamed" * 1000
    s3.upload_fileobj(io.BytesIO(body), bucket, "stream")
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "stream", sink)
    assert sink.getvalue() == body


@pytest.mark.s3_operation("UploadPartCopy")
def test_managed_copy_in_parts(s3: Any, bucket: str) -> None:
    """A managed copy above its threshold uses UploadPartCopy and keeps every byte."""
    body = bytes(range(251)) * (11 * MIB // 251)
    s3.put_object(Bucket=bucket, Key="from", Body=body)
    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    s3.copy({"Bucket": bucket, "Key": "from"}, bucket, "to", Config=config)
    answer = s3.get_object(Bucket=bucket, Key="to")
    assert answer["ETag"].endswith('-3"')
    assert hashlib.sha256(answer["Body"].read()).digest() == hashlib.sha256(body).digest()


@pytest.mark.same_over_https
def test_the_standard_library_by_transfer_manager(s3: Any, bucket: str, standard_library: Path) -> None:
    """A part of the real tree, file by file, is listed with its sizes and read back."""
    names = relative_files(standard_library / "email")
    for name in names:
        s3.upload_file(str(standard_library / "email" / name), bucket, name)
    listed = {entry["Key"]: entry["Size"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert listed == {name: (standard_library / "email" / name).stat().st_size for name in names}
    for name in names:
        body = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        assert body == (standard_library / "email" / name).read_bytes()


@pytest.mark.long
def test_a_gibibyte(s3: Any, bucket: str, gibibyte_file: tuple[Path, str]) -> None:
    """1 GiB up in parts, and down as one stream with the same SHA-256."""
    path, expected = gibibyte_file
    s3.upload_file(str(path), bucket, "gibibyte")
    digest = hashlib.sha256()
    for block in s3.get_object(Bucket=bucket, Key="gibibyte")["Body"].iter_chunks(MIB):
        digest.update(block)
    assert digest.hexdigest() == expected


@pytest.mark.s3_operation(
    "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "ListParts", "ListMultipartUploads"
)
def test_multipart_by_hand(s3: Any, bucket: str) -> None:
    """Parts uploaded out of order and one replaced; listed by pages; completed; read by part number."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="object", Metadata={"m": "1"})["UploadId"]
    upload = {"Bucket": bucket, "Key": "object", "UploadId": upload_id}
    bodies = {1: b"1" * PART, 2: b"2" * PART, 3: b"three"}
    s3.upload_part(**upload, PartNumber=2, Body=b"replaced" * PART)
    etags = {n: s3.upload_part(**upload, PartNumber=n, Body=bodies[n])["ETag"] for n in (3, 2, 1)}
    pages = list(s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 2}))
    assert [(p["PartNumber"], p["ETag"], p["Size"]) for page in pages for p in page["Parts"]] == [
        (n, etags[n], len(bodies[n])) for n in (1, 2, 3)
    ]
    open_uploads = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(u["Key"], u["UploadId"]) for u in open_uploads] == [("object", upload_id)]
    parts = {"Parts": [{"PartNumber": n, "ETag": etags[n]} for n in (1, 2, 3)]}
    done = s3.complete_multipart_upload(**upload, MultipartUpload=parts)
    digests = b"".join(hashlib.md5(bodies[n]).digest() for n in (1, 2, 3))
    assert done["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    assert s3.complete_multipart_upload(**upload, MultipartUpload=parts)["ETag"] == done["ETag"]
    whole = s3.get_object(Bucket=bucket, Key="object")
    assert (whole["Body"].read(), whole["Metadata"]) == (b"".join(bodies.values()), {"m": "1"})
    second = s3.get_object(Bucket=bucket, Key="object", PartNumber=2)
    assert (second["Body"].read(), second["PartsCount"]) == (bodies[2], 3)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.mark.same_over_https
@pytest.mark.s3_operation("AbortMultipartUpload")
def test_an_aborted_upload_is_gone(s3: Any, bucket: str) -> None:
    """After abort its parts cannot be listed, completed or added to, and no object appears."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="object")["UploadId"]
    upload = {"Bucket": bucket, "Key": "object", "UploadId": upload_id}
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"part")["ETag"]
    s3.abort_multipart_upload(**upload)
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    for call in (
        lambda: s3.list_parts(**upload),
        lambda: s3.upload_part(**upload, PartNumber=2, Body=b"late"),
        lambda: s3.complete_multipart_upload(**upload, MultipartUpload=parts),
    ):
        with pytest.raises(ClientError) as gone:
            call()
        assert gone.value.response["Error"]["Code"] == "NoSuchUpload"
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.same_over_https
def test_bad_part_lists(s3: Any, bucket: str) -> None:
    """Wrong order, a wrong ETag, a part that is not there and a part that is too small are told apart."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="object")["UploadId"]
    upload = {"Bucket": bucket, "Key": "object", "UploadId": upload_id}
    one = s3.upload_part(**upload, PartNumber=1, Body=b"small")["ETag"]
    two = s3.upload_part(**upload, PartNumber=2, Body=b"last")["ETag"]
    for parts, code in (
        ([(2, two), (1, one)], "InvalidPartOrder"),
        ([(1, '"0123456789abcdef0123456789abcdef"')], "InvalidPart"),
        ([(9, two)], "InvalidPart"),
        ([(1, one), (2, two)], "EntityTooSmall"),
    ):
        listed = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in parts]}
        with pytest.raises(ClientError) as refused:
            s3.complete_multipart_upload(**upload, MultipartUpload=listed)
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        ("CRC32", "COMPOSITE"),
        ("CRC32C", "FULL_OBJECT"),
        ("CRC64NVME", "FULL_OBJECT"),
        ("SHA1", "COMPOSITE"),
        ("SHA256", "COMPOSITE"),
    ],
)
def test_multipart_checksums(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    """Composite checksums end in -N; full-object ones equal that of a single PUT of the same bytes."""
    field = f"Checksum{algorithm}"
    bodies = [b"1" * PART, b"tail"]
    begun = s3.create_multipart_upload(Bucket=bucket, Key="parts", ChecksumAlgorithm=algorithm, ChecksumType=kind)
    upload = {"Bucket": bucket, "Key": "parts", "UploadId": begun["UploadId"]}
    parts = []
    for number, body in enumerate(bodies, 1):
        sent = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        parts.append({"PartNumber": number, "ETag": sent["ETag"], field: sent[field]})
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, ChecksumType=kind)
    head = s3.head_object(Bucket=bucket, Key="parts", ChecksumMode="ENABLED")
    assert done[field] == head[field]
    assert done["ChecksumType"] == head["ChecksumType"] == kind
    whole = s3.put_object(Bucket=bucket, Key="whole", Body=b"".join(bodies), ChecksumAlgorithm=algorithm)[field]
    if kind == "FULL_OBJECT":
        assert head[field] == whole
    else:
        assert head[field].endswith("-2")


def test_presigned_urls(endpoint: Endpoint, bucket: str) -> None:
    """A presigned PUT and GET work without any client library, and not for another method.

    SigV4 is asked for: botocore still presigns with SigV2 for us-east-1, which AWS has retired for new buckets."""
    s3 = endpoint.boto3_client(signature_version="s3v4")
    arguments = {"Bucket": bucket, "Key": "pre signed/+key"}
    put_url = s3.generate_presigned_url("put_object", Params=arguments)
    get_url = s3.generate_presigned_url("get_object", Params=arguments | {"ResponseContentType": "text/x-z"})
    context = endpoint.ssl_context()
    with urllib.request.urlopen(urllib.request.Request(put_url, b"presigned", method="PUT"), context=context) as put:
        assert put.status == 200
    with urllib.request.urlopen(get_url, context=context) as got:
        assert (got.read(), got.headers["Content-Type"]) == (b"presigned", "text/x-z")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(get_url, method="DELETE"), context=context)
    assert refused.value.code == 403
