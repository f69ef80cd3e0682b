"""Plain PUTs past the parser: answered when their commit is, in order with whatever else comes on the connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from s3gw.connection import GatewayProtocol
from s3gw.http_limits import HttpLimits
from s3gw.short_write import OnAnswer
from storage.base.internal_server import TlsFiles
from tests.clients.certificates import make_certificates
from tests.s3gw.echo import Running, head, on_uvloop, read_until, running

HELD_MAX = 2


class Write:
    """A PUT that is gathered; at most HELD_MAX may be."""

    def __init__(self, commits: Commits, url: bytes, length: int) -> None:
        self.length = length
        self._commits = commits
        self._url = url
        self._taken = b""

    def take(self, block: bytes) -> None:
        """The next bytes."""
        self._taken += block

    def make_room(self) -> bool:
        """Until there are too many."""
        if len(self._commits.held) == HELD_MAX:
            return False
        self._commits.held.add(self)
        return True

    def give_up(self) -> None:
        """Room for another one."""
        self._commits.held.discard(self)

    def commit(self, body: memoryview, on_answer: OnAnswer, _: Any) -> bool:
        """Of /short only."""
        assert body == self._taken and len(body) == self.length
        self._commits.asked.append((self._url, bytes(body)))
        if not self._url.startswith(b"/short"):
            return False
        self._commits.open.append(on_answer)
        self.give_up()
        return True


class Commits:
    """A short way that takes PUTs of /short and answers them when it is told to, counting those past the parser."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self.open: list[OnAnswer] = []
        self.held: set[Write] = set()
        self.plain = 0
        serve_plain = GatewayProtocol._serve_plain

        def counted(protocol: GatewayProtocol, data: bytes) -> bool:
            is_served = serve_plain(protocol, data)
            self.plain += is_served
            return is_served

        monkeypatch.setattr(GatewayProtocol, "_serve_plain", counted)

    def read(self, *_: Any) -> None:
        """No GET."""

    def find_known(self, _: bytes) -> None:
        """None is."""

    def begin_write(self, url: bytes, headers: dict[bytes, bytes], length: int, *_: Any) -> Write | None:
        """Of anything but /road."""
        assert int(headers[b"content-length"]) == length
        return None if url.startswith(b"/road") else Write(self, url, length)

    async def wait(self, count: int) -> None:
        """Until that many are under way."""
        async with asyncio.timeout(30):
            while len(self.open) < count:
                await asyncio.sleep(0.001)

    def answer(self, status: int = 200) -> None:
        """The one that came first."""
        self.open.pop(0)(status, b"content-length: 4\r\n", b"done")


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
async def test_the_idle_timer_goes_on_past_the_parser(commits: Commits, made: list[GatewayProtocol]) -> None:
    """It spares a PUT that is under way, and counts from the answer before."""
    async with running(short_way=commits) as server, server.connect() as (reader, writer):
        timers = []
        for _ in range(3):
            writer.write(put(b"/short", b"abc"))
            await commits.wait(1)
            made[0]._served_s -= 2 * made[0].timeout_keep_alive
            if made[0].timeout_keep_alive_task is not None:
                made[0].timeout_keep_alive_handler()
            commits.answer()
            await read_until(reader, b"done")
            timers.append(made[0].timeout_keep_alive_task)
        assert None not in timers and not made[0].transport.is_closing()
        writer.write(put(b"/short", b"abc"))
        await commits.wait(1)
        commits.answer()
        await read_until(reader, b"done")
        assert made[0].timeout_keep_alive_task is timers[-1]
        made[0].timeout_keep_alive_handler()
        assert not made[0].transport.is_closing(), "it was answered a moment ago"
        made[0]._served_s -= made[0].timeout_keep_alive
        made[0].timeout_keep_alive_handler()
        assert await read_until(reader) == b""
    assert commits.plain == 3


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
    """It goes on by the parser to the application, and so do those with more behind them."""
    one = put(b"/short", b"abc")
    async with running(short_way=commits) as server, server.connect() as (reader, writer):
        for number in range(3):
            writer.write(put(b"/long", b"%d" % number))
            assert (await read_until(reader, b"PUT /long 1 2")).count(b"HTTP/1.1 200") == 1
        assert [body for _, body in commits.asked] == [b"0", b"1", b"2"]
        assert commits.plain == 0
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


