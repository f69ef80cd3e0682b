"""Chunks that are put past the parser, beside the same requests on the ordinary road: the same answers to the byte, and
the same bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.base import internal_server
from storage.base.address import Address
from storage.base.clock import SystemClock
from storage.base.errors import ChunkConflict, ChunkError, Corrupt, NodeFull, NoSuchKey, Unavailable
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token, bearer
from storage.base.lean_protocol import JOINED_BYTES_MAX, SMALL_BLOCK_BYTES, LeanProtocol
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import Buffer, ChunkReceipt
from storage.datanode import wire
from storage.datanode.app import DatanodeApp
from storage.datanode.intake import Intake
from storage.datanode.peers import Peers
from storage.model import NodeState
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id, some_bytes
from tests.storage.datanode.nodes import NODE_KEY

TOKEN = bearer(access_token(NODE_KEY))
SETTLE_TIMEOUT_S = 30.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Store(MemoryChunkStore):
    """Notes the pieces that come past the parser, and may hold them up or refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.lean: list[Sequence[Buffer]] = []
        self.begun = 0
        self.open = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.error: Exception | None = None

    def begin_whole(self, chunk_id: ChunkId, length: int) -> Put:  # type: ignore[override]
        self._admit(length)
        self.begun += 1
        return Put(self, chunk_id)

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return await super().put(chunk_id, length, body)


