"""The short way of objects that are one chunk in a directory of this machine: it says what the road says, at any size,
and a client that does not read holds no more than it may."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cluster.directory import Directory
from cluster.objectstore import ObjectStore
from s3gw.connection import GatewayProtocol
from s3gw.short_write import SMALL_BYTES_MAX
from storage.base.cached_files import open_cached
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import SETTINGS, open_world
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import Answer, send, sign
from tests.s3gw.test_short_way import Taken, at_once, parse, render, taken, told, warm_up

__all__ = ["taken"]

CHUNK = SETTINGS.chunk_bytes
WAIT_S = 20.0
ATTEMPTS_MAX = 10
NODES: list[FaultyDatanode] = []


@asynccontextmanager
async def near_doors() -> AsyncIterator[tuple[ObjectStore, Directory]]:
    """Over datanodes whose directories are read directly."""
    with TemporaryDirectory() as home:
        async with open_world(Path(home), near=True) as world:
            NODES[:] = world.nodes.values()
            yield world.cluster.objects, world.cluster.directory


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """In place of the one without directories."""
    probe = tmp_path_factory.mktemp("probe") / "file"
    probe.write_bytes(b"x")
    file = open_cached(os.fsencode(probe))
    if file is None or not file.read_cached(bytearray(1), 0):
        pytest.skip("this file system does not tell what it has in memory")
    with running_gateway(doors=near_doors) as running:
        yield running


def sending_bytes(gateway: Gateway) -> int:
    """What the worker counts as handed over and not sent."""
    return gateway.services.objects._reader._runs.sending_bytes


def wait_for_rest(gateway: Gateway) -> None:
    """Until nothing is counted any more."""
    until_s = time.monotonic() + WAIT_S
    while sending_bytes(gateway):
        assert time.monotonic() < until_s, "what has left is still counted"
        time.sleep(0.01)


def get(gateway: Gateway, bucket: str) -> bytes:
    """The bytes of a signed GET."""
    signed = {"Host": f"{gateway.host}:{gateway.port}", **sign(gateway, "GET", f"/{bucket}/k")}
    return render("GET", f"/{bucket}/k", signed)


def shortly(gateway: Gateway, taken: Taken, method: str, path: str, headers: dict[str, str]) -> Answer:
    """What the short way answers. Tried again where it left the request to the road: while somebody else's names are
    just being changed, a kernel may not be able to say at once what it has in memory."""
    for _ in range(ATTEMPTS_MAX):
        count = taken.count
        answer = at_once(gateway, method, path, headers=headers)
        if taken.count > count:
            return answer
    raise AssertionError(f"{method} {path} never went the short way")


@pytest.mark.parametrize("size", [(16 << 10) + 1, 65_535, 65_536, 65_537, CHUNK])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_of_a_chunk_says_what_the_road_says(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, size: int, method: str
) -> None:
    """Twice, as the same memory is used again."""
    bodies = [os.urandom(size), os.urandom(size - 1)]
    for number, body in enumerate(bodies):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=body, Metadata={"m": "value"})
    for number, body in enumerate(bodies):
        path = f"/{bucket}/k{number}"
        headers = {"x-amz-checksum-mode": "ENABLED"}
        by_road = send(gateway, method, path, headers=headers)
        assert taken.count == number
        short = shortly(gateway, taken, method, path, headers)
        assert told(short) == told(by_road)
        assert short.body == (body if method == "GET" else b"")
    assert sending_bytes(gateway) == 0


RANGES = ["0-0", "1-", "-1", "-999999", "3-70000", "65535-65536", "65536-", "0-999999", "4-1", "x", "0-1,3-4"]


@pytest.mark.parametrize("size", [5, 70_000, CHUNK])
@pytest.mark.parametrize("text", RANGES)
def test_a_range_says_what_the_road_says(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, size: int, text: str
) -> None:
    """Of an inline body and of a chunk, wherever it begins and ends; one that cannot be met is for the road."""
    s3.put_object(Bucket=bucket, Key="k", Body=os.urandom(size), CacheControl="no-store")
    headers = {"Range": f"bytes={text}", "x-amz-checksum-mode": "ENABLED"}
    for method in ("GET", "HEAD"):
        count = taken.count
        by_road = send(gateway, method, f"/{bucket}/k", headers=headers)
        if by_road.status == 416:
            short = at_once(gateway, method, f"/{bucket}/k", headers=headers)
            assert short.status == 416 and short.headers["content-range"] == by_road.headers["content-range"]
            assert taken.count == count
        else:
            short = shortly(gateway, taken, method, f"/{bucket}/k", headers)
            assert told(short) == told(by_road)
        assert short.status == {"4-1": 200, "x": 200, "0-1,3-4": 200}.get(text, short.status)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("size", [5, 70_000])
@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"If-None-Match": "ETAG"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Match": "ETAG"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}, 304),
        ({"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 200),
        ({"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412),
        ({"If-Unmodified-Since": "nonsense", "If-None-Match": "*"}, 304),
        ({"If-Match": "ETAG", "If-None-Match": "ETAG", "Range": "bytes=0-1"}, 304),
        ({"If-Match": "ETAG", "Range": "bytes=0-1"}, 206),
        ({"If-Range": "ETAG", "Range": "bytes=0-1"}, 206),
    ],
)
def test_conditions_say_what_the_road_says(
    gateway: Gateway,
    s3: Any,
    bucket: str,
    taken: Taken,
    method: str,
    size: int,
    conditions: dict[str, str],
    status: int,
) -> None:
    """An unmodified object is told without its body; what fails is refused by the road."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=os.urandom(size), CacheControl="no-store")["ETag"]
    headers = {name: text.replace("ETAG", etag) for name, text in conditions.items()}
    by_road = send(gateway, method, f"/{bucket}/k", headers=headers)
    assert by_road.status == status and taken.count == 0
    if status != 412 and "If-Range" not in headers:
        assert told(shortly(gateway, taken, method, f"/{bucket}/k", headers)) == told(by_road)
        return
    refused = at_once(gateway, method, f"/{bucket}/k", headers=headers)
    if status == 412 and method == "GET":
        assert (refused.status, refused.code) == (by_road.status, by_road.code)
    else:
        assert told(refused) == told(by_road)
    assert taken.count == 0


