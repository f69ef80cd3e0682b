"""SANS-IO. The answers of an internal server as they arrive on one connection: HTTP/1.1 with a Content-Length, and no
other framing (RFC 9112 §6.2). Bytes in, a head and blocks of its body out.

    reader.begin(has_body=True)            before every request
    block = reader.feed(data)              → what of the body came with it; maybe empty
    reader.head, reader.is_agreed, reader.is_over

Everything that is not such an answer is a ValueError: after it the connection is of no use any more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

HEAD_BYTES_MAX = 16 * 1024
"""status line and headers together"""
CONTINUE = 100
_NO_BODY = frozenset({204, 304})

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?\Z")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*\Z")
_LENGTH = re.compile(r"[0-9]{1,15}\Z")


class AnswerHead(NamedTuple):
    """headers: by lower-case name; of several of one name the last. length: of the body, in bytes. keeps: whether the
    connection can be used again after the body."""

    status: int
    headers: Mapping[str, str]
    length: int
    keeps: bool


class AnswerReader:
    """One connection's. An answer before anybody asked is refused, and so is whatever follows one."""

    __slots__ = ("_has_body", "_left", "_unparsed", "head", "is_agreed", "is_over")

    def __init__(self) -> None:
        self.head: AnswerHead | None = None
        self.is_agreed = False
        """100 Continue came"""
        self.is_over = True
        """the answer is whole; also before the first one"""
        self._has_body = True
        self._left = 0
        self._unparsed = b""

    def begin(self, *, has_body: bool) -> None:
        """An answer is expected. has_body: not to a HEAD, whose answer tells a length and has no body."""
        self.head = None
        self.is_agreed = self.is_over = False
        self._has_body = has_body

    def feed(self, data: bytes) -> bytes:
        """What of the body was in the data. ValueError."""
        if self.is_over:
            raise ValueError("bytes that nobody asked for")
        if self.head is None:
            data = self._read_heads(self._unparsed + data if self._unparsed else data)
            if self.head is None:
                return b""
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("the answer is longer than its Content-Length")
        self.is_over = not self._left
        return data

    def _read_heads(self, data: bytes) -> bytes:
        """Up to the end of the final head; what follows it."""
        while True:
            head, end, rest = data.partition(b"\r\n\r\n")
            if len(head) > HEAD_BYTES_MAX:
                raise ValueError("the answer's head is too large")
            if not end:
                self._unparsed = data
                return b""
            self._unparsed = b""
            status, headers = parse_head(head)
            if status >= 200:
                self.head = self._finish_head(status, headers)
                return rest
            if status != CONTINUE or self.is_agreed:
                raise ValueError(f"an interim answer {status} that nobody asked for")
            self.is_agreed = True
            data = rest

    def _finish_head(self, status: int, headers: dict[str, str]) -> AnswerHead:
        if "transfer-encoding" in headers:
            raise ValueError("the answer has a transfer coding")
        announced = headers.get("content-length")
        if announced is None:
            if self._has_body and status not in _NO_BODY:
                raise ValueError("the answer has no Content-Length")
            announced = "0"
        if not _LENGTH.match(announced):
            raise ValueError("the answer's Content-Length is no number")
        length = int(announced)
        self._left = length if self._has_body and status not in _NO_BODY else 0
        return AnswerHead(status, headers, length, headers.get("connection", "").lower() != "close")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a head without the empty line at its end. ValueError: it is none, or has two lengths."""
    lines = head.split(b"\r\n")
    status = _STATUS_LINE.match(lines[0])
    if status is None:
        raise ValueError("no status line of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        found = _HEADER.match(line)
        if found is None:
            raise ValueError("a line of the head is no header")
        name = found[1].decode("ascii").lower()
        if name == "content-length" and name in headers:
            raise ValueError("the answer has two lengths")
        headers[name] = found[2].decode("latin-1")
    return int(status[1]), headers
