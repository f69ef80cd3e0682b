"""One request and its one answer over ASGI: bounded reading, and answers that carry the protocol's errors.

Nothing of a body is read before the application asks for it, so `Expect: 100-continue` is honoured by not asking: the
server sends 100 with the first read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from storage.base.errors import ChunkTruncated
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.datanode.wire import ERROR_HEADER, encode_failure

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
Handler = Callable[["Exchange"], Awaitable[None]]

UNREAD_BYTES_MAX = RECORD_BYTES_MAX
"""a refused body up to this size, the largest that is sent without asking first, is read and thrown away by the server:
the connection can be used again, and whoever is still sending gets the refusal and no broken pipe"""

_T = TypeVar("_T")

MSGPACK = (b"content-type", b"application/msgpack")
_BINARY = (b"content-type", b"application/octet-stream")
_CLOSE = (b"connection", b"close")


class BadRequest(Exception):
    """The request is not one of the protocol's. status: 400 to 417."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _checked(parse: Callable[[bytes], _T], data: bytes) -> _T:
    try:
        return parse(data)
    except ValueError as error:
        raise BadRequest(400, str(error)) from error


class Exchange:
    """The request as it is needed here, and the ways to answer it."""

    __slots__ = ("_body_left", "_receive", "_send", "headers", "method", "path", "query", "started")

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = False
        self._receive = receive
        self._send = send
        self._body_left = True

    def header(self, name: bytes) -> str:
        """Empty when absent; ISO 8859-1 like all headers."""
        return self.headers.get(name, b"").decode("latin-1")

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body as it comes. ChunkTruncated when the peer goes away before its end."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ChunkTruncated("the connection closed before the end of the body")
            block: bytes = message["body"]
            if block:
                yield block
            if not message["more_body"]:
                self._body_left = False
                return

    async def read_body(self, bytes_max: int) -> bytes:
        """The whole body. BadRequest (413) above the bound, before or while reading."""
        announced = self.headers.get(b"content-length", b"0")
        if len(announced) > 12 or int(announced) > bytes_max:
            raise BadRequest(413, f"a body of this request has at most {bytes_max} bytes")
        blocks = []
        size = 0
        async for block in self.blocks():
            blocks.append(block)
            size += len(block)
            if size > bytes_max:
                raise BadRequest(413, f"a body of this request has at most {bytes_max} bytes")
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    async def read_parsed(self, parse: Callable[[bytes], _T], bytes_max: int) -> _T:
        """The whole body as what it says. BadRequest: 413, or 400 when the parser raises ValueError."""
        return _checked(parse, await self.read_body(bytes_max))

    def read_query(self, parse: Callable[[bytes], _T]) -> _T:
        """The query as what it says. BadRequest (400)."""
        return _checked(parse, self.query)

    async def answer(self, status: int, body: bytes) -> None:
        """A msgpack body."""
        await self.start(status, len(body), (MSGPACK,))
        await self._send({"type": "http.response.body", "body": body})

    async def answer_bytes(self, status: int, blocks: Sequence[bytes], headers: Headers = ()) -> None:
        """Chunk bytes that are in memory already."""
        await self.start(status, sum(map(len, blocks)), (_BINARY, *headers))
        for block in blocks[:-1]:
            await self.send_block(block)
        await self._send({"type": "http.response.body", "body": blocks[-1] if blocks else b""})

    async def answer_failure(self, status: int, name: str, message: str, more: Headers = ()) -> None:
        """An error by name. Where much of the request's body is unread the connection ends with it."""
        body = encode_failure(name, message)
        headers: Headers = ((ERROR_HEADER.encode(), name.encode()), MSGPACK, *more)
        if self._must_close():
            headers = (*headers, _CLOSE)
        await self.start(status, len(body), headers)
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, length: int, headers: Headers) -> None:
        """The head of an answer whose blocks follow."""
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", b"%d" % length), *headers],
            }
        )

    async def send_block(self, block: bytes) -> None:
        """Part of the body; waits while the peer is slow."""
        await self._send({"type": "http.response.body", "body": block, "more_body": True})

    async def send_last(self, block: bytes) -> None:
        """The end of the body."""
        await self._send({"type": "http.response.body", "body": block})

    async def finish(self) -> None:
        """End of the body, of which all was sent."""
        await self.send_last(b"")

    def _must_close(self) -> bool:
        if not self._body_left:
            return False
        announced = self.headers.get(b"content-length")
        length = int(announced) if announced is not None and len(announced) <= 12 else UNREAD_BYTES_MAX + 1
        if announced is None and b"transfer-encoding" not in self.headers:
            length = 0
        # A peer that waits for 100 will not send the body after a refusal, so the server must not wait for it either.
        return length > UNREAD_BYTES_MAX or (length > 0 and b"expect" in self.headers)
