"""What stands for the internal HTTP: clients that call ASGI applications of other simulated processes.

SimClient takes the place of storage.base.internal_client.InternalClient, and serve_app that of internal_server.serve;
between them the applications and the clients of the project run as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from storage.base.address import Address
from storage.base.errors import ChunkTruncated, FrostbyteError, NodeUnreachable
from storage.base.ids import ChunkId, parse_chunk_id
from storage.base.internal_auth import bearer
from storage.base.internal_client import Answer, Deadlines
from storage.datanode import judged_wire, wire
from tests.sim.loop import Process, VirtualLoop, require_loop, require_process
from tests.sim.network import Broken, Network
from tests.sim.streams import Stream
from tests.sim.turns import Outcome, run_on_loop

Buffer = bytes | bytearray | memoryview
App = Callable[..., Any]

REPEATABLE = re.compile(r"(?:GET|HEAD|PUT) /v1/(?:chunks|inventory|space)|POST /v1/(?:chunks|batch|quarantine|damaged)")
"""requests that whoever sends them may send again"""
LISTING = (wire.BATCH_DELETE, wire.BATCH_QUARANTINE, wire.DAMAGED_FORGET)

_CHUNK_ID = re.compile(r"[0-9a-f]{40}")


def party_of(address: Address) -> str:
    """Addresses of a run are unix:/NAME."""
    return str(address).removeprefix("unix:/")


def short(chunk_id: ChunkId) -> str:
    """For the trace."""
    raw = chunk_id.blob_id
    return f"{raw[:3].hex()}.{int.from_bytes(raw[8:], 'big')}/{chunk_id.chunk_index:x}"


class _Request:
    """As an application gets it."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: Stream) -> None:
        path, _, query = target.partition("?")
        self.body = body
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }


async def _run_app(app: App, request: _Request) -> Answer:
    """One request through an application. Broken when it leaves its answer unfinished."""
    status, headers, blocks = 0, dict[str, str](), []
    is_whole = False

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, is_whole
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update((name.decode().lower(), value.decode()) for name, value in message["headers"])
        else:
            blocks.append(bytes(message["body"]))
            is_whole = not message.get("more_body", False)

    await app(request.scope, request.body.receive, send)
    if not is_whole:
        raise Broken(sent=True)
    body = b"" if request.scope["method"] == "HEAD" else b"".join(blocks)
    return Answer(status, headers, body)


