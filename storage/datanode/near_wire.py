"""SANS-IO. How a process that can write into a datanode's directory stores a chunk there without sending it.

    PUT  /v1/chunks/{id}/draft   Expect: 100-continue, x-frostbyte-draft: a token, x-frostbyte-length: of the chunk
         100                     the draft <id>.<token> is under tmp/, with its room taken; the other side writes it now
         body                    sent when the bytes are written: padding, then an Account
         201 receipt             the chunk is durable

A draft is there for as long as the request is under way: who dies, or gives up, ends the connection, and the draft is
removed with it. The body has one length whatever happens, so that padding can be sent ahead as signs of life, while the
bytes come slowly; nothing else is said by it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

from storage.chunks.store import DIGEST_BYTES, Buffer, ChunkReceipt
from storage.datanode.wire import parse_content_length

DRAFT = "/draft"
TOKEN_HEADER = "x-frostbyte-draft"  # noqa: S105 - a name
LENGTH_HEADER = "x-frostbyte-length"
TOKEN_BYTES = 16
SIGN_OF_LIFE = b"\0"
SIGN_INTERVAL_S = 10.0
"""well within what the datanode's server waits for any progress of a body"""
SIGN_PER_BYTES = 4096
"""of the chunk: a client that is let be as slow as can be (s3gw.patience) does not use up the padding"""

_ACCOUNT = struct.Struct(f">Q{DIGEST_BYTES}s")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")


class Loan(NamedTuple):
    """A draft that is asked for."""

    token: str
    """32 hex digits by chance, used once"""
    length: int
    """of the sealed bytes"""


def format_headers(loan: Loan) -> dict[str, str]:
    """What the request says of it."""
    return {TOKEN_HEADER: loan.token, LENGTH_HEADER: str(loan.length)}


def parse_headers(headers: Mapping[bytes, bytes]) -> Loan:
    """ValueError."""
    token = headers.get(TOKEN_HEADER.encode(), b"").decode("latin-1")
    if not _TOKEN.match(token):
        raise ValueError("a draft has a token of 32 hex digits")
    return Loan(token, parse_content_length(headers.get(LENGTH_HEADER.encode(), b"").decode("latin-1")))


def padding_bytes(length: int) -> int:
    """Before the account of a chunk of so many sealed bytes."""
    return length // SIGN_PER_BYTES


def body_bytes(length: int) -> int:
    """Padding and account."""
    return padding_bytes(length) + _ACCOUNT.size


def format_account(receipt: ChunkReceipt) -> bytes:
    """Of the bytes that were written; the body ends with it."""
    return _ACCOUNT.pack(receipt.length, receipt.digest)


def parse_account(body: Buffer) -> ChunkReceipt:
    """Of a whole body. ValueError."""
    if len(body) < _ACCOUNT.size:
        raise ValueError("the account of a draft is missing")
    return ChunkReceipt(*_ACCOUNT.unpack_from(body, len(body) - _ACCOUNT.size))
