"""The one road: identity of every answer, refusals in S3's words, connections kept or closed, nothing ever a 500."""

from __future__ import annotations

import http.client
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from cluster.directory import Directory
from cluster.objectstore import ObjectStore, PutResult
from s3gw.protocol.subresources import SUBRESOURCE_NAMES
from tests.cluster.world import open_world
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send, send_bytes, sign
from tests.s3gw.refusal import refusal

LARGE_BYTES = 100_000
"""too many to be kept inline"""
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


def test_a_refusal_can_be_found_in_the_log(gateway: Gateway, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    """By the id that the client was told; what is not there is no news."""
    with caplog.at_level(logging.INFO, "s3gw"):
        denied = send(gateway, "GET", f"/{bucket}", name="bob")
        absent = send(gateway, "GET", f"/{bucket}/k")
    told = [record.getMessage() for record in caplog.records]
    assert any(denied.headers["x-amz-request-id"] in line and "ListObjects: AccessDenied" in line for line in told)
    assert not any(absent.headers["x-amz-request-id"] in line for line in told)


def test_an_error_document(gateway: Gateway, bucket: str) -> None:
    """Code, Message, Resource, RequestId, HostId, and the same ids in the headers."""
    answer = send(gateway, "GET", f"/{bucket}/a%3Cb")
    root = ElementTree.fromstring(answer.body)
    found = {child.tag: child.text for child in root}
    assert root.tag == "Error" and answer.headers["content-type"] == "application/xml"
    assert found == {
        "Code": "NoSuchKey",
        "Message": "The specified key does not exist.",
        "Key": "a<b",
        "Resource": f"/{bucket}/a%3Cb",
        "RequestId": answer.headers["x-amz-request-id"],
        "HostId": answer.headers["x-amz-id-2"],
    }


def test_every_answer_has_its_own_id(gateway: Gateway, bucket: str) -> None:
    """Also errors and HEAD; never the same twice."""
    paths = (f"/{bucket}", f"/{bucket}/none", "/none", "/")
    answers = [send(gateway, method, path) for path in paths for method in ("GET", "HEAD")]
    ids = [answer.headers["x-amz-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(answer.body == b"" for answer in answers[1::2])


@pytest.mark.parametrize("name", sorted(SUBRESOURCE_NAMES))
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "anonymous"])
def test_every_sub_resource_with_every_method(gateway: Gateway, s3: Any, name: str, method: str, signed: bool) -> None:
    """On bucket and object: never a 500, never a plain request; the object stays what it was."""
    if not [one for one in s3.list_buckets().get("Buckets", []) if one["Name"] == "table"]:
        s3.create_bucket(Bucket="table")
        s3.put_object(Bucket="table", Key="k", Body=b"untouched")
    for path in ("/table", "/table/k", "/none-such", "/table/none"):
        answer = send(
            gateway,
            method,
            f"{path}?{name}",
            b"<Junk/>" if method in ("PUT", "POST") else b"",
            name="alice" if signed else None,
        )
        assert answer.status < 500 or answer.status == 501, (path, answer)
        assert answer.body != b"untouched" and b"ListBucketResult" not in answer.body
        if not signed:
            assert answer.status in (403, 404, 405), (path, answer)
        elif method in ("PUT", "POST") and path in ("/table", "/table/k") and name not in ("uploads",):
            assert answer.status >= 400, (path, answer)
        if method == "HEAD":
            assert answer.body == b""
    assert s3.get_object(Bucket="table", Key="k")["Body"].read() == b"untouched"


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("PUT", "/none-such/k", "NoSuchBucket", 404),
        ("GET", "/none-such?acl", "NoSuchBucket", 404),
        ("POST", "/{bucket}", "PreconditionFailed", 412),
        ("POST", "/{bucket}/k", "MethodNotAllowed", 405),
        ("PATCH", "/{bucket}/k", "MethodNotAllowed", 405),
        ("DELETE", "/", "MethodNotAllowed", 405),
        ("GET", "/{bucket}/k?versionId=", "InvalidArgument", 400),
        ("GET", "/{bucket}/%", "InvalidURI", 400),
        ("GET", "/{bucket}?prefix=%FF", "InvalidURI", 400),
        ("GET", "/%C3%A9/k", "InvalidBucketName", 400),
    ],
)
def test_bad_requests(gateway: Gateway, bucket: str, method: str, path: str, code: str, status: int) -> None:
    """Each class with the code and status of AWS."""
    answer = send(gateway, method, path.format(bucket=bucket))
    assert (answer.code, answer.status) == (code, status)


def test_who_is_refused(gateway: Gateway, bucket: str) -> None:
    """Anonymous, unknown, wrong secret, wrong region, another user."""
    path = f"/{bucket}/k"
    assert send(gateway, "GET", path, name=None).code == "AccessDenied"
    assert send(gateway, "GET", path, name="mallory").code == "InvalidAccessKeyId"
    assert send(gateway, "GET", path, name="bob").code == "AccessDenied"
    headers = sign(gateway, "GET", path)
    broken = headers | {"Authorization": headers["Authorization"][:-4] + "0000"}
    answer = send(gateway, "GET", path, headers=broken, name=None)
    assert (answer.code, answer.status) == ("SignatureDoesNotMatch", 403)
    assert b"<StringToSign>AWS4-HMAC-SHA256" in answer.body
    elsewhere = headers | {"Authorization": headers["Authorization"].replace("us-east-1", "eu-west-9")}
    answer = send(gateway, "GET", path, headers=elsewhere, name=None)
    assert answer.code == "AuthorizationHeaderMalformed" and b"<Region>us-east-1</Region>" in answer.body


