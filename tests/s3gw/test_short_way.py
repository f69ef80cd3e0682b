"""The short way: it says what the road says, takes only what it may, and a PUT on it is whole or not there."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from s3gw.connection import GatewayProtocol
from s3gw.server import TICK_S
from s3gw.short_way import ShortRead, ShortWay
from s3gw.short_write import SMALL_BYTES_MAX, ShortWrite
from storage.base.errors import SessionFenced, Unavailable
from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import Answer, send, send_bytes, sign

OWN_HEADERS = frozenset({"x-amz-request-id", "date"})
"""which differ between two answers to the same request"""


class Taken:
    """What went the short way so far."""

    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Taken]:
    """Counts the requests that the short way takes."""
    counts = Taken()
    read, commit = ShortWay._read, ShortWrite.commit

    def counted_read(self: ShortWay, *arguments: Any) -> ShortRead | None:
        response = read(self, *arguments)
        counts.count += response is not None
        return response

    def counted_commit(self: ShortWrite, *arguments: Any) -> bool:
        is_taken = commit(self, *arguments)
        counts.count += is_taken
        return is_taken

    monkeypatch.setattr(ShortWay, "_read", counted_read)
    monkeypatch.setattr(ShortWrite, "commit", counted_commit)
    yield counts


def render(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request in one piece."""
    if body or method == "PUT":
        headers = {**headers, "Content-Length": str(len(body))}
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def at_once(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    name: str = "alice",
) -> Answer:
    """One signed request, sent in one piece, so that it may go the short way."""
    signed = {"Host": f"{gateway.host}:{gateway.port}", **sign(gateway, method, path, body, headers, name)}
    return converse(gateway, render(method, path, signed, body))[0]


def converse(gateway: Gateway, requests: bytes) -> list[Answer]:
    """The answers on one connection; after each but a refusal that left a body unread it serves the next one."""
    last = {"Host": f"{gateway.host}:{gateway.port}", "Connection": "close"}
    answers = parse(send_bytes(gateway, requests + render("GET", "/-/healthy", last), b"\r\n\r\nok\n"))
    if answers[-1].headers.get("content-type") == "application/xml" and answers[-1].headers["connection"] == "close":
        return answers
    assert answers.pop().body == b"ok\n"
    return answers


def parse(data: bytes) -> list[Answer]:
    """The responses of one connection, in order; that to a HEAD must be the first."""
    answers = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if rest.startswith(b"HTTP/1.1 "):
            length = 0
        answers.append(Answer(int(lines[0].split(" ")[1]), headers, rest[:length]))
        data = rest[length:]
    return answers


def told(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """An answer without what is only its own."""
    return answer.status, {k: v for k, v in answer.headers.items() if k not in OWN_HEADERS}, answer.body


def warm_up(gateway: Gateway, bucket: str) -> None:
    """Let the gateway remember who asks and where."""
    send(gateway, "HEAD", f"/{bucket}/nothing")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"x-amz-checksum-mode": "ENABLED"}])
def test_a_read_says_what_the_road_says(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, method: str, headers: dict[str, str]
) -> None:
    """Of an object with everything that a small one may have."""
    s3.put_object(
        Bucket=bucket, Key="k ü", Body=b"small", ContentType="text/plain", CacheControl="no-store", Tagging="a=b",
        Metadata={"m": "value"}, StorageClass="STANDARD_IA", WebsiteRedirectLocation="/there",
    )  # fmt: skip
    by_road = send(gateway, method, f"/{bucket}/k%20%C3%BC", headers=headers)
    assert taken.count == 0, "a Content-Length is no header of a short read"
    short = at_once(gateway, method, f"/{bucket}/k%20%C3%BC", headers=headers)
    assert taken.count == 1
    assert told(short) == told(by_road) and short.headers["x-amz-request-id"] != by_road.headers["x-amz-request-id"]


