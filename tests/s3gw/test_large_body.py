"""Large bodies past the parser, over real sockets: the same bytes, bounds, order and ends as through it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import s3gw.large_body
import s3gw.server as gateway_server
import s3gw.turns
import storage.base.internal_server as internal_server
from s3gw.connection import GatewayProtocol
from s3gw.digester import BATCH_BYTES
from s3gw.large_body import LARGE_BYTES_MIN
from storage.base.internal_server import TlsFiles
from storage.crypto.envelope import FRAME_BYTES
from tests.clients.certificates import make_certificates
from tests.s3gw.echo import READ_TIMEOUT_S, EchoApp, head, on_uvloop, read_until, running


class DigestApp(EchoApp):
    """Answers with the SHA-256 of the body; `sizes` are its blocks. It takes a block when `pace` lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.began = asyncio.Event()
        self.pace: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["path"] == "/ignore":
            await super().__call__(scope, receive, send)
            return
        hasher, more = hashlib.sha256(), True
        while more:
            if self.pace is not None:
                await self.pace()
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                self.cut.set()
                return
            hasher.update(message["body"])
            self.sizes.append(len(message["body"]))
            self.began.set()
            more = message["more_body"]
        text = hasher.hexdigest().encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
        await send({"type": "http.response.body", "body": text})


def put(data: bytes, *lines: bytes) -> bytes:
    """A whole request."""
    return head(b"PUT", b"/k", b"Content-Length: %d" % len(data), *lines) + data


def digest(data: bytes) -> bytes:
    """The answer to it."""
    return hashlib.sha256(data).hexdigest().encode()


@pytest.mark.parametrize(
    "size", [LARGE_BYTES_MIN - 1, LARGE_BYTES_MIN, LARGE_BYTES_MIN + 70_000, 1 << 20, (3 << 20) + 5, 8 << 20]
)
@on_uvloop
async def test_bodies_arrive_as_they_were_sent(size: int) -> None:
    """Several on one connection, in pieces that have nothing to do with blocks, with other requests in between."""
    chance = random.Random(size)
    app = DigestApp()
    async with running(app=app) as server, server.connect() as (reader, writer):
        for _ in range(3):
            data = os.urandom(size)
            sent, place = put(data), 0
            while place < len(sent):
                piece = sent[place : place + chance.randrange(1, 400_000)]
                writer.write(piece)
                await writer.drain()
                place += len(piece)
            await read_until(reader, digest(data))
            writer.write(head())
            await read_until(reader, digest(b""))
        assert sum(app.sizes) == 3 * size
        assert max(app.sizes) <= BATCH_BYTES


@on_uvloop
async def test_blocks_end_at_frames() -> None:
    """Whatever came with the head, and however many pieces it took: all blocks but the last are of a MiB."""
    app, data = DigestApp(), os.urandom((5 << 20) + 9)
    async with running(app=app) as server:
        await server.talk(put(data), until=digest(data))
    assert app.sizes == [BATCH_BYTES] * 5 + [9]


@on_uvloop
async def test_requests_behind_a_large_body_wait_for_their_turn() -> None:
    """Pipelined requests, another large body among them, are answered in order."""
    first, second = os.urandom(3 << 20), os.urandom(2 << 20)
    async with running(app=DigestApp()) as server:
        got = await server.talk(put(first) + put(b"x") + put(second) + head(), until=digest(b""))
    order = [got.index(digest(data)) for data in (first, b"x", second, b"")]
    assert order == sorted(order)


