"""SANS-IO. A plain read, or the head of a plain PUT with as much of its body as has come, taken apart in one go: what a
client sends again and again on one connection.

The parser (llhttp, through httptools) calls back for every piece of a head: 10 µs for the head of a presigned GET, of
which this takes 2. It knows one spelling only, which is how clients write, and the few headers that a plain request may
have, each once. Whatever is written in another way is None: it is for the parser, which says what is wrong with it. So
nothing is ever understood here that the parser would understand otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

HEAD_BYTES_MAX = 4096
REMEMBERED_MAX = 256
"""blocks of headers of unsigned and presigned requests: a client sends the same one each time"""
HEADERS_OF_THE_CLIENT = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"authorization", b"x-amz-date", b"x-amz-content-sha256"}
    | {b"amz-sdk-invocation-id", b"amz-sdk-request", b"connection"}
)
"""that say who asks, and nothing of what"""
CONDITIONS = (b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
HEADERS_OF_A_READ = HEADERS_OF_THE_CLIENT | {b"x-amz-checksum-mode", b"range", *CONDITIONS}
HEADERS_OF_A_WRITE = HEADERS_OF_THE_CLIENT | {b"content-length", b"content-type"}

_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1")
_WRITE_LINE = re.compile(rb"PUT (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([!-~](?:[ -~]*[!-~])?)")
_LENGTH = re.compile(rb"[1-9][0-9]{0,9}")
_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}
_HEAD_END = b"\r\n\r\n"


class PlainWrite(NamedTuple):
    """A PUT of a body that is not empty, as far as it has come."""

    target: bytes
    headers: dict[bytes, bytes]
    """by lower-case name; shared, not to be changed"""
    length: int
    """of the whole body, in bytes"""
    body: memoryview
    """what has come of it"""


def parse_plain_head(data: bytes) -> tuple[str, bytes, dict[bytes, bytes]] | None:
    """(method, target, headers by lower-case name) of data that is one whole request and nothing more. The headers are
    shared: not to be changed."""
    if len(data) > HEAD_BYTES_MAX or not data.endswith(b"\r\n\r\n"):
        return None
    line, _, block = data[:-4].partition(b"\r\n")
    matched = _LINE.fullmatch(line)
    if matched is None:
        return None
    headers = _find_headers(block, HEADERS_OF_A_READ)
    return None if headers is None else (_METHODS[matched[1]], matched[2], headers)


def parse_plain_write(data: bytes, body_bytes_max: int) -> PlainWrite | None:
    """Of data that begins with the whole head of a PUT, and has nothing behind its body."""
    if not data.startswith(b"PUT /"):
        return None
    end = data.find(_HEAD_END, 0, HEAD_BYTES_MAX + len(_HEAD_END))
    if end < 0:
        return None
    line, _, block = data[:end].partition(b"\r\n")
    matched = _WRITE_LINE.fullmatch(line)
    if matched is None:
        return None
    headers = _find_headers(block, HEADERS_OF_A_WRITE)
    if headers is None or not _LENGTH.fullmatch(headers.get(b"content-length", b"")):
        return None
    length = int(headers[b"content-length"])
    body = memoryview(data)[end + len(_HEAD_END) :]
    if not len(body) <= length <= body_bytes_max:
        return None
    return PlainWrite(matched[1], headers, length, body)


def _find_headers(block: bytes, allowed: frozenset[bytes]) -> dict[bytes, bytes] | None:
    return _parse_headers(block, allowed) if b"uthorization" in block else _recall_headers(block, allowed)


def _parse_headers(block: bytes, allowed: frozenset[bytes]) -> dict[bytes, bytes] | None:
    headers: dict[bytes, bytes] = {}
    for line in block.split(b"\r\n"):
        matched = _HEADER.fullmatch(line)
        if matched is None:
            return None
        name = matched[1].lower()
        if name in headers or name not in allowed:
            return None
        headers[name] = matched[2]
    if b"host" not in headers or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return headers


_recall_headers = lru_cache(REMEMBERED_MAX)(_parse_headers)
