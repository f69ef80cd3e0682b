"""Both styles of addressing a bucket, signed and presigned: `HOST/bucket/key` and `bucket.HOST/key`."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from s3gw.call import Settings
from s3gw.protocol.part_list import PART_BYTES_MIN
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

DOMAIN = "s3.frost.example"
TIMEOUT_S = 20


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """It knows its domain, and names below it lead to it."""
    resolve = socket.getaddrinfo

    def find_here(host: Any, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(DOMAIN) else host, *rest, **options)

    with (
        pytest.MonkeyPatch.context() as patch,
        running_gateway(Settings(domains=(DOMAIN,))) as run,
    ):
        patch.setattr(socket, "getaddrinfo", find_here)
        yield run


@pytest.fixture(params=["path", "virtual"])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Any:
    """Alice's client in one of the styles, which signs and presigns by SigV4."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{DOMAIN}:{gateway.port}",
        aws_access_key_id="alice",
        aws_secret_access_key="secret-of-alice",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": request.param}, signature_version="s3v4", retries={"max_attempts": 0}),
    )


def fetch(url: str, body: bytes | None = None, method: str = "GET") -> tuple[int, bytes, dict[str, str]]:
    """Without any client → status, body, headers by lower-case name."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read(), {name.lower(): text for name, text in answer.headers.items()}
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(), {}


@pytest.mark.parametrize("name", ["plain", "with.dots.in-it"])
def test_the_life_of_a_bucket(client: Any, name: str) -> None:
    """Every operation finds bucket and key where the style puts them, odd keys among them."""
    client.create_bucket(Bucket=name)
    assert client.head_bucket(Bucket=name)["BucketRegion"] == "us-east-1"
    keys = ["a", "b//c", "d e+f", "plain/key", "ä"]
    for key in keys:
        client.put_object(Bucket=name, Key=key, Body=key.encode())
        assert client.get_object(Bucket=name, Key=key)["Body"].read() == key.encode()
    assert [one["Key"] for one in client.list_objects_v2(Bucket=name)["Contents"]] == keys
    client.copy_object(Bucket=name, Key="copy", CopySource={"Bucket": name, "Key": "d e+f"})
    assert client.get_object(Bucket=name, Key="copy")["Body"].read() == b"d e+f"
    upload = {"Bucket": name, "Key": "m", "UploadId": client.create_multipart_upload(Bucket=name, Key="m")["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=b"x" * PART_BYTES_MIN)["ETag"]
    part = client.upload_part_copy(**upload, PartNumber=2, CopySource=f"{name}/a")["CopyPartResult"]
    parts = [{"PartNumber": 1, "ETag": etag}, {"PartNumber": 2, "ETag": part["ETag"]}]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert client.head_object(Bucket=name, Key="m")["ContentLength"] == PART_BYTES_MIN + 1
    found = [{"Key": one["Key"]} for one in client.list_objects_v2(Bucket=name)["Contents"]]
    client.delete_objects(Bucket=name, Delete={"Objects": found})
    client.delete_bucket(Bucket=name)
    assert name not in [one["Name"] for one in client.list_buckets()["Buckets"]]


@pytest.fixture
def bucket(client: Any) -> Iterator[str]:
    """A bucket with one object, removed afterwards."""
    client.create_bucket(Bucket="presigned")
    client.put_object(Bucket="presigned", Key="a b/c", Body=b"hello")
    yield "presigned"
    for one in client.list_objects_v2(Bucket="presigned").get("Contents", []):
        client.delete_object(Bucket="presigned", Key=one["Key"])
    client.delete_bucket(Bucket="presigned")


@pytest.mark.parametrize(
    ("operation", "arguments", "method", "body", "status"),
    [
        ("get_object", {"Key": "a b/c"}, "GET", None, 200),
        ("get_object", {"Key": "a b/c", "Range": "bytes=0-1"}, "GET", None, 403),
        ("head_object", {"Key": "a b/c"}, "HEAD", None, 200),
        ("put_object", {"Key": "new"}, "PUT", b"body", 200),
        ("put_object", {"Key": "new", "Metadata": {"a": "b"}}, "PUT", b"body", 403),
        ("delete_object", {"Key": "a b/c"}, "DELETE", None, 204),
        ("list_objects_v2", {"Prefix": "a"}, "GET", None, 200),
        ("head_bucket", {}, "HEAD", None, 200),
        ("get_bucket_location", {}, "GET", None, 200),
        ("create_multipart_upload", {"Key": "m"}, "POST", None, 200),
        ("get_object_tagging", {"Key": "a b/c"}, "GET", None, 200),
        ("get_object", {"Key": "absent"}, "GET", None, 404),
    ],
)
def test_anything_can_be_presigned(
    client: Any, bucket: str, operation: str, arguments: dict[str, Any], method: str, body: bytes | None, status: int
) -> None:
    """It works for the one method, and is refused where a signed header is left out."""
    url = client.generate_presigned_url(operation, Params={"Bucket": bucket, **arguments})
    assert fetch(url, body, method)[0] == status
    if status == 200 and method == "GET":
        code, document, _ = fetch(url, method="DELETE")
        assert (code, b"SignatureDoesNotMatch" in document) == (403, True)


def test_response_overrides_are_signed(client: Any, bucket: str) -> None:
    """All six; a signature does not hold for others than it was made for."""
    wanted = {
        "ResponseContentType": ("content-type", "text/x"),
        "ResponseContentLanguage": ("content-language", "fr"),
        "ResponseExpires": ("expires", "Tue, 06 May 2031 07:08:09 GMT"),
        "ResponseCacheControl": ("cache-control", "no-store"),
        "ResponseContentDisposition": ("content-disposition", 'attachment; filename="ä b"'),
        "ResponseContentEncoding": ("content-encoding", "x-test"),
    }
    asked = {name: text for name, (_, text) in wanted.items()}
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/c"} | asked)
    status, body, headers = fetch(url)
    assert (status, body) == (200, b"hello")
    for header, text in wanted.values():
        assert headers[header].encode("latin-1").decode() == text
    assert fetch(url.replace("text%2Fx", "text%2Fy"))[0] == 403


def test_nobody_overrides_headers(gateway: Gateway, client: Any, bucket: str) -> None:
    """Not even of an object that everybody may read: such an address could be passed on as the owner's."""
    client.put_object_acl(Bucket=bucket, Key="a b/c", ACL="public-read")
    assert send(gateway, "GET", f"/{bucket}/a%20b/c", name=None).body == b"hello"
    refused = send(gateway, "GET", f"/{bucket}/a%20b/c?response-content-type=text/html", name=None)
    assert (refused.status, refused.code) == (400, "InvalidRequest")
    assert b"cannot be used for anonymous GET requests" in refused.body


