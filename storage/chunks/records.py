"""The small chunks of a directory, which lie in segments: what ChunkDirectory does with them, as blocking steps.

A chunk can be in a file of its own instead: it was stored before there were segments, another chunk of its blob has the
slot, or the segment is poisoned. So every look goes to both, and a writer makes sure of both before it takes the name.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, Protocol, Self

from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt
from storage.base.files import FileSystem
from storage.base.ids import ChunkId
from storage.chunks import medium_errors
from storage.chunks.footer import Footer, format_footer
from storage.chunks.layout import group_name
from storage.chunks.open_record import OpenRecord
from storage.chunks.segment import Segment, read_readable
from storage.chunks.segment_format import RECORD_BYTES_MAX, Slot
from storage.chunks.segments import Segments
from storage.chunks.store import Buffer, ChunkReceipt
from storage.chunks.tally import Tally
from storage.chunks.times import stored_times

PLACE_ATTEMPTS_MAX = 8
"""a name can be taken and freed again by others only so often before the write is given up"""


class Names(Protocol):
    """What the directory knows of names, be they of files or of slots."""

    def turn_of(self, chunk_id: ChunkId) -> threading.Lock:
        """Held between looking for a name and giving it."""
        ...

    def has_file(self, chunk_id: ChunkId) -> bool:
        """Whether the chunk has a file of its own. OSError."""
        ...

    def holds_same(self, chunk_id: ChunkId, receipt: ChunkReceipt) -> bool:
        """Whether the name leads to these very bytes, still whole on the medium, and durably. ChunkConflict for others.

        False: it leads nowhere any more; a damaged chunk is set aside to that end."""
        ...


class NotStored(Enum):
    """TAKEN: the name leads to a chunk, whose bytes are to be compared. ELSEWHERE: it needs a file of its own."""

    TAKEN = "taken"
    ELSEWHERE = "elsewhere"


class NewRecord(NamedTuple):
    """A chunk that is to be stored."""

    chunk_id: ChunkId
    buffers: Sequence[Buffer]
    receipt: ChunkReceipt


class RecordPlace:
    """Where a chunk lies, held so that its segment stays open."""

    def __init__(self, segments: Segments, segment: Segment, slot: Slot) -> None:
        self.segment = segment
        self.slot = slot
        self._segments = segments

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._segments.release(self.segment)

    def open(self) -> OpenRecord:
        """To be read while the place is held; need not be closed. Corrupt."""
        return OpenRecord(self.segment, self.slot, lambda _: None)


class Records:
    """Safe to use from many threads."""

    def __init__(self, files: FileSystem, segments: Segments, clock: Clock, tally: Tally, names: Names) -> None:
        self._files = files
        self._segments = segments
        self._clock = clock
        self._tally = tally
        self._names = names

    # --- looking

    def has(self, chunk_id: ChunkId) -> bool:
        """Whether its slot is taken by it. ChunkError, OSError."""
        with self._segments.using(group_name(str(chunk_id))) as segment:
            slot = None if segment is None else _look(segment, chunk_id)
            return slot is not None and slot.chunk_id == chunk_id

    def locate(self, chunk_id: ChunkId, *, is_last_hope: bool = False) -> RecordPlace | None:
        """None where there is none. A slot that is damaged or cannot be read may be anybody's of its blob:
        is_last_hope takes it for the chunk's in any case. ChunkError, Corrupt."""
        segment = self._segments.find(group_name(str(chunk_id)))
        if segment is None:
            return None
        try:
            with medium_errors.reading():
                slot = segment.find(chunk_id) if is_last_hope else _look(segment, chunk_id)
            if slot is not None and (slot.chunk_id == chunk_id or (is_last_hope and slot.is_damaged)):
                place = RecordPlace(self._segments, segment, slot)
                segment = None
                return place
            return None
        finally:
            if segment is not None:
                self._segments.release(segment)

    def open(self, chunk_id: ChunkId, *, is_last_hope: bool = False) -> OpenRecord | None:
        """As `locate`, for a reader. ChunkError, Corrupt."""
        place = self.locate(chunk_id, is_last_hope=is_last_hope)
        if place is None:
            return None
        try:
            return OpenRecord(place.segment, place.slot, self._segments.release)
        except BaseException:
            self._segments.release(place.segment)
            raise

    def is_durable(self, chunk_id: ChunkId) -> bool:
        """Whether the chunk has its slot when nobody is writing: what is there then was synced, or is now where another
        process may be writing. ChunkError, OSError."""
        with self._segments.using(group_name(str(chunk_id))) as segment:
            if segment is None:
                return False
            with segment.changing():
                slot = _look(segment, chunk_id)
                if slot is not None and segment.find_lent(slot) is not None:
                    segment.sync_lent()
            return slot is not None and slot.chunk_id == chunk_id

    # --- writing

    def store(
        self, chunks: Mapping[int, NewRecord], *, keep_open: bool = False
    ) -> dict[int, ChunkReceipt | ChunkError]:
        """Make chunks of one group durable, with one sync for all of them: what became of each, by its number, but for
        those that need a file of their own. keep_open: for writing, until Segments.rest."""
        outcomes: dict[int, ChunkReceipt | ChunkError] = {}
        for _ in range(PLACE_ATTEMPTS_MAX):
            again: dict[int, NewRecord] = {}
            for number, outcome in zip(chunks, self._attempt(list(chunks.values()), keep_open), strict=True):
                if outcome is NotStored.TAKEN:
                    again[number] = chunks[number]
                elif not isinstance(outcome, NotStored):
                    outcomes[number] = outcome
            for number, chunk in list(again.items()):
                try:
                    if self._names.holds_same(chunk.chunk_id, chunk.receipt):
                        outcomes[number] = again.pop(number).receipt
                except ChunkError as error:
                    outcomes[number] = error
                    del again[number]
            if not again:
                return outcomes
            chunks = again
        return outcomes | dict.fromkeys(chunks, ChunkError("the chunk's name is never free nor taken"))

    def _attempt(self, chunks: Sequence[NewRecord], keep_open: bool) -> list[ChunkReceipt | ChunkError | NotStored]:
        try:
            segment = self._segments.make(group_name(str(chunks[0].chunk_id)))
        except Corrupt:
            return [NotStored.ELSEWHERE] * len(chunks)
        except ChunkError as error:
            return [error] * len(chunks)
        try:
            with segment.changing(keep_open=keep_open):
                if segment.is_gone or segment.is_poisoned:
                    return [NotStored.ELSEWHERE] * len(chunks)
                return self._store(segment, chunks)
        finally:
            self._segments.release(segment)

    def _store(self, segment: Segment, chunks: Sequence[NewRecord]) -> list[ChunkReceipt | ChunkError | NotStored]:
        outcomes: list[ChunkReceipt | ChunkError | NotStored] = []
        written: dict[ChunkId, ChunkReceipt] = {}
        for chunk in chunks:
            try:
                with medium_errors.writing(), self._names.turn_of(chunk.chunk_id):
                    outcome = self._append(segment, chunk)
            except ChunkError as error:
                outcomes.append(error)
                continue
            if outcome is None:
                written[chunk.chunk_id] = chunk.receipt
            outcomes.append(outcome or chunk.receipt)
        if not written:
            return outcomes
        try:
            with medium_errors.writing():
                segment.commit()
        except ChunkError as error:
            return [error if isinstance(outcome, ChunkReceipt) else outcome for outcome in outcomes]
        for chunk_id, receipt in written.items():
            self._tally.stored(chunk_id, receipt.length)
        return outcomes

    def _append(self, segment: Segment, chunk: NewRecord) -> NotStored | None:
        if not segment.is_free(chunk.chunk_id):
            try:
                slot = segment.find(chunk.chunk_id)
            except OSError as error:
                if medium_errors.is_unreadable(error):
                    return NotStored.ELSEWHERE
                raise
            if slot is not None:
                return NotStored.TAKEN if slot.chunk_id == chunk.chunk_id else NotStored.ELSEWHERE
        if self._names.has_file(chunk.chunk_id):
            return NotStored.TAKEN
        footer = Footer(chunk.receipt.length, chunk.receipt.digest, self._clock.now_ms())
        segment.append(chunk.chunk_id, footer, chunk.buffers)
        return None

    # --- removing

    def remove(self, items: Sequence[tuple[ChunkId, bytes | None]]) -> list[bool]:
        """Remove durably; True where there was a chunk (with an identity: that very one). ChunkError, OSError."""
        gone: dict[int, bool] = {}
        numbered = sorted(enumerate(items), key=lambda entry: (group_name(str(entry[1][0])), entry[0]))
        for group, entries in itertools.groupby(numbered, key=lambda entry: group_name(str(entry[1][0]))):
            wanted = list(entries)
            with self._segments.using(group) as segment:
                removed = [None] * len(wanted) if segment is None else self._remove(segment, [it for _, it in wanted])
            gone.update(zip((number for number, _ in wanted), (slot is not None for slot in removed), strict=True))
        return [gone[number] for number in range(len(items))]

    def _remove(self, segment: Segment, items: Sequence[tuple[ChunkId, bytes | None]]) -> Sequence[Slot | None]:
        with segment.changing():
            if segment.is_gone:
                return [None] * len(items)
            removed = segment.remove(items)
            counted = [slot for slot in removed if slot is not None and _is_counted(segment, slot)]
        self._segments.touch(segment.group)
        for slot in counted:
            self._tally.removed(slot.chunk_id, slot.footer.length, slot.verified_ms)
        return removed

    def copy_out(self, place: RecordPlace, path: str) -> bool:
        """Write the chunk to a new file, durable after a sync of its directory; blocks that the medium lost are zeros.
        False, with no file: it went meanwhile. OSError."""
        slot, segment = place.slot, place.segment
        body = read_readable(segment.file, slot.offset, min(slot.footer.length, RECORD_BYTES_MAX))
        if not segment.holds(slot):
            return False
        try:
            with self._files.create(path) as file:
                file.write([body, format_footer(slot.footer)])
                file.set_times(*stored_times(slot.footer.stored_ms))
                file.fdatasync()
        except BaseException:
            with suppress(OSError):
                self._files.unlink(path)
            raise
        return True


def _look(segment: Segment, chunk_id: ChunkId) -> Slot | None:
    """None also for a slot that the medium lost: the chunk may be in a file. OSError."""
    try:
        return segment.find(chunk_id)
    except OSError as error:
        if medium_errors.is_unreadable(error):
            return None
        raise


def _is_counted(segment: Segment, slot: Slot) -> bool:
    """Whether the tally knows of it: of what another process just wrote it may not."""
    lent = segment.find_lent(slot)
    return lent is None or lent.is_counted(slot)
