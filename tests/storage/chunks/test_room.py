"""The room of a medium: the reserve holds, whatever is admitted in whatever order, and the system is seldom asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.clock import ManualClock
from storage.base.errors import ChunkError, NodeFull
from storage.chunks.footer import CHUNK_LENGTH_MAX
from storage.chunks.room import FREE_KEPT_S, PLENTY_BYTES, Room, Share

RESERVE_BYTES = 1000


class Medium:
    """What the system would say of it, and how often it was asked."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes
        self.asked = 0
        self.error: OSError | None = None
        self.clock = ManualClock()
        self.room = Room(self.fetch_free_bytes, RESERVE_BYTES, self.clock)

    def fetch_free_bytes(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.free_bytes


def test_the_system_is_asked_now_and_then_while_there_is_plenty() -> None:
    """Once in FREE_KEPT_S, however many chunks come."""
    medium = Medium(PLENTY_BYTES * 3)
    for _ in range(50):
        medium.room.take(1000).close()
    assert medium.asked == 1
    medium.clock.advance(FREE_KEPT_S)
    medium.room.take(1000)
    assert medium.asked == 2


def test_near_the_reserve_it_is_asked_for_every_chunk() -> None:
    """So what others write is seen at once."""
    medium = Medium(PLENTY_BYTES + RESERVE_BYTES)
    medium.room.take(1000)
    medium.free_bytes = RESERVE_BYTES + 1999
    with pytest.raises(NodeFull, match=f"{RESERVE_BYTES + 1999} bytes free"):
        medium.room.take(1000)
    medium.room.take(999)
    assert medium.asked == 3


def test_a_share_is_held_until_it_is_closed() -> None:
    """Once: twice is no error."""
    medium = Medium(RESERVE_BYTES + 10)
    share = medium.room.take(10)
    for _ in range(2):
        with pytest.raises(NodeFull):
            medium.room.take(1)
    share.close()
    share.close()
    with medium.room.take(10):
        assert medium.room.promised_bytes == 10
    assert medium.room.promised_bytes == 0


@pytest.mark.parametrize("length", [0, -1, CHUNK_LENGTH_MAX + 1])
def test_a_length_that_no_chunk_has(length: int) -> None:
    """Is refused without a question."""
    medium = Medium(PLENTY_BYTES * 3)
    with pytest.raises(ChunkError):
        medium.room.take(length)
    assert not medium.asked


def test_a_medium_that_says_nothing() -> None:
    """Takes nothing, and is asked again."""
    medium = Medium(PLENTY_BYTES * 3)
    medium.error = OSError(5, "the disk")
    with pytest.raises(ChunkError):
        medium.room.take(5)
    medium.error = None
    medium.room.take(5)


@given(
    st.integers(0, 4 * PLENTY_BYTES),
    st.lists(st.tuples(st.integers(1, CHUNK_LENGTH_MAX), st.sampled_from(["keep", "store", "give up"]), st.booleans())),
)
def test_the_reserve_holds(free_bytes: int, steps: list[tuple[int, str, bool]]) -> None:
    """Chunks that are admitted, stored and given up in any order: what is free, less what is promised, stays above the
    reserve; and a chunk that fits is refused by nobody when the figure is fresh."""
    medium = Medium(free_bytes)
    held: list[tuple[Share, int]] = []
    for length, what, time_passes in steps:
        if time_passes:
            medium.clock.advance(FREE_KEPT_S)
        if held and what != "keep":
            share, taken = held.pop(0)
            share.close()
            if what == "store":
                medium.free_bytes -= taken
        fits = medium.free_bytes - medium.room.promised_bytes - length >= RESERVE_BYTES
        try:
            held.append((medium.room.take(length), length))
        except NodeFull:
            assert not fits
        else:
            assert fits
        assert medium.room.promised_bytes == sum(taken for _, taken in held)
