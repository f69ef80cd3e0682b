"""SANS-IO. The head of a PUT as InternalClient spells it, taken apart in one go.

The parser (llhttp, through httptools) calls back for every piece of a head and of a body. What is spelled in another
way, or has other headers, is None: it is for the parser, which says what is wrong with it. So nothing is ever
understood here that the parser would understand otherwise (RFC 9112 §3 and §5).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEAD = re.compile(
    rb"PUT (/[A-Za-z0-9/?&=._-]{1,1000}) HTTP/1\.1\r\n"
    rb"Host: [A-Za-z0-9.:\[\]-]{1,300}\r\n"
    rb"Authorization: (Bearer [0-9a-f]{64})\r\n"
    rb"Content-Length: ([1-9][0-9]{0,8})\r\n\r\n"
)


class LeanHead(NamedTuple):
    """target: path and query, as they are to be read: nothing in them is escaped. length: of the body, in bytes.
    end: where in the data it begins."""

    target: str
    authorization: bytes
    length: int
    end: int


def parse_lean_head(data: bytes) -> LeanHead | None:
    """The head that the data begins with."""
    found = _HEAD.match(data)
    if found is None:
        return None
    return LeanHead(found[1].decode("ascii"), found[2], int(found[3]), found.end())