def test_a_refused_put_closes_and_is_heard(gateway: Gateway, bucket: str) -> None:
    """The body was not read: the answer arrives, though the client is still sending, and the connection closes."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
    connection.putrequest("PUT", f"/{bucket}/k")
    connection.putheader("Content-Length", str(8 << 20))
    connection.endheaders()
    for _ in range(128):
        connection.send(bytes(65536))
    response = connection.getresponse()
    assert response.status == 403 and b"AccessDenied" in response.read()
    assert response.getheader("connection") == "close"
    connection.close()


def test_expect_continue(gateway: Gateway, bucket: str) -> None:
    """Row 1: no 100 before the signature was found good; a refusal comes instead of it."""
    host = f"{gateway.host}:{gateway.port}"
    head = f"PUT /{bucket}/k HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
    refused = send_bytes(gateway, f"{head}\r\n".encode(), b"</Error>")
    assert refused.startswith(b"HTTP/1.1 403") and b"100 Continue" not in refused and b"connection: close" in refused
    headers = sign(gateway, "PUT", f"/{bucket}/k", b"x")
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items() if name.lower() != "content-length")
    taken = send_bytes(gateway, f"{head}{lines}\r\nx".encode(), b"content-length: 0")
    assert taken.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_preflight(gateway: Gateway, bucket: str) -> None:
    """Unsigned; no bucket has CORS rules yet."""
    headers = {"Origin": "https://x", "Access-Control-Request-Method": "GET"}
    answer = send(gateway, "OPTIONS", f"/{bucket}/k", headers=headers, name=None)
    assert (answer.status, answer.code) == (403, "AccessForbidden")
    assert send(gateway, "OPTIONS", f"/{bucket}/k", name=None).code == "BadRequest"


def test_service_pages(gateway: Gateway, bucket: str) -> None:
    """Healthy, ready or not, and the counts of what was served."""
    assert send(gateway, "GET", "/-/healthy", name=None).status == 200
    gateway.switch.is_ready = False
    assert send(gateway, "GET", "/-/ready", name=None).status == 503
    gateway.switch.is_ready = True
    assert send(gateway, "GET", "/-/ready", name=None).status == 200
    send(gateway, "PUT", f"/{bucket}/k", b"12345")
    send(gateway, "GET", f"/{bucket}/k")
    text = send(gateway, "GET", "/-/metrics", name=None).body.decode()
    assert 'frostbyte_s3_requests_total{operation="PutObject",status="200"}' in text
    assert 'frostbyte_s3_request_seconds_bucket{le="+Inf",operation="GetObject"}' in text
    assert "frostbyte_s3_received_bytes_total" in text and "frostbyte_s3_sent_bytes_total" in text
    assert send(gateway, "GET", "/-/nothing", name=None).status == 404


class BuggyStore:
    """The door of objects with a bug: storing `bug` trips over it."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def put(self, bucket: Any, object_key: bytes, body: Any, request: Any) -> PutResult:
        """As the door does, but for the bug."""
        if object_key == b"bug":
            raise ZeroDivisionError("a bug")
        return await self._objects.put(bucket, object_key, body, request)


@asynccontextmanager
async def broken_doors() -> AsyncIterator[tuple[ObjectStore, Directory]]:
    """The doors over datanodes that are all full."""
    with TemporaryDirectory() as home:
        async with open_world(Path(home)) as world:
            for node in world.nodes.values():
                node.full = True
            yield cast(ObjectStore, BuggyStore(world.cluster.objects)), world.cluster.directory


@pytest.fixture(scope="module")
def broken() -> Iterator[Gateway]:
    """A gateway that cannot store."""
    with running_gateway(doors=broken_doors) as gateway:
        gateway.client().create_bucket(Bucket="broken")
        yield gateway


def test_failures_below(broken: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """503 with Retry-After when it may pass, 500 without details when it is our fault, and the process stays up."""
    caplog.set_level(logging.WARNING)
    s3 = broken.client()
    away = refusal(s3.put_object, Bucket="broken", Key="k", Body=bytes(LARGE_BYTES))
    assert (away.code, away.status, away.headers["retry-after"]) == ("SlowDown", 503, "1")
    bug = refusal(s3.put_object, Bucket="broken", Key="bug", Body=b"x")
    assert (bug.code, bug.status) == ("InternalError", 500) and "bug" not in bug.error["Message"]
    assert "ZeroDivisionError" in caplog.text and bug.headers["x-amz-request-id"] in caplog.text
    assert s3.list_objects_v2(Bucket="broken")["KeyCount"] == 0
