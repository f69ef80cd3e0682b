"""The internal client: every way a peer can fail becomes one error of the tree, in time; streams in both directions."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.base import connection_pool
from storage.base.address import Address, parse_address
from storage.base.errors import ChunkTruncated, NodeUnreachable, Unavailable
from storage.base.internal_client import Answer, Deadlines, InternalClient
from storage.base.internal_connection import READ_BUFFER_BYTES, Stage
from tests.storage.base.serving import serving
from tests.tls import make_internal_tls

SHORT = Deadlines(connect_s=0.2, progress_s=0.2, answer_s=0.2)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answers with the body; with 507 and without reading for the path /full; with the headers for /headers;
    with the body's length for /count."""
    body = b""
    status = 200
    if scope["path"] == "/full":
        status = 507
    elif scope["path"] == "/headers":
        body = b"\n".join(b": ".join(pair) for pair in scope["headers"])
    else:
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            return
    if scope["path"] == "/count":
        body = b"%d" % len(body)
    headers = [(b"content-length", b"%d" % len(body))]
    if status == 507:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def raw_peer(path: Path, handle: Handler) -> AsyncIterator[Address]:
    """A peer that does with its connections what it likes."""
    waiting = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(tracked, path)
    try:
        yield Address("unix", path=str(path))
    finally:
        server.close()
        for task in waiting:
            task.cancel()


@asynccontextmanager
async def calling(address: Address, **options: Any) -> AsyncIterator[InternalClient]:
    """A client that is closed."""
    client = InternalClient(address, "token", **options)
    try:
        yield client
    finally:
        await client.close()


async def _blocks(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def test_a_call_brings_the_whole_answer(tmp_path: Path) -> None:
    """Status, headers, body, on one connection that is kept."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        for body in (b"one", b"two"):
            answer = await client.call("POST", "/x", body)
            assert (answer.status, answer.body, answer.headers["content-length"]) == (200, body, "3")
        [kept] = client._pool._idle
        assert kept.exchanges == 2


async def test_the_token_and_nothing_about_the_machine_is_sent(tmp_path: Path) -> None:
    """No User-Agent, no Accept-Encoding: bytes come as they are stored."""
    async with (
        serving(echo, f"unix:{tmp_path / 's'}") as address,
        calling(address, headers={"x-frostbyte-node": "n1"}) as client,
    ):
        lines = (await client.call("GET", "/headers")).body.decode().splitlines()
    names = {line.partition(":")[0] for line in lines}
    assert "authorization: Bearer token" in lines
    assert "x-frostbyte-node: n1" in lines
    assert names == {"host", "authorization", "x-frostbyte-node"}


async def test_a_stream_is_sent_as_it_comes(tmp_path: Path) -> None:
    """With and without asking first, as bytes, bytearrays and views."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        for expect in (False, True):
            source = _blocks(b"abc", bytearray(b"def"), memoryview(b"ghi"))  # type: ignore[arg-type]
            answer = await client.send("PUT", "/x", source, 9, expect_continue=expect)
            assert answer.body == b"abcdefghi"


async def test_a_refusal_comes_before_the_source_is_touched(tmp_path: Path) -> None:
    """And the connection that the refusal closed does not disturb the next call."""
    touched = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal touched
        touched = True
        yield b"x" * 100

    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        assert (await client.send("PUT", "/full", source(), 100, expect_continue=True)).status == 507
        assert not touched
        assert (await client.call("PUT", "/x", b"again")).body == b"again"


@pytest.mark.parametrize(("blocks", "match"), [((b"abc",), "shorter"), ((b"abc", b"defg"), "longer"), ((), "shorter")])
async def test_a_source_of_another_length_is_refused(tmp_path: Path, blocks: tuple[bytes, ...], match: str) -> None:
    """The other side never takes a part for the whole."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        with pytest.raises(ChunkTruncated, match=match):
            await client.send("PUT", "/x", _blocks(*blocks), 6, expect_continue=False)


async def test_what_the_source_raises_is_raised(tmp_path: Path) -> None:
    """Not the broken connection that follows from it."""

    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("the source broke")

    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        with pytest.raises(LookupError, match="the source broke"):
            await client.send("PUT", "/x", source(), 6, expect_continue=True)


async def test_a_kept_connection_that_was_lost_is_replaced(tmp_path: Path) -> None:
    """Where the request may be sent twice and the source was not touched yet, the call goes on over a new one."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        for send in (
            lambda: client.send("PUT", "/x", _blocks(b"abc"), 3, expect_continue=True),
            lambda: client.call("PUT", "/x", b"abc"),
            lambda: _open_and_read(client),
        ):
            await client.call("GET", "/count")
            [kept] = client._pool._idle
            sending = asyncio.ensure_future(send())
            await asyncio.sleep(0)  # the head is written, nothing was answered
            assert kept in client._pool._used
            kept.connection_lost(None)
            assert (await sending).body in (b"abc", b"0")


