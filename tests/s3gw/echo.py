"""A small application behind the gateway's HTTP server, on a port of its own, and the words to talk to it by hand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from s3gw.http_limits import DEFAULT_LIMITS, HttpLimits
from s3gw.patience import ClientDisconnected
from s3gw.server import serve_gateway
from storage.base.internal_server import TlsFiles

READ_TIMEOUT_S = 60
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
        self.short_way: Any = None
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
        with contextlib.suppress(ClientDisconnected):
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
async def running(
    limits: HttpLimits = DEFAULT_LIMITS,
    tls: TlsFiles | None = None,
    short_way: Any = None,
    app: EchoApp | None = None,
) -> AsyncIterator[Running]:
    """Serve an EchoApp for the time of a test."""
    app, stop, started = app or EchoApp(), asyncio.Event(), asyncio.Event()
    app.short_way = short_way
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
