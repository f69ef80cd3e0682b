"""The gateway's HTTP, spoken by hand over real sockets: bounds, ambiguities, keep-alive, 100 Continue."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

import s3gw.server as gateway_server
import storage.base.internal_server as internal_server
from s3gw.connection import PIPELINED_MAX, SWALLOWED_BYTES_MAX
from s3gw.http_limits import HttpLimits
from storage.base.internal_server import HEAD_BYTES_MAX
from tests.s3gw.echo import HOST, READ_TIMEOUT_S, head, on_uvloop, read_until, running


@on_uvloop
async def test_requests_follow_on_one_connection() -> None:
    """Keep-alive: the second request is answered on the same connection, each with a Date."""
    async with running() as server, server.connect() as (reader, writer):
        for path in (b"/one", b"/two"):
            writer.write(head(b"GET", path))
            got = await read_until(reader, b"GET " + path + b" 0 1")
            assert b"\r\ndate: " in got
            assert b"connection: close" not in got
            assert b"server: " not in got


@on_uvloop
async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent together are answered one after the other."""
    async with running() as server:
        requests = [head(b"PUT", b"/%d" % number, b"Content-Length: 2") + b"ab" for number in range(8)]
        got = await server.talk(b"".join(requests), until=b"PUT /7 2 2")
        assert [got.index(b"PUT /%d 2" % number) for number in range(8)] == sorted(
            got.index(b"PUT /%d 2" % number) for number in range(8)
        )


@on_uvloop
async def test_endless_pipelining_ends() -> None:
    """More waiting requests than the bound end the connection after the response under way."""
    async with running() as server:
        async with server.connect() as (reader, writer):
            writer.write(head(b"GET", b"/wait") + head(b"GET", b"/more") * (PIPELINED_MAX + 5))
            await server.app.waiting.wait()
            server.app.gate.set()
            got = await read_until(reader)
        assert got.count(b"HTTP/1.1 ") == 1
        assert b"GET /wait" in got


@pytest.mark.parametrize(
    "sent",
    [
        head(b"GET", b"/" + b"a" * HEAD_BYTES_MAX),
        head(b"GET", b"/", b"X-Long: " + b"a" * HEAD_BYTES_MAX),
        head(b"GET", b"/", *[b"X-%d: a" % number for number in range(101)]),
    ],
)
@on_uvloop
async def test_large_heads_are_refused(sent: bytes) -> None:
    """A long URL, a long header and many headers get S3's 400."""
    async with running() as server:
        got = await server.talk(sent)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"<Code>RequestHeaderSectionTooLarge</Code>" in got
        assert b"connection: close" in got


@on_uvloop
async def test_a_megabyte_of_header_is_not_read() -> None:
    """An endless header is cut while it arrives."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20 and not reader.at_eof():
                writer.write(b"a" * 65536)
                sent += 65536
                await writer.drain()
        assert sent < 64 << 20


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"BadRequest"),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 5"), b"BadRequest"),
        ((b"Content-Length: 5", b"Content-Length: 5"), b"BadRequest"),
        ((b"Content-Length: 5", b"Content-Length: 6"), b"BadRequest"),
        ((b"Content-Length: 5, 5",), b"BadRequest"),
        ((b"Content-Length: -5",), b"BadRequest"),
        ((b"Content-Length: +5",), b"BadRequest"),
        ((b"Content-Length: 0x5",), b"BadRequest"),
        ((b"Content-Length: 99999999999999999999999",), b"BadRequest"),
        ((b"Transfer-Encoding: gzip, chunked",), b"NotImplemented"),
        ((b"Transfer-Encoding: gzip",), b"NotImplemented"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), b"BadRequest"),
        ((b"Transfer-Encoding : chunked",), b"BadRequest"),
        ((b"Host: b",), b"BadRequest"),
        ((b"X-Folded: a", b" b"), b"BadRequest"),
        ((b"X-Nul: a\x00b",), b"BadRequest"),
        ((b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 5"), b"BadRequest"),
    ],
)
@on_uvloop
async def test_ambiguous_requests_are_refused(lines: tuple[bytes, ...], code: bytes) -> None:
    """What two parsers might read differently gets a 4xx/501 and a closed connection; the application sees nothing."""
    async with running() as server:
        got = await server.talk(head(b"PUT", b"/k", *lines) + b"abcde")
        assert b"<Code>" + code + b"</Code>" in got
        assert got.count(b"HTTP/1.1 ") == 1
        assert b"PUT /k" not in got


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\n" + HOST + b"\n",
        b"PUT / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
@on_uvloop
async def test_what_is_no_request_is_refused(sent: bytes) -> None:
    """TLS on the plain port, HTTP/2, a missing Host and noise get a 400."""
    async with running() as server:
        got = await server.talk(sent)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"<Code>BadRequest</Code>" in got


@on_uvloop
async def test_chunked_body_and_its_garbage() -> None:
    """A chunked body is read; broken chunk framing gets a 400 and ends the application's wait."""
    async with running() as server:
        start = head(b"PUT", b"/k", b"Transfer-Encoding: chunked")
        assert b"PUT /k 5 2" in await server.talk(start + b"5\r\nabcde\r\n0\r\n\r\n", until=b"/k 5")
        got = await server.talk(start + b"5\r\nabcde\r\n", b"zz\r\n")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert server.app.disconnects == 1