async def _open_and_read(client: InternalClient) -> Answer:
    async with client.open("GET", "/count") as response:
        return Answer(response.status, response.headers, await response.read(100))


async def test_what_must_not_be_sent_twice_is_not(tmp_path: Path) -> None:
    """A POST over a kept connection that was lost fails; so does anything over a new one."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        await client.call("GET", "/count")
        posting = asyncio.ensure_future(client.call("POST", "/x", b"abc"))
        await asyncio.sleep(0)
        [kept] = client._pool._used
        kept.connection_lost(None)
        with pytest.raises(NodeUnreachable):
            await posting


async def test_a_lost_connection_is_told_once(tmp_path: Path) -> None:
    """The call fails, and no task of it leaves an error behind that nobody retrieves."""
    left_behind: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left_behind.append(context))

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()

    async with raw_peer(tmp_path / "s", cut) as address, calling(address, deadlines=SHORT) as client:
        with pytest.raises(NodeUnreachable):
            await client.send("PUT", "/x", _blocks(b"abc"), 3, expect_continue=True)
    gc.collect()
    assert left_behind == []


async def test_a_dead_peer_is_noticed_while_the_source_rests(tmp_path: Path) -> None:
    """Another node can then take the body from its start, before a slow client sends more."""
    resting = asyncio.Event()

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await resting.wait()

    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        resting.set()
        await asyncio.Event().wait()

    async with raw_peer(tmp_path / "s", cut) as address, calling(address) as client:
        async with asyncio.timeout(10):
            with pytest.raises(NodeUnreachable):
                await client.send("PUT", "/x", source(), 6, expect_continue=True)


async def test_an_answer_before_the_end_of_the_body_ends_it(tmp_path: Path) -> None:
    """The source is not asked for what nobody wants any more, and the connection is not used again."""

    async def full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\nabc")
        writer.write(b"HTTP/1.1 507 Full\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.Event().wait()

    async def source() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    async with raw_peer(tmp_path / "s", full) as address, calling(address) as client:
        async with asyncio.timeout(10):
            answer = await client.send("PUT", "/x", source(), 6, expect_continue=False)
        assert (answer.status, answer.body) == (507, b"no")
        assert not client._pool._idle


async def test_connections_are_bounded_and_taken_in_turn(tmp_path: Path) -> None:
    """Whoever finds none free waits; who waits too long is told that a deadline was missed; none is lost by giving
    up."""
    limits = Deadlines(connect_s=0.3, progress_s=5, answer_s=5)
    going_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await going_on.wait()
        yield b"abc"

    async with serving(echo, f"unix:{tmp_path / 's'}") as address:
        async with calling(address, deadlines=limits, connections_max=2) as client:
            held = [asyncio.ensure_future(client.send("PUT", "/x", slow(), 3, expect_continue=True)) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(NodeUnreachable, match="missed a deadline"):
                await client.call("GET", "/count")
            waiting = [asyncio.ensure_future(client.call("GET", "/count")) for _ in range(8)]
            await asyncio.sleep(0.05)
            waiting.pop(0).cancel()
            going_on.set()
            assert [answer.body for answer in await asyncio.gather(*held)] == [b"abc"] * 2
            assert [answer.body for answer in await asyncio.gather(*waiting)] == [b"0"] * 7
            assert len(client._pool._idle) == 2


async def test_an_old_connection_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side may be closing it at this moment."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        await client.call("GET", "/count")
        [first] = client._pool._idle
        monkeypatch.setattr(connection_pool, "IDLE_TIMEOUT_S", -1.0)
        await client.call("GET", "/count")
        [second] = client._pool._idle
        assert first is not second
        assert first.failure is not None


async def test_a_closed_client_can_be_used_again(tmp_path: Path) -> None:
    """Calls under way fail; later ones connect anew."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:

        async def endless() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        sending = asyncio.ensure_future(client.send("PUT", "/x", endless(), 3, expect_continue=True))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(NodeUnreachable, match="on this side"):
            await sending
        assert (await client.call("PUT", "/x", b"abc")).body == b"abc"


