"""Presigned requests like earlier ones, over a whole gateway: known by their heads, and each checked all the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from s3gw.call import Settings
from s3gw.known_heads import KnownRequest
from s3gw.short_asker import Asked, ShortAsker
from tests.bench.requests import presign_all
from tests.clients.endpoint import Endpoint
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import Answer, send
from tests.s3gw.test_short_way import parse, warm_up

WAIT_S = 20.0
BODY = b"some bytes"


class Known:
    """How many requests were known by their heads, and how many of those hold."""

    def __init__(self) -> None:
        self.asked = self.held = 0


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Counts them."""
    counts, authenticate = Known(), ShortAsker.authenticate_known

    def counted(self: ShortAsker, request: KnownRequest, client_address: str) -> Asked | None:
        asked = authenticate(self, request, client_address)
        counts.asked += 1
        counts.held += asked is not None
        return asked

    monkeypatch.setattr(ShortAsker, "authenticate_known", counted)
    return counts


def targets(gateway: Gateway, method: str, paths: Sequence[str], name: str = "alice", host: str = "") -> list[bytes]:
    """Presigned within one second."""
    endpoint = Endpoint(f"http://{host}" if host else gateway.url, name, f"secret-of-{name}")
    return [target.encode() for target in presign_all(endpoint, method, paths)]


def converse(gateway: Gateway, method: bytes, urls: Sequence[bytes], body: bytes = b"", host: str = "") -> list[Answer]:
    """The answers on one connection, each asked for after the one before; its first is of the parser. Heads are those
    of the bucket, as other tests presign in the same second."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    host_line = b"Host: %b\r\n" % (host or f"{gateway.host}:{gateway.port}").encode()
    head = b"%bUser-Agent: %b\r\n%b\r\n" % (host_line, urls[0].split(b"/")[1], length)
    asked = [b"%b %b HTTP/1.1\r\n%b%b" % (method, url, head, body) for url in urls]
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_S) as connection:
        ask(connection, b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
        return [ask(connection, data) for data in asked]


def ask(connection: socket.socket, data: bytes) -> Answer:
    """The answer to one request."""
    connection.sendall(data)
    got = b""
    while not is_whole(got, data.partition(b" ")[0]):
        piece = connection.recv(65536)
        assert piece, got
        got += piece
    (answer,) = parse(got)
    return answer


def is_whole(got: bytes, method: bytes) -> bool:
    """Whether that is an answer to its last byte."""
    head, end, body = got.partition(b"\r\n\r\n")
    if not end:
        return False
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return method == b"HEAD" or len(body) == int(length)


def forge(url: bytes) -> bytes:
    """Another signature."""
    return url[:-1] + (b"1" if url.endswith(b"0") else b"0")


def test_writes_and_reads_are_known(gateway: Gateway, bucket: str, known: Known) -> None:
    """From the second on; on other connections from the first."""
    warm_up(gateway, bucket)
    paths = [f"/{bucket}/k-{number}" for number in range(5)]
    written = converse(gateway, b"PUT", targets(gateway, "PUT", paths), BODY)
    assert [answer.status for answer in written] == [200] * 5 and known.asked == known.held == 4
    assert len({answer.headers["x-amz-request-id"] for answer in written}) == 5
    for method in ("GET", "HEAD"):
        urls = targets(gateway, method, paths)
        for count in (4, 5):
            known.asked = known.held = 0
            read = converse(gateway, method.encode(), urls)
            assert [answer.status for answer in read] == [200] * 5 and known.asked == known.held == count
            assert {answer.headers["etag"] for answer in read} == {written[0].headers["etag"]}
            assert all(answer.body == (BODY if method == "GET" else b"") for answer in read)


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_signature_is_of_one_path(gateway: Gateway, bucket: str, known: Known, method: str) -> None:
    """That of another, or none at all, is refused in the words of the road."""
    warm_up(gateway, bucket)
    body = BODY if method == "PUT" else b""
    assert send(gateway, "PUT", f"/{bucket}/k-0", BODY).status == 200
    urls = targets(gateway, method, [f"/{bucket}/k-0"] * 3)
    answers = converse(gateway, method.encode(), [*urls[:2], forge(urls[2])], body)
    assert [answer.status for answer in answers] == [200, 200, 403] and answers[2].code == "SignatureDoesNotMatch"
    assert (known.asked, known.held) == (2, 1)
    moved = urls[0].replace(b"/k-0?", b"/k-1?")
    (answer,) = converse(gateway, method.encode(), [moved], body)
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch") and known.asked == 3


def test_a_bucket_of_somebody_else(gateway: Gateway, bucket: str, known: Known) -> None:
    """Whoever is known may do no more than before."""
    gateway.client("bob").create_bucket(Bucket=f"{bucket}-of-bob")
    paths = [f"/{bucket}-of-bob/k"] * 4 + [f"/{bucket}/k"]
    warm_up(gateway, bucket)
    answers = converse(gateway, b"PUT", targets(gateway, "PUT", paths, "bob"), BODY)
    assert [answer.status for answer in answers] == [200] * 4 + [403]
    assert answers[-1].code == "AccessDenied" and known.asked > known.held > 0


def test_a_bucket_that_has_gone(gateway: Gateway, s3: Any, bucket: str, known: Known) -> None:
    """What is known of a head says nothing of what is there."""
    warm_up(gateway, bucket)
    urls = targets(gateway, "PUT", [f"/{bucket}/k"])
    assert [answer.status for answer in converse(gateway, b"PUT", urls * 3, BODY)] == [200] * 3
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    known.asked = known.held = 0
    (answer,) = converse(gateway, b"PUT", urls, BODY)
    assert (answer.status, answer.code) == (404, "NoSuchBucket") and known.asked == 1


@pytest.fixture(scope="module")
def behind_proxies() -> Iterator[Gateway]:
    """A gateway that takes everybody here for a proxy."""
    with running_gateway(Settings(trusted_proxies=("127.0.0.1",))) as running:
        yield running


def test_nothing_of_a_proxy_is_known(behind_proxies: Gateway, known: Known) -> None:
    """It may say what is not in the head."""
    behind_proxies.client().create_bucket(Bucket="proxied")
    urls = targets(behind_proxies, "PUT", ["/proxied/k"])
    assert [answer.status for answer in converse(behind_proxies, b"PUT", urls * 4, BODY)] == [200] * 4
    assert known.asked == 0


@pytest.fixture(scope="module")
def with_domain() -> Iterator[Gateway]:
    """A gateway that knows its domain."""
    with running_gateway(Settings(domains=("frost.example",))) as running:
        yield running


def test_a_bucket_that_the_host_names(with_domain: Gateway, known: Known) -> None:
    """All of the path is a key then, and the head is not remembered."""
    client = with_domain.client()
    client.create_bucket(Bucket="named")
    host = "named.frost.example"
    answers = converse(with_domain, b"PUT", targets(with_domain, "PUT", ["/a-word/k"], host=host) * 4, BODY, host)
    assert [answer.status for answer in answers] == [200] * 4 and known.asked == 0
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="named")["Contents"]] == ["a-word/k"]
    plain = converse(with_domain, b"PUT", targets(with_domain, "PUT", ["/named/k"]) * 4, BODY)
    assert [answer.status for answer in plain] == [200] * 4 and known.held > 0
