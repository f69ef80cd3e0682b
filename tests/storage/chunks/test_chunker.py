"""The chunker: every way of cutting a body gives the same frames, and lengths are held to."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import ChunkTruncated
from storage.base.ids import CHUNK_INDEX_MAX
from storage.chunks.chunker import CHUNK_BYTES, Chunker, ChunkSpan, Frame, chunk_count, chunk_span
from storage.crypto.envelope import FRAME_BYTES

FRAME = 4
CHUNK = 12


def _frames(data: bytes, cuts: list[int]) -> list[tuple[int, int, bytes, bool]]:
    """Feed data cut at these places; the frames as plain tuples."""
    chunker = Chunker(len(data), CHUNK, FRAME)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    frames: list[Frame] = []
    for start, end in pairwise(edges):
        frames += chunker.feed(data[start:end])
    chunker.finish()
    return [(frame.chunk_index, frame.frame_index, bytes(frame.data), frame.ends_chunk) for frame in frames]


def _expected(data: bytes) -> list[tuple[int, int, bytes, bool]]:
    """By the definition, from the whole."""
    return [
        (chunk_start // CHUNK, start // FRAME, chunk[start : start + FRAME], start + FRAME >= len(chunk))
        for chunk_start in range(0, len(data), CHUNK)
        for chunk in [data[chunk_start : chunk_start + CHUNK]]
        for start in range(0, len(chunk), FRAME)
    ]


@given(data=st.binary(max_size=80), cuts=st.lists(st.integers(0, 1000), max_size=12))
def test_frames_do_not_depend_on_the_blocks(data: bytes, cuts: list[int]) -> None:
    """Any blocks, empty ones too, give the frames of the definition."""
    assert _frames(data, cuts) == _expected(data)


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
    [
        (1, [ChunkSpan(0, 0, 1)]),
        (CHUNK_BYTES, [ChunkSpan(0, 0, CHUNK_BYTES)]),
        (CHUNK_BYTES + 1, [ChunkSpan(0, 0, CHUNK_BYTES), ChunkSpan(1, CHUNK_BYTES, 1)]),
    ],
)
def test_default_sizes(length: int, expected: list[ChunkSpan]) -> None:
    """8 MiB of plaintext to a chunk, a multiple of the sealed format's frame."""
    assert [chunk_span(length, n) for n in range(chunk_count(length))] == expected
    assert CHUNK_BYTES == 8 << 20
    assert CHUNK_BYTES % FRAME_BYTES == 0


@pytest.mark.parametrize("chunk_index", [-1, 2])
def test_there_is_no_chunk_outside(chunk_index: int) -> None:
    """Neither before nor behind."""
    with pytest.raises(ValueError, match="no chunk"):
        chunk_span(CHUNK_BYTES + 1, chunk_index)


def test_an_empty_blob_has_no_frames() -> None:
    """And takes empty blocks only."""
    chunker = Chunker(0)
    assert chunk_count(0) == 0
    assert chunker.feed(b"") == []
    chunker.finish()
    with pytest.raises(ChunkTruncated):
        chunker.feed(b"x")


@given(length=st.integers(0, 40), fed=st.integers(0, 60))
def test_lengths_are_held_to(length: int, fed: int) -> None:
    """More bytes than announced fail when they come, fewer at the end."""
    chunker = Chunker(length, CHUNK, FRAME)
    if fed > length:
        with pytest.raises(ChunkTruncated):
            chunker.feed(bytes(fed))
        return
    chunker.feed(bytes(fed))
    if fed < length:
        with pytest.raises(ChunkTruncated):
            chunker.finish()
    else:
        chunker.finish()


def test_whole_frames_are_views_of_the_block() -> None:
    """Nothing is copied but the frame that straddles two blocks, and no block is kept alive."""
    first, second = bytearray(b"0123456789"), bytearray(b"abcdefghij")
    chunker = Chunker(20, 20, 4)
    frames = chunker.feed(first)
    assert [frame.data.obj is first for frame in frames if isinstance(frame.data, memoryview)] == [True, True]
    del frames
    first.clear()  # would be a BufferError if a view of it were left
    frames = chunker.feed(memoryview(second))
    assert bytes(frames[0].data) == b"89ab"
    assert isinstance(frames[0].data, bytearray)
    assert all(isinstance(frame.data, memoryview) and frame.data.obj is second for frame in frames[1:])


def test_straddling_frames_do_not_share_memory() -> None:
    """A frame that was put together stays as it is while later ones are put together."""
    chunker = Chunker(12, 12, 4)
    held = [frame for block in (b"01", b"2345", b"6789", b"ab") for frame in chunker.feed(block)]
    assert [bytes(frame.data) for frame in held] == [b"0123", b"4567", b"89ab"]


@pytest.mark.parametrize(
    ("length", "chunk_bytes", "frame_bytes"),
    [(-1, 12, 4), (1, 0, 4), (1, 12, 0), (1, 10, 4), (1, 2, 4), (CHUNK_INDEX_MAX * 4 + 5, 4, 4)],
)
def test_absurd_sizes_are_refused(length: int, chunk_bytes: int, frame_bytes: int) -> None:
    """A chunk is a whole number of frames, and an index has 32 bits."""
    with pytest.raises(ValueError, match="bytes"):
        Chunker(length, chunk_bytes, frame_bytes)
