"""The datanode's HTTP by raw bytes: who is let in, what is refused before it is read, and how failures are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from storage.base.address import Address
from storage.base.clock import ManualClock
from storage.base.errors import ChunkError, Corrupt, FrostbyteError, NoSuchKey, Unavailable
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token, bearer, make_pull_ticket, report_token
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import Buffer, ChunkReceipt
from storage.datanode import near_wire, wire
from storage.datanode.app import DatanodeApp
from storage.datanode.peers import Peers
from tests.storage.base.serving import exchange_bytes, serving
from tests.storage.chunks.conformance import chunk_id, cut, some_bytes
from tests.storage.datanode.nodes import NODE_KEY

TOKEN = bearer(access_token(NODE_KEY))
CLOCK = ManualClock()


class Subject:
    """A served store, and the bytes to send to it."""

    def __init__(self, store: MemoryChunkStore, address: Address) -> None:
        self.store = store
        self.address = address

    async def send(
        self, method: str, target: str, body: bytes = b"", *, token: str | None = TOKEN, headers: str = ""
    ) -> tuple[int, bytes, bytes]:
        """One request on a connection of its own: status, head, body. Content-Length is added where there is a body."""
        head = f"{method} {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}"
        if token is not None:
            head += f"authorization: {token}\r\n"
        if body:
            head += f"content-length: {len(body)}\r\n"
        answer = await exchange_bytes(self.address, head.encode("latin-1") + b"\r\n" + body)
        answer_head, _, answer_body = answer.partition(b"\r\n\r\n")
        return int(answer_head.split(b" ")[1]), answer_head.lower(), answer_body

    async def put(self, of: ChunkId, data: bytes) -> None:
        """Behind the protocol's back."""
        await self.store.put(of, len(data), cut(data, 65_552))


@pytest.fixture
async def subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """An application over a memory store, on a Unix socket."""
    store = MemoryChunkStore()
    app = DatanodeApp(store, NODE_KEY, CLOCK, Peers())
    async with serving(app, f"unix:{tmp_path_factory.mktemp('s') / 's'}") as address:
        yield Subject(store, address)


TARGETS = [
    ("GET", wire.SPACE),
    ("GET", f"{wire.INVENTORY}?after=&limit=5"),
    ("POST", wire.BATCH_DELETE),
    ("POST", wire.PURGE),
    ("POST", wire.BATCH_INSPECT),
    ("GET", f"{wire.DAMAGED}?after=&limit=5"),
    ("POST", wire.DAMAGED_FORGET),
    ("GET", wire.SCRUB),
    ("POST", wire.SCRUB),
    ("POST", wire.chunk_target(chunk_id(1), wire.REBUILD)),
    ("PUT", wire.chunk_target(chunk_id(1))),
    ("PUT", wire.chunk_target(chunk_id(1), near_wire.DRAFT)),
    ("GET", wire.chunk_target(chunk_id(1))),
    ("HEAD", wire.chunk_target(chunk_id(1))),
    ("POST", wire.chunk_target(chunk_id(1), wire.PULL)),
    ("GET", "/"),
    ("GET", "/v1/chunks/../../etc/passwd"),
]


@pytest.mark.parametrize(("method", "target"), TARGETS)
@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "Bearer ",
        "Bearer " + "0" * 64,
        "Bearer " + report_token(NODE_KEY),
        TOKEN.lower(),
        TOKEN + "0",
        access_token(NODE_KEY),
        "Basic \xff\xfe",
    ],
)
async def test_nobody_gets_in_without_the_token(subject: Subject, method: str, target: str, token: str | None) -> None:
    """Whatever is asked, and whether or not it exists."""
    status, head, _ = await subject.send(method, target, token=token)
    assert status == 401
    assert b"x-frostbyte-error: unauthorized" in head


