"""The gateway's HTTP over TLS, and how it ends: draining, signals, clients that hold on."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from s3gw.acceptor import count_waiting
from s3gw.http_limits import DEFAULT_LIMITS
from s3gw.server import serve_gateway
from storage.base.internal_server import TlsFiles
from tests.clients.certificates import make_certificates
from tests.s3gw.echo import READ_TIMEOUT_S, EchoApp, head, on_uvloop, read_until, running


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
        "from tests.s3gw.echo import EchoApp\n"
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


@on_uvloop
async def test_nothing_is_accepted_before_its_time() -> None:
    """Connections wait for it in the system's queue and are served then."""
    gate, stop = asyncio.Event(), asyncio.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(serve_gateway(EchoApp(), sock, stop=stop, before=gate.wait))
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(head())
    for _ in range(20):
        await asyncio.sleep(0)
    assert count_waiting(sock) == 1
    gate.set()
    assert b"GET / 0" in await read_until(reader, b"GET / 0")
    writer.close()
    stop.set()
    await asyncio.wait_for(serving, READ_TIMEOUT_S)


@on_uvloop
async def test_it_can_be_stopped_before_its_time() -> None:
    """It ends with its socket closed, and what it waited for is given up; an error of that is the caller's."""
    stop, waiting = asyncio.Event(), asyncio.Event()

    async def endless() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def broken() -> None:
        raise OSError("no")

    sock = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.ensure_future(serve_gateway(EchoApp(), sock, stop=stop, before=endless))
    await asyncio.wait_for(waiting.wait(), READ_TIMEOUT_S)
    stop.set()
    await asyncio.wait_for(serving, READ_TIMEOUT_S)
    assert sock.fileno() == -1
    with socket.create_server(("127.0.0.1", 0)) as another, pytest.raises(OSError, match="no"):
        await serve_gateway(EchoApp(), another, stop=asyncio.Event(), before=broken)
