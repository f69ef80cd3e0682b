"""Calls other processes of the cluster: persistent connections over a Unix socket, loopback or TLS, and a deadline on
every hop: connecting, each step of sending, each step of receiving, and the answer.

Whatever goes wrong with the connection is raised as one error of the tree (NodeUnreachable unless told otherwise), so
that callers decide about nodes, not about sockets. A kept connection that turns out to be lost is replaced once, where
the request may be sent twice (RFC 9110 §9.2.2) and nothing of a streamed body was taken yet.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from storage.base.address import Address
from storage.base.connection_pool import ConnectionPool
from storage.base.errors import FrostbyteError, NodeUnreachable
from storage.base.internal_auth import bearer
from storage.base.internal_connection import Buffer, InternalConnection, Stage, format_header, format_request
from storage.base.upload import Upload

CONNECTIONS_MAX = 1024
"""to one peer; a slow upload holds one for each replica as long as it lasts"""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024

_BODILESS = frozenset({"GET", "HEAD"})
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Deadlines(NamedTuple):
    """Seconds. connect: until a connection stands (waiting for a free one included). progress: for each block to be
    taken by the other side, or to come from it. answer: from the last byte sent to the answer's head."""

    connect_s: float = 3.0
    progress_s: float = 10.0
    answer_s: float = 20.0


class Answer(NamedTuple):
    """A whole answer in memory. headers: by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerStream:
    """An answer whose body is taken block by block, each within progress_s of being asked for."""

    def __init__(self, connection: InternalConnection, progress_s: float) -> None:
        head = connection.head
        self.status = head.status
        self.headers = head.headers
        self.content_length = head.length
        self._connection = connection
        self._progress_s = progress_s

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it comes, to its end."""
        connection = self._connection
        while True:
            block = connection.take_block()
            if not block:
                connection.expect(self._progress_s)
                await connection.wait(Stage.BLOCK)
                connection.expect(None)
                block = connection.take_block()
                if not block:
                    return
            yield block

    async def read(self, bytes_max: int) -> bytes:
        """The beginning of the body, about so many bytes, or all of it."""
        found = b""
        async for block in self.blocks():
            found += block
            if len(found) >= bytes_max:
                break
        return found


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
        self._unreachable = unreachable
        self._pool = ConnectionPool(
            address, client_tls(tls_ca) if address.is_tls else None, deadlines.connect_s, connections_max
        )
        self._host = format_header("Host", address.base_url.partition("://")[2])
        self._authorization = format_header("Authorization", bearer(token))
        self._more = b"".join(format_header(*header) for header in (headers or {}).items())

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
        length = len(body) if body is not None else 0 if method not in _BODILESS else None
        head = self._format(method, target, headers, length)
        return await self._call(method, target, head, (body,) if body else (), timeout_s, answer_bytes_max)

    async def send_whole(self, method: str, target: str, blocks: Sequence[Buffer], length: int) -> Answer:
        """As `call`, of a body in pieces, which are not joined. length: of all of them, in bytes."""
        head = self._format(method, target, None, length)
        return await self._call(method, target, head, blocks, None, ANSWER_BYTES_MAX)

    async def _call(
        self,
        method: str,
        target: str,
        head: bytes,
        blocks: Sequence[Buffer],
        timeout_s: float | None,
        answer_bytes_max: int,
    ) -> Answer:
        limits = self.deadlines
        within_s = timeout_s if timeout_s is not None else limits.connect_s + limits.answer_s
        try:
            connection = await self._exchange(method, head, blocks, Stage.END, within_s, answer_bytes_max)
        except OSError as error:
            raise self._describe(method, target, error) from error
        found = connection.head
        answer = Answer(found.status, found.headers, connection.take_body())
        self._pool.release(connection)
        return answer

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
        head = self._format(method, target, headers, length, expect_continue=expect_continue)
        until = Stage.AGREED if expect_continue else None
        try:
            connection = await self._exchange(method, head, None, until, self.deadlines.answer_s, ERROR_BYTES_MAX)
        except OSError as error:
            raise self._describe(method, target, error) from error
        upload = Upload(connection, source, length, self.deadlines)
        try:
            if not connection.has_head:
                upload.start()
            await connection.wait(Stage.HEAD)
            await upload.end()  # the answer may come before the end of the body
            connection.expect(self.deadlines.progress_s)
            await connection.wait(Stage.END)
            found = connection.head
            return Answer(found.status, found.headers, connection.take_body())
        except OSError as error:
            # Where the source of the body failed, the connection's error is only the echo of it.
            raise upload.failure or self._describe(method, target, error) from error
        finally:
            await upload.end()
            self._pool.release(connection)

    @asynccontextmanager
    async def open(
        self, method: str, target: str, *, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AnswerStream]:
        """An answer to be read block by block, the head and each block within progress_s. Leaving early closes the
        connection."""
        progress_s = self.deadlines.progress_s
        head = self._format(method, target, headers, None)
        try:
            connection = await self._exchange(method, head, (), Stage.HEAD, progress_s, 0)
            try:
                connection.expect(None)
                yield AnswerStream(connection, progress_s)
            finally:
                self._pool.release(connection)
        except OSError as error:
            raise self._describe(method, target, error) from error

    async def _exchange(
        self,
        method: str,
        head: bytes,
        body: Sequence[Buffer] | None,
        until: Stage | None,
        within_s: float,
        bytes_max: int,
    ) -> InternalConnection:
        """A connection on which the request was begun and the answer is so far, to be released. body: None where it is
        still to be written. OSError."""
        has_body = method != "HEAD"
        connection = await self._pool.acquire()
        while True:
            try:
                connection.begin(head, body, has_answer_body=has_body, bytes_max=bytes_max if has_body else 0)
                if until is not None:
                    connection.expect(within_s)
                    await connection.wait(until)
                return connection
            except BaseException as error:
                self._pool.release(connection)
                is_lost = isinstance(error, ConnectionError) and connection.was_stale
                if not is_lost or method not in _REPEATABLE:
                    raise
            connection = await self._pool.acquire(fresh=True)

    async def close(self) -> None:
        """Close all connections. The client can be used again afterwards."""
        self._pool.close()
        await asyncio.sleep(0)

    def _format(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None,
        length: int | None,
        *,
        expect_continue: bool = False,
    ) -> bytes:
        lines = [self._host, self._more]
        if headers is None or "Authorization" not in headers:
            lines.append(self._authorization)
        if headers:
            lines += [format_header(*header) for header in headers.items()]
        if length is not None:
            lines.append(b"Content-Length: %d\r\n" % length)
        if expect_continue:
            lines.append(b"Expect: 100-continue\r\n")
        return format_request(method, target, lines)

    def _describe(self, method: str, target: str, error: OSError) -> FrostbyteError:
        kind = "missed a deadline" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        return self._unreachable(f"{method} {self.address}{target.partition('?')[0]}: {kind}")


def client_tls(tls_ca: str | None) -> ssl.SSLContext:
    """One context for all peers under the same authorities: loading them takes milliseconds. A file that was replaced
    is another one. tls_ca and errors as of InternalClient."""
    found = Path(tls_ca).stat() if tls_ca else None
    return _load_client_tls(tls_ca, (found.st_ino, found.st_mtime_ns) if found else None)


@functools.lru_cache(maxsize=8)
def _load_client_tls(tls_ca: str | None, _file: tuple[int, int] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