async def test_a_large_answer_is_read_as_fast_as_it_is_wanted(tmp_path: Path) -> None:
    """A slow reader holds about READ_BUFFER_BYTES, and misses no deadline."""
    size = 8 << 20

    async def large(scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with serving(large, f"unix:{tmp_path / 's'}") as address:
        async with calling(address, deadlines=SHORT._replace(progress_s=1.0)) as client:
            async with client.open("GET", "/x") as response:
                connection = response._connection
                await asyncio.sleep(0.2)
                assert READ_BUFFER_BYTES < connection._held_bytes < 2 * READ_BUFFER_BYTES
                assert response.content_length == size
                assert sum([len(block) async for block in response.blocks()]) == size
            assert client._pool._idle == [connection]


async def test_an_answer_that_nobody_takes_is_nobodys(tmp_path: Path) -> None:
    """Left with its body unread, the connection is used again where all of it came, and gives the next one's own."""
    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address) as client:
        async with client.open("GET", "/headers") as response:
            await response._connection.wait(Stage.END)
        [kept] = client._pool._idle
        assert (await client.call("PUT", "/x", b"own")).body == b"own"
        assert client._pool._idle == [kept]


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b"])
async def test_nothing_is_smuggled_into_a_head(tmp_path: Path, value: str) -> None:
    """Tickets and targets come from other processes."""
    async with calling(Address("unix", path=str(tmp_path / "none"))) as client:
        with pytest.raises(ValueError, match="characters"):
            await client.call("GET", "/x", headers={"Authorization": value})
        with pytest.raises(ValueError, match="printable"):
            await client.call("GET", f"/{value}")


async def test_nobody_listens(tmp_path: Path) -> None:
    """Refused and missing sockets are the same to a caller, and the error is the one it chose."""
    async with calling(Address("unix", path=str(tmp_path / "none"))) as client:
        with pytest.raises(NodeUnreachable, match="none"):
            await client.call("GET", "/x")
    async with calling(Address("unix", path=str(tmp_path / "none")), unreachable=Unavailable) as client:
        with pytest.raises(Unavailable):
            await client.send("PUT", "/x", _blocks(b"a"), 1, expect_continue=False)
        with pytest.raises(Unavailable):
            async with client.open("GET", "/x"):
                pass


async def test_a_peer_that_says_nothing_misses_the_deadline(tmp_path: Path) -> None:
    """For whole calls, for sends that wait for permission, and for reads."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_peer(tmp_path / "s", mute) as address, calling(address, deadlines=SHORT) as client:
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            await client.call("GET", "/x")
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            await client.send("PUT", "/x", _blocks(b"a"), 1, expect_continue=True)
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            await client.send("PUT", "/x", _blocks(b"a"), 1, expect_continue=False)
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            async with client.open("GET", "/x"):
                pass


async def test_a_peer_that_stops_taking_misses_the_deadline(tmp_path: Path) -> None:
    """Midway in a body, once the buffers between are full."""

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.Event().wait()

    length = 64 << 20
    async with raw_peer(tmp_path / "s", stuck) as address, calling(address, deadlines=SHORT) as client:
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            await client.send("PUT", "/x", _blocks(*[bytes(65536)] * (length // 65536)), length, expect_continue=True)


async def test_a_slow_source_misses_no_deadline(tmp_path: Path) -> None:
    """Waiting for the client of the client is not the peer's fault."""
    limits = Deadlines(connect_s=5, progress_s=0.4, answer_s=30)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(2):
            await asyncio.sleep(0.6)
            yield b"abc"

    async with serving(echo, f"unix:{tmp_path / 's'}") as address, calling(address, deadlines=limits) as client:
        assert (await client.send("PUT", "/x", slow(), 6, expect_continue=True)).body == b"abcabc"


