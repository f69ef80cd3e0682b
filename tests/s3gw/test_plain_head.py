"""Plain heads: what is taken apart here, the parser takes apart in the same way; everything else is left to it."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.plain_head import (
    HEAD_BYTES_MAX,
    HEADERS_OF_A_READ,
    HEADERS_OF_A_WRITE,
    parse_plain_head,
    parse_plain_write,
)

PLAIN = (
    b"GET /b/k?x-id=GetObject HTTP/1.1\r\nHost: a.example\r\nUser-Agent: me (1; 2)\r\nConnection: keep-alive\r\n\r\n"
)
PLAIN_WRITE = (
    b"PUT /b/k?x-id=PutObject HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\n12\r\n5"
)
BODY_BYTES_MAX = 64
NAMES = sorted(
    HEADERS_OF_A_READ | {b"content-length", b"expect", b"x-y", b"transfer-encoding", b"upgrade", b"if-range"}
)
TEXT = st.binary(max_size=8) | st.sampled_from([b"a", b"a b", b" a", b"a ", b"keep-alive", b"close", b"h2c", b"0", b""])
SEPARATORS = st.sampled_from([b": "] * 6 + [b":", b":  ", b" : "])
ENDS = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\n ", b"\r\n\r\n"])


class Seen:
    """What httptools' parser says of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = self.begun = 0
        self.body = b""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Counted."""
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        """In pieces."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """In order."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """There should be none."""
        self.body += body

    def on_message_complete(self) -> None:
        """Counted."""
        self.complete += 1
        self.method = self.parser.get_method().decode()
        self.version = self.parser.get_http_version()
        self.keeps_alive = self.parser.should_keep_alive() and not self.parser.should_upgrade()


def require_same(data: bytes) -> None:
    """Either nothing is said, or what the parser says of a whole request that keeps its connection."""
    head = parse_plain_head(data)
    if head is None:
        return
    seen = Seen(data)
    assert (seen.begun, seen.complete, seen.version, seen.keeps_alive, seen.body) == (1, 1, "1.1", True, b"")
    assert head == (seen.method, seen.url, dict(seen.headers))
    assert len(dict(seen.headers)) == len(seen.headers) and b"host" in head[2]
    assert not {b"content-length", b"transfer-encoding", b"upgrade", b"expect"} & head[2].keys()


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Nearly plain ones."""
    method = draw(st.sampled_from([b"GET", b"HEAD"] * 4 + [b"PUT", b"get", b""]))
    target = b"/" + draw(
        st.sampled_from([b"b/k", b"", b"%20?a=b&c", b"a#b", b"a b", b"\xc3\xbc"]) | st.binary(max_size=9)
    )
    version = draw(st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"", b"http/1.1"]))
    lines = [b" ".join([method, target, version])]
    names = draw(st.lists(st.sampled_from([b"Host", b"host", *NAMES]), max_size=5))
    lines += [name + draw(SEPARATORS) + draw(TEXT) for name in [b"Host", *names]]
    return b"".join(line + draw(ENDS) for line in lines) + draw(st.sampled_from([b"\r\n"] * 5 + [b"", b"x\r\n\r\n"]))


@given(heads())
def test_the_parser_says_the_same(data: bytes) -> None:
    """Of whatever is taken."""
    require_same(data)


@given(st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)), st.binary(max_size=3))
def test_the_parser_says_the_same_of_a_changed_one(start: int, end: int, new: bytes) -> None:
    """A few bytes in place of others, anywhere."""
    require_same(PLAIN[:start] + new + PLAIN[max(start, end) :])


def test_a_plain_one() -> None:
    """Is taken, also with what SDKs send."""
    headers = {b"host": b"a.example", b"user-agent": b"me (1; 2)", b"connection": b"keep-alive"}
    assert parse_plain_head(PLAIN) == ("GET", b"/b/k?x-id=GetObject", headers)
    signed = PLAIN.replace(b"Connection: keep-alive", b"Authorization: AWS4-HMAC-SHA256 a=b, c=d\r\nX-Amz-Date: x")
    head = parse_plain_head(signed)
    assert head is not None and head[2][b"authorization"] == b"AWS4-HMAC-SHA256 a=b, c=d"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN + PLAIN,
        PLAIN + b"x",
        b"\r\n" + PLAIN,
        PLAIN.replace(b"keep-alive", b"close"),
        PLAIN.replace(b"Host: a.example\r\n", b""),
        PLAIN.replace(b"\r\n\r\n", b"\r\nIf-Range: x\r\n\r\n"),
        PLAIN.replace(b"\r\n\r\n", b"\r\nHost: a.example\r\n\r\n"),
        PLAIN.replace(b"GET /", b"GET http://a.example/"),
        PLAIN.replace(b"/b/k", b"/" + b"k" * HEAD_BYTES_MAX),
        PLAIN.replace(b"me (1; 2)", b""),
    ],
)
def test_what_is_not_plain(data: bytes) -> None:
    """Another header, one twice, none that is due, two requests, half a one, or too long."""
    assert parse_plain_head(data) is None


