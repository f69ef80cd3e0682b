"""PUTs of one chunk on the short way, over a whole gateway: they say and do what the road does, and leave nothing where
they end early."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from s3gw import short_write
from storage.base.errors import NodeFull, SessionFenced, Unavailable
from tests.cluster.world import SETTINGS
from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import Answer, send, sign
from tests.s3gw.test_short_way import Taken, parse, render, taken, told, warm_up

__all__ = ["taken"]

CHUNK = SETTINGS.chunk_bytes
WAIT_S = 20.0
SIZES = [1, short_write.SMALL_BYTES_MAX, short_write.SMALL_BYTES_MAX + 1, 65_536, 65_537, CHUNK]


@contextmanager
def used(gateway: Gateway) -> Iterator[socket.socket]:
    """A connection that has had an answer."""
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_S) as connection:
        connection.sendall(render("GET", "/-/healthy", {"Host": f"{gateway.host}:{gateway.port}"}))
        assert receive(connection).status == 200
        yield connection


def receive(connection: socket.socket) -> Answer:
    """One whole answer."""
    got = b""
    while True:
        piece = connection.recv(65536)
        got += piece
        head, found, body = got.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
        if not piece or (found and len(body) >= int(lengths[0].partition(b": ")[2])):
            (answer,) = parse(got)
            return answer


def put(gateway: Gateway, bucket: str, body: bytes, headers: dict[str, str] | None = None, key: str = "k") -> bytes:
    """The bytes of a PUT whose body is signed."""
    host = {"Host": f"{gateway.host}:{gateway.port}"}
    return render("PUT", f"/{bucket}/{key}", host | sign(gateway, "PUT", f"/{bucket}/{key}", body, headers), body)


def ask(connection: socket.socket, *pieces: bytes) -> Answer:
    """Each piece on its own."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        connection.sendall(piece)
        time.sleep(0.01)
    return receive(connection)