@asynccontextmanager
async def used(
    server: Running, commits: Commits, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has had an answer, so that what follows may go past the parser."""
    async with server.connect(context) as (reader, writer):
        writer.write(head(b"GET", b"/first"))
        await read_until(reader, b"GET /first 0 1")
        yield reader, writer


async def send(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Each on its own."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)


@on_uvloop
async def test_a_body_in_pieces_is_gathered(commits: Commits) -> None:
    """From none of it with the head to all but a byte, and byte after byte."""
    body = b"\r\n\r\n0123456789"
    one = put(b"/short", body)
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        for cut in (len(body), len(body) - 1, 3, 1):
            await send(writer, one[:-cut], one[-cut:])
            await commits.wait(1)
            assert not commits.held
            commits.answer()
            await read_until(reader, b"done")
        await send(writer, one[: -len(body)], *(body[at : at + 1] for at in range(len(body))))
        await commits.wait(1)
        commits.answer()
        await read_until(reader, b"done")
    assert [asked for _, asked in commits.asked] == [body] * 5


@on_uvloop
async def test_what_is_gathered_and_left_takes_the_road_whole(commits: Commits) -> None:
    """Where the head is not for the short way, the body is not, or there is no room."""
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        for path in (b"/road", b"/long"):
            one = put(path, b"0123456789")
            await send(writer, one[:-7], one[-7:-2], one[-2:])
            await read_until(reader, b"PUT %b 10 2" % path)
        assert [url for url, _ in commits.asked] == [b"/long"]
        one = put(b"/short", b"0123456789")
        commits.held.update(Write(commits, b"", 0) for _ in range(HELD_MAX))
        await send(writer, one[:-4], one[-4:])
        await read_until(reader, b"PUT /short 10 2")
    assert len(commits.asked) == 1 and len(commits.held) == HELD_MAX


@on_uvloop
async def test_what_follows_a_body_waits_its_turn(commits: Commits) -> None:
    """It is the parser's, which takes up behind the body."""
    one = put(b"/short", b"0123456789")
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        await send(writer, one[:-4], one[-4:] + head(b"GET", b"/behind") + one)
        await commits.wait(1)
        commits.answer()
        got = await read_until(reader, b"PUT /short 10 2")
        assert got.index(b"done") < got.index(b"GET /behind 0 1") < got.index(b"PUT /short 10 2")
    assert len(commits.asked) == 1


@on_uvloop
async def test_a_body_that_comes_slowly_takes_the_road(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that has come of it, and nothing is held for it any more."""
    monkeypatch.setattr("s3gw.gathering.GATHERING_S_MAX", 0.05)
    one = put(b"/short", b"0123456789")
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        await send(writer, one[:-4])
        assert len(commits.held) == 1
        await asyncio.sleep(0.1)
        assert not commits.held
        await send(writer, one[-4:-2], one[-2:])
        await read_until(reader, b"PUT /short 10 2")
        await send(writer, put(b"/short", b"again"))
        await commits.wait(1)
        commits.answer()
        await read_until(reader, b"done")


@on_uvloop
async def test_a_large_body_that_comes_slowly(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    """The road receives it in its own way, and the connection serves on."""
    monkeypatch.setattr("s3gw.gathering.GATHERING_S_MAX", 0.05)
    one = put(b"/short", bytes(900_000))
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        for cut in (100, 100_000, 300_000):
            await send(writer, one[:cut])
            await asyncio.sleep(0.1)
            await send(writer, one[cut : cut + 400_000], one[cut + 400_000 :])
            await read_until(reader, b"PUT /short 900000 2")
            assert not commits.held
        await send(writer, put(b"/short", b"again"))
        await commits.wait(1)
        commits.answer()
        await read_until(reader, b"done")
    assert [body for _, body in commits.asked] == [b"again"]


@on_uvloop
async def test_over_tls(commits: Commits, tmp_path: Path) -> None:
    """Gathered all the same, left to the road all the same, and a client that goes leaves nothing."""
    files = make_certificates(tmp_path)
    tls = TlsFiles(str(files.certificate), str(files.private_key))
    context = ssl.create_default_context(cafile=str(files.ca))
    body = bytes(range(256)) * 1000
    one = put(b"/short", body)
    async with running(tls=tls, short_way=commits) as server:
        async with used(server, commits, context) as (reader, writer):
            for cut in (len(body), 1000, 1):
                await send(writer, one[:-cut], one[-cut:])
                await commits.wait(1)
                commits.answer()
                await read_until(reader, b"done")
            long = put(b"/long", body)
            await send(writer, long[:-9], long[-9:])
            await read_until(reader, b"PUT /long 256000 2")
            await send(writer, one[:-1])
            assert len(commits.held) == 1
        async with asyncio.timeout(30):
            while commits.held:
                await asyncio.sleep(0.005)
    assert [asked for _, asked in commits.asked] == [body] * 4


@on_uvloop
async def test_a_client_that_goes_in_the_middle_of_a_body(commits: Commits) -> None:
    """Nothing is committed, and nothing is held."""
    async with running(short_way=commits) as server:
        async with used(server, commits) as (_, writer):
            await send(writer, put(b"/short", b"0123456789")[:-1])
            assert len(commits.held) == 1
        async with asyncio.timeout(30):
            while commits.held:
                await asyncio.sleep(0.005)
        assert server.app.disconnects == 0
    assert not commits.asked


@on_uvloop
async def test_a_drain_in_the_middle_of_a_body(commits: Commits) -> None:
    """It is a request under way: it may end, and the connection closes behind it."""
    one = put(b"/short", b"0123456789")
    async with running(short_way=commits) as server, used(server, commits) as (reader, writer):
        await send(writer, one[:-4])
        server.stop.set()
        await asyncio.sleep(0.05)
        assert not commits.held
        await send(writer, one[-4:])
        got = await read_until(reader)
        assert b"PUT /short 10 2" in got and b"connection: close" in got


@on_uvloop
async def test_too_many_requests_while_a_body_comes(commits: Commits) -> None:
    """The bound counts when the body is whole: it is told to slow down then."""
    one = put(b"/short", b"0123456789")
    async with (
        running(HttpLimits(requests_max=1), short_way=commits) as server,
        used(server, commits) as (reader, writer),
    ):
        await send(writer, one[:-4])
        async with server.connect() as (other_reader, other_writer):
            await send(other_writer, head(b"GET", b"/wait"))
            await server.app.waiting.wait()
            await send(writer, one[-4:])
            assert b"503" in await read_until(reader, b"SlowDown")
            server.app.gate.set()
            await read_until(other_reader, b"GET /wait 0 1")
    assert not commits.asked and not commits.held
