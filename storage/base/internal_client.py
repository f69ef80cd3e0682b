"""Calls other processes of the cluster: persistent connections over a Unix socket, loopback or TLS, and a deadline on
every hop: connecting, each step of sending, each step of receiving, and the answer.

Whatever goes wrong with the connection is raised as one error of the tree (NodeUnreachable unless told otherwise), so
that callers decide about nodes, not about sockets.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from aiohttp.payload import Payload
from multidict import CIMultiDict
from yarl import URL

from storage.base.address import Address
from storage.base.errors import ChunkTruncated, FrostbyteError, NodeUnreachable
from storage.base.internal_auth import bearer

CONNECTIONS_MAX = 1024
"""to one peer; a slow upload holds one for each replica as long as it lasts"""
IDLE_TIMEOUT_S = 30.0
"""well below the server's, so that a connection is not reused while the server closes it"""
READ_BUFFER_BYTES = 512 * 1024
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024

_IMPLICIT_HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")

Buffer = bytes | bytearray | memoryview


class Deadlines(NamedTuple):
    """Seconds. connect: until a connection stands (waiting for a free one included). progress: for each block to be
    taken by the other side, or to come from it. answer: from the last byte sent to the answer's head."""

    connect_s: float = 3.0
    progress_s: float = 10.0
    answer_s: float = 20.0