class Put:
    """WholePut that is counted."""

    def __init__(self, store: Store, chunk_id: ChunkId) -> None:
        store.open += 1
        self._store = store
        self._chunk_id = chunk_id

    def store(self, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        self._store.lean.append(blocks)
        return asyncio.ensure_future(self._store.put_whole(self._chunk_id, blocks))

    def close(self) -> None:
        self._store.open -= 1


class Subject:
    """A served store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.intake = Intake()
        self.app = DatanodeApp(store, NODE_KEY, SystemClock(), Peers(), intake=self.intake)
        self.address: Address
        self.protocols: list[LeanProtocol] = []
        """of all connections"""

    def make_protocol(self, **kwargs: Any) -> LeanProtocol:
        """For the server."""
        self.protocols.append(LeanProtocol(self.app.lean_calls, **kwargs))
        return self.protocols[-1]

    async def connect(self) -> Connection:
        return await asyncio.open_unix_connection(self.address.path)

    async def settle(self) -> None:
        """Until no request is under way."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while self.app.requests:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Subject]:
    """A datanode's server on a Unix socket."""
    subject = Subject(Store())
    async with serving(subject.app, f"unix:{directory / 's'}", make_protocol=subject.make_protocol) as subject.address:
        yield subject


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    async with running(tmp_path) as found:
        yield found


def head(of: ChunkId | str, length: int, *, lean: bool = True, token: str = TOKEN) -> bytes:
    """Of a PUT, spelled as our client spells it, or in a way that is as good and for the parser."""
    target = of if isinstance(of, str) else wire.chunk_target(of)
    host = "Host" if lean else "host"
    return f"PUT {target} HTTP/1.1\r\n{host}: h\r\nAuthorization: {token}\r\nContent-Length: {length}\r\n\r\n".encode()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """One whole answer, head and body."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        found = await reader.readuntil(b"\r\n\r\n")
        length = int(found.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return found + await reader.readexactly(length)


async def ask(connection: Connection, data: bytes) -> bytes:
    """What is answered to a request."""
    connection[1].write(data)
    return await read_answer(connection[0])


@pytest.mark.parametrize("length", [1, 5000, 65_632, 300_000, RECORD_BYTES_MAX])
async def test_both_roads_answer_alike(subject: Subject, length: int) -> None:
    """To the byte, on one connection in turn; what is stored is the same."""
    data = some_bytes(length)
    connection = await subject.connect()
    answers = [await ask(connection, head(chunk_id(n), length, lean=n % 2 == 0) + data) for n in range(4)]
    assert answers[0].startswith(b"HTTP/1.1 201 Created\r\n") and len(set(answers)) == 1
    assert [subject.store.chunks[chunk_id(n)] for n in range(4)] == [data] * 4
    assert len(subject.store.lean) == 2 and not subject.store.open and not subject.app.requests
    connection[1].close()


@pytest.mark.parametrize(
    "error",
    [
        ChunkConflict("other bytes"),
        NodeFull("full"),
        Unavailable("away"),
        Corrupt("bad"),
        ChunkError("the medium does not write"),
        NoSuchKey("not of this floor"),
        OSError(5, "the disk"),
        ZeroDivisionError(),
    ],
)
async def test_both_roads_fail_alike(subject: Subject, error: Exception) -> None:
    """And the connection goes on."""
    connection = await subject.connect()
    subject.store.error = error
    answers = [await ask(connection, head(chunk_id(1), 9, lean=lean) + b"123456789") for lean in (True, False)]
    assert answers[0] == answers[1] and b" 20" not in answers[0].partition(b"\r\n")[0]
    assert len(subject.store.lean) == 1 and not subject.store.open and not subject.app.requests
    subject.store.error = None
    assert (await ask(connection, head(chunk_id(1), 9) + b"123456789")).startswith(b"HTTP/1.1 201 ")
    connection[1].close()


@pytest.mark.parametrize(
    "data",
    [
        head(chunk_id(1), 9, token="Bearer " + "0" * 64),
        head(wire.CHUNKS + "0" * 39, 9),
        head(wire.CHUNKS + "A" * 40, 9),
        head(wire.CHUNKS + "0" * 40 + "?x=y", 9),
        head(wire.CHUNKS + "0" * 40 + "/verify", 9),
        head("/v1/other", 9),
    ],
)
async def test_what_is_refused_is_refused_on_the_ordinary_road(subject: Subject, data: bytes) -> None:
    """Spelled so or so: the same answer, and the connection goes on."""
    connection = await subject.connect()
    answers = [await ask(connection, asked + b"123456789") for asked in (data, data.replace(b"Host", b"host"))]
    assert answers[0] == answers[1]
    assert not subject.store.lean
    assert (await ask(connection, head(chunk_id(1), 9) + b"123456789")).startswith(b"HTTP/1.1 201 ")
    connection[1].close()


async def test_a_node_that_takes_nothing(subject: Subject) -> None:
    """A full one and one that drains refuse by name, after the body, so that whoever sends it hears why."""
    data = some_bytes(RECORD_BYTES_MAX)
    connection = await subject.connect()
    subject.intake.hear(NodeState.DRAINING)
    assert (await ask(connection, head(chunk_id(1), len(data)) + data)).startswith(b"HTTP/1.1 507 ")
    subject.intake.hear(NodeState.UP)
    subject.store.capacity_bytes = 1000
    assert (await ask(connection, head(chunk_id(1), len(data)) + data)).startswith(b"HTTP/1.1 507 ")
    for number in range(2):  # the first after a refusal goes the ordinary road
        assert (await ask(connection, head(chunk_id(number), 90) + data[:90])).startswith(b"HTTP/1.1 201 ")
    assert len(subject.store.lean) == 1
    connection[1].close()


async def test_a_large_chunk_is_streamed(subject: Subject) -> None:
    """What is too large for a segment never waits in memory."""
    data = some_bytes(RECORD_BYTES_MAX + 1)
    connection = await subject.connect()
    assert (await ask(connection, head(chunk_id(1), len(data)) + data)).startswith(b"HTTP/1.1 201 ")
    assert not subject.store.lean
    connection[1].close()


async def test_a_body_that_trickles_in_is_copied_together(subject: Subject) -> None:
    """Byte by byte or cut anywhere, it is a few blocks of known size, in order."""
    data = some_bytes(3 * JOINED_BYTES_MAX)
    connection = await subject.connect()
    connection[1].write(head(chunk_id(1), len(data)))
    at = 0
    for step in (0, 1, 2, SMALL_BLOCK_BYTES - 1, SMALL_BLOCK_BYTES, 20_000, *[1000] * 20):
        connection[1].write(data[at : at + step])
        await connection[1].drain()
        await asyncio.sleep(0.001)
        at += step
    assert (await ask(connection, data[at:])).startswith(b"HTTP/1.1 201 ")
    assert subject.store.chunks[chunk_id(1)] == data
    [blocks] = subject.store.lean
    assert len(blocks) < 15
    connection[1].close()


async def test_requests_that_do_not_wait(subject: Subject) -> None:
    """All at once on one connection: answered in their order, those behind the first by the ordinary road."""
    connection = await subject.connect()
    subject.store.goes_on.clear()
    bodies = [some_bytes(100 + n) for n in range(5)]
    connection[1].write(b"".join(head(chunk_id(n), len(body)) + body for n, body in enumerate(bodies)))
    await asyncio.sleep(0.05)
    subject.store.goes_on.set()
    for body in bodies:
        answer = await read_answer(connection[0])
        assert wire.parse_receipt(answer.partition(b"\r\n\r\n")[2]).length == len(body)
    await subject.settle()
    assert (await ask(connection, head(chunk_id(7), 5) + b"after")).startswith(b"HTTP/1.1 201 ")
    connection[1].close()


async def test_a_connection_that_is_lost_in_a_body(subject: Subject) -> None:
    """Nothing of it is stored, and nothing is held."""
    _, writer = await subject.connect()
    writer.write(head(chunk_id(1), 100) + b"half")
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while not subject.app.requests:
            await asyncio.sleep(0.001)
    assert subject.store.open == 1
    writer.close()
    await subject.settle()
    assert not subject.store.open and not subject.store.chunks


async def test_a_connection_that_is_lost_while_it_is_stored(subject: Subject) -> None:
    """The chunk is stored all the same, as it was told to be."""
    subject.store.goes_on.clear()
    _, writer = await subject.connect()
    writer.write(head(chunk_id(1), 4) + b"half")
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while not subject.store.lean:
            await asyncio.sleep(0.001)
    writer.close()
    await asyncio.sleep(0.02)
    assert subject.app.requests == 1
    subject.store.goes_on.set()
    await subject.settle()
    assert subject.store.chunks[chunk_id(1)] == b"half" and not subject.store.open


async def test_a_body_that_stalls_is_cut(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the ordinary road; one that moves, or waits for the store, is not."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.2)
    store = subject.store
    store.goes_on.clear()
    stalled, moving, waiting = [await subject.connect() for _ in range(3)]
    waiting[1].write(head(chunk_id(1), 3) + b"all")
    stalled[1].write(head(chunk_id(2), 100) + b"half")
    moving[1].write(head(chunk_id(3), 100))
    for _ in range(50):
        moving[1].write(b"xx")
        await asyncio.sleep(0.01)
        for protocol in subject.protocols:
            protocol.abort_if_stalled(asyncio.get_running_loop().time())
    store.goes_on.set()
    assert await stalled[0].read() == b""
    assert (await read_answer(waiting[0])).startswith(b"HTTP/1.1 201 ")
    assert (await read_answer(moving[0])).startswith(b"HTTP/1.1 201 ")
    for _, writer in (stalled, moving, waiting):
        writer.close()


async def test_a_drain_waits_for_the_answer(tmp_path: Path) -> None:
    """Which says that the connection ends; idle ones end at once."""
    async with running(tmp_path) as subject:
        idle, busy = await subject.connect(), await subject.connect()
        assert (await ask(idle, head(chunk_id(1), 3) + b"abc")).startswith(b"HTTP/1.1 201 ")
        subject.store.goes_on.clear()
        busy[1].write(head(chunk_id(2), 3) + b"abc")
        while not subject.store.lean[1:]:
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.1, subject.store.goes_on.set)
    assert await idle[0].read() == b""
    answer = await busy[0].read()
    assert answer.startswith(b"HTTP/1.1 201 ") and b"connection: close\r\n" in answer
    assert subject.store.chunks[chunk_id(2)] == b"abc"


async def test_an_idle_connection_is_closed_in_time(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the last answer, whichever road it took."""
    connection = await subject.connect()
    connection[1].write(b"GET /v1/space HTTP/1.1\r\nhost: h\r\nauthorization: x\r\n\r\n")
    await read_answer(connection[0])
    [protocol] = subject.protocols
    monkeypatch.setattr(protocol, "timeout_keep_alive", 0.3)
    assert (await ask(connection, head(chunk_id(1), 3) + b"abc")).startswith(b"HTTP/1.1 201 ")
    protocol.timeout_keep_alive_handler()
    assert not protocol.transport.is_closing()
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        assert await connection[0].read() == b""
