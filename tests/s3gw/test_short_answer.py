"""Answers of the short way as bytes, and a PUT under way as the protocol sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from s3gw.short_answer import LeavingCycle, ShortCycle, format_head, format_lines

DATE = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]


class Wire:
    """A transport and the connection above it, in as much of their shape as an answer needs."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.server_state = SimpleNamespace(default_headers=DATE)
        self.sent = b""
        self.closed = False
        self.completed = 0

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.sent += data

    def is_closing(self) -> bool:
        """After close."""
        return self.closed

    def close(self) -> None:
        """The server's wish."""
        self.closed = True

    def on_response_complete(self) -> None:
        """Counted."""
        self.completed += 1

    def end_short(self) -> None:
        """As the protocol does where nothing else came."""
        self.on_response_complete()


HEAD = b'HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\netag: "e"\r\ncontent-length: 2\r\n\r\n'


def test_a_head_and_a_body() -> None:
    """The server's own headers first, of a read and of a PUT, and those of the moment."""
    headers = [(b"etag", b'"e"'), (b"content-length", b"2")]
    assert format_head(DATE, 200, format_lines(headers)) == HEAD
    wire = Wire()
    for year in (b"1970", b"1971"):
        wire.server_state.default_headers = [(name, text.replace(b"1970", year)) for name, text in DATE]
        wire.sent = b""
        ShortCycle(wire).answer(200, format_lines(headers), b"ab")
        assert wire.sent == HEAD.replace(b"1970", year) + b"ab"


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b", b"a\x7fb"])
def test_a_value_cannot_end_a_header(value: bytes) -> None:
    """Nor break the one after it."""
    with pytest.raises(ValueError, match="control character"):
        format_lines([(b"etag", value), (b"content-length", b"0")])


def test_an_answer_leaves_the_connection_open() -> None:
    """And tells the protocol, which goes on to what waits behind it."""
    wire = Wire()
    cycle = ShortCycle(wire)
    assert not cycle.response_complete
    cycle.answer(200, b"content-length: 0\r\n", b"")
    assert cycle.response_complete and wire.sent.endswith(b"content-length: 0\r\n\r\n")
    assert wire.completed == 1 and not wire.closed


def test_a_server_that_drains_closes_after_the_answer() -> None:
    """And says so."""
    wire = Wire()
    cycle = ShortCycle(wire)
    cycle.keep_alive = False
    cycle.answer(200, b"content-length: 0\r\n", b"")
    assert b"connection: close\r\n" in wire.sent and wire.closed


@pytest.mark.parametrize("how", ["disconnected", "closing"])
def test_nobody_is_answered_who_has_gone(how: str) -> None:
    """Nothing is written, and the request is over."""
    wire = Wire()
    cycle = ShortCycle(wire)
    cycle.disconnected = how == "disconnected"
    wire.closed = how == "closing"
    cycle.answer(200, b"content-length: 0\r\n", b"")
    assert wire.sent == b"" and cycle.response_complete


@pytest.mark.parametrize("how", ["", "disconnected", "drains"])
def test_an_answer_that_leaves_slowly(how: str) -> None:
    """Its memory is given back once, and the connection goes on, or ends where the server drains."""
    wire, given_back = Wire(), []
    cycle = LeavingCycle(wire, lambda: given_back.append(1))
    assert cycle.response_started and not cycle.response_complete
    cycle.disconnected, cycle.keep_alive = how == "disconnected", how != "drains"
    cycle.end()
    assert given_back == [1] and cycle.response_complete
    assert wire.completed == (how != "disconnected") and wire.closed == (how == "drains")
