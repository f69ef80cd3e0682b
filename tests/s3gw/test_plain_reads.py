"""Plain reads past the parser: on connections that it shares with the parser, whose requests are as ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s3gw.connection import GatewayProtocol
from s3gw.short_answer import LONG_READS_EXPECTED_MAX
from s3gw.short_way import ShortRead
from tests.s3gw.echo import Running, head, on_uvloop, read_until, running


class Shorts:
    """A short way that knows /short, and which of its requests came past the parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[bytes] = []
        self.plain = 0
        serve_plain = GatewayProtocol._serve_plain

        def counted(protocol: GatewayProtocol, data: bytes) -> bool:
            is_served = serve_plain(protocol, data)
            self.plain += is_served
            return is_served

        monkeypatch.setattr(GatewayProtocol, "_serve_plain", counted)

    def read(self, method: str, url: bytes, headers: dict[bytes, bytes], *_: Any) -> ShortRead | None:
        """`short`, or nothing."""
        self.asked.append(url)
        if not url.startswith(b"/short"):
            return None
        body = b"short" + url if method == "GET" else b""
        return ShortRead(200, b"content-length: %d\r\n" % len(body), body, lambda: lambda: None)

    def begin_write(self, *_: Any) -> None:
        """No PUT."""

    def find_known(self, _: bytes) -> None:
        """None is."""


@pytest.fixture
def shorts(monkeypatch: pytest.MonkeyPatch) -> Shorts:
    """One that counts."""
    return Shorts(monkeypatch)


async def ask(server: Running, *requests: tuple[bytes, bytes]) -> None:
    """Each of (bytes, what its answer ends with), one after the other on one connection."""
    async with server.connect() as (reader, writer):
        for sent, expected in requests:
            writer.write(sent)
            got = await read_until(reader, expected)
            assert got.endswith(expected) and got.count(b"HTTP/1.1 200") == 1


@on_uvloop
async def test_the_first_request_is_the_parsers(shorts: Shorts) -> None:
    """Those after it need it no more, whatever came between."""
    async with running(short_way=shorts) as server:
        await ask(
            server,
            (head(b"GET", b"/short/1"), b"short/short/1"),
            (head(b"GET", b"/short/2"), b"short/short/2"),
            (head(b"HEAD", b"/short/3"), b"content-length: 0\r\n\r\n"),
            (head(b"PUT", b"/long", b"Content-Length: 2") + b"ab", b"PUT /long 2 2"),
            (head(b"GET", b"/short/4"), b"short/short/4"),
            (head(b"GET", b"/short/5", b"If-Range: x"), b"short/short/5"),
        )
    assert shorts.plain == 3
    assert shorts.asked == [b"/short/%d" % number for number in range(1, 6)]


@on_uvloop
async def test_what_the_short_way_does_not_take(shorts: Shorts) -> None:
    """Goes on by the parser, asked once; the more of them there are, the more of the next ones go there unasked."""
    short, long = (head(b"GET", b"/short"), b"short/short"), (head(b"GET", b"/long"), b"GET /long 0 1")
    runs = [0, 1, 3, LONG_READS_EXPECTED_MAX, LONG_READS_EXPECTED_MAX]
    async with running(short_way=shorts) as server:
        await ask(server, short, *[long] * (len(runs) + sum(runs)), short, long, long)
    assert shorts.asked == [b"/short", *[b"/long"] * len(runs), b"/short", b"/long", b"/long"]
    assert shorts.plain == 1


@on_uvloop
async def test_a_head_in_pieces_and_two_in_one(shorts: Shorts) -> None:
    """After a plain one: all are the parser's."""
    one, two = head(b"GET", b"/short/1"), head(b"GET", b"/short/2")
    async with running(short_way=shorts) as server, server.connect() as (reader, writer):
        for _ in range(2):
            writer.write(one)
            await read_until(reader, b"short/short/1")
        assert shorts.plain == 1
        for cut in (1, 5, len(one) - 1):
            count = len(shorts.asked)
            writer.write(one[:cut])
            await writer.drain()
            await asyncio.sleep(0.02)
            assert len(shorts.asked) == count
            writer.write(one[cut:])
            assert (await read_until(reader, b"short/short/1")).count(b"HTTP/1.1 200") == 1
        writer.write(one + two)
        assert (await read_until(reader, b"short/short/2")).count(b"HTTP/1.1 200") == 2
        writer.write(one + two[:9])
        assert (await read_until(reader, b"short/short/1")).count(b"HTTP/1.1 200") == 1
        writer.write(two[9:])
        assert (await read_until(reader, b"short/short/2")).count(b"HTTP/1.1 200") == 1
        writer.write(b"\r\n" + one)
        await read_until(reader, b"short/short/1")
        assert shorts.plain == 1
        writer.write(two)
        await read_until(reader, b"short/short/2")
        assert shorts.plain == 2


@on_uvloop
async def test_an_idle_connection_ends_after_the_last_of_them(shorts: Shorts, made: list[GatewayProtocol]) -> None:
    """The timer that the first request set looks again when it is due, and closes an idle one."""
    async with running(short_way=shorts) as server, server.connect() as (reader, writer):
        for _ in range(2):
            writer.write(head(b"GET", b"/short"))
            await read_until(reader, b"short/short")
        (protocol,) = made
        first = protocol.timeout_keep_alive_task
        protocol.timeout_keep_alive_handler()
        assert protocol.timeout_keep_alive_task is not first and not protocol.transport.is_closing()
        protocol._served_s -= protocol.timeout_keep_alive
        protocol.timeout_keep_alive_handler()
        assert await read_until(reader) == b""
    assert shorts.plain == 1
