"""Slices: cut at frames or stripes, and counted for what fetching them holds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.chunk_slice import ChunkSlice, make_layout
from cluster.chunk_writes import BUDGET_BYTES_MIN
from cluster.read_run import SPAN_FRAMES_MAX
from storage.base.errors import Corrupt
from storage.base.ids import stored_chunk_id
from storage.crypto.envelope import FRAME_BYTES, SEALED_FRAME_BYTES
from storage.model import Blob, Chunk

LENGTH = 8 << 20
SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 8))


def slice_of(redundancy: str, start: int, end: int, generation: int = 0) -> ChunkSlice:
    """Of a chunk of the usual size."""
    chunk = Chunk(3, 3 * LENGTH, LENGTH, b"", b"", (1, 2))
    return ChunkSlice(Blob(b"b" * 16, 9 * LENGTH, "key", 1, redundancy, (), None, generation), chunk, start, end)


ranges = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted).filter(lambda pair: pair[0] < pair[1])


def pieces_of(piece: ChunkSlice, frames_max: int) -> list[ChunkSlice]:
    """All that it is cut into."""
    pieces: list[ChunkSlice] = []
    rest: ChunkSlice | None = piece
    while rest is not None:
        piece, rest = rest.cut(frames_max)
        pieces.append(piece)
    return pieces


@given(ranges, SHAPES, st.integers(1, SPAN_FRAMES_MAX))
def test_pieces_add_up_and_no_stripe_is_in_two(pair: list[int], shape: tuple[int, int], frames_max: int) -> None:
    """But for single frames, which a slow reader gets."""
    data, parity = shape
    pieces = pieces_of(slice_of(f"ec:{data}+{parity}", *pair), frames_max)
    assert [pieces[0].start, pieces[-1].end] == pair
    assert all(before.end == after.start for before, after in pairwise(pieces))
    for piece in pieces:
        first, last = piece.start // FRAME_BYTES, (piece.end - 1) // FRAME_BYTES
        assert last - first < max(frames_max + 1, data)
        stripes = last // data - first // data + 1
        assert piece.held_bytes >= (data * stripes * SEALED_FRAME_BYTES if data > 1 else last - first + 1)
        assert piece.held_bytes <= BUDGET_BYTES_MIN, "the smallest budget takes any slice"
    if frames_max == 1:
        assert all(piece.end - piece.start <= FRAME_BYTES for piece in pieces)
    else:
        ends = [piece.end // FRAME_BYTES for piece in pieces[:-1]]
        assert all(end % data == 0 for end in ends)


@given(ranges, st.integers(1, SPAN_FRAMES_MAX))
def test_of_replicas_whole_frames(pair: list[int], frames_max: int) -> None:
    """As many as are allowed, and a frame more at most is held."""
    pieces = pieces_of(slice_of("replica:2", *pair), frames_max)
    assert [pieces[0].start, pieces[-1].end] == pair
    for piece in pieces:
        first, last = piece.start // FRAME_BYTES, (piece.end - 1) // FRAME_BYTES
        assert last - first < frames_max
        assert piece.held_bytes >= piece.end - piece.start


def test_the_layout_is_the_record_s() -> None:
    """The generation is in the id that nodes know, and in nothing else."""
    piece = slice_of("ec:4+2", 0, 1, generation=2)
    assert piece.layout.chunk_id == stored_chunk_id(b"b" * 16, 3, 2)
    assert str(piece.layout.redundancy) == "ec:4+2"
    assert piece.layout.nodes == (1, 2)
    with pytest.raises(Corrupt):
        make_layout(b"b" * 16, 0, 0, "two of each", (1, 2))
