"""boto3: writing, reading, copying and deleting single objects."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

BODY = bytes(range(256)) * 1024
CHECKSUM_FIELDS = {
    "CRC32": "ChecksumCRC32",
    "CRC32C": "ChecksumCRC32C",
    "CRC64NVME": "ChecksumCRC64NVME",
    "SHA1": "ChecksumSHA1",
    "SHA256": "ChecksumSHA256",
}


def status_of(error: pytest.ExceptionInfo[ClientError]) -> int:
    """The HTTP status of a ClientError."""
    return int(error.value.response["ResponseMetadata"]["HTTPStatusCode"])


@pytest.mark.s3_operation("PutObject", "GetObject")
@pytest.mark.parametrize("size", [0, 1, 1024, 65_535, 65_536, 65_537, 8 << 20, (8 << 20) + 1, 20_000_000])
def test_round_trip_of_sizes(s3: Any, bucket: str, size: int) -> None:
    """Sizes around the inline limit, the frame and the chunk come back as they went, with the MD5 as ETag."""
    body = (BODY * (size // len(BODY) + 1))[:size]
    etag = s3.put_object(Bucket=bucket, Key="object", Body=body)["ETag"]
    assert etag == f'"{hashlib.md5(body).hexdigest()}"'
    answer = s3.get_object(Bucket=bucket, Key="object")
    assert answer["ContentLength"] == size
    assert answer["ETag"] == etag
    assert hashlib.sha256(answer["Body"].read()).digest() == hashlib.sha256(body).digest()


@pytest.mark.s3_operation("HeadObject")
def test_metadata_and_headers_come_back(s3: Any, bucket: str) -> None:
    """User metadata and the standard headers are kept and returned by GET and HEAD alike."""
    expires = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    stored = {
        "ContentType": "text/x-frost; charset=utf-8",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "CacheControl": "no-cache, max-age=7",
        "Metadata": {"plain": "value", "two-words": "with  spaces", "empty": ""},
    }
    s3.put_object(Bucket=bucket, Key="object", Body=b"body", Expires=expires, **stored)
    for answer in (s3.head_object(Bucket=bucket, Key="object"), s3.get_object(Bucket=bucket, Key="object")):
        assert {name: answer[name] for name in stored} == stored
        assert answer["ExpiresString"] == "Tue, 06 May 2031 07:08:09 GMT"
        assert abs(answer["LastModified"] - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)


def test_default_content_type(s3: Any, bucket: str) -> None:
    """Without one, the type is binary/octet-stream."""
    s3.put_object(Bucket=bucket, Key="object", Body=b"body")
    assert s3.head_object(Bucket=bucket, Key="object")["ContentType"] == "binary/octet-stream"


def test_response_overrides(s3: Any, bucket: str) -> None:
    """The response-* parameters replace what is stored."""
    s3.put_object(Bucket=bucket, Key="object", Body=b"body", ContentType="text/plain")
    wanted = {
        "ContentType": "application/x-other",
        "ContentDisposition": "inline",
        "ContentEncoding": "identity",
        "ContentLanguage": "fr",
        "CacheControl": "private",
    }
    answer = s3.get_object(Bucket=bucket, Key="object", **{f"Response{name}": text for name, text in wanted.items()})
    assert {name: answer[name] for name in wanted} == wanted


def test_oversized_metadata_is_refused(s3: Any, bucket: str) -> None:
    """More than 2 KB of user metadata is MetadataTooLarge."""
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="object", Body=b"", Metadata={"large": "x" * 2100})
    assert refused.value.response["Error"]["Code"] == "MetadataTooLarge"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-19", slice(10, 20)),
        ("bytes=65530-65545", slice(65530, 65546)),
        ("bytes=262000-", slice(262000, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=-99999999", slice(None)),
        ("bytes=262143-99999999", slice(262143, None)),
    ],
)
def test_ranges(s3: Any, bucket: str, asked: str, expected: slice) -> None:
    """A range answers 206 with exactly its bytes, clamped to the object."""
    s3.put_object(Bucket=bucket, Key="object", Body=BODY)
    answer = s3.get_object(Bucket=bucket, Key="object", Range=asked)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["Body"].read() == BODY[expected]
    start, stop, _ = expected.indices(len(BODY))
    assert answer["ContentRange"] == f"bytes {start}-{stop - 1}/{len(BODY)}"


@pytest.mark.parametrize("asked", ["bytes=262144-", "bytes=262144-262150", "bytes=-0"])
def test_ranges_outside_the_object(s3: Any, bucket: str, asked: str) -> None:
    """A range that starts behind the end is 416."""
    s3.put_object(Bucket=bucket, Key="object", Body=BODY)
    with pytest.raises(ClientError) as refused:
        s3.get_object(Bucket=bucket, Key="object", Range=asked)
    assert status_of(refused) == 416
    assert refused.value.response["Error"]["Code"] == "InvalidRange"


def test_conditional_reads(s3: Any, bucket: str) -> None:
    """If-Match, If-None-Match and the dates answer 200, 304 and 412 as they should."""
    etag = s3.put_object(Bucket=bucket, Key="object", Body=b"body")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="object")["LastModified"]
    before, after = modified - datetime.timedelta(days=1), modified + datetime.timedelta(seconds=1)
    for accepted in ({"IfMatch": etag}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": before}):
        assert s3.get_object(Bucket=bucket, Key="object", **accepted)["Body"].read() == b"body"
    for condition, status in (
        ({"IfMatch": '"other"'}, 412),
        ({"IfNoneMatch": etag}, 304),
        ({"IfModifiedSince": after}, 304),
        ({"IfUnmodifiedSince": before}, 412),
    ):
        for call in (s3.get_object, s3.head_object):
            with pytest.raises(ClientError) as refused:
                call(Bucket=bucket, Key="object", **condition)
            assert status_of(refused) == status, condition


def test_conditional_writes(s3: Any, bucket: str) -> None:
    """If-None-Match: * creates once; If-Match replaces only what was read."""
    first = s3.put_object(Bucket=bucket, Key="lock", Body=b"one", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as taken:
        s3.put_object(Bucket=bucket, Key="lock", Body=b"two", IfNoneMatch="*")
    assert taken.value.response["Error"]["Code"] == "PreconditionFailed"
    s3.put_object(Bucket=bucket, Key="lock", Body=b"three", IfMatch=first)
    with pytest.raises(ClientError) as stale:
        s3.put_object(Bucket=bucket, Key="lock", Body=b"four", IfMatch=first)
    assert stale.value.response["Error"]["Code"] == "PreconditionFailed"
    with pytest.raises(ClientError) as absent:
        s3.put_object(Bucket=bucket, Key="absent", Body=b"five", IfMatch=first)
    assert absent.value.response["Error"]["Code"] == "NoSuchKey"
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"three"


@pytest.mark.parametrize("algorithm", sorted(CHECKSUM_FIELDS))
def test_checksums_are_verified_stored_and_returned(s3: Any, bucket: str, algorithm: str) -> None:
    """Each algorithm, chosen by the user, is answered by PUT and by reads with ChecksumMode."""
    field = CHECKSUM_FIELDS[algorithm]
    written = s3.put_object(Bucket=bucket, Key="object", Body=BODY, ChecksumAlgorithm=algorithm)
    read = s3.get_object(Bucket=bucket, Key="object", ChecksumMode="ENABLED")
    assert read["Body"].read() == BODY
    assert written[field] == read[field] == s3.head_object(Bucket=bucket, Key="object", ChecksumMode="ENABLED")[field]
    assert read["ChecksumType"] == "FULL_OBJECT"
    assert not set(CHECKSUM_FIELDS.values()) & set(s3.head_object(Bucket=bucket, Key="object"))


@pytest.mark.parametrize("algorithm", sorted(CHECKSUM_FIELDS))
def test_a_wrong_checksum_leaves_nothing(s3: Any, bucket: str, algorithm: str) -> None:
    """A checksum of other bytes is BadDigest and the object does not exist."""
    field = CHECKSUM_FIELDS[algorithm]
    other = s3.put_object(Bucket=bucket, Key="other", Body=b"other bytes", ChecksumAlgorithm=algorithm)[field]
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="object", Body=b"these bytes", **{field: other})
    assert refused.value.response["Error"]["Code"] == "BadDigest"
    with pytest.raises(ClientError) as absent:
        s3.head_object(Bucket=bucket, Key="object")
    assert status_of(absent) == 404


def test_without_a_client_checksum_one_is_computed(endpoint: Any, bucket: str) -> None:
    """A PUT without any checksum gets a CRC64NVME, as on AWS."""
    plain = endpoint.boto3_client(request_checksum_calculation="when_required")
    plain.put_object(Bucket=bucket, Key="object", Body=b"123456789")
    answer = plain.head_object(Bucket=bucket, Key="object", ChecksumMode="ENABLED")
    assert (answer["ChecksumCRC64NVME"], answer["ChecksumType"]) == ("rosUhgp5mIg=", "FULL_OBJECT")


def test_content_md5_is_verified(s3: Any, bucket: str) -> None:
    """A wrong Content-MD5 is BadDigest, a malformed one InvalidDigest."""
    for text, code in (("AAAAAAAAAAAAAAAAAAAAAA==", "BadDigest"), ("not base64", "InvalidDigest")):
        with pytest.raises(ClientError) as refused:
            s3.put_object(Bucket=bucket, Key="object", Body=b"body", ContentMD5=text)
        assert refused.value.response["Error"]["Code"] == code


@pytest.mark.s3_operation("CopyObject")
def test_copy_keeps_or_replaces_metadata(s3: Any, bucket: str) -> None:
    """CopyObject keeps metadata by default; REPLACE does not merge."""
    s3.put_object(Bucket=bucket, Key="from", Body=BODY, ContentType="text/a", Metadata={"old": "1"})
    source = {"Bucket": bucket, "Key": "from"}
    etag = s3.copy_object(Bucket=bucket, Key="same", CopySource=source)["CopyObjectResult"]["ETag"]
    kept = s3.get_object(Bucket=bucket, Key="same")
    assert (kept["Body"].read(), kept["ContentType"], kept["Metadata"]) == (BODY, "text/a", {"old": "1"})
    assert etag == kept["ETag"]
    s3.copy_object(Bucket=bucket, Key="new", CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "2"})
    replaced = s3.get_object(Bucket=bucket, Key="new")
    assert (replaced["Body"].read(), replaced["Metadata"]) == (BODY, {"new": "2"})
    assert replaced["ContentType"] == "binary/octet-stream"


def test_copy_onto_itself(s3: Any, bucket: str) -> None:
    """Without a change it is refused; with REPLACE it changes the metadata alone."""
    s3.put_object(Bucket=bucket, Key="object", Body=BODY)
    source = {"Bucket": bucket, "Key": "object"}
    with pytest.raises(ClientError) as refused:
        s3.copy_object(Bucket=bucket, Key="object", CopySource=source)
    assert refused.value.response["Error"]["Code"] == "InvalidRequest"
    s3.copy_object(Bucket=bucket, Key="object", CopySource=source, MetadataDirective="REPLACE", Metadata={"a": "b"})
    changed = s3.get_object(Bucket=bucket, Key="object")
    assert (changed["Body"].read(), changed["Metadata"]) == (BODY, {"a": "b"})


def test_copy_conditions(s3: Any, bucket: str) -> None:
    """The x-amz-copy-source-if conditions answer 412; a missing source is NoSuchKey."""
    etag = s3.put_object(Bucket=bucket, Key="from", Body=b"body")["ETag"]
    source = {"Bucket": bucket, "Key": "from"}
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source, CopySourceIfMatch=etag)
    for condition in ({"CopySourceIfMatch": '"x"'}, {"CopySourceIfNoneMatch": etag}):
        with pytest.raises(ClientError) as refused:
            s3.copy_object(Bucket=bucket, Key="to", CopySource=source, **condition)
        assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    with pytest.raises(ClientError) as missing:
        s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "absent"})
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"


@pytest.mark.s3_operation("DeleteObject")
def test_delete_and_delete_again(s3: Any, bucket: str) -> None:
    """A deleted object is NoSuchKey; deleting what is not there is no error."""
    s3.put_object(Bucket=bucket, Key="object", Body=b"body")
    for _ in range(2):
        assert s3.delete_object(Bucket=bucket, Key="object")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(ClientError) as missing:
        s3.get_object(Bucket=bucket, Key="object")
    assert missing.value.response["Error"]["Code"] == "NoSuchKey"


@pytest.mark.s3_operation("DeleteObjects")
def test_delete_objects(s3: Any, bucket: str) -> None:
    """DeleteObjects answers every key, a missing one as deleted; quiet mode answers none."""
    for name in ("one", "two", "three"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"")
    loud = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "one"}, {"Key": "absent"}]})
    assert sorted(entry["Key"] for entry in loud["Deleted"]) == ["absent", "one"]
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "two"}], "Quiet": True})
    assert "Deleted" not in quiet
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["three"]


def test_storage_class_is_echoed(s3: Any, bucket: str) -> None:
    """A storage class other than STANDARD is kept, returned by HEAD and listed."""
    s3.put_object(Bucket=bucket, Key="cold", Body=b"", StorageClass="STANDARD_IA")
    assert s3.head_object(Bucket=bucket, Key="cold")["StorageClass"] == "STANDARD_IA"
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD_IA"


def test_wrong_credentials(endpoint: Any, bucket: str) -> None:
    """An unknown access key and a wrong secret are told apart; nothing is written."""
    for access_key_id, secret, code in (
        ("UNKNOWNACCESSKEY", endpoint.secret_access_key, "InvalidAccessKeyId"),
        (endpoint.access_key_id, "wrong secret", "SignatureDoesNotMatch"),
    ):
        stranger = type(endpoint)(endpoint.url, access_key_id, secret, endpoint.ca_file).boto3_client()
        with pytest.raises(ClientError) as refused:
            stranger.put_object(Bucket=bucket, Key="object", Body=b"body")
        assert refused.value.response["Error"]["Code"] == code
    assert "Contents" not in endpoint.boto3_client().list_objects_v2(Bucket=bucket)
