"""A chunk in a segment, open for reading. Its slot is looked at again behind every read: what was removed meanwhile
reads as zeros, and is said not to be there any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from storage.base.errors import ChunkNotFound, Corrupt
from storage.chunks import medium_errors
from storage.chunks.open_chunk import OpenChunk
from storage.chunks.segment import Segment
from storage.chunks.segment_format import BLOCK_BYTES, Slot, slot_number, slot_offset
from storage.chunks.store import ChunkState


class OpenRecord(OpenChunk):
    """For one thread at a time."""

    def __init__(self, segment: Segment, slot: Slot, release: Callable[[Segment], None]) -> None:
        """The segment is released when the record is closed. Corrupt when the slot is damaged or the file ends before
        the body does: the segment is the caller's still."""
        if slot.is_damaged:
            raise Corrupt("the slot is damaged")
        with medium_errors.reading():
            size = segment.file.size()
        if size < slot.offset + slot.footer.length:
            raise Corrupt(f"the segment ends before the chunk of {slot.footer.length} bytes")
        super().__init__(segment.file, slot.footer, slot.offset)
        self._segment = segment
        self._slot = slot
        self._release = release
        self._is_open = True

    @property
    def state(self) -> ChunkState:
        return ChunkState(*self.footer, self._slot.verified_ms)

    def note_verified(self, verified_ms: int) -> None:
        with suppress(OSError):
            self._segment.note_verified(self._slot, verified_ms)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._release(self._segment)

    def _drop_cached(self) -> None:
        """Of the slot too: it is compared with what was read of it before."""
        slot = slot_offset(slot_number(self._slot.chunk_id)) // BLOCK_BYTES * BLOCK_BYTES
        self._file.drop_cached(slot, BLOCK_BYTES)
        self._file.drop_cached(self._slot.offset, self._slot.end - self._slot.offset)

    def _require_there(self) -> None:
        with medium_errors.reading():
            found = self._segment.find(self._slot.chunk_id)
        if found is None or found.identity != self._slot.identity:
            if found is not None and found.is_damaged:
                raise Corrupt("the slot is damaged")
            raise ChunkNotFound(f"chunk {self._slot.chunk_id} was removed meanwhile")
