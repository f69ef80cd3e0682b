"""parse_lean_head beside the parser that everything else goes through: what it takes they understand alike."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.base.address import parse_address
from storage.base.internal_client import InternalClient
from storage.base.lean_head import LeanHead, parse_lean_head

TOKEN = "0123456789abcdef" * 4
HEAD = (
    b"PUT /v1/chunks/00ff HTTP/1.1\r\nHost: localhost\r\n"
    b"Authorization: Bearer %b\r\nContent-Length: 5\r\n\r\n" % TOKEN.encode()
)


class Parser:
    """What llhttp makes of the first request in some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body


def check(data: bytes) -> LeanHead | None:
    """What is taken is what the parser takes."""
    head = parse_lean_head(data)
    if head is not None:
        parser = Parser(data[: head.end + head.length])
        assert parser.has_head and parser.method == b"PUT" and parser.url.decode() == head.target
        assert [name for name, _ in parser.headers] == [b"host", b"authorization", b"content-length"]
        assert dict(parser.headers)[b"authorization"] == head.authorization
        assert dict(parser.headers)[b"content-length"] == b"%d" % head.length
        assert parser.body == data[head.end : head.end + head.length]
    return head


@pytest.mark.parametrize("address", ["unix:/run/node.sock", "http://127.0.0.1:9001", "https://[::1]:9001"])
def test_it_takes_what_our_client_writes(address: str) -> None:
    """To any kind of address."""
    client = InternalClient(parse_address(address), TOKEN)
    data = client._format("PUT", "/v1/chunks/00ff", None, 65632)
    assert check(data + b"body") == LeanHead("/v1/chunks/00ff", b"Bearer " + TOKEN.encode(), 65632, len(data))


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (b"PUT ", b"POST "),
        (b"PUT ", b"put "),
        (b"PUT ", b" PUT "),
        (b"PUT ", b"\r\nPUT "),
        (b" HTTP/1.1", b" HTTP/1.0"),
        (b" HTTP/1.1", b"  HTTP/1.1"),
        (b"/v1/chunks/00ff", b"/v1/chunks/%30"),
        (b"/v1/chunks/00ff", b"/v1/chunks/0#f"),
        (b"/v1/chunks/00ff", b"http://h/v1"),
        (b"/v1/chunks/00ff", b"/" + b"a" * 2000),
        (b"Host: localhost\r\n", b""),
        (b"Host: localhost\r\n", b"Host: localhost\n"),
        (b"Host: localhost\r\n", b"Host: a\r\nHost: b\r\n"),
        (b"Host:", b"host:"),
        (b"Bearer ", b"bearer "),
        (b"Bearer 0", b"Bearer "),
        (b"Length: 5", b"Length: 0"),
        (b"Length: 5", b"Length: 05"),
        (b"Length: 5", b"Length: +5"),
        (b"Length: 5", b"Length: 5 "),
        (b"Length: 5", b"Length: 1234567890"),
        (b"Length: 5\r\n", b"Length: 5\r\nExpect: 100-continue\r\n"),
        (b"Length: 5\r\n", b"Length: 5\r\nContent-Length: 5\r\n"),
        (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
        (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_any_other_spelling_is_for_the_parser(found: bytes, instead: bytes) -> None:
    """Also where the parser takes it."""
    assert HEAD.count(found) == 1 or found == b"\r\n\r\n"
    assert parse_lean_head(HEAD.replace(found, instead)) is None


PIECES = st.sampled_from([b"\r\n", b"\n", b" ", b":", b"0", b"/", b"?a=b", b"Content-Length: 5\r\n", b"\x00", b"\xff"])


@given(st.lists(st.tuples(st.integers(0, len(HEAD)), st.integers(0, 3), PIECES), max_size=3), st.binary(max_size=30))
@example([], b"12345")
def test_heads_with_mistakes(changes: list[tuple[int, int, bytes]], body: bytes) -> None:
    """Whatever is put in or left out."""
    data = HEAD
    for at, left_out, piece in changes:
        data = data[:at] + piece + data[at + left_out :]
    check(data + body)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """Are taken only if they are such a head."""
    check(data)
