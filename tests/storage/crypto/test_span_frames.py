"""Frames in any order: what goes out is the range, and nothing goes out that did not open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base.errors import SealBroken
from storage.base.ids import ChunkId
from storage.crypto.envelope import FRAME_BYTES, HEADER_BYTES, SEALED_FRAME_BYTES, TAG_BYTES, Opener, Sealer
from storage.crypto.span_frames import SpanFrames
from tests.vectors.compute import plaintext

PLACE = (b"cluster-id-16byt", ChunkId(b"session-" + b"00000007", 5), bytes(range(32)))
LENGTH = 4 * FRAME_BYTES + 777
PLAIN = plaintext(LENGTH)
SEALED = bytes(Sealer(*PLACE).seal_whole(PLAIN))

ranges = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted).filter(lambda pair: pair[0] < pair[1])


def sealed_frame(frame: int) -> bytes:
    """One frame of the chunk as it is stored."""
    at = HEADER_BYTES + frame * SEALED_FRAME_BYTES
    return SEALED[at : at + SEALED_FRAME_BYTES]


def frames_of(start: int = 0, end: int = LENGTH) -> SpanFrames:
    """None opened yet."""
    return SpanFrames(Opener(*PLACE), start, end, LENGTH)


@given(ranges, st.permutations(range(5)))
@settings(max_examples=80, deadline=None)
def test_any_range_in_any_order(pair: list[int], order: list[int]) -> None:
    """Frames outside the range are checked and left out; one that comes twice does no harm."""
    start, end = pair
    frames = frames_of(start, end)
    assert frames.missing == set(range(start // FRAME_BYTES, (end - 1) // FRAME_BYTES + 1))
    for frame in [*order, order[0]]:
        frames.open(frame, memoryview(sealed_frame(frame)))
    assert frames.take() == PLAIN[start:end]


def test_nothing_goes_out_before_everything_has_opened() -> None:
    """A frame that does not open stays missing, and the right one may follow."""
    frames = frames_of()
    for frame in range(4):
        frames.open(frame, sealed_frame(frame))
    with pytest.raises(SealBroken):
        frames.open(4, sealed_frame(4)[:-1] + b"x")
    assert frames.missing == {4}
    with pytest.raises(AssertionError):
        frames.take()
    frames.open(4, sealed_frame(4))
    assert frames.take() == PLAIN


@pytest.mark.parametrize("frame", [1, 4])
def test_what_is_not_the_frame_is_refused(frame: int) -> None:
    """Another frame, another length, a flipped bit: wanted or not."""
    right = sealed_frame(frame)
    wrong = [sealed_frame(2), right[:-1], right + b"\0", right[:TAG_BYTES], b"", bytes([right[0] ^ 1]) + right[1:]]
    for frames in (frames_of(), frames_of(0, 10)):
        for sealed in wrong:
            with pytest.raises(SealBroken):
                frames.open(frame, sealed)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (-1, 4), (0, LENGTH + 1)])
def test_ranges_that_are_none(start: int, end: int) -> None:
    """As of every span."""
    with pytest.raises(ValueError, match="no range"):
        frames_of(start, end)
