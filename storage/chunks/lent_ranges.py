"""Ranges of a directory's segments that are lent to other processes of this machine, as blocking steps.

A borrower tells nobody what it stored: its slots do. So the tally learns of them from the table, when a range is given
back and before the segment is listed; what is removed before it was counted is never counted.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.base.errors import ChunkError
from storage.chunks import medium_errors
from storage.chunks.lent_range import Ending, LentRange
from storage.chunks.segment import Segment
from storage.chunks.segment_format import Slot
from storage.chunks.segments import Segments
from storage.chunks.tally import Tally


class Loan(NamedTuple):
    """A range, and the segment that is held in use for it."""

    segment: Segment
    lent: LentRange


class LentRanges:
    """Safe to use from many threads."""

    def __init__(self, segments: Segments, tally: Tally) -> None:
        self._segments = segments
        self._tally = tally

    def lend(self, group: str, length: int) -> Loan:
        """To be given back with `end`. ChunkError, NodeFull, Corrupt: nothing of this segment can be lent."""
        segment = self._segments.make(group)
        try:
            with segment.changing(), medium_errors.writing():
                if segment.is_gone or segment.is_poisoned:
                    raise ChunkError("the segment takes no more chunks")
                return Loan(segment, segment.lend(length))
        except BaseException:
            self._segments.release(segment)
            raise

    def end(self, loan: Loan, ending: Ending | None) -> None:
        """The borrower said that it writes no more, or cannot be told apart from one that is dead."""
        segment, lent = loan
        try:
            with segment.changing():
                try:
                    with medium_errors.reading():
                        for slot in segment.list_lent(lent):
                            self._count(lent, slot)
                finally:
                    segment.end(lent, ending)
        finally:
            self._segments.release(segment)
            self._segments.touch(segment.group)

    def list_slots(self, group: str) -> list[Slot]:
        """What a group's segment holds, in the order of ids; what is listed is counted. ChunkError, OSError."""
        with self._segments.using(group) as segment:
            if segment is None:
                return []
            if not segment.is_lent:
                return list(segment.list_slots())
            with segment.changing():
                slots = list(segment.list_slots())
                for slot in slots:
                    lent = None if slot.is_damaged else segment.find_lent(slot)
                    if lent is not None:
                        self._count(lent, slot)
                return slots

    def _count(self, lent: LentRange, slot: Slot) -> None:
        if lent.count(slot):
            self._tally.stored(slot.chunk_id, slot.footer.length)
