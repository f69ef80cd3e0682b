"""Plain PUTs past the parser: answered when their commit is, in order with whatever else comes on the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from s3gw.call import Response
from s3gw.server import GatewayProtocol
from tests.s3gw.echo import head, on_uvloop, read_until, running


class Commits:
    """A short way that takes PUTs of /short and answers them when it is told to, counting those past the parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.open: list[Callable[[Response], None]] = []
        self.plain = 0
        serve_plain = GatewayProtocol._serve_plain

        def counted(protocol: GatewayProtocol, data: bytes) -> bool:
            is_served = serve_plain(protocol, data)
            self.plain += is_served
            return is_served

        monkeypatch.setattr(GatewayProtocol, "_serve_plain", counted)

    def read(self, *_: Any) -> None:
        """No GET."""

    def write(
        self, url: bytes, headers: dict[bytes, bytes], body: bytes, address: str, on_answer: Callable[[Response], None]
    ) -> bool:
        """Of /short only."""
        assert int(headers[b"content-length"]) == len(body)
        self.asked.append((url, body))
        if not url.startswith(b"/short"):
            return False
        self.open.append(on_answer)
        return True

    async def wait(self, count: int) -> None:
        """Until that many are under way."""
        async with asyncio.timeout(30):
            while len(self.open) < count:
                await asyncio.sleep(0.001)

    def answer(self, status: int = 200) -> None:
        """The one that came first."""
        self.open.pop(0)(Response(status, [(b"content-length", b"4")], b"done"))


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    """One that counts."""
    return Commits(monkeypatch)


def put(path: bytes, body: bytes) -> bytes:
    """A whole PUT."""
    return head(b"PUT", path, b"Content-Length: %d" % len(body)) + body


@on_uvloop
async def test_puts_after_the_first_are_taken_past_the_parser(commits: Commits) -> None:
    """With their bodies; the connection waits for each answer, and an error is one."""
    async with running(short_way=commits) as server, server.connect() as (reader, writer):
        for number, status in enumerate((200, 200, 503, 200)):
            writer.write(put(b"/short/%d" % number, b"\r\n\r\n%d" % number))
            await commits.wait(1)
            commits.answer(status)
            got = await read_until(reader, b"done")
            assert got.startswith(b"HTTP/1.1 %d " % status) and got.count(b"HTTP/1.1") == 1
    assert commits.plain == 3
    assert commits.asked == [(b"/short/%d" % number, b"\r\n\r\n%d" % number) for number in range(4)]


@on_uvloop
async def test_what_comes_while_a_commit_is_under_way_waits(commits: Commits) -> None:
    """A read and a PUT: each is answered behind the one before."""
    async with running(short_way=commits) as server, server.connect() as (reader, writer):
        for _ in range(2):
            writer.write(put(b"/short", b"a"))
            await commits.wait(1)
            if commits.plain == 0:
                commits.answer()
                await read_until(reader, b"done")
        assert commits.plain == 1
        for sent in (head(b"GET", b"/long"), put(b"/short", b"b")):
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(0.02)
        assert len(commits.open) == 1
        commits.answer()
        got = await read_until(reader, b"PUT /short 1 2")
        assert got.index(b"done") < got.index(b"GET /long 0 1") < got.index(b"PUT /short 1 2")
        writer.write(put(b"/short", b"c"))
        await commits.wait(1)
        commits.answer()
        await read_until(reader, b"done")
    assert [body for _, body in commits.asked] == [b"a", b"a", b"c"]
    assert commits.plain == 2


@on_uvloop
async def test_what_the_short_way_leaves_is_asked_once(commits: Commits) -> None:
    """It goes on by the parser to the application, and so do those in pieces, or with more behind them."""
    one = put(b"/short", b"abc")
    async with running(short_way=commits) as server, server.connect() as (reader, writer):
        for number in range(3):
            writer.write(put(b"/long", b"%d" % number))
            assert (await read_until(reader, b"PUT /long 1 2")).count(b"HTTP/1.1 200") == 1
        assert [body for _, body in commits.asked] == [b"0", b"1", b"2"]
        assert commits.plain == 0
        writer.write(one[:-1])
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(one[-1:])
        await read_until(reader, b"PUT /short 3 2")
        writer.write(one + one)
        await commits.wait(1)
        commits.answer()
        got = await read_until(reader, b"PUT /short 3 2")
        assert got.index(b"done") < got.index(b"PUT /short 3 2")
    assert commits.plain == 0


@on_uvloop
async def test_a_client_that_goes_while_its_commit_is_under_way(commits: Commits) -> None:
    """Nobody is answered, nothing breaks, and others are served."""
    async with running(short_way=commits) as server:
        async with server.connect() as (reader, writer):
            writer.write(put(b"/short", b"a"))
            await commits.wait(1)
            commits.answer()
            await read_until(reader, b"done")
            writer.write(put(b"/short", b"b"))
            await commits.wait(1)
        assert commits.plain == 1
        await asyncio.sleep(0.02)
        commits.answer()
        async with server.connect() as (reader, writer):
            writer.write(put(b"/short", b"c"))
            await commits.wait(1)
            commits.answer()
            await read_until(reader, b"done")