@pytest.mark.parametrize("versioning", ["", "Enabled", "Suspended"])
@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/x"}])
def test_a_write_says_and_does_what_the_road_does(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, versioning: str, headers: dict[str, str]
) -> None:
    """The answer but for the version's id, and what a GET finds then."""
    if versioning:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning})
    warm_up(gateway, bucket)
    by_road = at_once(
        gateway, "PUT", f"/{bucket}/road", b"small", {"x-amz-server-side-encryption": "AES256", **headers}
    )
    assert taken.count == 0
    short = at_once(gateway, "PUT", f"/{bucket}/short", b"small", headers)
    assert taken.count == 1
    ids = [answer.headers.pop("x-amz-version-id", "") for answer in (by_road, short)]
    assert told(short) == told(by_road)
    assert all(bool(version_id) == (versioning == "Enabled") for version_id in ids)
    first, second = (s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED") for key in ("road", "short"))
    assert second["Body"].read() == first["Body"].read() == b"small"
    for name in ("ETag", "ContentType", "ChecksumCRC64NVME", "ChecksumType", "ServerSideEncryption"):
        assert second[name] == first[name], name


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-acl": "private"},
        {"If-None-Match": "*"},
        {"x-amz-tagging": "a=b"},
        {"Content-MD5": base64.b64encode(hashlib.md5(b"small").digest()).decode()},
        {"x-amz-meta-a": "b"},
        {"Origin": "http://a.example"},
        {"x-amz-server-side-encryption": "AES256"},
        {"x-amz-expected-bucket-owner": "a" * 64},
    ],
)
def test_a_header_that_means_something_is_for_the_road(
    gateway: Gateway, bucket: str, taken: Taken, headers: dict[str, str]
) -> None:
    """On a PUT; all but conditions on a GET as well."""
    warm_up(gateway, bucket)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small", headers).status == 200
    assert taken.count == 0
    at_once(gateway, "GET", f"/{bucket}/k", headers=headers)
    assert taken.count == ("If-None-Match" in headers)


@pytest.mark.parametrize(
    "query", ["?versionId=null", "?tagging", "?response-content-type=text/x", "?partNumber=1", "?x-amz-acl=private"]
)
def test_a_parameter_that_means_something_is_for_the_road(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, query: str
) -> None:
    """Of a GET."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    assert at_once(gateway, "GET", f"/{bucket}/k{query}").status in (200, 206)
    assert taken.count == 0


def test_what_an_sdk_adds_is_not(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """x-id."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    assert at_once(gateway, "GET", f"/{bucket}/k?x-id=GetObject").body == b"small"
    assert taken.count == 1


