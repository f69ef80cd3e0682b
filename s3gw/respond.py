"""Answers to ASGI: the one place that sends, and that knows whether the response has started.

A failure before the first byte becomes an error document. A failure after it cannot be told any more: the response is
left unfinished and the server cuts the connection: a client never sees a clean short body. When the request's body was
not read, the connection closes after the answer; a client that is sending it all the same is given a moment to notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from s3gw.protocol.checksums import header_name
from s3gw.protocol.encryption import SSE_S3_LINES
from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import DECLARATION, escape
from storage.base.deadline import StepLimit
from storage.base.ids import NULL_VERSION_ID
from storage.model import Checksum

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

XML_TYPE = (b"content-type", b"application/xml")
SEND_STALL_S_MAX = 120.0
"""how long a client may take no byte of a response"""
LINGER_S_MAX = 2.0
LINGER_BYTES_MAX = 16 << 20
RETRY_AFTER_S = b"1"


class Intake:
    """ASGI's receive, remembering whether the request's body was taken to its end."""

    __slots__ = ("_receive", "bytes_received", "expects_continue", "unread")

    def __init__(self, receive: Receive, unread: bool, expects_continue: bool) -> None:
        self._receive = receive
        self.unread = unread
        self.expects_continue = expects_continue
        self.bytes_received = 0

    async def receive(self) -> Message:
        """The next message; an `http.disconnect` leaves the body unread."""
        self.expects_continue = False
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_received += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.unread = False
        return message

    async def discard(self, size_max: int, within_s: float) -> None:
        """Read on and throw away, so that what the client still sends does not reset the connection."""
        left = size_max
        try:
            async with asyncio.timeout(within_s):
                while self.unread and left > 0:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return


class Responder:
    """One response."""

    __slots__ = ("_identity", "_intake", "_is_head", "_send", "_stall", "bytes_sent", "finished", "status")

    def __init__(self, send: Send, intake: Intake, is_head: bool, identity: Headers) -> None:
        self._send = send
        self._intake = intake
        self._is_head = is_head
        self._identity = identity
        self._stall: StepLimit | None = None
        self.status = 0
        """of the response once it has started, 0 before"""
        self.bytes_sent = 0
        self.finished = False

    def promise(self, headers: Headers) -> None:
        """Headers that whatever is answered from now on carries, an error as well."""
        self._identity = self._identity + headers

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """A whole response. `content-length` is added, but where the status has no body or HEAD has set its own."""
        lines = self._identity + headers
        if status not in (204, 304) and not (self._is_head and any(name == b"content-length" for name, _ in headers)):
            lines.append((b"content-length", b"%d" % len(body)))
        unread = self._intake.unread
        if unread:
            lines.append((b"connection", b"close"))
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": lines})
        if self._is_head:
            body = b""
        self.bytes_sent = len(body)
        if unread and not self._intake.expects_continue:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._intake.discard(LINGER_BYTES_MAX, LINGER_S_MAX)
            body = b""
        await self._send({"type": "http.response.body", "body": body})
        self.finished = True

    async def start(self, status: int, headers: Headers, length: int) -> None:
        """Open a response of this many bytes; `write` follows, and `end`."""
        lines = self._identity + headers
        lines.append((b"content-length", b"%d" % length))
        if self._intake.unread:
            lines.append((b"connection", b"close"))
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def write(self, block: bytes) -> None:
        """Some bytes of the body. TimeoutError when the client takes none for too long."""
        if self._stall is None:
            self._stall = StepLimit(SEND_STALL_S_MAX)
        with self._stall:
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        self.bytes_sent += len(block)

    async def end(self) -> None:
        """The body is complete."""
        await self._send({"type": "http.response.body", "body": b""})
        self.finished = True

    def close(self) -> None:
        """Nothing more is written, however it ended."""
        if self._stall is not None:
            self._stall.close()


def render_error(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    """The error document (AWS API Reference, "REST error responses")."""
    extra = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in error.extra.items())
    return (
        f"{DECLARATION}<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>{extra}"
        f"<Resource>{escape(resource)}</Resource><RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
    ).encode()


def format_error_headers(error: S3Error) -> Headers:
    """The headers of an error response but its length."""
    lines: Headers = [] if error.status == 304 else [XML_TYPE]
    lines += [(name.encode("ascii"), text.encode("latin-1", "replace")) for name, text in error.headers.items()]
    if error.status == 503:
        lines.append((b"retry-after", RETRY_AFTER_S))
    return lines


def format_written(
    version_id: str | None,
    checksum: Checksum | None,
    *,
    with_type: bool = True,
    encryption: Headers = SSE_S3_LINES,
) -> Headers:
    """What every write says of the outcome: encryption, version and checksum. A null version is not named, as AWS
    has it: a suspended bucket answers like one that was never versioned."""
    lines: Headers = [*encryption]
    if version_id is not None and version_id != NULL_VERSION_ID:
        lines.append((b"x-amz-version-id", version_id.encode("ascii")))
    return lines + format_checksum(checksum, with_type=with_type)


def format_checksum(checksum: Checksum | None, *, with_type: bool = True) -> Headers:
    """A checksum and whether it is of the whole; nothing for none."""
    if checksum is None:
        return []
    lines: Headers = [(header_name(checksum.algorithm).encode("ascii"), checksum.value.encode("ascii"))]
    if with_type:
        lines.append((b"x-amz-checksum-type", checksum.type.encode("ascii")))
    return lines


def quoted(etag: str) -> bytes:
    """An ETag as a header shows it."""
    return b'"%b"' % etag.encode("ascii")
