"""Spans of segments: every sequence comes from the newest segment that counts for it."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from storage.journal.history import newest_history, plan_spans, spans_after
from storage.journal.record import SegmentHeader, make_segment_id

FIRSTS = st.lists(st.integers(1, 40), max_size=12)


def header(number: int, first: int, history: int = 1) -> SegmentHeader:
    return SegmentHeader(bytes(16), make_segment_id(number, bytes(8)), history, first, 0, 3, 1, 2)


@given(firsts=FIRSTS, order=st.randoms())
def test_each_sequence_is_that_of_the_newest_segment_that_began_at_or_before_it(
    firsts: list[int], order: object
) -> None:
    """As a model says that looks at one sequence at a time: the last segment to begin at or below it, of those that no
    later one made void there."""
    headers = [header(number, first) for number, first in enumerate(firsts)]
    spans = plan_spans(headers, 1)
    for sequence in range(1, 45):
        counting = [
            it.segment_id
            for at, it in enumerate(headers)
            if it.first_sequence <= sequence and all(later.first_sequence > sequence for later in headers[at + 1 :])
        ]
        found = [span.segment_id for span in spans if span.first <= sequence and (span.last or 99) >= sequence]
        assert found == counting
    assert [span.first for span in spans] == sorted(span.first for span in spans)
    assert all(one.last == other.first - 1 for one, other in itertools.pairwise(spans))
    assert not spans or spans[-1].last is None


@given(firsts=FIRSTS, sequence=st.integers(0, 45))
def test_what_holds_nothing_later_is_left_out(firsts: list[int], sequence: int) -> None:
    spans = plan_spans([header(number, first) for number, first in enumerate(firsts)], 1)
    later = spans_after(spans, sequence)
    assert later == [span for span in spans if span.last is None or span.last > sequence]


def test_histories_are_apart() -> None:
    """One is never continued by another, however the sequences fit."""
    headers = [header(1, 1), header(2, 10), header(3, 11, history=2), header(4, 5, history=2)]
    assert [span.first for span in plan_spans(headers, 1)] == [1, 10]
    assert [span.first for span in plan_spans(headers, 2)] == [5]
    assert newest_history(headers) == 2
    assert newest_history([]) == 0
