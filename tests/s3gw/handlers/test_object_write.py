"""PutObject: every protection of the body, conditions, attributes, keys."""

from __future__ import annotations

import base64
import hashlib
import http.client
from typing import Any

import pytest

from s3gw.call import Settings
from storage.model import Versioning
from tests.clients.certificates import make_certificates
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import object_path, send, sign
from tests.s3gw.refusal import refusal

HOSTILE = [
    b"a//b",
    b"/a",
    b"//",
    b"a/",
    b"..",
    b"../../etc/passwd",
    b"a+b",
    b"a b",
    b"%41",
    b"%",
    "é".encode(),
    "🎈".encode(),
    b"\x00",
    b"\x01\x1f\x7f",
    b"?",
    b"#",
    b"&=;:@$,",
    b"!'()*",
    b"\\",
    b"-",
    b"k" * 1024,
]


@pytest.mark.parametrize("key", HOSTILE, ids=repr)
def test_hostile_keys(gateway: Gateway, s3: Any, bucket: str, key: bytes) -> None:
    """Row 9: stored, read, listed and deleted under exactly these bytes."""
    path = object_path(bucket, key)
    assert send(gateway, "PUT", path, key).status == 200
    assert send(gateway, "GET", path).body == key
    assert [one["Key"].encode() for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    assert send(gateway, "DELETE", path).status == 204
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("%FF", "InvalidURI"),
        ("%zz", "InvalidURI"),
        ("k" * 1025, "KeyTooLongError"),
        ("%C3%A9" * 600, "KeyTooLongError"),
    ],
)
def test_keys_that_are_refused(gateway: Gateway, bucket: str, path: str, code: str) -> None:
    """400, before anything is read."""
    answer = send(gateway, "PUT", f"/{bucket}/{path}", b"x")
    assert (answer.status, answer.code) == (400, code)


@pytest.mark.parametrize("mode", ["when_supported", "when_required"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_boto3_in_its_modes(tmp_path: Any, mode: str, tls: bool) -> None:
    """Default checksums and none, over http and https: trailers over https, signatures over http."""
    with running_gateway(certificates=make_certificates(tmp_path) if tls else None) as gateway:
        s3 = gateway.client(request_checksum_calculation=mode, response_checksum_validation=mode)
        s3.create_bucket(Bucket="modes")
        for size in (0, 1, 70_000, 3 << 20):
            body = bytes(size)
            put = s3.put_object(Bucket="modes", Key="k", Body=body)
            assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            assert ("ChecksumCRC32" in put) == (mode == "when_supported")
            assert s3.get_object(Bucket="modes", Key="k")["Body"].read() == body


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksum_algorithms(s3: Any, bucket: str, algorithm: str) -> None:
    """Verified, stored, returned, and checked again by boto3 on the way back."""
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello", ChecksumAlgorithm=algorithm)
    shown = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert shown["Body"].read() == b"hello"
    assert put[f"Checksum{algorithm}"] == shown[f"Checksum{algorithm}"]
    assert put["ChecksumType"] == shown["ChecksumType"] == "FULL_OBJECT"


def test_without_a_checksum_aws_computes_one(gateway: Gateway, bucket: str) -> None:
    """CRC64NVME of the whole object."""
    answer = send(gateway, "PUT", f"/{bucket}/k", b"hello")
    assert answer.headers["x-amz-checksum-crc64nvme"] and answer.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert answer.headers["x-amz-server-side-encryption"] == "AES256"
    assert "x-amz-version-id" not in answer.headers


MD5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()


@pytest.mark.parametrize(
    ("headers", "code", "status"),
    [
        ({"Content-MD5": MD5[:-4] + "AA=="}, "BadDigest", 400),
        ({"Content-MD5": "short"}, "InvalidDigest", 400),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest", 400),
        ({"x-amz-checksum-crc32": "!"}, "BadDigest", 400),
        ({"x-amz-checksum-md4": "AAAA"}, "InvalidRequest", 400),
        ({"x-amz-storage-class": "LUKEWARM"}, "InvalidStorageClass", 400),
        ({"x-amz-meta-a": "b" * 2048}, "MetadataTooLarge", 400),
        ({"x-amz-acl": "public"}, "InvalidArgument", 400),
        ({"x-amz-grant-read": "id=nobody"}, "InvalidArgument", 400),
        ({"x-amz-grant-read": "emailAddress=nobody@nowhere"}, "UnresolvableGrantByEmailAddress", 400),
        ({"x-amz-server-side-encryption": "AES128"}, "InvalidArgument", 400),
        ({"If-Match": '"a", "b"'}, "NotImplemented", 501),
        ({"x-amz-tagging": "=x"}, "InvalidTag", 400),
    ],
)
def test_refused_and_not_stored(gateway: Gateway, bucket: str, headers: dict[str, str], code: str, status: int) -> None:
    """Each bad header with AWS's code, and no object."""
    answer = send(gateway, "PUT", f"/{bucket}/k", b"x", headers)
    assert (answer.code, answer.status) == (code, status)
    assert send(gateway, "HEAD", f"/{bucket}/k").status == 404


def test_other_bytes_than_were_signed(gateway: Gateway, bucket: str) -> None:
    """The digest of the payload is held against the body."""
    headers = sign(gateway, "PUT", f"/{bucket}/k", b"x")
    answer = send(gateway, "PUT", f"/{bucket}/k", b"y", headers, name=None)
    assert answer.code == "XAmzContentSHA256Mismatch"


def test_empty_extras_are_ignored(gateway: Gateway, bucket: str) -> None:
    """Row 22."""
    headers = {"x-amz-tagging": "", "x-amz-acl": "", "x-amz-storage-class": "", "x-amz-request-payer": "requester"}
    assert send(gateway, "PUT", f"/{bucket}/k?x-id=PutObject&unlisted", b"x", headers).status == 200


def test_content_encoding_loses_aws_chunked_only(gateway: Gateway, bucket: str) -> None:
    """Row 4."""
    for sent, kept in (("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip", "gzip")):
        send(gateway, "PUT", f"/{bucket}/k", b"x", {"Content-Encoding": sent})
        assert send(gateway, "HEAD", f"/{bucket}/k").headers.get("content-encoding") == kept


def test_conditional_writes(s3: Any, bucket: str) -> None:
    """Row 14: create once, replace what was read, 404 where there is nothing to match."""
    assert refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"0", IfMatch='"x"').code == "NoSuchKey"
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    taken = refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert (taken.code, taken.status, taken.error["Condition"]) == ("PreconditionFailed", 412, "If-None-Match")
    assert refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"2", IfMatch='"x"').status == 412
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"