@pytest.mark.parametrize("how", ["get_corrupts", "get_ends_early", "down"])
def test_a_bad_replica_is_for_the_road(gateway: Gateway, s3: Any, bucket: str, taken: Taken, how: str) -> None:
    """Which reads the other one; nothing wrong is ever sent."""
    body = os.urandom(100_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    bad = NODES[0]
    try:
        setattr(bad, how, True)
        for _ in range(12):
            assert at_once(gateway, "GET", f"/{bucket}/k").body == body
    finally:
        setattr(bad, how, False)


def test_two_chunks_are_for_the_road(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """One byte more than one."""
    body = os.urandom(CHUNK + 1)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert at_once(gateway, "GET", f"/{bucket}/k").body == body
    assert taken.count == 0


def test_a_client_that_does_not_read_is_waited_for(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """What it has not taken is counted, requests behind it wait, and it gets all of it in order."""
    body = os.urandom(CHUNK)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_S) as connection:
        asked = 0
        while not sending_bytes(gateway):
            connection.sendall(get(gateway, bucket))
            asked += 1
            assert asked < 100
            time.sleep(0.01)
        assert 0 < taken.count <= asked
        connection.sendall(get(gateway, bucket) + get(gateway, bucket))
        asked += 2
        received = b""
        while received.count(b"HTTP/1.1 200") < asked or not received.endswith(body):
            received += connection.recv(1 << 20)
    assert [answer.body for answer in parse(received)] == [body] * asked
    wait_for_rest(gateway)


def test_a_client_that_goes_is_not(gateway: Gateway, s3: Any, bucket: str, taken: Taken) -> None:
    """Nothing of it is counted for ever, and the memory is not the next one's before."""
    body = os.urandom(CHUNK)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_S) as connection:
        while not sending_bytes(gateway):
            connection.sendall(get(gateway, bucket))
            time.sleep(0.01)
        assert at_once(gateway, "GET", f"/{bucket}/k").body == body
    wait_for_rest(gateway)


def test_too_much_that_is_not_read_is_for_the_road(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which gives single frames then."""
    body = os.urandom(CHUNK)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    monkeypatch.setattr(gateway.services.objects._reader._runs, "_sending_bytes_max", CHUNK - 1)
    assert at_once(gateway, "GET", f"/{bucket}/k").body == body
    assert taken.count == 0


def test_under_tls_a_chunk_is_for_the_road(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What such a transport still holds cannot be asked; a small object goes the short way."""
    warm_up(gateway, bucket)
    connection_made = GatewayProtocol.connection_made

    def secured(self: GatewayProtocol, transport: Any) -> None:
        connection_made(self, transport)
        self._read_bytes_max = SMALL_BYTES_MAX

    monkeypatch.setattr(GatewayProtocol, "connection_made", secured)
    for size, count in ((20_000, 0), (10_000, 1)):
        body = os.urandom(size)
        s3.put_object(Bucket=bucket, Key="k", Body=body)
        assert at_once(gateway, "GET", f"/{bucket}/k").body == body
        assert taken.count == count


def test_a_client_that_takes_nothing_is_cut(
    gateway: Gateway, s3: Any, bucket: str, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the road, and its memory is free again."""
    s3.put_object(Bucket=bucket, Key="k", Body=os.urandom(CHUNK))
    with socket.create_connection((gateway.host, gateway.port), timeout=WAIT_S) as connection:
        while not sending_bytes(gateway):
            connection.sendall(get(gateway, bucket))
            time.sleep(0.01)
        monkeypatch.setattr("storage.base.internal_server.STALL_TIMEOUT_S", 0.05)
        monkeypatch.setattr("s3gw.server.STALL_CHECK_S", 0.0)
        wait_for_rest(gateway)