def held_bytes(gateway: Gateway) -> int:
    """What the budget of the worker counts."""
    budget: int = gateway.services.objects._writer._services.budget.held_bytes
    return budget


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [0, 1])
def test_a_write_says_and_does_what_the_road_does(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, size: int, cut: int
) -> None:
    """Whole, or with its last byte apart."""
    warm_up(gateway, bucket)
    body = os.urandom(size)
    headers = {"Content-Type": "text/x"}
    with used(gateway) as connection:
        by_road = ask(connection, put(gateway, bucket, body, headers | {"x-amz-meta-a": "b"}, "road"))
        assert taken.count == 0
        data = put(gateway, bucket, body, headers, "short")
        short = ask(connection, *(piece for piece in (data[: len(data) - cut], data[len(data) - cut :]) if piece))
    assert taken.count == 1
    assert told(short) == told(by_road)
    first, second = (s3.get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED") for key in ("road", "short"))
    assert second["Body"].read() == first["Body"].read() == body
    for name in ("ETag", "ContentType", "ChecksumCRC64NVME", "ChecksumType", "ServerSideEncryption"):
        assert second[name] == first[name], name
    assert held_bytes(gateway) == 0


def test_more_than_a_chunk_takes_the_road(gateway: Gateway, bucket: str, taken: Taken) -> None:
    """And is served."""
    warm_up(gateway, bucket)
    body = os.urandom(CHUNK + 1)
    with used(gateway) as connection:
        assert ask(connection, put(gateway, bucket, body)).status == 200
    assert taken.count == 0 and send(gateway, "GET", f"/{bucket}/k").body == body


@pytest.mark.parametrize("cut", [0, 1, 70_000])
def test_a_body_that_is_not_what_was_signed(gateway: Gateway, s3: Any, bucket: str, taken: Taken, cut: int) -> None:
    """Refused in the words of the road, and nothing is there."""
    warm_up(gateway, bucket)
    data = put(gateway, bucket, bytes(100_000))[:-1] + b"x"
    with used(gateway) as connection:
        answer = ask(connection, *(piece for piece in (data[: len(data) - cut], data[len(data) - cut :]) if piece))
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch") and taken.count == 0
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert held_bytes(gateway) == 0


def test_a_signature_that_does_not_hold(gateway: Gateway, bucket: str, taken: Taken) -> None:
    """It is refused before the body has come."""
    warm_up(gateway, bucket)
    data = put(gateway, bucket, bytes(100_000)).replace(b"Signature=", b"Signature=0", 1)
    with used(gateway) as connection:
        assert ask(connection, data[:-1]).code in ("SignatureDoesNotMatch", "AuthorizationHeaderMalformed")
    assert taken.count == 0


def test_a_client_that_goes_in_the_middle(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Nothing stays and nothing is held."""
    warm_up(gateway, bucket)
    with used(gateway) as connection:
        connection.sendall(put(gateway, bucket, bytes(100_000))[:-1])
        time.sleep(0.05)
    time.sleep(0.05)
    assert taken.count == 0 and "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_client_that_trickles(gateway: Gateway, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the road's after a while, which takes what has come; the next one goes the short way again."""
    monkeypatch.setattr("s3gw.gathering.GATHERING_S_MAX", 0.1)
    warm_up(gateway, bucket)
    body = os.urandom(30_000)
    data = put(gateway, bucket, body)
    with used(gateway) as connection:
        pieces = [data[at : at + 1500] for at in range(0, len(data), 1500)]
        assert ask(connection, *pieces).status == 200
        assert taken.count == 0
        assert ask(connection, put(gateway, bucket, body)).status == 200
    assert taken.count == 1 and send(gateway, "GET", f"/{bucket}/k").body == body


def test_what_is_held_is_bounded(gateway: Gateway, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes beyond takes the road; when the first has ended there is room again."""
    monkeypatch.setattr("s3gw.short_write.HELD_BYTES_MAX", 150_000)
    warm_up(gateway, bucket)
    body = os.urandom(100_000)
    data = put(gateway, bucket, body)
    with used(gateway) as first, used(gateway) as second:
        first.sendall(data[:-1])
        time.sleep(0.05)
        assert ask(second, data).status == 200
        assert taken.count == 0
        assert ask(first, data[-1:]).status == 200
        assert taken.count == 1
        assert ask(second, data).status == 200
    assert taken.count == 2


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (SessionFenced(), 503, "ServiceUnavailable"),
        (Unavailable("gone", outcome="unknown"), 503, "SlowDown"),
        (NodeFull(), 503, "ServiceUnavailable"),
        (RuntimeError("a mistake"), 500, "InternalError"),
    ],
)
def test_a_put_that_fails_is_told(
    gateway: Gateway,
    bucket: str,
    taken: Taken,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Exception,
    status: int,
    code: str,
) -> None:
    """In the words of the road, on a connection that lives."""
    warm_up(gateway, bucket)

    async def fail(*_: Any) -> None:
        raise outcome

    with used(gateway) as connection, used(gateway) as other:
        with monkeypatch.context() as failing:
            failing.setattr(gateway.services.objects, "put", fail)
            failing.setattr(gateway.services.objects.held, "put_whole", fail)
            short = ask(connection, put(gateway, bucket, bytes(100_000)))
            assert taken.count == 1
            by_road = ask(other, put(gateway, bucket, bytes(100_000), {"x-amz-meta-a": "b"}))
        assert (short.status, short.code) == (by_road.status, by_road.code) == (status, code)
        assert short.headers["x-amz-request-id"].encode() in short.body
        assert ask(connection, put(gateway, bucket, bytes(100_000))).status == 200
    assert taken.count == 2


def test_requests_behind_a_put_wait_their_turn(gateway: Gateway, bucket: str, taken: Taken) -> None:
    """While its chunk is being stored."""
    warm_up(gateway, bucket)
    bodies = [os.urandom(100_000) for _ in range(3)]
    host = {"Host": f"{gateway.host}:{gateway.port}"}
    reading = render("GET", f"/{bucket}/k", host | sign(gateway, "GET", f"/{bucket}/k"))
    with used(gateway) as connection:
        for body in bodies:
            connection.sendall(put(gateway, bucket, body))
            connection.sendall(reading)
            got = b""
            while not got.endswith(body):
                got += connection.recv(65536)
            assert [(answer.status, answer.body) for answer in parse(got)] == [(200, b""), (200, body)]
