"""PURE. The identifiers that formats and rows are made of, and how each is written.

    session_id   8 bytes, random. One incarnation of one writing worker. Rows of `write_sessions`.
    blob_id     16 bytes: session_id ++ counter (big-endian u64). The bytes of one PUT or one part.
    chunk_id    20 bytes: blob_id ++ chunk index (big-endian u32). In text: 40 hex digits. On datanodes the index's
                15 top bits are the generation of the blob's layout (stored_chunk_id), 0 as written first.
    version uid  8 bytes, random, chosen by the gateway; the version id is made of it inside the commit.
    version id  32 hex digits: sequence (u64) ++ uid, or the word `null`.

A chunk id therefore names the session that wrote it, which is what lets the sweeper fence first and delete later.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SESSION_ID_BYTES = 8
BLOB_ID_BYTES = 16
CHUNK_ID_BYTES = 20
VERSION_UID_BYTES = 8
CLUSTER_ID_BYTES = 16
NULL_VERSION_ID = "null"
CHUNK_INDEX_MAX = 2**32 - 1
GENERATION_SHIFT = 17
GENERATION_MAX = 2**15 - 1
"""of a blob's layout: it rises whenever the chunks are laid out anew, in another redundancy"""
BLOB_CHUNKS_MAX = 2**GENERATION_SHIFT
"""5 GiB in chunks of 64 KiB are 81,920"""

_CHUNK_ID_TEXT = re.compile(r"[0-9a-f]{40}\Z")
_VERSION_ID_TEXT = re.compile(r"[0-9a-f]{32}\Z")


class ChunkId(NamedTuple):
    """Where a sealed chunk belongs: its blob (16 bytes) and its index in it."""

    blob_id: bytes
    chunk_index: int

    @property
    def session_id(self) -> bytes:
        """The 8 bytes that name the write session."""
        return self.blob_id[:SESSION_ID_BYTES]

    def to_bytes(self) -> bytes:
        """20 bytes, ordered like (blob_id, index)."""
        return self.blob_id + self.chunk_index.to_bytes(4, "big")

    def __str__(self) -> str:
        return self.to_bytes().hex()


def stored_chunk_id(blob_id: bytes, chunk_index: int, generation: int = 0) -> ChunkId:
    """The id that datanodes keep a chunk (or a fragment of it) under: the generation of its blob's layout is in the top
    bits of the index, so that two layouts of one blob can lie side by side. Sealed bytes never bind the generation."""
    return ChunkId(blob_id, generation << GENERATION_SHIFT | chunk_index)


def split_stored_index(stored_index: int) -> tuple[int, int]:
    """(generation, chunk index): the inverse of what stored_chunk_id does to an index."""
    return stored_index >> GENERATION_SHIFT, stored_index & (BLOB_CHUNKS_MAX - 1)


def chunk_id_from_bytes(raw: bytes) -> ChunkId:
    """The inverse of ChunkId.to_bytes; ValueError for any other length than 20."""
    if len(raw) != CHUNK_ID_BYTES:
        raise ValueError(f"a chunk id has {CHUNK_ID_BYTES} bytes, not {len(raw)}")
    return ChunkId(raw[:BLOB_ID_BYTES], int.from_bytes(raw[BLOB_ID_BYTES:], "big"))


def parse_chunk_id(text: str) -> ChunkId:
    """40 lower-case hex digits → ChunkId; ValueError for anything else, so that no path can be smuggled in."""
    if not _CHUNK_ID_TEXT.match(text):
        raise ValueError("a chunk id is 40 lower-case hex digits")
    return chunk_id_from_bytes(bytes.fromhex(text))


def make_blob_id(session_id: bytes, counter: int) -> bytes:
    """The id of the counter-th blob of a session."""
    return session_id + counter.to_bytes(8, "big")


def format_version_id(sequence: int, uid: bytes) -> str:
    """The opaque id that clients see: 32 hex digits, in version order."""
    return f"{sequence:016x}{uid.hex()}"


def parse_version_id(text: str) -> tuple[int, bytes] | None:
    """(sequence, uid), or None for `null` and for anything that no Frostbyte ever handed out."""
    if not _VERSION_ID_TEXT.match(text):
        return None
    return int(text[:16], 16), bytes.fromhex(text[16:])