@pytest.mark.parametrize(("method", "body"), [("PUT", b"small"), ("GET", b"")])
def test_a_presigned_request(gateway: Gateway, s3: Any, bucket: str, taken: Taken, method: str, body: bytes) -> None:
    """By address alone; not with another signature, and not for another key."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    operation, signer = f"{method.lower()}_object", gateway.client(signature_version="s3v4")
    url = signer.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": "k"})
    path = url.removeprefix(gateway.url)
    forged = path[:-1] + ("1" if path.endswith("0") else "0")
    for sent, status in ((path, 200), (forged, 403), (path.replace("/k?", "/j?"), 403)):
        request = render(method, sent, {"Host": f"{gateway.host}:{gateway.port}"}, body)
        assert converse(gateway, request)[0].status == status
    assert taken.count == 1
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k"]


def test_a_body_that_is_not_what_was_signed(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Refused by the road, and nothing is there."""
    warm_up(gateway, bucket)
    signed = sign(gateway, "PUT", f"/{bucket}/k", b"what was signed")
    data = render("PUT", f"/{bucket}/k", {"Host": f"{gateway.host}:{gateway.port}", **signed}, b"another body")
    (answer, *_) = parse(send_bytes(gateway, data, b"</Error>"))
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch") and taken.count == 0
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_another_user(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Who does not own the bucket is the road's to refuse, whether the object is there or not."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    send(gateway, "GET", f"/{bucket}/k", name="bob")
    for method, body in (("GET", b""), ("PUT", b"small")):
        assert at_once(gateway, method, f"/{bucket}/k", body, name="bob").status == 403
    assert taken.count == 0


def test_a_bucket_with_settings_is_written_by_the_road(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """A default encryption, say, which the very next PUT must heed."""
    warm_up(gateway, bucket)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small").status == 200 and taken.count == 1
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small").headers["x-amz-server-side-encryption"] == "aws:kms"
    assert at_once(gateway, "GET", f"/{bucket}/k").headers["x-amz-server-side-encryption"] == "aws:kms"
    assert taken.count == 1


def test_a_change_of_the_configuration_is_seen_at_once(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """A bucket that is gone takes no PUT, and one of its name is another one."""
    warm_up(gateway, bucket)
    s3.delete_bucket(Bucket=bucket)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small").code == "NoSuchBucket"
    assert at_once(gateway, "GET", f"/{bucket}/k").code == "NoSuchBucket"
    assert taken.count == 0


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [(SessionFenced(), 503, "ServiceUnavailable"), (Unavailable("gone", outcome="unknown"), 503, "SlowDown")],
)
def test_a_commit_that_fails_is_told(
    gateway: Gateway,
    bucket: str,
    taken: Taken,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Exception,
    status: int,
    code: str,
) -> None:
    """In the words of the road, with an id, on a connection that lives."""
    warm_up(gateway, bucket)
    loop = gateway.loop

    def fail(self: Any, _: Any, on_outcome: Callable[[Any], None]) -> None:
        loop.call_later(0.01, on_outcome, outcome)

    monkeypatch.setattr(type(gateway.services.objects.held._at_once), "submit", fail)
    answer = at_once(gateway, "PUT", f"/{bucket}/k", b"small")
    assert taken.count == 1
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (status, code, "1")
    assert answer.headers["x-amz-request-id"].encode() in answer.body


def test_a_metadata_that_takes_nothing_is_for_the_road(
    gateway: Gateway, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The road waits for it to come back."""
    warm_up(gateway, bucket)

    def fail(self: Any, _: Any, __: Callable[[Any], None]) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(type(gateway.services.objects.held._at_once), "submit", fail)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small").status == 200
    assert taken.count == 0


def test_requests_behind_a_commit_wait_their_turn(gateway: Gateway, bucket: str, taken: Taken) -> None:
    """Pipelined ones are answered in order: the first PUT goes the short way, what comes behind it the road."""
    warm_up(gateway, bucket)
    host = {"Host": f"{gateway.host}:{gateway.port}"}
    data = b""
    for method, body in (("PUT", b"first"), ("GET", b""), ("PUT", b"second"), ("GET", b"")):
        data += render(method, f"/{bucket}/k", host | sign(gateway, method, f"/{bucket}/k", body), body)
    answers = converse(gateway, data)
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.body for answer in answers] == [b"", b"first", b"", b"second"]
    assert taken.count >= 1


def test_pipelined_reads(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """All are answered, one after the other."""
    s3.put_object(Bucket=bucket, Key="k", Body=bytes(16_000))
    signed = {"Host": f"{gateway.host}:{gateway.port}", **sign(gateway, "GET", f"/{bucket}/k")}
    answers = converse(gateway, render("GET", f"/{bucket}/k", signed) * 10)
    assert [answer.body for answer in answers] == [bytes(16_000)] * 10
    assert taken.count >= 1


def test_what_has_not_left_holds_back_the_next_answer(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that does not read is the road's, which waits for it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")

    def is_full(self: GatewayProtocol) -> bool:
        transport = self.transport
        try:
            self.transport = SimpleNamespace(get_write_buffer_size=lambda: 1)
            return may_be_short(self)
        finally:
            self.transport = transport

    may_be_short = GatewayProtocol._may_be_short
    monkeypatch.setattr(GatewayProtocol, "_may_be_short", is_full)
    assert at_once(gateway, "GET", f"/{bucket}/k").body == b"small"
    assert taken.count == 0


def test_a_client_that_does_not_wait(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Its object is committed all the same, and nothing breaks."""
    warm_up(gateway, bucket)
    signed = sign(gateway, "PUT", f"/{bucket}/k", b"small")
    send_bytes(
        gateway, render("PUT", f"/{bucket}/k", {"Host": f"{gateway.host}:{gateway.port}", **signed}, b"small"), b""
    )
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="k", WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"small"


def test_a_connection_that_was_only_served_the_short_way_is_watched(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays open while it is idle, and so does the server."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    monkeypatch.setattr("s3gw.server.STALL_CHECK_S", 0.0)
    signed = {"Host": f"{gateway.host}:{gateway.port}", **sign(gateway, "GET", f"/{bucket}/k")}
    with socket.create_connection((gateway.host, gateway.port), timeout=20) as connection:
        for _ in range(2):
            connection.sendall(render("GET", f"/{bucket}/k", signed))
            received = b""
            while not received.endswith(b"small"):
                received += connection.recv(65536)
            time.sleep(2 * TICK_S)
    assert taken.count == 2


def test_a_first_body_in_pieces_takes_the_road(gateway: Gateway, bucket: str, taken: Taken) -> None:
    """Whatever has come of it is not lost."""
    warm_up(gateway, bucket)
    signed = sign(gateway, "PUT", f"/{bucket}/k", b"in two pieces")
    data = render("PUT", f"/{bucket}/k", {"Host": f"{gateway.host}:{gateway.port}", **signed}, b"in two pieces")
    for cut in (1, 7, len("in two pieces")):
        with socket.create_connection((gateway.host, gateway.port), timeout=20) as connection:
            connection.sendall(data[:-cut])
            assert send(gateway, "GET", "/-/healthy", name=None).status == 200  # the first piece was read by now
            connection.sendall(data[-cut:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert taken.count == 0
        assert send(gateway, "GET", f"/{bucket}/k").body == b"in two pieces"


@pytest.mark.parametrize("size", [0, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1])
def test_sizes(gateway: Gateway, bucket: str, size: int) -> None:
    """None, the largest and one above it."""
    warm_up(gateway, bucket)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"x" * size).status == 200
    assert at_once(gateway, "GET", f"/{bucket}/k").body == b"x" * size


def test_a_marker_and_a_lock_are_for_the_road(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Both say more than the short way can."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"small")
    s3.delete_object(Bucket=bucket, Key="k")
    answer = at_once(gateway, "GET", f"/{bucket}/k")
    assert (answer.status, answer.headers["x-amz-delete-marker"]) == (404, "true")
    locked = f"{bucket}-locked"
    s3.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    s3.put_object(Bucket=locked, Key="k", Body=b"small", ObjectLockLegalHoldStatus="ON")
    assert at_once(gateway, "GET", f"/{locked}/k").headers["x-amz-object-lock-legal-hold"] == "ON"
    assert taken.count == 0


def test_it_counts_like_the_road(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Requests and bytes in the metrics."""

    def count(name: str) -> float:
        found = re.search(
            rf"^{re.escape(name)} (\S+)$", send(gateway, "GET", "/-/metrics", name=None).body.decode(), re.M
        )
        return float(found[1]) if found else 0.0

    names = [
        'frostbyte_s3_requests_total{operation="PutObject",status="200"}',
        'frostbyte_s3_requests_total{operation="GetObject",status="200"}',
        "frostbyte_s3_received_bytes_total",
        "frostbyte_s3_sent_bytes_total",
    ]
    warm_up(gateway, bucket)
    before = [count(name) for name in names]
    at_once(gateway, "PUT", f"/{bucket}/k", b"small")
    at_once(gateway, "GET", f"/{bucket}/k")
    assert taken.count == 2
    assert [count(name) - then for name, then in zip(names, before, strict=True)] == [1, 1, 5, 5]


def test_an_engine_that_waits_for_a_server_has_no_short_way(
    gateway: Gateway, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with PostgreSQL."""
    warm_up(gateway, bucket)
    objects, directory = gateway.services.objects, gateway.services.directory
    for door in (objects.held, objects._reader, directory):
        monkeypatch.setattr(door, "_at_once", None)
    assert at_once(gateway, "PUT", f"/{bucket}/k", b"small").status == 200
    assert at_once(gateway, "GET", f"/{bucket}/k").body == b"small"
    assert taken.count == 0
