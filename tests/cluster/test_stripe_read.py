"""One stripe: as few cells as will do, everything that can be brought back is, and nothing that is wrong goes out."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.stripe_read import StripeRead
from storage.base.ids import ChunkId
from storage.chunks.erasure import CHUNK_HEADER_BYTES, Striping
from storage.crypto.envelope import FRAME_BYTES, TAG_BYTES, Opener, Sealer
from storage.crypto.span_frames import SpanFrames
from tests.storage.chunks.fragments import split_chunk

PLACE = (b"cluster-id-16byt", ChunkId(b"session-" + b"00000007", 5), bytes(range(32)))


class Stored(NamedTuple):
    """A chunk and its fragments."""

    plaintext: bytes
    striping: Striping
    fragments: list[bytes]

    def cell(self, fragment: int, stripe: int) -> bytes:
        """As it is stored."""
        span = self.striping.cell(fragment, stripe)
        return self.fragments[fragment][span.offset : span.offset + span.length]

    def frames(self, start: int = 0, end: int | None = None) -> SpanFrames:
        """None opened yet."""
        length = len(self.plaintext)
        return SpanFrames(Opener(*PLACE), start, length if end is None else end, length)


def store(needed: int, width: int, plain_length: int) -> Stored:
    """Sealed and cut."""
    plaintext = random.Random(plain_length).randbytes(plain_length)
    sealed = bytes(Sealer(*PLACE).seal_whole(plaintext))
    return Stored(plaintext, Striping(needed, width, len(sealed)), split_chunk(sealed, needed, width))


STRIPE = store(4, 6, 3 * FRAME_BYTES + 500)
"""of one stripe"""


def answer(stored: Stored, stripe: StripeRead, asked: list[int], bad: dict[int, str]) -> list[int]:
    """What comes back for these asks. → fragments found wrong."""
    wrong = []
    for fragment in asked:
        stripe.note_asked(fragment)
        how = bad.get(fragment, "")
        if how == "lost":
            stripe.lose(fragment)
        elif how != "unreachable":
            cell = bytearray(stored.cell(fragment, stripe.stripe))
            if how == "wrong":
                # Bytes that the shortest frame has, too; each fragment's own, so that no two cancel each other out.
                for at, flip in enumerate(random.Random(fragment).randbytes(TAG_BYTES)):
                    cell[at] ^= flip
            if not stripe.add(fragment, bytes(cell)):
                wrong.append(fragment)
            wrong += stripe.rebuild()
    return wrong


shapes = st.tuples(st.integers(1, 5), st.integers(1, 4)).map(lambda numbers: (numbers[0], sum(numbers)))


@settings(max_examples=150, deadline=None)
@given(shape=shapes, frames=st.integers(1, 5), tail=st.integers(1, FRAME_BYTES), data=st.data())
def test_what_can_be_brought_back_is(shape: tuple[int, int], frames: int, tail: int, data: st.DataObject) -> None:
    """Whatever is lost, wrong or cannot be reached; and if it cannot, it is known whether there is hope."""
    needed, width = shape
    stored = store(needed, width, (min(frames, needed) - 1) * FRAME_BYTES + tail)
    empty = {it for it in range(needed) if not stored.striping.cell(it, 0).length}
    how = st.sampled_from(["", "", "", "lost", "wrong", "unreachable"])
    bad = {number: data.draw(how) for number in range(width) if number not in empty}
    wanted = data.draw(st.sets(st.integers(0, needed - len(empty) - 1), min_size=1))
    opened = stored.frames(min(wanted) * FRAME_BYTES, min((max(wanted) + 1) * FRAME_BYTES, len(stored.plaintext)))
    frames_wanted = set(opened.missing)
    stripe = StripeRead(stored.striping, 0, opened)
    order = data.draw(st.permutations(range(width)))
    asked: list[int] = []
    found_wrong: list[int] = []
    while (plan := stripe.plan(frozenset(), order, ())) and not stripe.is_open:
        assert not set(plan) & set(asked), "nothing is asked for twice"
        asked += plan
        found_wrong += answer(stored, stripe, plan, bad)
    good = empty | {number for number, state in bad.items() if not state}
    direct = all(not bad[frame] for frame in frames_wanted)
    assert stripe.is_open == (len(good) >= needed or direct)
    assert set(found_wrong) <= {number for number, state in bad.items() if state == "wrong"}
    if stripe.is_open:
        start, end = min(frames_wanted) * FRAME_BYTES, (max(frames_wanted) + 1) * FRAME_BYTES
        assert opened.take() == stored.plaintext[start:end]
    else:
        away = {number for number, state in bad.items() if state == "unreachable"}
        lost_frames = {frame for frame in frames_wanted if bad[frame] in ("lost", "wrong")}
        if not away:
            assert not stripe.may_come_back
        elif len(good) + len(away) >= needed or not lost_frames:
            assert stripe.may_come_back


def test_a_wanted_frame_is_one_cell() -> None:
    """Straight from the fragment that holds it, as long as that is fine."""
    stripe = StripeRead(STRIPE.striping, 0, STRIPE.frames(FRAME_BYTES, FRAME_BYTES + 10))
    assert stripe.plan(frozenset(), range(6), ()) == [1]
    stripe.note_asked(1)
    assert stripe.plan({1}, range(6), ()) == []
    assert answer(STRIPE, stripe, [1], {}) == []
    assert stripe.is_open
    assert stripe.plan(frozenset(), range(6), ()) == []


def test_as_many_cells_as_are_needed_and_those_at_hand_count() -> None:
    """A lost frame takes k cells of its stripe, in the order of preference; a doubtful fragment only where it must."""
    stripe = StripeRead(STRIPE.striping, 0, STRIPE.frames(0, 2 * FRAME_BYTES))
    assert stripe.plan(frozenset(), [0, 1, 2, 3, 4, 5], ()) == [0, 1]
    stripe.note_asked(0)
    stripe.note_asked(1)
    assert stripe.plan({1}, [2, 3, 4, 5], [0, 1]) == [2, 3, 4], "one is late"
    assert stripe.plan({1}, [2, 4, 5], [3]) == [2, 4, 5]
    assert stripe.plan({1}, [2, 4], [3, 5]) == [2, 4, 3]
    assert stripe.plan({1}, [2, 4], []) is None
    assert stripe.plan({0, 1}, [2, 4], []) == []


def test_a_doubtful_fragment_that_has_the_frame_itself_comes_before_other_doubtful_ones() -> None:
    """It may save rebuilding."""
    stripe = StripeRead(STRIPE.striping, 0, STRIPE.frames(2 * FRAME_BYTES, 2 * FRAME_BYTES + 1))
    assert stripe.plan(frozenset(), [0, 4, 5], [1, 3, 2]) == [0, 4, 5, 2]
    assert stripe.plan(frozenset(), [0], [2]) == [2], "nothing else would help"


def test_frames_that_the_chunk_does_not_have_are_never_asked_for() -> None:
    """They are known: a chunk of one frame takes one other cell."""
    stored = store(4, 6, 100)
    stripe = StripeRead(stored.striping, 0, stored.frames())
    stripe.lose(0)
    assert stripe.plan(frozenset(), range(6), ()) == [4]
    assert answer(stored, stripe, [4], {}) == []
    assert stripe.is_open


@pytest.mark.parametrize("wrong", [[4], [5], [4, 5], [4, 6], [5, 6]])
def test_wrong_parity_is_found_out(wrong: list[int]) -> None:
    """By the frames that do not open; the next parity is asked for, and those that were wrong are named."""
    stored = store(3, 7, 3 * FRAME_BYTES)
    stripe = StripeRead(stored.striping, 0, stored.frames())
    bad = {0: "lost", 1: "lost", **dict.fromkeys(wrong, "wrong")}
    stripe.lose(0)
    stripe.lose(1)
    asked: list[int] = []
    found: list[int] = []
    while plan := stripe.plan(frozenset(), range(7), ()):
        asked += plan
        found += answer(stored, stripe, plan, bad)
    assert stripe.is_open
    assert asked[:3] == [2, 3, 4]
    assert sorted(found) == [number for number in wrong if number in asked]
    assert len(asked) <= 3 + len(wrong)


def test_wrong_parity_is_named_though_nothing_else_can_be_reached() -> None:
    """What is known to be bad can be made anew, whatever becomes of the read."""
    stripe = StripeRead(STRIPE.striping, 0, STRIPE.frames())
    stripe.lose(0)
    found: list[int] = []
    while plan := stripe.plan(frozenset(), range(6), ()):
        found += answer(STRIPE, stripe, plan, {4: "wrong", 5: "unreachable"})
    assert found == [4]
    assert not stripe.is_open
    assert stripe.may_come_back


def test_a_rebuilt_frame_of_a_short_chunk_is_cut_to_its_length() -> None:
    """The last frame is shorter than its stripe's parity."""
    stripe = StripeRead(STRIPE.striping, 0, frames := STRIPE.frames(3 * FRAME_BYTES))
    stripe.lose(3)
    answer(STRIPE, stripe, stripe.plan(frozenset(), range(6), ()) or [], {})
    assert frames.take() == STRIPE.plaintext[3 * FRAME_BYTES :]
    assert STRIPE.striping.sealed_length > CHUNK_HEADER_BYTES