@pytest.mark.parametrize(
    ("expires_s", "status", "words"), [(604_801, 400, b"less than a week"), (604_800, 200, b"hello")]
)
def test_how_long_an_address_may_hold(client: Any, bucket: str, expires_s: int, status: int, words: bytes) -> None:
    """A week at most."""
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/c"}, ExpiresIn=expires_s)
    code, body, _ = fetch(url)
    assert (code, words in body) == (status, True)


@pytest.mark.parametrize("expires", ["0", "-7", "-99999999999999999999"])
def test_an_address_that_is_over(client: Any, bucket: str, expires: str) -> None:
    """Told as such, also when it never held."""
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/c"}, ExpiresIn=60)
    code, body, _ = fetch(url.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}"))
    assert (code, b"Request has expired" in body) == (403, True)


def test_sigv2_is_refused_with_a_word_of_advice(gateway: Gateway, client: Any, bucket: str) -> None:
    """In the query as in the header."""
    query = "AWSAccessKeyId=alice&Expires=4102444800&Signature=c2lnbmF0dXJl"
    for answer in (
        send(gateway, "GET", f"/{bucket}/a?{query}", name=None),
        send(gateway, "GET", f"/{bucket}/a", headers={"Authorization": "AWS alice:c2lnbmF0dXJl"}, name=None),
    ):
        assert (answer.status, answer.code) == (400, "InvalidRequest")
        assert b"Please use AWS4-HMAC-SHA256" in answer.body


def test_another_host_is_path_style(gateway: Gateway) -> None:
    """Only names below the configured domain name a bucket."""
    refused = refusal(gateway.client().head_object, Bucket="absent-bucket", Key="k")
    assert refused.status == 404
    answer = send(gateway, "GET", "/", headers={"Host": f"absent-bucket.{DOMAIN}:{gateway.port}"}, name="alice")
    assert (answer.status, answer.code) == (404, "NoSuchBucket")
