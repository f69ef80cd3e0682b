"""SANS-IO. The journal's part of the datanode protocol: files of the metadata that a datanode keeps and does not read.

    GET    /v1/journal                           → [fence, [[name, length], …]]
    POST   /v1/journal/fence?owner=              → the same, after the fence stands
    GET    /v1/journal/{name}                    whole, or one `Range: bytes=a-b` → 200, 206, 416 beyond the end
    PUT    /v1/journal/{name}?owner=             a whole new file → 201 its length
    PUT    /v1/journal/{name}?owner=&offset=     bytes for the end of a file of this length → 200 its length
    DELETE /v1/journal/{name}?owner=             → 200 whether it was there

    name    segment-<id>, snapshot-<id> or snapshot-<id>-<6 digits>; an id is 16 bytes as 32 hex digits
    owner   the id of the newest segment of whoever writes. A datanode keeps the highest that it saw, the *fence*, and
            refuses (JournalFenced) whatever an owner below it wants to change.

Both kinds of PUT may be sent again: what is there already, byte for byte, is no conflict.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, NamedTuple
from urllib.parse import parse_qs

import msgspec

from storage.datanode.wire import decode

JOURNAL = "/v1/journal"
FENCE = "/v1/journal/fence"
OWNER_BYTES = 16
NO_OWNER = bytes(OWNER_BYTES)
"""below every owner: of a datanode that never saw one"""
WHOLE_BYTES_MAX = 64 << 20
"""of a file that is put"""
APPEND_BYTES_MAX = 32 << 20
"""of one append"""
FILE_BYTES_MAX = 128 << 20
"""of a file that was appended to"""
FILES_MAX = 20_000
"""of one datanode"""
NAME_CHARACTERS_MAX = 64
READ_BYTES_MAX = 4 << 20
"""of one ranged read"""

SEGMENT = "segment"
SNAPSHOT = "snapshot"
PIECES_MAX = 1_000_000

_NAME = re.compile(r"(?:(segment)-([0-9a-f]{32})|(snapshot)-([0-9a-f]{32})(?:-([0-9]{6}))?)\Z")
_OWNER = re.compile(r"[0-9a-f]{32}\Z")
_LENGTH = re.compile(r"[0-9]{1,12}\Z")


class JournalFile(NamedTuple):
    """A line of a listing. length: bytes."""

    name: str
    length: int


class JournalListing(NamedTuple):
    """What a datanode holds. fence: OWNER_BYTES."""

    fence: bytes
    files: list[JournalFile]


class JournalName(NamedTuple):
    """A name taken apart. piece: of a snapshot; None for its manifest, and for a segment."""

    kind: str
    file_id: bytes
    piece: int | None = None

    def __str__(self) -> str:
        piece = "" if self.piece is None else f"-{self.piece:06}"
        return f"{self.kind}-{self.file_id.hex()}{piece}"


class JournalChange(NamedTuple):
    """Who wants to change a file, and for an append the length that it has so far."""

    owner: bytes
    offset: int | None = None


_file = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
_fence = Annotated[bytes, msgspec.Meta(min_length=OWNER_BYTES, max_length=OWNER_BYTES)]
_count = Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES_MAX)]
_files = Annotated[list[tuple[_file, _count]], msgspec.Meta(max_length=FILES_MAX)]
_listing = msgspec.msgpack.Decoder(tuple[_fence, _files])
_length = msgspec.msgpack.Decoder(_count)
_flag = msgspec.msgpack.Decoder(bool)


def segment_name(segment_id: bytes) -> str:
    """Of a segment's file."""
    return str(JournalName(SEGMENT, segment_id))


def snapshot_name(snapshot_id: bytes, piece: int | None = None) -> str:
    """Of a piece of a snapshot, or of its manifest."""
    return str(JournalName(SNAPSHOT, snapshot_id, piece))


def parse_name(text: str) -> JournalName:
    """ValueError for anything else than the three forms, so that no path can be smuggled in."""
    match = _NAME.match(text)
    if match is None:
        raise ValueError("a journal file is segment-<32 hex digits>, snapshot-<the same> or that with -<6 digits>")
    segment, segment_id, _, snapshot_id, piece = match.groups()
    if segment is not None:
        return JournalName(SEGMENT, bytes.fromhex(segment_id))
    return JournalName(SNAPSHOT, bytes.fromhex(snapshot_id), None if piece is None else int(piece))


def file_target(name: str) -> str:
    """Of reads."""
    return f"{JOURNAL}/{name}"


def change_target(target: str, owner: bytes, offset: int | None = None) -> str:
    """Of whatever changes something."""
    appended = "" if offset is None else f"&offset={offset}"
    return f"{target}?owner={owner.hex()}{appended}"


def parse_change(query: bytes) -> JournalChange:
    """ValueError."""
    try:
        asked = parse_qs(query.decode("ascii"), max_num_fields=4)
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError("a query of two fields is wanted") from error
    owner, offset = asked.get("owner", [""])[0], asked.get("offset", [None])[0]
    if not _OWNER.match(owner):
        raise ValueError("owner is 32 hex digits")
    if offset is not None and not _LENGTH.match(offset):
        raise ValueError("offset is a number of bytes")
    return JournalChange(bytes.fromhex(owner), None if offset is None else int(offset))


def parse_listing(body: bytes) -> JournalListing:
    """ValueError; also for a name that is none."""
    fence, files = decode(_listing, body)
    for name, _ in files:
        parse_name(name)
    return JournalListing(fence, [JournalFile(name, length) for name, length in files])


def encode_listing(fence: bytes, files: Sequence[JournalFile]) -> bytes:
    """The answer to a listing and to a fence."""
    return msgspec.msgpack.encode((fence, files))


def parse_length(body: bytes) -> int:
    """The answer to a PUT. ValueError."""
    return decode(_length, body)


def parse_flag(body: bytes) -> bool:
    """The answer to a DELETE. ValueError."""
    return decode(_flag, body)
