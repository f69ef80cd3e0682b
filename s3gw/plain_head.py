"""SANS-IO. The head of a plain read, taken apart in one go: what a client sends again and again on one connection.

The parser (llhttp, through httptools) calls back for every piece of a head: 10 µs for the head of a presigned GET, of
which this takes 2. It knows one spelling only, which is how clients write, and the few headers that a plain read may
have, each once. Whatever is written in another way is None: it is for the parser, which says what is wrong with it. So
nothing is ever understood here that the parser would understand otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache

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

_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([!-~](?:[ -~]*[!-~])?)")
_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}


def parse_plain_head(data: bytes) -> tuple[str, bytes, dict[bytes, bytes]] | None:
    """(method, target, headers by lower-case name) of data that is one whole request and nothing more. The headers are
    shared: not to be changed."""
    if len(data) > HEAD_BYTES_MAX or not data.endswith(b"\r\n\r\n"):
        return None
    line, _, block = data.partition(b"\r\n")
    matched = _LINE.fullmatch(line)
    if matched is None:
        return None
    headers = _parse_headers(block) if b"uthorization" in block else _recall_headers(block)
    return None if headers is None else (_METHODS[matched[1]], matched[2], headers)


def _parse_headers(block: bytes) -> dict[bytes, bytes] | None:
    headers: dict[bytes, bytes] = {}
    for line in block[:-4].split(b"\r\n"):
        matched = _HEADER.fullmatch(line)
        if matched is None:
            return None
        name = matched[1].lower()
        if name in headers or name not in HEADERS_OF_A_READ:
            return None
        headers[name] = matched[2]
    if b"host" not in headers or headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    return headers


_recall_headers = lru_cache(REMEMBERED_MAX)(_parse_headers)
