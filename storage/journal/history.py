"""PURE. Which segments lead from one sequence to the next, when several hold the same one.

Segments of one history, in the order of their ids, are what owners wrote one after the other. Each says the first
sequence that it has: whatever an earlier segment holds of that or a later one was never acknowledged, or is the same.
So each counts from its first sequence up to the lowest first sequence of those after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from storage.base.errors import Corrupt
from storage.journal.record import SegmentHeader


class Span(NamedTuple):
    """What counts of one segment. last: None for the newest, which counts as far as it goes."""

    segment_id: bytes
    first: int
    last: int | None


class JournalGap(Corrupt):
    """Records that no segment has, though there are later ones."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"the journal lacks records {first} to {last}, and goes on behind them")
        self.first = first
        self.last = last


def plan_spans(headers: Iterable[SegmentHeader], history: int) -> list[Span]:
    """Of one history, in the order of sequences."""
    spans: list[Span] = []
    limit: int | None = None
    for header in sorted((it for it in headers if it.history == history), key=_by_id, reverse=True):
        if limit is None:
            spans.append(Span(header.segment_id, header.first_sequence, None))
            limit = header.first_sequence
        elif header.first_sequence < limit:
            spans.append(Span(header.segment_id, header.first_sequence, limit - 1))
            limit = header.first_sequence
    spans.reverse()
    return spans


def spans_after(spans: Iterable[Span], sequence: int) -> list[Span]:
    """Those that may hold records after this one."""
    return [span for span in spans if span.last is None or span.last > sequence]


def newest_history(headers: Iterable[SegmentHeader]) -> int:
    """The one that was written last; 0 without any."""
    newest = max(headers, key=_by_id, default=None)
    return 0 if newest is None else newest.history


def _by_id(header: SegmentHeader) -> bytes:
    return header.segment_id
