"""Erasure coding: any k of k + m fragments bring any chunk back; the layout is what cutting shows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base.errors import Corrupt
from storage.chunks.erasure import (
    CHUNK_HEADER_BYTES,
    FRAGMENT_HEADER_BYTES,
    NEEDED_MAX,
    PARITY_MAX,
    SEALED_FRAME_BYTES,
    StripeCoder,
    Striping,
    parse_fragment_header,
    stripe_coder,
)
from storage.crypto.envelope import TAG_BYTES
from tests.storage.chunks.fragments import cells_of, cut_frames, join_chunk, rebuild_fragment, split_chunk

SMALL = st.tuples(st.integers(1, 6), st.integers(1, 4)).map(lambda numbers: (numbers[0], sum(numbers)))
"""(needed, width)"""
ANY = st.tuples(st.integers(1, NEEDED_MAX), st.integers(1, PARITY_MAX)).map(lambda numbers: (numbers[0], sum(numbers)))
LAST_FRAME = st.one_of(
    st.integers(TAG_BYTES + 1, SEALED_FRAME_BYTES),
    st.sampled_from([TAG_BYTES + 1, 32, 33, SEALED_FRAME_BYTES - 1, SEALED_FRAME_BYTES]),
)


def chunk_of(frame_count: int, last_frame: int, seed: int = 1) -> bytes:
    """Bytes as long as a sealed chunk of so many frames."""
    return random.Random(seed).randbytes(CHUNK_HEADER_BYTES + (frame_count - 1) * SEALED_FRAME_BYTES + last_frame)


# ------------------------------------------------------------------ bringing back


@settings(max_examples=60, deadline=None)
@given(shape=SMALL, frame_count=st.integers(1, 14), last_frame=LAST_FRAME, data=st.data())
def test_any_fragments_bring_a_chunk_back(
    shape: tuple[int, int], frame_count: int, last_frame: int, data: st.DataObject
) -> None:
    """The chunk, and each fragment that was lost, from any k of the others."""
    needed, width = shape
    sealed = chunk_of(frame_count, last_frame)
    fragments = split_chunk(sealed, needed, width)
    kept = data.draw(st.permutations(range(width))).copy()[:needed]
    left = {number: fragments[number] for number in kept}
    striping = Striping(needed, width, len(sealed))
    assert join_chunk(left, striping) == sealed
    for number in range(width):
        if number not in left:
            assert rebuild_fragment(left, number, striping) == fragments[number]


@settings(max_examples=40, deadline=None)
@given(shape=ANY, last_frame=st.integers(TAG_BYTES + 1, 300), frames=st.integers(1, NEEDED_MAX), data=st.data())
def test_any_cells_bring_a_stripe_back(
    shape: tuple[int, int], last_frame: int, frames: int, data: st.DataObject
) -> None:
    """Every number of fragments that is allowed, and stripes that are short of frames; several cells at once."""
    needed, width = shape
    frames = min(frames, needed)
    cells = [random.Random(number).randbytes(300 if number < frames - 1 else last_frame) for number in range(frames)]
    length = -(-len(cells[0]) // 16) * 16
    coder = stripe_coder(needed, width)
    parity = [bytes(cell) for cell in coder.encode(cells)]
    assert {len(cell) for cell in parity} == {length}
    whole = [*cells, *(b"" for _ in range(needed - frames)), *parity]
    kept = data.draw(st.permutations(range(width))).copy()[:needed]
    wanted = [number for number in range(width) if number not in kept]
    found = coder.rebuild({number: whole[number] for number in kept}, wanted, length)
    for number, cell in zip(wanted, found, strict=True):
        assert bytes(cell[: len(whole[number])]) == whole[number]
        assert not any(cell[len(whole[number]) :]), "what a short frame lacks counts as zero"


def test_more_cells_than_needed_do_no_harm() -> None:
    """Also when one of those that are there is asked for."""
    cells = [random.Random(number).randbytes(48) for number in range(3)]
    coder = StripeCoder(3, 5)
    whole = dict(enumerate([*cells, *coder.encode(cells)]))
    found = coder.rebuild(whole, [1, 4], 48)
    assert [bytes(cell) for cell in found] == [bytes(whole[1]), bytes(whole[4])]


# ------------------------------------------------------------------ layout


@settings(max_examples=60, deadline=None)
@given(shape=ANY, frame_count=st.integers(1, 60), last_frame=LAST_FRAME)
def test_the_layout_is_what_cutting_shows(shape: tuple[int, int], frame_count: int, last_frame: int) -> None:
    """Counts, lengths and places against lists of frames."""
    needed, width = shape
    frames = [SEALED_FRAME_BYTES] * (frame_count - 1) + [last_frame]
    striping = Striping(needed, width, CHUNK_HEADER_BYTES + sum(frames))
    assert striping.frame_count == frame_count
    stripes = [frames[at : at + needed] for at in range(0, frame_count, needed)]
    assert striping.stripe_count == len(stripes)
    assert [striping.frame_length(frame) for frame in range(frame_count + 2)] == [*frames, 0, 0]
    ends = [FRAGMENT_HEADER_BYTES] * width
    for stripe, cells in enumerate(stripes):
        parity = -(-max(cells) // 16) * 16
        assert striping.parity_length(stripe) == parity
        lengths = [*cells, *(0 for _ in range(needed - len(cells))), *(parity for _ in range(width - needed))]
        for number, length in enumerate(lengths):
            span = striping.cell(number, stripe)
            assert span.length == length
            assert span.offset == ends[number] or not length
            ends[number] += length
        for number in range(len(cells)):
            assert striping.place_of(stripe * needed + number) == (number, stripe)
    assert [striping.fragment_length(number) for number in range(width)] == ends


@settings(max_examples=30, deadline=None)
@given(shape=SMALL, frame_count=st.integers(1, 14), last_frame=LAST_FRAME)
def test_fragments_hold_the_frames_as_they_are(shape: tuple[int, int], frame_count: int, last_frame: int) -> None:
    """A data fragment is frames i, i + k, …; every fragment is as long as the layout says and says what it is."""
    needed, width = shape
    sealed = chunk_of(frame_count, last_frame)
    striping = Striping(needed, width, len(sealed))
    for number, fragment in enumerate(split_chunk(sealed, needed, width)):
        assert len(fragment) == striping.fragment_length(number)
        header = parse_fragment_header(fragment)
        assert header == (sealed[:CHUNK_HEADER_BYTES], needed, width, number, len(sealed))
        if number < needed:
            assert b"".join(cells_of(fragment, number, striping)) == b"".join(cut_frames(sealed)[number::needed])


# ------------------------------------------------------------------ bytes of strangers


@given(st.binary(max_size=200))
def test_what_is_no_fragment_is_refused(data: bytes) -> None:
    """Corrupt, whatever it is."""
    with pytest.raises(Corrupt):
        parse_fragment_header(data)


@given(
    shape=ANY,
    number=st.integers(0, 31),
    sealed_length=st.integers(65, 2**64 - 1),
    at=st.integers(CHUNK_HEADER_BYTES, FRAGMENT_HEADER_BYTES - 17),
    flip=st.integers(1, 255),
)
def test_a_header_says_what_it_was_made_of_or_is_refused(
    shape: tuple[int, int], number: int, sealed_length: int, at: int, flip: int
) -> None:
    """A changed byte is another header of this format, within its bounds, or Corrupt."""
    needed, width = shape
    number %= width
    made = Striping(needed, width, sealed_length).header(bytes(CHUNK_HEADER_BYTES), number)
    assert len(made) == FRAGMENT_HEADER_BYTES
    assert parse_fragment_header(made) == (bytes(CHUNK_HEADER_BYTES), needed, width, number, sealed_length)
    changed = bytearray(made)
    changed[at] ^= flip
    try:
        header = parse_fragment_header(changed)
    except Corrupt:
        return
    assert header.number < header.width
    stripe_coder(header.needed, header.width)
    assert header.sealed_length > CHUNK_HEADER_BYTES


@pytest.mark.parametrize(
    ("cells", "wanted", "length"),
    [
        ({0: b"a" * 16}, [1], 16),
        ({0: b"a" * 16, 1: b"b" * 17}, [2], 16),
        ({0: b"a" * 16, 7: b"b" * 16}, [1], 16),
        ({0: b"a" * 16, -1: b"b" * 16}, [1], 16),
        ({0: b"a" * 16, 1: b"b" * 16}, [3], 16),
        ({0: b"a" * 16, 1: b"b" * 16}, [-1], 16),
        ({0: b"a" * 16, 1: b"b" * 16}, [2], 17),
        ({0: b"", 1: b""}, [2], 0),
        ({0: b"", 1: b""}, [2], -16),
    ],
)
def test_cells_that_fit_no_stripe_are_refused(cells: dict[int, bytes], wanted: list[int], length: int) -> None:
    """Before the codec, which is C and takes lengths and numbers as they come, sees them."""
    with pytest.raises(Corrupt):
        StripeCoder(2, 3).rebuild(cells, wanted, length)


def test_nothing_wanted_is_nothing_done() -> None:
    """An empty list of lost cells."""
    assert StripeCoder(1, 2).rebuild({0: bytes(16)}, [], 16) == []


@pytest.mark.parametrize("shape", [(0, 1), (1, 1), (25, 26), (4, 13), (4, 3), (-1, 2)])
def test_numbers_outside_the_bounds_have_no_coder(shape: tuple[int, int]) -> None:
    """ValueError, in place of what the codec would do."""
    with pytest.raises(ValueError, match="data and 1 to"):
        StripeCoder(*shape)