async def test_a_peer_that_stops_giving_misses_the_deadline(tmp_path: Path) -> None:
    """Midway in an answer; a reader that is slow itself does not."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    async with raw_peer(tmp_path / "s", half) as address, calling(address, deadlines=SHORT) as client:
        with pytest.raises(NodeUnreachable, match=r"missed a deadline|Timeout"):
            async with client.open("GET", "/x") as response:
                await response.read(100)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nh: " + b"x" * 20000 + b"\r\n\r\n",
    ],
)
async def test_a_strange_peer_is_unreachable(tmp_path: Path, answer: bytes) -> None:
    """Cut off, of another protocol, or beyond the bounds."""

    async def strange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with raw_peer(tmp_path / "s", strange) as address, calling(address) as client:
        with pytest.raises(NodeUnreachable):
            await client.call("GET", "/x")


async def test_authorities_that_were_replaced_are_read_again(tmp_path: Path) -> None:
    """A file of the same name with another authority in it counts for clients that are made from then on."""
    ca = tmp_path / "ca.pem"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made = make_internal_tls(tmp_path / name)
        ca.write_bytes(Path(made.ca).read_bytes())
        async with serving(echo, "https://127.0.0.1:0", made.files) as address:
            async with calling(address, tls_ca=str(ca)) as client:
                assert (await client.call("PUT", "/x", b"sealed")).body == b"sealed"


async def test_tls_is_verified(tmp_path: Path) -> None:
    """Against the authority given, by name; a stranger's certificate is refused."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    ours, theirs = make_internal_tls(tmp_path / "ours"), make_internal_tls(tmp_path / "theirs")
    async with serving(echo, "https://127.0.0.1:0", ours.files) as address:
        async with calling(address, tls_ca=ours.ca) as client:
            assert (await client.call("PUT", "/x", b"sealed")).body == b"sealed"
            big = [bytes(65536)] * 40
            answer = await client.send("PUT", "/count", _blocks(*big), 65536 * 40, expect_continue=True)
            assert answer.body == b"%d" % (65536 * 40)
        async with calling(address, tls_ca=theirs.ca) as client:
            with pytest.raises(NodeUnreachable, match=r"(?i)certificate"):
                await client.call("GET", "/x")
        plain = parse_address(f"http://127.0.0.1:{address.port}")
        async with calling(plain) as client:
            with pytest.raises(NodeUnreachable):
                await client.call("GET", "/x")


def test_a_missing_authority_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    """Not of the peer: it must not look like a node that is down."""
    (tmp_path / "junk").write_text("junk")
    for name, error in (("none", FileNotFoundError), ("junk", ssl.SSLError)):
        with pytest.raises(error):
            InternalClient(parse_address("https://127.0.0.1:1"), "t", tls_ca=str(tmp_path / name))


async def test_a_body_of_a_mib_is_handed_over_at_once(tmp_path: Path) -> None:
    """To a Unix socket, in its pieces, to a peer that has not read a byte: nothing is left for this side to hold."""
    taken = asyncio.Event()
    blocks = [b"%d" % (n % 10) * 65_536 for n in range(16)]
    found: list[bytes] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taken.wait()
        await reader.readuntil(b"\r\n\r\n")
        found.append(await reader.readexactly(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with raw_peer(tmp_path / "s", late) as address:
        client = InternalClient(address, "t")
        sending = asyncio.create_task(client.send_whole("PUT", "/", blocks, 1 << 20))
        async with asyncio.timeout(20):
            while not (used := list(client._pool._used)) or used[0]._transport is None or not used[0].exchanges:
                await asyncio.sleep(0)
            while used[0]._transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
        taken.set()
        assert (await sending).status == 200
        assert found == [b"".join(blocks)]
        await client.close()