def require_same_write(data: bytes) -> None:
    """Either nothing is said, or what the parser says of a request with a body that keeps its connection."""
    write = parse_plain_write(data, BODY_BYTES_MAX)
    if write is None:
        return
    seen = Seen(data)
    parser = seen.parser
    is_whole = len(write.body) == write.length
    assert (seen.begun, seen.complete) == (1, is_whole)
    assert (parser.get_method(), parser.get_http_version()) == (b"PUT", "1.1")
    assert parser.should_keep_alive() and not parser.should_upgrade()
    assert write == (seen.url, dict(seen.headers), int(dict(seen.headers)[b"content-length"]), seen.body)
    assert len(dict(seen.headers)) == len(seen.headers) and b"host" in write.headers
    assert write.headers.keys() <= HEADERS_OF_A_WRITE
    assert is_whole or Seen(data + bytes(write.length - len(write.body))).complete == 1


@st.composite
def writes(draw: st.DrawFn) -> bytes:
    """Nearly plain ones."""
    body = draw(st.binary(max_size=BODY_BYTES_MAX + 1) | st.sampled_from([b"12\r\n5", b"\r\n\r\n", b"0\r\n\r\n"]))
    length = b"%d" % len(body)
    length = draw(
        st.sampled_from([length] * 6 + [b"0" + length, length + b" ", b"+" + length, length + b", " + length, b""])
        | st.integers(0, 99).map(b"%d".__mod__)
    )
    names = draw(st.lists(st.sampled_from([b"Content-Length", b"Content-Type", *NAMES]), max_size=3))
    lines = [b"PUT /b/k HTTP/1.1", b"Host: a", b"Content-Length: " + length]
    lines += [name + draw(SEPARATORS) + draw(TEXT) for name in names]
    body = body[: draw(st.just(len(body)) | st.integers(0, BODY_BYTES_MAX))]
    return b"".join(line + draw(ENDS) for line in lines) + draw(st.sampled_from([b"\r\n"] * 5 + [b""])) + body


@given(writes())
def test_the_parser_says_the_same_of_a_write(data: bytes) -> None:
    """Of whatever is taken."""
    require_same_write(data)


@given(st.integers(0, len(PLAIN_WRITE)), st.integers(0, len(PLAIN_WRITE)), st.binary(max_size=3))
def test_the_parser_says_the_same_of_a_changed_write(start: int, end: int, new: bytes) -> None:
    """A few bytes in place of others, anywhere."""
    require_same_write(PLAIN_WRITE[:start] + new + PLAIN_WRITE[max(start, end) :])


def test_a_plain_write() -> None:
    """Is taken with its body, whatever bytes that has."""
    headers = {b"host": b"a.example", b"content-length": b"5", b"content-type": b"a/b"}
    for missing in range(6):
        write = parse_plain_write(PLAIN_WRITE[: len(PLAIN_WRITE) - missing], BODY_BYTES_MAX)
        assert write == (b"/b/k?x-id=PutObject", headers, 5, b"12\r\n5"[: 5 - missing])
    assert parse_plain_write(PLAIN_WRITE, 5) is not None
    assert parse_plain_write(PLAIN_WRITE, 4) is None


@pytest.mark.parametrize(
    "data",
    [
        PLAIN_WRITE[:-6],
        PLAIN_WRITE + PLAIN_WRITE,
        PLAIN_WRITE + b"x",
        b"\r\n" + PLAIN_WRITE,
        PLAIN_WRITE.replace(b"PUT", b"POST"),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: 05"),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: +5"),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: 4"),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: 65"),
        PLAIN_WRITE.replace(b"Content-Length: 5\r\n", b""),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: 0")[:-5],
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"Content-Length: 5"),
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"Transfer-Encoding: chunked"),
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"Expect: 100-continue"),
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"Content-Encoding: aws-chunked"),
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"x-amz-meta-a: b"),
        PLAIN_WRITE.replace(b"Content-Type: a/b", b"Connection: close"),
        PLAIN_WRITE.replace(b"/b/k", b"/" + b"k" * HEAD_BYTES_MAX),
        PLAIN_WRITE.replace(b"Length: 5", b"Length: 65").replace(b"12\r\n5", b"x" * 65),
        PLAIN,
    ],
)
def test_what_is_not_a_plain_write(data: bytes) -> None:
    """As of reads; a length that is not that of the body, one in another spelling, or too much of a body."""
    assert parse_plain_write(data, BODY_BYTES_MAX) is None