def test_version_ids(gateway: Gateway, s3: Any, bucket: str) -> None:
    """None before versioning, the null version when suspended."""
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    gateway.set_versioning(bucket, Versioning.ENABLED)
    assert len(s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]) == 32
    gateway.set_versioning(bucket, Versioning.SUSPENDED)
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="k", Body=b"3")
    assert s3.head_object(Bucket=bucket, Key="k")["VersionId"] == "null"


def test_directory_markers(s3: Any, bucket: str) -> None:
    """Row 10: a marker outlives its children."""
    s3.put_object(Bucket=bucket, Key="dir/", Body=b"")
    s3.put_object(Bucket=bucket, Key="dir/child", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="dir/child")
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["dir/"]


def test_too_large_is_refused_by_its_length(gateway: Gateway, bucket: str) -> None:
    """EntityTooLarge at once, on a connection that closes."""
    path = f"/{bucket}/k"
    headers = sign(gateway, "PUT", path, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
    connection.putrequest("PUT", path)
    for name, text in headers.items():
        connection.putheader(name, text)
    connection.putheader("Content-Length", str((5 << 30) + 1))
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 400 and b"EntityTooLarge" in response.read()
    assert response.getheader("connection") == "close"
    connection.close()


def test_presigned_with_hoisted_headers(gateway: Gateway, s3: Any, bucket: str) -> None:
    """What the JavaScript SDK moves into the query is taken as the header it was."""
    client = gateway.client(signature_version="s3v4")
    client.meta.events.register(
        "before-sign.s3.PutObject",
        lambda request, **_: setattr(request, "url", request.url + "?x-amz-meta-color=blue"),
    )
    url = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k"})
    path = url.removeprefix(gateway.url)
    assert "x-amz-meta-color=blue" in path
    assert send(gateway, "PUT", path, b"x", name=None).status == 200
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"color": "blue"}


def test_virtual_hosts() -> None:
    """Row 27: bucket.HOST beside path style; /-/ is a key there."""
    with running_gateway(Settings(domains=("s3.test",))) as gateway:
        s3 = gateway.client()
        s3.create_bucket(Bucket="virtual")
        path = "/-/healthy"
        headers = sign(gateway, "PUT", path, b"x", {"Host": "virtual.s3.test"})
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
        connection.putrequest("PUT", path, skip_host=True)
        for name, text in {**headers, "Content-Length": "1"}.items():
            connection.putheader(name, text)
        connection.endheaders(b"x")
        assert connection.getresponse().status == 200
        connection.close()
        assert s3.get_object(Bucket="virtual", Key="-/healthy")["Body"].read() == b"x"
        assert send(gateway, "GET", path, name=None).body == b"ok\n"
