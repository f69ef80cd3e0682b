"""SANS-IO. How a process that can write into a datanode's directory stores small chunks there without sending them.

    PUT  /v1/ranges/{group}      x-frostbyte-length: of the range, in bytes; Content-Length: 134
         200                     Content-Length: 25
         Grant                   the range is there and the other side's: it writes small chunks of the group into it
         body                    sent when it writes no more: an Ending, padded
         one byte                the range is taken back

The range is lent for as long as the connection stands and nothing came on it behind the Grant: the datanode sends the
last byte, or closes, before it does anything with the range. So who looks at the connection after a sync, and finds it
open and silent, knows that what was synced stays (near_range.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

from storage.chunks.lent_range import Ending, require_length
from storage.chunks.segment_format import SLOTS
from storage.chunks.store import Buffer
from storage.datanode.near_wire import LENGTH_HEADER
from storage.datanode.wire import parse_content_length

RANGES = "/v1/ranges/"
FAILED_MAX = 64
"""slots of one batch of a borrower"""
OVER = b"\0"

_GRANT = struct.Struct(">QQQ")
_ENDING = struct.Struct(f">4sH{FAILED_MAX}H")
_MAGIC = b"over"
_GROUP = re.compile(r"[0-9a-f]{29}\Z")
GRANT_BYTES = _GRANT.size
ANSWER_BYTES = GRANT_BYTES + len(OVER)
ENDING_BYTES = _ENDING.size


class Grant(NamedTuple):
    """Offsets in the segment's file, in bytes, and that file's inode."""

    begin: int
    end: int
    inode: int


def format_target(group: str) -> str:
    """Of the request."""
    return RANGES + group


def parse_group(path: str) -> str:
    """The group that a path names. ValueError."""
    group = path.removeprefix(RANGES)
    if not _GROUP.match(group):
        raise ValueError("a group has 29 hex digits")
    return group


def format_headers(length: int) -> dict[str, str]:
    """What the request says of the range, beside its Content-Length of ENDING_BYTES."""
    return {LENGTH_HEADER: str(length)}


def parse_headers(headers: Mapping[bytes, bytes]) -> int:
    """The length. ValueError."""
    return require_length(parse_content_length(headers.get(LENGTH_HEADER.encode(), b"").decode("latin-1")))


def format_grant(grant: Grant) -> bytes:
    """GRANT_BYTES bytes."""
    return _GRANT.pack(*grant)


def parse_grant(raw: Buffer) -> Grant:
    """The inverse. ValueError for other than GRANT_BYTES bytes."""
    if len(raw) != GRANT_BYTES:
        raise ValueError(f"a grant has {GRANT_BYTES} bytes")
    return Grant(*_GRANT.unpack(raw))


def format_ending(ending: Ending) -> bytes:
    """ENDING_BYTES bytes. ValueError for more than FAILED_MAX slots."""
    count = len(ending.failed)
    if count > FAILED_MAX:
        raise ValueError(f"at most {FAILED_MAX} slots fail at once")
    return _ENDING.pack(_MAGIC, count, *ending.failed, *(0 for _ in range(FAILED_MAX - count)))


def parse_ending(raw: Buffer) -> Ending:
    """The inverse. ValueError."""
    if len(raw) != ENDING_BYTES:
        raise ValueError(f"an ending has {ENDING_BYTES} bytes")
    magic, count, *numbers = _ENDING.unpack(raw)
    if magic != _MAGIC or count > FAILED_MAX or any(number >= SLOTS for number in numbers):
        raise ValueError("not an ending")
    return Ending(tuple(numbers[:count]))
