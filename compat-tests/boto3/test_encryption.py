"""boto3: objects under SSE-KMS and SSE-C, copies between them, uploads, and a bucket's default."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from typing import Any

import pytest
from botocore.exceptions import ClientError

KEY, OTHER = secrets.token_hex(16), secrets.token_hex(16)
CUSTOMER = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
OF_SOURCE = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": KEY}
BODY = os.urandom(9_000_000)


def spelled_out(key: str) -> dict[str, str]:
    """As it is sent; boto3 encodes the key and adds its MD5 by itself for most operations, not for all."""
    md5 = base64.b64encode(hashlib.md5(key.encode()).digest()).decode()
    encoded = base64.b64encode(key.encode()).decode()
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": encoded, "SSECustomerKeyMD5": md5}


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    """Code and status of a refusal."""
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_sse_s3_is_what_holds(s3: Any, bucket: str) -> None:
    """Asked for or not, the answer is AES256 and the ETag the MD5."""
    plain = s3.put_object(Bucket=bucket, Key="k", Body=BODY)
    asked = s3.put_object(Bucket=bucket, Key="k", Body=BODY, ServerSideEncryption="AES256")
    assert plain["ServerSideEncryption"] == asked["ServerSideEncryption"] == "AES256"
    assert plain["ETag"] == asked["ETag"] == f'"{hashlib.md5(BODY).hexdigest()}"'


@pytest.mark.s3_operation("GetObjectAttributes")
def test_sse_c(s3: Any, bucket: str) -> None:
    """Read with its key alone: whole, in a range, its attributes; 400 with another one and without."""
    put = s3.put_object(Bucket=bucket, Key="k", Body=BODY, ChecksumAlgorithm="SHA256", **CUSTOMER)
    assert put["ETag"] != f'"{hashlib.md5(BODY).hexdigest()}"'
    assert s3.get_object(Bucket=bucket, Key="k", **CUSTOMER)["Body"].read() == BODY
    part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=8388600-8388615", **CUSTOMER)
    assert part["Body"].read() == BODY[8_388_600:8_388_616]
    wanted = ["ETag", "Checksum", "ObjectSize"]
    attributes = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=wanted, **spelled_out(KEY))
    assert attributes["ObjectSize"] == len(BODY)
    assert attributes["Checksum"]["ChecksumSHA256"] == put["ChecksumSHA256"]
    for wrong in ({}, CUSTOMER | {"SSECustomerKey": OTHER}):
        for read in (s3.get_object, s3.head_object):
            with pytest.raises(ClientError) as caught:
                read(Bucket=bucket, Key="k", **wrong)
            assert code_of(caught)[1] == 400
    for wrong in ({}, spelled_out(OTHER)):
        with pytest.raises(ClientError) as caught:
            s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=wanted, **wrong)
        assert code_of(caught) == ("InvalidRequest", 400)


def test_sse_c_in_parts(s3: Any, bucket: str) -> None:
    """An upload in parts, read whole and by part."""
    where = {"Bucket": bucket, "Key": "k"}
    created = s3.create_multipart_upload(**where, **CUSTOMER)
    upload = where | {"UploadId": created["UploadId"]}
    etags = [
        s3.upload_part(**upload, PartNumber=number, Body=body, **CUSTOMER)["ETag"]
        for number, body in enumerate((BODY[:6_000_000], BODY[6_000_000:]), 1)
    ]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **CUSTOMER)
    assert done["ETag"].endswith('-2"')
    assert s3.get_object(**where, **CUSTOMER)["Body"].read() == BODY
    assert s3.get_object(**where, PartNumber=2, **CUSTOMER)["Body"].read() == BODY[6_000_000:]


def test_copies_between_modes(s3: Any, bucket: str) -> None:
    """From a customer's key to the bucket's, to the bucket's under KMS, and back under another customer's key."""
    s3.put_object(Bucket=bucket, Key="c", Body=BODY, **CUSTOMER)
    s3.copy_object(Bucket=bucket, Key="plain", CopySource={"Bucket": bucket, "Key": "c"}, **OF_SOURCE)
    kms = {"ServerSideEncryption": "aws:kms"}
    s3.copy_object(Bucket=bucket, Key="kms", CopySource={"Bucket": bucket, "Key": "plain"}, **kms)
    other = CUSTOMER | {"SSECustomerKey": OTHER}
    s3.copy_object(Bucket=bucket, Key="other", CopySource={"Bucket": bucket, "Key": "kms"}, **other)
    for key, mode, read in (("plain", "AES256", {}), ("kms", "aws:kms", {}), ("other", None, other)):
        got = s3.get_object(Bucket=bucket, Key=key, **read)
        assert (got.get("ServerSideEncryption"), got["Body"].read() == BODY) == (mode, True)


def test_an_unknown_kms_key(s3: Any, bucket: str) -> None:
    """Refused, and nothing is stored."""
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="nobody-made-it")
    assert code_of(caught) == ("KMS.NotFoundException", 400)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.s3_operation("PutBucketEncryption", "DeleteBucketEncryption")
def test_the_default_of_a_bucket(s3: Any, bucket: str) -> None:
    """Objects that say nothing are sealed by it, and say so."""
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}, "BucketKeyEnabled": True}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    told = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert [one["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for one in told] == ["aws:kms"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["ServerSideEncryption"], got["BucketKeyEnabled"], got["Body"].read()) == ("aws:kms", True, b"x")
    s3.delete_bucket_encryption(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "AES256"
