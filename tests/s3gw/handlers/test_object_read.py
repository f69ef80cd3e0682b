"""GET and HEAD: ranges, conditions, parts, overrides, and what happens when the bytes give out."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from cluster.directory import Directory
from cluster.objectstore import ObjectStore
from storage.model import Versioning
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import SETTINGS, open_world
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send, sign
from tests.s3gw.refusal import refusal

BODY = bytes(range(256)) * 4


@pytest.fixture
def stored(s3: Any, bucket: str) -> str:
    """A bucket with BODY under `k` and nothing under `empty`."""
    s3.put_object(Bucket=bucket, Key="k", Body=BODY, ContentType="text/x", Metadata={"Name": "=?UTF-8?Q?=C3=A9?="})
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    return bucket


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=1000-", 206, 1000, 1024),
        ("bytes=-10", 206, 1014, 1024),
        ("bytes=-9999", 206, 0, 1024),
        ("bytes=1-99999", 206, 1, 1024),
        ("bytes=5-4", 200, 0, 1024),
        ("bytes=0-1,3-4", 200, 0, 1024),
        ("chars=0-1", 200, 0, 1024),
    ],
)
def test_ranges(gateway: Gateway, stored: str, header: str, status: int, start: int, end: int) -> None:
    """GET and HEAD agree on status, length and Content-Range."""
    got = send(gateway, "GET", f"/{stored}/k", headers={"Range": header})
    head = send(gateway, "HEAD", f"/{stored}/k", headers={"Range": header})
    assert (got.status, got.body, head.body) == (status, BODY[start:end], b"")
    assert head.status == status and head.headers["content-length"] == str(end - start)
    wanted = f"bytes {start}-{end - 1}/1024" if status == 206 else None
    assert got.headers.get("content-range") == head.headers.get("content-range") == wanted


def test_if_range(gateway: Gateway, s3: Any, stored: str) -> None:
    """RFC 9110 §13.1.5: a range of another state of the object would corrupt a resumed download, so the whole comes."""
    head = s3.head_object(Bucket=stored, Key="k")
    etag, at = head["ETag"], head["ResponseMetadata"]["HTTPHeaders"]["last-modified"]
    other = "Mon, 01 Jan 2001 00:00:00 GMT"
    for condition, status in ((etag, 206), (etag.strip('"'), 206), (at, 206), (f"W/{etag}", 200), (other, 200)):
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        got = send(gateway, "GET", f"/{stored}/k", headers=headers)
        assert (got.status, got.body) == (status, BODY[1:3] if status == 206 else BODY)
        answered = send(gateway, "HEAD", f"/{stored}/k", headers=headers)
        assert (answered.status, answered.headers["content-length"]) == (status, str(len(got.body)))
    beyond = {"Range": "bytes=5000-", "If-Range": '"0"'}
    assert send(gateway, "GET", f"/{stored}/k", headers=beyond).body == BODY
    assert send(gateway, "GET", f"/{stored}/k", headers={"If-Range": '"0"'}).status == 200


@pytest.mark.parametrize(
    ("key", "header"), [("k", "bytes=1024-"), ("k", "bytes=-0"), ("empty", "bytes=0-"), ("empty", "bytes=-5")]
)
def test_unsatisfiable_ranges(gateway: Gateway, stored: str, key: str, header: str) -> None:
    """416 with the size; HEAD has no body."""
    answer = send(gateway, "GET", f"/{stored}/{key}", headers={"Range": header})
    size = len(BODY) if key == "k" else 0
    assert (answer.status, answer.code) == (416, "InvalidRange")
    assert answer.headers["content-range"] == f"bytes */{size}"
    assert f"<ActualObjectSize>{size}</ActualObjectSize>".encode() in answer.body
    head = send(gateway, "HEAD", f"/{stored}/{key}", headers={"Range": header})
    assert (head.status, head.body) == (416, b"")


def test_an_empty_object(s3: Any, stored: str) -> None:
    """No bytes, whole."""
    answer = s3.get_object(Bucket=stored, Key="empty")
    assert answer["Body"].read() == b"" and answer["ContentLength"] == 0


def test_conditions(s3: Any, stored: str) -> None:
    """304 keeps the ETag and has no body; 412 otherwise."""
    head = s3.head_object(Bucket=stored, Key="k")
    etag, at = head["ETag"], head["LastModified"]
    for action in (s3.get_object, s3.head_object):
        same = refusal(action, Bucket=stored, Key="k", IfNoneMatch=etag)
        assert same.status == 304 and same.headers["etag"] == etag and "content-type" not in same.headers
        assert refusal(action, Bucket=stored, Key="k", IfModifiedSince=at).status == 304
        assert refusal(action, Bucket=stored, Key="k", IfMatch='"x"').status == 412
        assert refusal(action, Bucket=stored, Key="k", IfUnmodifiedSince=at - timedelta(seconds=5)).status == 412
        action(Bucket=stored, Key="k", IfMatch=etag, IfUnmodifiedSince=at - timedelta(seconds=5))
        action(Bucket=stored, Key="k", IfNoneMatch='"x"', IfModifiedSince=at)


def test_a_condition_comes_before_the_range(gateway: Gateway, stored: str) -> None:
    """412, not 416."""
    answer = send(gateway, "GET", f"/{stored}/k", headers={"Range": "bytes=9999-", "If-Match": '"x"'})
    assert (answer.status, answer.code) == (412, "PreconditionFailed")


def test_attributes_come_back(s3: Any, stored: str) -> None:
    """Type, metadata, encryption, ranges accepted."""
    answer = s3.get_object(Bucket=stored, Key="k")
    assert answer["Body"].read() == BODY
    assert (answer["ContentType"], answer["AcceptRanges"], answer["ServerSideEncryption"]) == (
        "text/x",
        "bytes",
        "AES256",
    )
    assert answer["Metadata"] == {"name": "=?UTF-8?B?w6k=?="}
    assert "VersionId" not in answer


def test_checksums_are_shown_when_asked(s3: Any, stored: str) -> None:
    """Of the whole object, never beside a range."""
    shown = s3.head_object(Bucket=stored, Key="k", ChecksumMode="ENABLED")
    assert shown["ChecksumType"] == "FULL_OBJECT" and shown["ChecksumCRC32"]
    assert "ChecksumCRC32" not in s3.head_object(Bucket=stored, Key="k", Range="bytes=0-1", ChecksumMode="ENABLED")


def test_response_overrides(gateway: Gateway, s3: Any, stored: str) -> None:
    """Of signed requests; what cannot be a header is refused."""
    answer = s3.get_object(Bucket=stored, Key="k", ResponseContentType="a/b", ResponseCacheControl="no-store")
    assert (answer["ContentType"], answer["CacheControl"]) == ("a/b", "no-store")
    assert send(gateway, "GET", f"/{stored}/k?response-content-type=a%0D%0Ab").code == "InvalidArgument"
    assert send(gateway, "GET", f"/{stored}/k?response-content-type=a", name=None).code == "AccessDenied"


def test_parts(s3: Any, bucket: str) -> None:
    """A part by its number, with the count; part 1 of a plain object is all of it."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="m")["UploadId"]
    bodies = [b"a" * (5 << 20), b"b" * 7]
    parts = []
    for number, body in enumerate(bodies, 1):
        done = s3.upload_part(Bucket=bucket, Key="m", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": done["ETag"], "ChecksumCRC32": done["ChecksumCRC32"]})
    s3.complete_multipart_upload(Bucket=bucket, Key="m", UploadId=upload, MultipartUpload={"Parts": parts})
    got = s3.get_object(Bucket=bucket, Key="m", PartNumber=2)
    assert got["Body"].read() == bodies[1]
    assert (got["PartsCount"], got["ContentRange"]) == (2, f"bytes {5 << 20}-{(5 << 20) + 6}/{(5 << 20) + 7}")
    head = s3.head_object(Bucket=bucket, Key="m", PartNumber=1)
    assert (head["ContentLength"], head["PartsCount"]) == (5 << 20, 2)
    assert refusal(s3.get_object, Bucket=bucket, Key="m", PartNumber=3).code == "InvalidPart"
    s3.put_object(Bucket=bucket, Key="plain", Body=BODY)
    plain = s3.get_object(Bucket=bucket, Key="plain", PartNumber=1)
    assert plain["Body"].read() == BODY and "PartsCount" not in plain
    assert refusal(s3.get_object, Bucket=bucket, Key="plain", PartNumber=2).code == "InvalidPart"
    assert refusal(s3.get_object, Bucket=bucket, Key="m", PartNumber=1, Range="bytes=0-1").code == "InvalidRequest"


def test_versions_and_markers(gateway: Gateway, s3: Any, bucket: str) -> None:
    """A marker hides the object; by its id it is 405; older versions are read by theirs."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"1"
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == second
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"]
    hidden = refusal(s3.get_object, Bucket=bucket, Key="k")
    assert (hidden.code, hidden.headers["x-amz-delete-marker"]) == ("NoSuchKey", "true")
    assert hidden.headers["x-amz-version-id"] == marker["VersionId"]
    by_id = refusal(s3.get_object, Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert (by_id.code, by_id.status) == ("MethodNotAllowed", 405)
    assert refusal(s3.get_object, Bucket=bucket, Key="k", VersionId="0" * 32).code == "NoSuchVersion"
    assert refusal(s3.get_object, Bucket=bucket, Key="k", VersionId="x").code == "InvalidArgument"
    gone = s3.delete_object(Bucket=bucket, Key="k", VersionId=marker["VersionId"])
    assert gone["DeleteMarker"] and s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"2"


def test_a_missing_key(gateway: Gateway, s3: Any, bucket: str) -> None:
    """NoSuchKey names it, HEAD has no body, and the connection survives."""
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60)
    for method in ("HEAD", "GET", "HEAD"):
        connection.request(method, f"/{bucket}/n", headers=sign(gateway, method, f"/{bucket}/n"))
        response = connection.getresponse()
        body = response.read()
        assert response.status == 404 and response.getheader("connection") is None
        assert (b"<Key>n</Key>" in body) == (method == "GET")
    connection.close()


CHUNK_BYTES = SETTINGS.chunk_bytes


class Failing(NamedTuple):
    """A gateway, and the datanodes below it."""

    gateway: Gateway
    nodes: dict[int, FaultyDatanode]


@pytest.fixture(scope="module")
def failing() -> Iterator[Failing]:
    """`late` and `damaged` have three chunks in the bucket `failing`; the last one is lost, or damaged, everywhere."""
    nodes: dict[int, FaultyDatanode] = {}

    @asynccontextmanager
    async def doors() -> AsyncIterator[tuple[ObjectStore, Directory]]:
        with TemporaryDirectory() as home:
            async with open_world(Path(home)) as world:
                nodes.update(world.nodes)
                yield world.cluster.objects, world.cluster.directory

    with running_gateway(doors=doors) as gateway:
        s3 = gateway.client()
        s3.create_bucket(Bucket="failing")
        s3.put_object(Bucket="failing", Key="late", Body=bytes(3 * CHUNK_BYTES))
        for node in nodes.values():
            for chunk_id in [chunk_id for chunk_id in node.chunks if chunk_id.chunk_index == 2]:
                del node.chunks[chunk_id]
        s3.put_object(Bucket="failing", Key="damaged", Body=bytes(3 * CHUNK_BYTES))
        for node in nodes.values():
            for chunk_id, sealed in node.chunks.items():
                if chunk_id.chunk_index == 2:
                    node.chunks[chunk_id] = sealed[:1000] + bytes([sealed[1000] ^ 1]) + sealed[1001:]
        yield Failing(gateway, nodes)


def test_a_failure_before_the_first_block_is_an_error(failing: Failing) -> None:
    """503 with Retry-After: nothing was sent yet."""
    for node in failing.nodes.values():
        node.down = True
    answer = send(failing.gateway, "GET", "/failing/late")
    for node in failing.nodes.values():
        node.down = False
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "SlowDown", "1")


@pytest.mark.parametrize("name", ["late", "damaged"])
def test_a_failure_after_the_first_block_cuts_the_connection(failing: Failing, name: str) -> None:
    """Never a clean short body: the client sees that it was cut."""
    with pytest.raises(http.client.IncompleteRead) as caught:
        send(failing.gateway, "GET", f"/failing/{name}")
    assert caught.value.partial == bytes(2 * CHUNK_BYTES)
    assert send(failing.gateway, "GET", "/-/healthy", name=None).status == 200
