"""The gateway's HTTP, spoken by hand over real sockets: bounds, ambiguities, keep-alive, 100 Continue, TLS, drain."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

import s3gw.server as gateway_server
import storage.base.internal_server as internal_server
from s3gw.server import DEFAULT_LIMITS, PIPELINED_MAX, SWALLOWED_BYTES_MAX, HttpLimits, serve_gateway
from storage.base.internal_server import HEAD_BYTES_MAX, TlsFiles
from tests.clients.certificates import make_certificates

READ_TIMEOUT_S = 20
HOST = b"Host: a\r\n"


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop that gateways run on."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


class EchoApp:
    """Answers with method, path and body length; paths choose how the body is treated. `gate` holds /wait back."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self.cut = asyncio.Event()
        self.disconnects = 0

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        size = 0
        if scope["path"].startswith("/wait"):
            self.waiting.set()
            await self.gate.wait()
        if not scope["path"].startswith("/ignore"):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.disconnects += 1
                    return
                size += len(message["body"])
                if not message["more_body"]:
                    break
        if scope["path"] == "/large":
            await self._send_large(receive, send)
            return
        text = f"{scope['method']} {scope['raw_path'].decode()} {size} {len(scope['headers'])}".encode()
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    async def _send_large(self, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        """Far more than sockets buffer; `cut` is set when the connection is gone."""
        size = 64 << 20
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        with contextlib.suppress(gateway_server.ClientDisconnected):
            for _ in range(size >> 20):
                await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        self.cut.set()


class Running:
    """A server on a port of its own."""

    def __init__(self, app: EchoApp, port: int, stop: asyncio.Event, serving: asyncio.Future[None]) -> None:
        self.app = app
        self.port = port
        self.stop = stop
        self.serving = serving

    async def talk(self, *sent: bytes, until: bytes | None = None) -> bytes:
        """Send the pieces on a new connection; read until it closes, or until these bytes have come."""
        async with self.connect() as (reader, writer):
            for piece in sent:
                writer.write(piece)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            return await read_until(reader, until)

    @contextlib.asynccontextmanager
    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection that is closed at the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read_until(reader: asyncio.StreamReader, until: bytes | None = None) -> bytes:
    """What comes until these bytes, or the end of the connection."""
    got = b""
    async with asyncio.timeout(READ_TIMEOUT_S):
        while until is None or until not in got:
            try:
                piece = await reader.read(65536)
            except ConnectionError:
                break
            if not piece:
                break
            got += piece
    return got


@contextlib.asynccontextmanager
async def running(limits: HttpLimits = DEFAULT_LIMITS, tls: TlsFiles | None = None) -> AsyncIterator[Running]:
    """Serve an EchoApp for the time of a test."""
    app, stop, started = EchoApp(), asyncio.Event(), asyncio.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    serving = asyncio.ensure_future(serve_gateway(app, sock, tls=tls, limits=limits, on_started=started.set, stop=stop))
    started_or_failed = asyncio.ensure_future(started.wait())
    await asyncio.wait({serving, started_or_failed}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield Running(app, port, stop, serving)
    finally:
        stop.set()
        started_or_failed.cancel()
        app.gate.set()
        await serving


def head(method: bytes = b"GET", path: bytes = b"/", *lines: bytes) -> bytes:
    """A request's head."""
    return method + b" " + path + b" HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


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
    monkeypatch.setattr(gateway_server, "STALL_TIMEOUT_S", 0.05)
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


@on_uvloop
async def test_tls(tmp_path: Path) -> None:
    """The same over TLS, with the certificate that was given; plain HTTP on that port gets nothing."""
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=files.ca)
    tls = TlsFiles(str(files.certificate), str(files.private_key))
    async with running(tls=tls) as server:
        async with server.connect(context) as (reader, writer):
            writer.write(head(b"PUT", b"/k", b"Content-Length: 3") + b"abc")
            assert b"PUT /k 3" in await read_until(reader, b"/k 3")
        assert await server.talk(head()) == b""


@on_uvloop
async def test_unreadable_certificate_is_an_error(tmp_path: Path) -> None:
    """Files that are no certificate fail the start, with an OSError."""
    (tmp_path / "broken").write_text("broken")
    with pytest.raises(OSError), socket.create_server(("127.0.0.1", 0)) as sock:
        await serve_gateway(EchoApp(), sock, tls=TlsFiles(str(tmp_path / "broken"), str(tmp_path / "broken")))


@on_uvloop
async def test_drain_finishes_requests_under_way() -> None:
    """When told to stop: idle connections close, new ones are refused, the running request is answered."""
    async with running() as server:
        async with server.connect() as (idle, idle_writer), server.connect() as (reader, writer):
            idle_writer.write(head())
            await read_until(idle, b"GET / 0")
            writer.write(head(b"GET", b"/wait"))
            await server.app.waiting.wait()
            server.stop.set()
            assert await read_until(idle) == b""
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", server.port)
            server.app.gate.set()
            got = await read_until(reader)
            assert got.endswith(b"GET /wait 0 1")
            assert b"connection: close" in got


@on_uvloop
async def test_idle_tls_client_does_not_hold_up_the_drain(tmp_path: Path) -> None:
    """A kept-alive TLS client that says nothing is cut at once, not waited for until the drain runs out."""
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=files.ca)
    tls = TlsFiles(str(files.certificate), str(files.private_key))
    async with running(DEFAULT_LIMITS._replace(drain_s=2 * READ_TIMEOUT_S), tls=tls) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        with await asyncio.to_thread(context.wrap_socket, client, server_hostname="127.0.0.1") as idle:
            await asyncio.to_thread(idle.sendall, head())
            assert await asyncio.to_thread(idle.recv, 65536)
            server.stop.set()
            async with asyncio.timeout(READ_TIMEOUT_S):
                await asyncio.shield(server.serving)


@on_uvloop
async def test_sigterm_ends_with_zero() -> None:
    """A process on an inherited socket drains at SIGTERM and exits with 0."""
    program = (
        "import asyncio, socket, sys\n"
        "from s3gw.server import serve_gateway\n"
        "from tests.s3gw.test_server import EchoApp\n"
        "sock = socket.socket(fileno=int(sys.argv[1]))\n"
        "asyncio.run(serve_gateway(EchoApp(), sock, on_started=lambda: print('started', flush=True)))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(sock.fileno()), pass_fds=[sock.fileno()], stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(head())
        assert b"GET / 0" in await read_until(reader, b"GET / 0")
        process.send_signal(signal.SIGTERM)
        assert await read_until(reader) == b""
        writer.close()
        assert await asyncio.wait_for(process.wait(), READ_TIMEOUT_S) == 0
