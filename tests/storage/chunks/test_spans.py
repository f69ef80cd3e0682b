"""The spans of chunks: they tile the blob."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.chunks.spans import ChunkSpan, chunk_count, chunk_span


@given(length=st.integers(0, 10_000), chunk_bytes=st.integers(1, 300))
def test_spans_tile_the_blob(length: int, chunk_bytes: int) -> None:
    """Chunk after chunk without gap, all full but the last, none empty."""
    spans = [chunk_span(length, n, chunk_bytes) for n in range(chunk_count(length, chunk_bytes))]
    assert [span.chunk_index for span in spans] == list(range(len(spans)))
    assert [span.offset for span in spans] == [n * chunk_bytes for n in range(len(spans))]
    assert sum(span.length for span in spans) == length
    assert all(span.length == chunk_bytes for span in spans[:-1])
    assert all(span.length > 0 for span in spans)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(0, []), (1, [ChunkSpan(0, 0, 1)]), (8, [ChunkSpan(0, 0, 8)]), (9, [ChunkSpan(0, 0, 8), ChunkSpan(1, 8, 1)])],
)
def test_the_edges(length: int, expected: list[ChunkSpan]) -> None:
    """Nothing, one byte, a full chunk, and a byte more."""
    assert [chunk_span(length, n, 8) for n in range(chunk_count(length, 8))] == expected


@pytest.mark.parametrize("chunk_index", [-1, 2])
def test_there_is_no_chunk_outside(chunk_index: int) -> None:
    """Neither before nor behind."""
    with pytest.raises(ValueError, match="no chunk"):
        chunk_span(9, chunk_index, 8)
