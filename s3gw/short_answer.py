"""HTTP for the short way (short_way.py): a request whose bytes are still being parsed, and its answer as bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from s3gw.respond import Headers

DEFAULT_HEADERS_MAX = 8
"""lists of headers that every answer carries and that are remembered: there is a new one every second"""
LONG_READS_EXPECTED_MAX = 7
_CONTROLS = bytes(byte for byte in (*range(32), 127) if byte != ord("\t"))


class HeldRequest:
    """A request that may go the short way."""

    __slots__ = ("body", "method", "url")

    def __init__(self, method: str, url: bytes) -> None:
        self.method = method
        self.url = url
        self.body = bytearray()


class LongReads:
    """How many reads of a connection go the road unasked, after some that were not for the short way: clients ask for
    alike objects. None after the first (it may be one that was not in memory), then 1, 3, 7."""

    __slots__ = ("_next", "expected")

    def __init__(self) -> None:
        self.expected = 0
        self._next = 0

    def note(self, *, is_long: bool) -> None:
        """The short way was asked."""
        if is_long:
            self.expected, self._next = self._next, min(2 * self._next + 1, LONG_READS_EXPECTED_MAX)
        else:
            self._next = 0


class Connection(Protocol):
    """What an answer needs of GatewayProtocol."""

    transport: Any
    server_state: Any

    def on_response_complete(self) -> None: ...

    def end_short(self) -> None: ...


class _NobodyWaits:
    def set(self) -> None:
        """uvicorn tells whoever waits for a request's next message."""


class ShortCycle:
    """A PUT whose commit is under way, in the shape of uvicorn's RequestResponseCycle: what the protocol asks of the
    request that is running. Its body has been read."""

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete", "response_started")

    message_event = _NobodyWaits()
    more_body = False
    waiting_for_100_continue = False
    body = b""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.keep_alive = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """The response, once. lines: as format_lines makes them. Nothing is sent to a client that has gone."""
        self.response_started = self.response_complete = True
        connection = self._connection
        transport = connection.transport
        if self.disconnected or transport.is_closing():
            return
        default = _join_lines(tuple(connection.server_state.default_headers))
        close = b"" if self.keep_alive else b"connection: close\r\n"
        transport.write(b"%b%b%b%b\r\n%b" % (STATUS_LINE[status], default, lines, close, body))
        if close:
            transport.close()
        connection.end_short()


class LeavingCycle(ShortCycle):
    """An answer that was handed over whole and of which the client has not taken all yet: told when it has."""

    __slots__ = ("_let_go",)

    def __init__(self, connection: Connection, let_go: Callable[[], None]) -> None:
        super().__init__(connection)
        self.response_started = True
        self._let_go = let_go

    def end(self) -> None:
        """All of it has left, or the client has. Once."""
        self._let_go()
        self.response_complete = True
        connection = self._connection
        if self.disconnected or connection.transport.is_closing():
            return
        if not self.keep_alive:
            connection.transport.close()
        connection.on_response_complete()


def format_head(default_headers: list[tuple[bytes, bytes]], status: int, lines: bytes) -> bytes:
    """All of a head, to its blank line. lines: as format_lines makes them."""
    return b"%b%b%b\r\n" % (STATUS_LINE[status], _join_lines(tuple(default_headers)), lines)


def format_lines(headers: Headers) -> bytes:
    """Each with its end. ValueError for a header that would end early, as uvicorn has it."""
    lines = b"\r\n".join([b"%b: %b" % line for line in headers])
    ends = len(headers) - 1
    if len(lines) - len(lines.translate(None, _CONTROLS)) != 2 * ends or lines.count(b"\r\n") != ends:
        raise ValueError("a header's value holds a control character")
    return lines + b"\r\n"


@lru_cache(DEFAULT_HEADERS_MAX)
def _join_lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Of the server's own."""
    return b"".join([b"%b: %b\r\n" % line for line in headers])