class Answer(NamedTuple):
    """A whole answer in memory."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StreamBody(Payload):
    """A request body of a known length that ends its call when the other side takes a block for too long.

    Time spent waiting for the source is not the other side's fault and counts against no deadline. While blocks flow
    nothing is rescheduled, which would cost more than the block's write: a timer looks now and then since when the
    block under way is waiting.
    """

    def __init__(
        self, source: AsyncIterator[Buffer], length: int, deadline: asyncio.Timeout, limits: Deadlines
    ) -> None:
        super().__init__(source, content_type="application/octet-stream")
        self._size = length
        self._deadline: asyncio.Timeout | None = deadline
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._sending_since_s = 0.0
        """0 while the source is waited for"""
        self._timer: asyncio.TimerHandle | None = None
        self.failure: Exception | None = None
        """what the source raised, or ChunkTruncated"""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a stream is read once")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, self._size)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._consumed = True  # a retry on another connection could not begin again
        self._move_deadline(None)
        self._look_again()
        try:
            await self._send(writer)
        except Exception as error:
            self.failure = error
            raise
        finally:
            if self._timer is not None:
                self._timer.cancel()
        self._move_deadline(self._limits.answer_s)

    def answered(self) -> None:
        """The answer has begun, maybe before the end of the body: from now on its own deadline counts."""
        self._move_deadline(self._limits.progress_s)
        self._deadline = None

    async def _send(self, writer: AbstractStreamWriter) -> None:
        now_s = self._loop.time
        left = self._size or 0
        async for block in self._value:
            left -= len(block)
            if left < 0:
                raise ChunkTruncated("the body is longer than announced")
            self._sending_since_s = now_s()
            await writer.write(block)
            self._sending_since_s = 0.0
        if left:
            raise ChunkTruncated("the body is shorter than announced")

    def _look_again(self) -> None:
        progress_s = self._limits.progress_s
        if self._sending_since_s and self._loop.time() - self._sending_since_s > progress_s:
            self._move_deadline(0)
        else:
            self._timer = self._loop.call_later(progress_s / 4, self._look_again)

    def _move_deadline(self, seconds: float | None) -> None:
        # A deadline that has struck already cannot be moved, and need not.
        if self._deadline is not None:
            with suppress(RuntimeError):
                self._deadline.reschedule(None if seconds is None else self._loop.time() + seconds)


class _Request(aiohttp.ClientRequest):
    """A request whose body is written by a task that keeps its failure to itself.

    aiohttp does so too, except before the body's first byte and after its last. There a connection that is lost makes
    the task raise: a traceback in the log, as nobody looks at the task of a call that has failed already, and a call
    that could be tried again is not. A task that fails closes its connection in any case, so whoever waits for the
    answer is told.
    """

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        with suppress(aiohttp.ClientError, OSError):
            await super().write_bytes(writer, conn, content_length)


class InternalClient:
    """One peer. Made anywhere, used on one event loop, closed once."""

    def __init__(
        self,
        address: Address,
        token: str,
        *,
        tls_ca: str | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
        unreachable: type[FrostbyteError] = NodeUnreachable,
        connections_max: int = CONNECTIONS_MAX,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """token: of internal_auth, sent as the bearer. tls_ca: PEM file of the authorities to trust for https instead
        of the system's. unreachable: what connection errors and missed deadlines are raised as. headers: sent with
        every request. OSError (ssl.SSLError among them) when tls_ca cannot be read: that is no matter of the peer."""
        self.address = address
        self.deadlines = deadlines
        self._base = address.base_url
        self._headers = CIMultiDict({"Authorization": bearer(token), **(headers or {})})
        self._tls = _client_tls(tls_ca) if address.is_tls else None
        self._unreachable = unreachable
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None

    async def call(
        self,
        method: str,
        target: str,
        body: Buffer | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
    ) -> Answer:
        """One request and its whole answer within timeout_s (default: connect_s and answer_s together, as both bodies
        are short). target: path and query, already escaped."""
        limits = self.deadlines
        whole_s = timeout_s if timeout_s is not None else limits.connect_s + limits.answer_s
        async with self._errors(method, target):
            async with asyncio.timeout(whole_s):
                async with self._request(method, target, data=body, headers=headers) as response:
                    return await self._read_answer(response, answer_bytes_max)

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
        """Stream a body of `length` bytes. With expect_continue the source is not touched before the other side agreed
        (RFC 9110 §10.1.1); a refusal before that is a normal answer. What the source raises is raised unchanged;
        ChunkTruncated when it does not add up to `length`."""
        limits = self.deadlines
        async with self._errors(method, target) as errors:
            async with asyncio.timeout(limits.connect_s + limits.answer_s) as deadline:
                body = errors.body = StreamBody(source, length, deadline, limits)
                async with self._request(
                    method, target, data=body, headers=headers, expect100=expect_continue
                ) as response:
                    body.answered()
                    return await self._read_answer(response, ERROR_BYTES_MAX)

    @asynccontextmanager
    async def open(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer to be read block by block (`response.content`), each block within progress_s. Leaving early closes
        the connection."""
        async with self._errors(method, target):
            async with self._request(method, target, headers=headers, read_s=self.deadlines.progress_s) as response:
                yield response

    async def close(self) -> None:
        """Close all connections. The client can be used again afterwards."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _request(
        self, method: str, target: str, *, read_s: float | None = None, **options: Any
    ) -> aiohttp.client._RequestContextManager:
        session = self._session or self._open_session()
        limits = self.deadlines
        if read_s is not None:
            options["timeout"] = aiohttp.ClientTimeout(
                total=None, connect=limits.connect_s, sock_connect=limits.connect_s, sock_read=read_s
            )
        return session.request(method, URL(self._base + target, encoded=True), allow_redirects=False, **options)

    async def _read_answer(self, response: aiohttp.ClientResponse, bytes_max: int) -> Answer:
        length = response.content_length
        if response.method != "HEAD" and (length is None or length > bytes_max):
            response.close()
            raise self._unreachable(f"{self.address} answered with {length} bytes where {bytes_max} are the bound")
        return Answer(response.status, response.headers, await response.read())

    def _open_session(self) -> aiohttp.ClientSession:
        limits = self.deadlines
        self._session = aiohttp.ClientSession(
            connector=self._connector(),
            request_class=_Request,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_IMPLICIT_HEADERS,
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s, sock_connect=limits.connect_s),
        )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self.address.is_unix:
            return aiohttp.UnixConnector(
                self.address.path, limit=self._connections_max, keepalive_timeout=IDLE_TIMEOUT_S
            )
        return aiohttp.TCPConnector(
            limit=self._connections_max, keepalive_timeout=IDLE_TIMEOUT_S, ssl=self._tls if self._tls else True
        )

    def _errors(self, method: str, target: str) -> _ErrorTranslation:
        return _ErrorTranslation(self, method, target)

    def _describe(self, method: str, target: str, error: BaseException) -> FrostbyteError:
        kind = "missed a deadline" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        return self._unreachable(f"{method} {self.address}{target.partition('?')[0]}: {kind}")


def _client_tls(tls_ca: str | None) -> ssl.SSLContext:
    """One context for all peers under the same authorities: loading them takes milliseconds. A file that was replaced
    is another one."""
    found = Path(tls_ca).stat() if tls_ca else None
    return _load_client_tls(tls_ca, (found.st_ino, found.st_mtime_ns) if found else None)


@functools.lru_cache(maxsize=8)
def _load_client_tls(tls_ca: str | None, _file: tuple[int, int] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _ErrorTranslation:
    """Raises connection errors and missed deadlines as the client's one error. A class, as it runs on every call."""

    __slots__ = ("_client", "_method", "_target", "body")

    def __init__(self, client: InternalClient, method: str, target: str) -> None:
        self._client = client
        self._method = method
        self._target = target
        self.body: StreamBody | None = None

    async def __aenter__(self) -> _ErrorTranslation:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, aiohttp.ClientError | TimeoutError | OSError | ssl.SSLError):
            return
        # When the source of a body failed, the connection's error is only the echo of it.
        failure = self.body.failure if self.body is not None else None
        if failure is not None and not isinstance(failure, aiohttp.ClientError | ConnectionError):
            raise failure from None
        raise self._client._describe(self._method, self._target, error) from error