@on_uvloop
async def test_trailers_do_not_become_headers() -> None:
    """HTTP trailers are dropped, and many of them are refused."""
    async with running() as server:
        start = head(b"PUT", b"/k", b"Transfer-Encoding: chunked")
        got = await server.talk(start + b"0\r\nX-Amz-Acl: public-read\r\n\r\n", until=b"/k 0")
        assert got.endswith(b"PUT /k 0 2")
        got = await server.talk(start + b"0\r\n" + b"X-A: b\r\n" * (HEAD_BYTES_MAX // 4))
        assert got.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"5;", b"0\r\nX-Trailer: "])
@on_uvloop
async def test_bytes_that_the_parser_swallows_are_bounded(line: bytes) -> None:
    """An endless chunk extension or trailer is cut."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(head(b"PUT", b"/k", b"Transfer-Encoding: chunked") + line)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < SWALLOWED_BYTES_MAX + (64 << 20) and not reader.at_eof():
                writer.write(b"e" * 65536)
                sent += 65536
                await writer.drain()
        assert sent < 64 << 20


@on_uvloop
async def test_garbage_behind_a_request_does_not_touch_its_response() -> None:
    """The response under way is finished whole, then the connection closes."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(head(b"GET", b"/wait") + b"\x00\x01garbage\r\n\r\n")
        await server.app.waiting.wait()
        server.app.gate.set()
        got = await read_until(reader)
        assert got.endswith(b"GET /wait 0 1")
        assert got.count(b"HTTP/1.1 ") == 1


@on_uvloop
async def test_unread_body_closes_the_connection() -> None:
    """A response without the body being read ends the connection, so that the rest is never taken for a request."""
    async with running() as server:
        smuggled = head(b"GET", b"/smuggled")
        got = await server.talk(head(b"PUT", b"/ignore", b"Content-Length: 1000") + smuggled)
        assert b"PUT /ignore 0" in got
        assert b"/smuggled" not in got


@on_uvloop
async def test_body_of_a_get_that_arrived_whole_keeps_the_connection() -> None:
    """A small body that nobody reads is skipped when it is there already."""
    async with running() as server:
        got = await server.talk(head(b"GET", b"/ignore", b"Content-Length: 3") + b"abc" + head(), until=b"GET / 0 1")
        assert got.count(b"HTTP/1.1 200") == 2


@on_uvloop
async def test_continue_is_sent_at_the_first_read() -> None:
    """100 Continue comes when the application asks for the body, then the final response."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(head(b"PUT", b"/k", b"Content-Length: 3", b"Expect: 100-continue"))
        assert await read_until(reader, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert b"PUT /k 3" in await read_until(reader, b"/k 3")


@on_uvloop
async def test_no_continue_on_an_early_answer() -> None:
    """A response without the body being read sends no 100 and closes."""
    async with running() as server:
        got = await server.talk(head(b"PUT", b"/ignore", b"Content-Length: 3", b"Expect: 100-continue"))
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"100 Continue" not in got


@on_uvloop
async def test_upgrade_is_answered_and_closes() -> None:
    """A client that offers h2c gets its HTTP/1.1 response."""
    async with running() as server:
        got = await server.talk(head(b"GET", b"/k", b"Upgrade: h2c", b"Connection: Upgrade") + head())
        assert got.count(b"HTTP/1.1 200 ") == 1
        assert b"connection: close" in got


@on_uvloop
async def test_connections_are_bounded() -> None:
    """One connection too many is told to slow down; the others go on."""
    async with running(HttpLimits(connections_max=1)) as server, server.connect() as (reader, writer):
        writer.write(head())
        await read_until(reader, b"GET / 0")
        assert b"<Code>SlowDown</Code>" in await server.talk()
        writer.write(head(b"GET", b"/again"))
        assert b"/again" in await read_until(reader, b"/again")


@on_uvloop
async def test_requests_at_once_are_bounded() -> None:
    """A request above the bound gets 503 SlowDown."""
    async with running(HttpLimits(requests_max=1)) as server, server.connect() as (reader, writer):
        writer.write(head(b"GET", b"/wait"))
        await server.app.waiting.wait()
        got = await server.talk(head())
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"<Code>SlowDown</Code>" in got
        server.app.gate.set()
        assert b"GET /wait" in await read_until(reader, b"/wait")


@on_uvloop
async def test_idle_connections_are_closed() -> None:
    """A kept-alive connection that says nothing is closed."""
    async with running(HttpLimits(idle_s=0)) as server:
        assert b"GET / 0" in await server.talk(head())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stalls are looked for at once and end after a moment."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr("s3gw.connection.STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(gateway_server, "STALL_CHECK_S", 0.02)
    monkeypatch.setattr(gateway_server, "TICK_S", 0.02)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", head(b"PUT", b"/k", b"Content-Length: 9") + b"a"])
@on_uvloop
async def test_stalled_connections_are_aborted(sent: bytes) -> None:
    """No head, half a head, half a body: each ends after the stall time."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(sent)
        assert await read_until(reader) == b""


@pytest.mark.usefixtures("impatient")
@on_uvloop
async def test_blank_lines_do_not_keep_a_connection() -> None:
    """After a response, blank lines instead of a head are no life sign."""
    async with running() as server, server.connect() as (reader, writer):
        writer.write(head())
        await read_until(reader, b"GET / 0 1")
        writer.write(b"\r\n")
        assert await read_until(reader) == b""


@pytest.mark.usefixtures("impatient")
@on_uvloop
async def test_responses_that_nobody_takes_are_aborted() -> None:
    """A client that asks and does not read is let go, in the middle of a response and at its end."""
    async with running() as server, server.connect() as (_, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer.write(head(b"GET", b"/large"))
        async with asyncio.timeout(READ_TIMEOUT_S):
            await server.app.cut.wait()
