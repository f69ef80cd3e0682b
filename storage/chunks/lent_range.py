"""PURE. A range of a segment that is lent to another process of this machine, and how that ended."""

from __future__ import annotations

from typing import NamedTuple

from storage.chunks.segment_format import BLOCK_BYTES, Slot, slot_number

RANGE_BYTES = 32 << 20
"""of one that is asked for: some hundred chunks, so that asking costs little for each; what stays unused is a hole. Who
opens a segment that was not closed reads what was written into it"""
RANGE_BYTES_MAX = 64 << 20


class Ending(NamedTuple):
    """What the borrower says when it will write no more."""

    failed: tuple[int, ...] = ()
    """numbers of slots whose sync failed: nobody knows what is on the medium. All others are durable"""


class LentRange:
    """From one block to another, until the borrower says that it is over, or is gone."""

    __slots__ = ("_counted", "begin", "end", "inode")

    def __init__(self, begin: int, end: int, inode: int) -> None:
        """begin, end: offsets in the file, in bytes. inode: the file's."""
        self.begin = begin
        self.end = end
        self.inode = inode
        self._counted: set[int] = set()

    def is_counted(self, slot: Slot) -> bool:
        """Whether the tally knows of a chunk that lies here."""
        return slot_number(slot.chunk_id) in self._counted

    def count(self, slot: Slot) -> bool:
        """It does from now on; False when it did already."""
        if self.is_counted(slot):
            return False
        self._counted.add(slot_number(slot.chunk_id))
        return True


def require_length(length: int) -> int:
    """A range's. ValueError."""
    if not 0 < length <= RANGE_BYTES_MAX or length % BLOCK_BYTES:
        raise ValueError(f"a range has whole blocks of {BLOCK_BYTES} bytes, and {RANGE_BYTES_MAX} bytes at most")
    return length