async def test_a_ticket_reads_one_chunk_until_its_end(subject: Subject) -> None:
    """And does nothing else."""
    await subject.put(chunk_id(1), b"sealed")
    await subject.put(chunk_id(2), b"other")
    ticket = "Ticket " + make_pull_ticket(NODE_KEY, chunk_id(1), CLOCK.now_ms() + 1)
    target = wire.chunk_target(chunk_id(1))
    assert (await subject.send("GET", target, token=ticket))[::2] == (200, b"sealed")
    for method, other in (
        ("GET", wire.chunk_target(chunk_id(2))),
        ("HEAD", target),
        ("PUT", target),
        ("POST", target + wire.VERIFY),
        ("GET", target + wire.VERIFY),
        ("GET", wire.SPACE),
        ("GET", wire.CHUNKS + "x"),
    ):
        assert (await subject.send(method, other, token=ticket))[0] == 401, (method, other)
    expired = "Ticket " + make_pull_ticket(NODE_KEY, chunk_id(1), CLOCK.now_ms())
    assert (await subject.send("GET", target, token=expired))[0] == 401


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 39,
        "0" * 41,
        "A" * 40,
        "g" * 40,
        "..",
        "%2e%2e",
        "0" * 38 + "%2e",
        "0" * 40 + "%00",
        "0" * 40 + "%0a",
        "%C3%BC" * 20,
    ],
)
async def test_bad_ids_are_refused(subject: Subject, text: str) -> None:
    """Nothing but 40 lower-case hex digits reaches the store."""
    for method, body in (("PUT", b"x"), ("GET", b""), ("HEAD", b"")):
        assert (await subject.send(method, wire.CHUNKS + text, body))[0] in (400, 405), method
    assert not subject.store.chunks


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("PUT", wire.SPACE, 404),
        ("POST", wire.chunk_target(chunk_id(1)), 405),
        ("DELETE", wire.chunk_target(chunk_id(1)), 405),
        ("POST", wire.chunk_target(chunk_id(1), "/"), 405),
        ("POST", wire.chunk_target(chunk_id(1), "/verify/x"), 405),
        ("GET", wire.chunk_target(chunk_id(1)), 404),
        ("HEAD", wire.chunk_target(chunk_id(1)), 404),
        ("GET", f"{wire.INVENTORY}", 400),
        ("GET", f"{wire.INVENTORY}?limit=0", 400),
        ("GET", f"{wire.INVENTORY}?limit=-1", 400),
        ("GET", f"{wire.INVENTORY}?limit=x&after=", 400),
        ("GET", f"{wire.INVENTORY}?limit=5&after=zz", 400),
    ],
)
async def test_what_the_protocol_does_not_have(subject: Subject, method: str, target: str, status: int) -> None:
    """Is said so."""
    assert (await subject.send(method, target))[0] == status


async def test_a_put_answers_with_the_receipt(subject: Subject) -> None:
    """201, msgpack, the store's own digest."""
    status, head, body = await subject.send("PUT", wire.chunk_target(chunk_id(1)), b"123456789")
    assert status == 201
    assert b"content-type: application/msgpack" in head
    # The published check value of CRC-64/NVME for these nine digits.
    assert wire.parse_receipt(body) == ChunkReceipt(9, bytes.fromhex("ae8b14860a799888"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("", 411),
        ("transfer-encoding: chunked\r\n", 411),
        ("content-length: 0\r\n", 413),
        (f"content-length: {wire.CHUNK_BYTES_MAX + 1}\r\n", 413),
        ("content-length: 99999999999999999999\r\n", 400),
        ("content-length: -1\r\n", 400),
        ("content-length: 5\r\ncontent-length: 6\r\n", 400),
    ],
)
async def test_a_put_needs_a_possible_length(subject: Subject, headers: str, status: int) -> None:
    """Before any byte of the body is read."""
    assert (await subject.send("PUT", wire.chunk_target(chunk_id(1)), headers=headers))[0] == status


async def test_a_full_node_refuses_before_it_reads(subject: Subject) -> None:
    """No 100 is sent, the answer is 507, and the connection ends, as the peer may or may not send the body."""
    subject.store.capacity_bytes = 10
    expect = "expect: 100-continue\r\ncontent-length: 100000\r\n"
    status, head, body = await subject.send("PUT", wire.chunk_target(chunk_id(1)), headers=expect)
    assert status == 507
    assert b"connection: close" in head
    assert wire.parse_failure("NodeFull", body) is not None


async def test_the_body_is_asked_for_after_the_checks(subject: Subject) -> None:
    """100 Continue comes when the store begins to read; a bad token never gets it."""
    for token, first_line in ((TOKEN, b"HTTP/1.1 100 Continue\r\n"), ("Bearer x", b"HTTP/1.1 401 Unauthorized\r\n")):
        reader, writer = await asyncio.open_unix_connection(subject.address.path)
        head = f"PUT {wire.chunk_target(chunk_id(1))} HTTP/1.1\r\nauthorization: {token}\r\n"
        writer.write(f"{head}expect: 100-continue\r\ncontent-length: 3\r\n\r\n".encode())
        assert await reader.readline() == first_line
        writer.close()


async def test_a_truncated_body_leaves_nothing(subject: Subject) -> None:
    """The peer goes away in the middle."""
    _, writer = await asyncio.open_unix_connection(subject.address.path)
    head = f"PUT {wire.chunk_target(chunk_id(1))} HTTP/1.1\r\nauthorization: {TOKEN}\r\ncontent-length: 100\r\n\r\n"
    writer.write(head.encode() + b"half")
    writer.write_eof()
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    status, _, body = await subject.send("GET", f"{wire.INVENTORY}?limit=5")
    assert (status, wire.parse_inventory(body)) == (200, [])