class SimClient:
    """One peer, for the process that calls."""

    def __init__(
        self,
        address: Address,
        token: str,
        *,
        tls_ca: str | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
        unreachable: type[FrostbyteError] = NodeUnreachable,
        connections_max: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self.deadlines = deadlines
        self._headers = {"authorization": bearer(token), **(headers or {})}
        self._unreachable = unreachable

    async def call(
        self,
        method: str,
        target: str,
        body: Buffer | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        answer_bytes_max: int = 0,
    ) -> Answer:
        limits = self.deadlines
        whole_s = timeout_s if timeout_s is not None else limits.connect_s + limits.answer_s
        network = _network()
        sent = b"" if body is None else bytes(body)
        if method == "PUT" and target.startswith(wire.CHUNKS):
            sent = network.garble(sent)
        all_headers = {**self._headers, **(headers or {}), "content-length": str(len(sent))}

        def request() -> _Request:
            return _Request(method, target, all_headers, Stream.of(sent))

        answer = await self._exchange(method, target, request, whole_s, sent)
        if method == "GET" and target.startswith(wire.CHUNKS) and answer.status in (200, 206):
            return answer._replace(body=network.garble(answer.body))
        return answer

    async def send_whole(self, method: str, target: str, blocks: Sequence[Buffer], length: int) -> Answer:
        assert sum(map(len, blocks)) == length
        return await self.call(method, target, b"".join(blocks))

    async def send(
        self,
        method: str,
        target: str,
        source: AsyncIterator[Buffer],
        length: int,
        *,
        expect_continue: bool,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A body in pieces: asked for before it is touched, cut off when its source fails or its sender dies."""
        limits = self.deadlines
        process = require_process()
        stream = Stream()
        all_headers = {**self._headers, **(headers or {}), "content-length": str(length), "expect": "100-continue"}
        loop = asyncio.get_running_loop()
        call = loop.create_task(
            self._exchange(
                method, target, lambda: _Request(method, target, all_headers, stream), None, b"", may_repeat=False
            )
        )
        pump = loop.create_task(self._pump(process, stream, source, length))
        process.on_death[stream] = stream.cut_off
        try:
            async with asyncio.timeout(limits.connect_s + limits.answer_s) as deadline:
                stream.deadline = deadline
                await asyncio.wait((call, pump), return_when=asyncio.FIRST_COMPLETED)
                if not call.done():
                    pump.result()
                    deadline.reschedule(loop.time() + limits.answer_s)
                return await call
        except (Broken, TimeoutError) as error:
            raise self._translate(method, target, error) from None
        finally:
            stream.deadline = None
            process.on_death.pop(stream, None)
            stream.cut_off()
            call.cancel()
            pump.cancel()
            await asyncio.gather(call, pump, return_exceptions=True)

    async def _pump(self, process: Process, stream: Stream, source: AsyncIterator[Buffer], length: int) -> None:
        await stream.wanted.wait()
        network, party = _network(), party_of(self.address)
        left = length
        while True:
            stream.expect(None)
            piece = await anext(source, None)
            if piece is None:
                break
            stream.expect(self.deadlines.progress_s)
            left -= len(piece)
            if left < 0:
                raise ChunkTruncated("the body is longer than announced")
            garbled = network.garble(bytes(piece))
            await network.carry(process, party, lambda garbled=garbled: stream.arrive(garbled))  # type: ignore[misc]
        if left:
            raise ChunkTruncated("the body is shorter than announced")
        await network.carry(process, party, stream.end)

    @asynccontextmanager
    async def open(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[_Response]:
        yield _Response(await self.call(method, target, headers=headers))

    async def close(self) -> None:
        """There is nothing to close."""

    async def _exchange(
        self,
        method: str,
        target: str,
        request: Callable[[], _Request],
        timeout_s: float | None,
        body: bytes,
        *,
        may_repeat: bool = True,
    ) -> Answer:
        network, party = _network(), party_of(self.address)
        label = _describe(method, target, body)

        async def serve() -> Answer:
            app = network.apps.get(party)
            if app is None:
                raise Broken(sent=False)
            return await _run_app(app, request())

        repeatable = may_repeat and REPEATABLE.match(f"{method} {target}") is not None
        try:
            return await network.call(require_process(), party, label, serve, timeout_s, may_repeat=repeatable)
        except (Broken, TimeoutError) as error:
            raise self._translate(method, target, error) from None

    def _translate(self, method: str, target: str, error: Exception) -> FrostbyteError:
        what = "missed a deadline" if isinstance(error, TimeoutError) else str(error)
        return self._unreachable(f"{method} {self.address}{target.partition('?')[0]}: {what}")


class SimLine:
    """As InternalLine: the thread that waits gives the loop its turn (tests.sim.turns)."""

    def __init__(self, address: Address, token: str, *, tls_ca: str | None = None) -> None:
        self._client = SimClient(address, token)
        self._loop = require_loop()
        self._outcome: Outcome[Answer]

    def send(self, method: str, target: str, body: bytes, within_s: float) -> None:
        self._outcome = run_on_loop(self._client.call(method, target, body, timeout_s=within_s), self._loop)

    def receive(self) -> Answer:
        return self._outcome.result()

    def close(self) -> None:
        """There is nothing to close."""


class _Response:
    """What InternalClient.open gives, of an answer that came whole."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.content_length = int(answer.headers.get("content-length", len(answer.body)))
        self._body = answer.body

    async def read(self, bytes_max: int = -1) -> bytes:
        return self._body if bytes_max < 0 else self._body[:bytes_max]

    async def blocks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._body), 1 << 16):
            yield self._body[at : at + (1 << 16)]


async def serve_app(
    app: App,
    address: Address,
    tls: object,
    *,
    on_started: Callable[[Address], None] | None = None,
    stop: asyncio.Event | None = None,
    make_protocol: object = None,
) -> None:
    """In place of internal_server.serve: until `stop`, or until the process dies. There is only the ordinary road."""
    network, party = _network(), party_of(address)
    network.apps[party] = app
    require_process().on_death[app] = lambda: network.apps.pop(party, None)
    if on_started is not None:
        on_started(address)
    await (stop or asyncio.Event()).wait()
    network.apps.pop(party, None)


def _network() -> Network:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    network: Network = loop.network
    return network


def _describe(method: str, target: str, body: bytes) -> str:
    """A request for the trace, with chunk ids that people can tell apart."""
    path, _, _ = target.partition("?")
    text = _CHUNK_ID.sub(lambda match: short(parse_chunk_id(match[0])), path.removeprefix("/v1/"))
    if path in LISTING:
        text += " " + " ".join(map(short, wire.parse_chunk_ids(body)))
    elif path == judged_wire.BATCH_QUARANTINE_JUDGED:
        text += " " + " ".join(short(chunk_id) for chunk_id, _ in judged_wire.parse_judged(body))
    return f"{method} {text}"
