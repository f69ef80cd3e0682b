"""PURE. Where the chunks of a blob lie: all of one length but the last, none empty."""

from __future__ import annotations

from typing import NamedTuple


class ChunkSpan(NamedTuple):
    """The plaintext of one chunk inside its blob, in bytes."""

    chunk_index: int
    offset: int
    length: int


def chunk_count(length: int, chunk_bytes: int) -> int:
    """Chunks of a blob of `length` bytes; none for an empty one."""
    return -(-length // chunk_bytes)


def chunk_span(length: int, chunk_index: int, chunk_bytes: int) -> ChunkSpan:
    """Where one chunk of a blob of `length` bytes lies. ValueError when there is no such chunk."""
    if not 0 <= chunk_index < chunk_count(length, chunk_bytes):
        raise ValueError(f"a blob of {length} bytes has no chunk {chunk_index}")
    offset = chunk_index * chunk_bytes
    return ChunkSpan(chunk_index, offset, min(chunk_bytes, length - offset))