@on_uvloop
async def test_continue_is_sent_at_the_first_read() -> None:
    """And not before; nothing of the body is missing."""
    app, data, gate = DigestApp(), os.urandom(2 << 20), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    app.pace = wait
    async with running(app=app) as server, server.connect() as (reader, writer):
        writer.write(head(b"PUT", b"/k", b"Content-Length: %d" % len(data), b"Expect: 100-continue"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        gate.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data)
        await read_until(reader, digest(data))


@on_uvloop
async def test_parts_of_this_machine_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is asked for its body when the first has come; a smaller body is not held up."""
    monkeypatch.setattr(s3gw.turns, "TURN_S", 600.0)
    monkeypatch.setattr(s3gw.turns, "WAIT_S_MAX", 600.0)
    data, small = os.urandom(s3gw.turns.BODY_BYTES_MIN), os.urandom(1 << 20)
    ask = head(b"PUT", b"/k", b"Content-Length: %d" % len(data), b"Expect: 100-continue")
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with running(app=DigestApp()) as server, server.connect() as first, server.connect() as second:
        first[1].write(ask)
        assert await first[0].readuntil(b"\r\n\r\n") == go_on
        second[1].write(ask)
        await server.talk(put(small), until=digest(small))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await second[0].read(1)
        first[1].write(data)
        await read_until(first[0], digest(data))
        assert await second[0].readuntil(b"\r\n\r\n") == go_on
        second[1].write(data)
        await read_until(second[0], digest(data))


@on_uvloop
async def test_a_client_that_leaves_gives_up_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its body."""
    monkeypatch.setattr(s3gw.turns, "TURN_S", 600.0)
    monkeypatch.setattr(s3gw.turns, "WAIT_S_MAX", 600.0)
    data = os.urandom(s3gw.turns.BODY_BYTES_MIN)
    async with running(app=DigestApp()) as server:
        async with server.connect() as (reader, writer):
            writer.write(head(b"PUT", b"/k", b"Content-Length: %d" % len(data), b"Expect: 100-continue"))
            assert await reader.readuntil(b"\r\n\r\n")
        await server.talk(put(data), until=digest(data))


@on_uvloop
async def test_a_slow_client_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is handed over as far as it is filled; later ones end at frames again."""
    monkeypatch.setattr(s3gw.large_body, "FILL_S", 0.02)
    app, data = DigestApp(), os.urandom(2 << 20)
    async with running(app=app) as server, server.connect() as (reader, writer):
        writer.write(put(data)[:1000])
        await app.began.wait()
        assert sum(app.sizes) < 1000
        writer.write(put(data)[1000:])
        await read_until(reader, digest(data))
    assert sum(app.sizes) == len(data)
    assert len(app.sizes) > 2
    ends = [sum(app.sizes[: count + 1]) for count in range(len(app.sizes))]
    assert any(end % FRAME_BYTES == 0 for end in ends[1:-1])


@pytest.mark.parametrize("is_waiting", [True, False])
@on_uvloop
async def test_a_client_that_goes_away_is_noticed(is_waiting: bool) -> None:
    """Midway: while the application waits for a block, and while it is busy with the one before."""
    app, gone = DigestApp(), asyncio.Event()

    async def pause() -> None:
        if app.sizes and not is_waiting:
            await gone.wait()

    app.pace = pause
    async with running(app=app) as server:
        async with server.connect() as (_, writer):
            writer.write(put(bytes(4 << 20))[: (2 << 20) + 5])
            await writer.drain()
            await app.began.wait()
        gone.set()
        async with asyncio.timeout(READ_TIMEOUT_S):
            await app.cut.wait()
    assert app.disconnects == 1


@on_uvloop
async def test_what_nobody_takes_is_not_read() -> None:
    """A client that sends on while the application does not take the first block is held back by its own socket."""
    app, gate = DigestApp(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    app.pace = wait
    data = bytes(64 << 20)
    async with running(app=app) as server, server.connect() as (reader, writer):
        writer.write(put(data))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await writer.drain()
        gate.set()
        await read_until(reader, digest(data))


@on_uvloop
async def test_an_answer_that_comes_early_closes_the_connection() -> None:
    """The rest of the body is not taken for a request."""
    async with running(app=DigestApp()) as server:
        got = await server.talk(head(b"PUT", b"/ignore", b"Content-Length: 5000000") + bytes(2_000_000))
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"PUT /ignore 0" in got


@pytest.mark.parametrize("sent_bytes", [10, 600_000])
@on_uvloop
async def test_a_client_that_stalls_is_cut(sent_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with small bodies: no progress for the stall time."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(gateway_server, "STALL_CHECK_S", 0.02)
    monkeypatch.setattr(gateway_server, "TICK_S", 0.02)
    async with running(app=DigestApp()) as server, server.connect() as (reader, writer):
        writer.write(head(b"PUT", b"/k", b"Content-Length: 3000000") + bytes(sent_bytes))
        assert await read_until(reader) == b""


@on_uvloop
async def test_over_tls(tmp_path: Path) -> None:
    """The same, behind asyncio's TLS."""
    files = make_certificates(tmp_path)
    tls = TlsFiles(str(files.certificate), str(files.private_key))
    context = ssl.create_default_context(cafile=str(files.ca))
    data = os.urandom((3 << 20) + 7)
    async with running(tls=tls, app=DigestApp()) as server, server.connect(context) as (reader, writer):
        for _ in range(2):
            writer.write(put(data))
            await read_until(reader, digest(data))
            writer.write(head())
            await read_until(reader, digest(b""))


@on_uvloop
async def test_only_what_came_with_the_head_goes_through_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that this way is really taken."""
    parsed = 0
    on_body = GatewayProtocol.on_body

    def count(self: GatewayProtocol, body: bytes) -> None:
        nonlocal parsed
        parsed += len(body)
        on_body(self, body)

    monkeypatch.setattr(GatewayProtocol, "on_body", count)
    data = os.urandom(8 << 20)
    async with running(app=DigestApp()) as server:
        await server.talk(put(data), until=digest(data))
    assert parsed <= 256_000