async def test_ranges(subject: Subject) -> None:
    """Small ones from memory, large ones streamed, both cut to the chunk; 416 behind its end."""
    data = some_bytes((3 << 20) + 5)
    await subject.put(chunk_id(1), data)
    target = wire.chunk_target(chunk_id(1))
    size = len(data)
    for asked, status, expected, content_range in (
        ("bytes=0-0", 206, data[:1], "bytes 0-0/*"),
        (f"bytes={size - 3}-{size + 99}", 206, data[-3:], f"bytes {size - 3}-{size - 1}/*"),
        ("bytes=7-", 206, data[7:], f"bytes 7-{size - 1}/{size}"),
        (f"bytes=5-{2 << 20}", 206, data[5 : (2 << 20) + 1], f"bytes 5-{2 << 20}/{size}"),
        (f"bytes=1-{size + 5}", 206, data[1:], f"bytes 1-{size - 1}/{size}"),
    ):
        found, head, body = await subject.send("GET", target, headers=f"range: {asked}\r\n")
        assert (found, body == expected) == (status, True), asked
        assert f"content-range: {content_range}".encode() in head, asked
    for asked in (f"bytes={size}-", f"bytes={size}-{size}", f"bytes={size}-{size + (2 << 20)}"):
        assert (await subject.send("GET", target, headers=f"range: {asked}\r\n"))[0] == 416, asked
    for asked in ("bytes=-5", "bytes=0-1,3-4", "bytes=9-1"):
        assert (await subject.send("GET", target, headers=f"range: {asked}\r\n"))[0] == 400, asked


async def test_a_head_has_length_and_digest(subject: Subject) -> None:
    """And no body."""
    await subject.put(chunk_id(1), b"123456789")
    status, head, body = await subject.send("HEAD", wire.chunk_target(chunk_id(1)))
    assert (status, body) == (200, b"")
    assert b"content-length: 9" in head
    assert b"x-frostbyte-digest: ae8b14860a799888" in head


@pytest.mark.parametrize(
    "target", [wire.BATCH_PUT, wire.BATCH_GET, wire.BATCH_DELETE, wire.BATCH_QUARANTINE, wire.PURGE]
)
async def test_bodies_are_bounded_and_checked(subject: Subject, target: str) -> None:
    """Too long is refused by its announced length, nonsense after reading, both without a traceback."""
    head = f"content-length: {wire.BATCH_BODY_BYTES_MAX + 1}\r\nexpect: 100-continue\r\n"
    assert (await subject.send("POST", target, headers=head))[0] == 413
    for body in (b"\xff", b"\xc1", b"\x91" * 1000):
        assert (await subject.send("POST", target, body))[0] == 400


async def test_a_body_without_a_length_is_bounded_as_it_comes(subject: Subject) -> None:
    """Chunked framing announces nothing."""
    piece = b"1000\r\n" + b"\x00" * 0x1000 + b"\r\n"
    head = f"POST {wire.PURGE} HTTP/1.1\r\nauthorization: {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    assert (await exchange_bytes(subject.address, head.encode() + piece * 5)).startswith(b"HTTP/1.1 413 ")


async def test_a_refused_small_body_keeps_the_connection(subject: Subject) -> None:
    """Its bytes are thrown away by the server and the next request is answered."""
    reader, writer = await asyncio.open_unix_connection(subject.address.path)
    for _ in range(2):
        head = f"PUT {wire.CHUNKS}bad HTTP/1.1\r\nauthorization: {TOKEN}\r\ncontent-length: 1000\r\n\r\n"
        writer.write(head.encode() + b"x" * 1000)
        assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        head_left = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head_left
        length = int(head_left.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


class BreakingStore(MemoryChunkStore):
    """Gives one good block of a chunk, then raises."""

    def __init__(self, error: Exception, good_blocks: int) -> None:
        super().__init__()
        self.error = error
        self.good_blocks = good_blocks

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        for _ in range(self.good_blocks):
            yield bytes(1000)
        raise self.error

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        return ChunkReceipt(2_000_000, bytes(8))

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (Corrupt("bad"), 422, b"corrupt"),
        (Unavailable("away"), 503, b"unavailable"),
        (ChunkError("odd"), 500, b"chunkerror"),
        (NoSuchKey("not of this floor"), 500, b"nosuchkey"),
        (OSError(5, "the disk"), 500, b"internalerror"),
        (ZeroDivisionError(), 500, b"internalerror"),
    ],
)
async def test_errors_are_told_by_name(
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    name: bytes,
) -> None:
    """Before the head by status and header; after it by cutting the connection. Defects are logged, once."""
    store = BreakingStore(error, 0)
    app = DatanodeApp(store, NODE_KEY, CLOCK, Peers())
    async with serving(app, f"unix:{tmp_path_factory.mktemp('s') / 's'}") as address:
        subject = Subject(store, address)
        target = wire.chunk_target(chunk_id(1))
        for method, body in (("GET", b""), ("PUT", b"x")):
            found, head, _ = await subject.send(method, target, body)
            assert found == status
            assert b"x-frostbyte-error: " + name in head
        defects = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert bool(defects) is not isinstance(error, ChunkError | Corrupt | Unavailable)
        store.good_blocks = 1
        found, head, body = await subject.send("GET", target)
        assert (found, body) == (200, bytes(1000))
        assert b"content-length: 2000000" in head
    if isinstance(error, FrostbyteError):
        assert not any(record.exc_info for record in caplog.records)
