"""The internal server: where it may listen, what it bounds, how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.base import internal_server
from storage.base.address import Address, parse_address
from storage.base.internal_server import (
    HEAD_BYTES_MAX,
    BoundedProtocol,
    CannotListen,
    InternalServer,
    TlsFiles,
    load_server_tls,
    serve,
)
from tests.storage.base.serving import exchange_bytes, serving
from tests.tls import make_internal_tls

REQUEST = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


async def count_body(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers with how many body bytes came."""
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        total += len(message["body"])
        if not message["more_body"]:
            break
    body = str(total).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def test_serves_a_unix_socket_of_its_user_only(tmp_path: Path) -> None:
    """Mode 0600, and gone after the drain."""
    path = tmp_path / "s.sock"
    async with serving(count_body, f"unix:{path}") as address:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (await exchange_bytes(address, REQUEST)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert not path.exists()


async def test_tells_the_port_that_the_kernel_chose() -> None:
    """Port 0 is resolved before on_started."""
    async with serving(count_body, "http://127.0.0.1:0") as address:
        assert address.port > 0
        assert (await exchange_bytes(address, REQUEST)).endswith(b"\r\n\r\n0")


async def test_a_socket_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    """As a killed process leaves it."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serving(count_body, f"unix:{path}") as address:
        assert (await exchange_bytes(address, REQUEST)).startswith(b"HTTP/1.1 200")


async def test_a_socket_in_use_is_not_taken(tmp_path: Path) -> None:
    """The first server goes on; its socket stays."""
    path = tmp_path / "s.sock"
    async with serving(count_body, f"unix:{path}") as address:
        with pytest.raises(CannotListen, match="another process serves"):
            await serve(count_body, address, None, stop=asyncio.Event())
        assert (await exchange_bytes(address, REQUEST)).startswith(b"HTTP/1.1 200")


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    """Whatever it is, it is not ours."""
    path = tmp_path / "precious"
    path.write_text("kept")
    with pytest.raises(CannotListen, match="not a socket"):
        await serve(count_body, parse_address(f"unix:{path}"), None, stop=asyncio.Event())
    assert path.read_text() == "kept"


async def test_a_socket_taken_over_is_left_alone(tmp_path: Path) -> None:
    """On its way out a server removes its own socket only."""
    path = tmp_path / "s.sock"
    async with serving(count_body, f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()


async def test_a_port_in_use_is_one_line() -> None:
    """Not a traceback."""
    async with serving(count_body, "http://127.0.0.1:0") as address:
        with pytest.raises(CannotListen, match="cannot listen on http:"):
            await serve(count_body, address, None, stop=asyncio.Event())


def test_only_loopback_goes_without_tls(tmp_path: Path) -> None:
    """An address made by hand is checked like a parsed one."""
    with pytest.raises(CannotListen, match="needs https"):
        load_server_tls(Address("http", host="10.0.0.1", port=1), None)
    with pytest.raises(CannotListen, match="certificate"):
        load_server_tls(parse_address("https://10.0.0.1:1"), None)
    with pytest.raises(CannotListen, match="cannot load"):
        load_server_tls(parse_address("https://10.0.0.1:1"), TlsFiles(str(tmp_path / "no"), str(tmp_path / "no")))
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(CannotListen, match="cannot load"):
        load_server_tls(parse_address("https://10.0.0.1:1"), TlsFiles(str(tmp_path / "junk"), str(tmp_path / "junk")))
    assert load_server_tls(parse_address("https://10.0.0.1:1"), make_internal_tls(tmp_path).files) is not None


async def test_a_head_beyond_the_bound_is_refused_and_the_server_goes_on(tmp_path: Path) -> None:
    """As one header, as many headers, as a path, and as a header that never ends."""
    half = b"x" * (HEAD_BYTES_MAX // 2)
    many = b"".join(b"h%d: %s\r\n" % (number, b"y" * 1000) for number in range(40))
    heads = [
        b"GET / HTTP/1.1\r\nh: " + half + half + half + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + many + b"\r\n",
        b"GET /" + half + half + half + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nh: " + half + half + half,
    ]
    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        for head in heads:
            assert (await exchange_bytes(address, head)).startswith(b"HTTP/1.1 400 "), head[:20]
        fitting = b"GET / HTTP/1.1\r\nh: " + half + b"\r\nconnection: close\r\n\r\n"
        assert (await exchange_bytes(address, fitting)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n"])
async def test_junk_is_answered_with_400(tmp_path: Path, junk: bytes) -> None:
    """Other protocols and broken heads."""
    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        assert (await exchange_bytes(address, junk)).startswith(b"HTTP/1.1 400 ")


async def test_a_body_in_many_pieces_arrives_whole(tmp_path: Path) -> None:
    """The copy-saving path of the protocol loses nothing."""
    total = 3_000_000
    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        reader, writer = await asyncio.open_unix_connection(address.path)
        writer.write(b"PUT / HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % total)
        left, size = total, 1
        while left:
            writer.write(b"z" * min(size, left))
            await writer.drain()
            left -= min(size, left)
            size = size * 3 + 1
        assert (await reader.read()).endswith(b"\r\n\r\n%d" % total)
        writer.close()


async def test_a_stalled_connection_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the head, even with a byte now and then; in a body; and a connection that says nothing at all."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.01)
    starts = [b"", b"GET / HT", b"PUT / HTTP/1.1\r\ncontent-length: 10\r\n\r\n123"]
    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        for start in starts:
            assert await asyncio.wait_for(exchange_bytes(address, start), 60) == b""


async def test_a_head_that_trickles_in_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single bytes are no progress: a head has to be whole in time."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.01)
    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        reader, writer = await asyncio.open_unix_connection(address.path)
        writer.write(b"GET / HTTP/1.1\r\nh: ")
        cut = asyncio.ensure_future(reader.read())
        for _ in range(10_000):
            writer.write(b"x")
            if (await asyncio.wait({cut}, timeout=0.002))[0]:
                break
        assert cut.done()
        # Bytes that the server had not read yet make the end a reset.
        assert isinstance(cut.exception(), ConnectionError) or cut.result() == b""
        writer.close()


async def test_a_reader_that_stalls_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody takes does not stay in memory."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.01)
    cut = asyncio.Event()

    async def endless(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % 2**40)]})
        while (await asyncio.wait_for(_poll(receive), 60)) is None:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        cut.set()

    async def _poll(receive: Callable[[], Any]) -> Any:
        waiting = asyncio.ensure_future(receive())
        done, _ = await asyncio.wait({waiting}, timeout=0)
        if done:
            return waiting.result()
        waiting.cancel()
        return None

    async with serving(endless, f"unix:{tmp_path / 's'}") as address:
        _, writer = await asyncio.open_unix_connection(address.path, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait_for(cut.wait(), 60)
        writer.close()


async def test_a_kept_alive_connection_owes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between requests the idle timeout rules, not the stall timeout."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.01)
    swept = asyncio.Event()
    original = BoundedProtocol.abort_if_stalled
    sweeps = 0

    def counting(self: BoundedProtocol, now_s: float) -> None:
        nonlocal sweeps
        sweeps += 1
        original(self, now_s + sweeps * 10)
        if sweeps > 5:
            swept.set()

    async with serving(count_body, f"unix:{tmp_path / 's'}") as address:
        reader, writer = await asyncio.open_unix_connection(address.path)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n0")
            monkeypatch.setattr(BoundedProtocol, "abort_if_stalled", counting)
            await asyncio.wait_for(swept.wait(), 60)
        writer.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    """A request under way is finished; new connections are refused; serve() returns."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        entered.set()
        await go_on.wait()
        await count_body(scope, receive, send)

    path = tmp_path / "s"
    started = asyncio.Event()
    server = asyncio.ensure_future(serve(slow, parse_address(f"unix:{path}"), None, on_started=lambda _: started.set()))
    await started.wait()
    request = asyncio.ensure_future(exchange_bytes(Address("unix", path=str(path)), b"GET / HTTP/1.1\r\n\r\n"))
    await entered.wait()
    os.kill(os.getpid(), number)
    while True:
        try:
            (await asyncio.open_unix_connection(str(path)))[1].close()
        except OSError:
            break
        await asyncio.sleep(0)
    assert not server.done()
    go_on.set()
    assert (await request).startswith(b"HTTP/1.1 200 OK\r\n")
    await asyncio.wait_for(server, 60)


async def test_a_drain_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not finish is cut off."""
    monkeypatch.setattr(internal_server, "DRAIN_TIMEOUT_S", 0.05)
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(endless, f"unix:{tmp_path / 's'}") as address:
        request = asyncio.ensure_future(exchange_bytes(address, b"GET / HTTP/1.1\r\n\r\n"))
        await entered.wait()
    assert await request == b""
    await asyncio.wait_for(cancelled.wait(), 60)


async def test_cancelling_serve_drains_too(tmp_path: Path) -> None:
    """No socket stays behind."""
    path = tmp_path / "s"
    started = asyncio.Event()
    server = asyncio.ensure_future(
        serve(count_body, parse_address(f"unix:{path}"), None, on_started=lambda _: started.set(), stop=asyncio.Event())
    )
    await started.wait()
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert not path.exists()


def test_uvicorn_still_has_what_is_overridden() -> None:
    """The names that the subclasses replace are uvicorn's; a release that renames them must not pass in silence."""
    for name in ("capture_signals", "startup", "main_loop", "shutdown"):
        assert name in InternalServer.__mro__[1].__dict__
    for name in ("data_received", "on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"):
        assert name in BoundedProtocol.__mro__[1].__dict__
