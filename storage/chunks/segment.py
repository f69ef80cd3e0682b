"""One segment, open: slots and bodies of small chunks in one file (segment_format.py).

The write of a batch, and what a power cut before each step leaves:

    1 write each body, then its slot     nothing, or any of them
    2 write the header's mark, where it  the same
      is far behind
    3 fdatasync                          the same
    4 fsync of the directory, once       the same, or everything
    5 answer                             everything

Steps 1 to 3 reach the medium in any order, so a cut may leave a slot whose body is torn. All before the mark of a
header was durable when that was written: whoever opens the segment again reads every body that lies behind
it, and frees the slots of those that are not whole, before anything is listed. So much was answered for by nobody.
Room is never used twice, so that a slot leads to its own body or to zeros.

Removing is to write a free slot, fdatasync, then to give the body's blocks back. A cut in between leaves blocks that no
slot names: `tidy` finds them. Where the file system punches no holes they stay until the segment is empty.

A range of the file can be lent to another process of this machine, which writes bodies into it, then their slots, and
syncs (near_range.py): the same steps with the same outcomes, but not in turn with ours. So for as long as a range is
lent the mark stays before it, nothing is tidied, and which slots are free is not known by heart. The file reaches to
the end of the range before it is lent, so that nobody, this process or the next, ever puts anything else there.

After a sync that failed nobody knows what is on the medium, and another sync would succeed without a word. So the
segment is *poisoned*: it takes no more chunks while this process lives, and what was not synced counts as not there,
whatever its slots say.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from storage.base.errors import ChunkError
from storage.base.files import FileSystem, OpenFile
from storage.base.ids import ChunkId
from storage.chunks import medium_errors
from storage.chunks.footer import Footer, RunningDigest
from storage.chunks.layout import segment_name
from storage.chunks.lent_range import Ending, LentRange
from storage.chunks.segment_format import (
    BLOCK_BYTES,
    BODIES_OFFSET,
    EMPTY_SLOT,
    HEADER_BYTES,
    SLOT_BYTES,
    SLOTS,
    TABLE_BYTES,
    TABLE_OFFSET,
    VERIFIED_OFFSET,
    Slot,
    UnknownFormat,
    find_gaps,
    find_within,
    format_header,
    format_slot,
    format_verified,
    padded,
    parse_header,
    parse_slot,
    parse_table,
    slot_number,
    slot_offset,
)
from storage.chunks.store import Buffer

MARK_BEHIND_BYTES_MAX = 1 << 20
"""of durable bodies behind the mark: so much, and a batch, is read by whoever opens a segment that was not closed"""
SETTLE_BYTES = 1 << 20
"""read at once while what lies behind the mark is verified"""
_PADDING = bytes(BLOCK_BYTES)

_log = logging.getLogger(__name__)


class Segment:
    """Whoever changes something does so within `changing`; looking needs nothing. OSError as the medium gives it, where
    nothing else is said.

    It is open for reading only. For each batch and other change it is opened for writing, and kept so while batches
    come one upon the other; no disk is kept from being made read-only for longer. A sync tells of every error since
    then, so that one of a batch before is never missed."""

    def __init__(self, files: FileSystem, chunks: str, group: str) -> None:
        """chunks: the directory of that name. Touches nothing yet."""
        self.group = group
        self.users = 0
        """kept by Segments"""
        self.is_poisoned = False
        self.is_gone = False
        """it is of no use: whoever needs one takes another"""
        self.is_absent = False
        """because there is no such file"""
        self._files = files
        self._chunks = chunks
        self._path = f"{chunks}/{segment_name(group)}"
        self._lock = threading.Lock()
        self._opened: OpenFile | None = None
        self._writer: OpenFile | None = None
        self._end = 0
        """where the next body goes"""
        self._durable_end = 0
        self._mark: int | None = None
        """as the header has it"""
        self._is_prepared = False
        self._must_name = True
        """the directory was not synced since it was opened"""
        self._taken: bytearray | None = None
        """by number of slot: 0 where it is free; None while nobody knows"""
        self._unsynced: list[int] = []
        self._void: set[int] = set()
        """numbers of slots that count as free"""
        self._lent: list[LentRange] = []
        self._mark_max: int | None = None
        """the begin of the first range of which nobody said that all of it is durable"""

    @property
    def file(self) -> OpenFile:
        """While it is open."""
        if self._opened is None:
            raise ChunkError("the segment is not open")
        return self._opened

    # --- opening

    def open(self, *, make: bool) -> bool:
        """Whether it is there, or was made; what an earlier process left is put in order. ChunkError, Corrupt: and it
        is gone, as far as this object is concerned."""
        if self._opened is not None:  # whoever writes must not be waited for
            return not self.is_gone
        with self.changing(), medium_errors.reading():
            if self._opened is None and not self.is_gone:
                self.is_gone = True
                opened = self._open(make)
                self.is_absent = self.is_gone = opened is None
                self._opened = opened  # last: whoever sees it does not look at the lock
            return not self.is_gone

    def _open(self, make: bool) -> OpenFile | None:
        try:
            file = self._files.open(self._path)
        except FileNotFoundError:
            if not make:
                return None
            with medium_errors.writing():
                self._files.create(self._path).close()
            file = self._files.open(self._path)
        try:
            self._recover(file)
        except BaseException:
            file.close()
            raise
        return file

    def _recover(self, file: OpenFile) -> None:
        try:
            self._mark = parse_header(read_readable(file, 0, HEADER_BYTES), self.group)
        except UnknownFormat as error:
            raise ChunkError(f"{self._path}: {error}") from error
        mark = BODIES_OFFSET if self._mark is None else self._mark
        self._end = max(mark, padded(file.size()))
        if self._end > mark:
            self._settle(file, mark)
        self._durable_end = self._end

    def _settle(self, file: OpenFile, mark: int) -> None:
        """Free the slots behind the mark whose bodies are not whole on the medium, durably (where it takes no writes
        any more they are passed over)."""
        file.fdatasync()
        file.drop_cached()
        torn = [number for number, slot in self._list(file) if slot.offset >= mark and _is_torn(file, slot)]
        if not torn:
            return
        _log.info("%s: %d chunks that nobody was told of are torn", self._path, len(torn))
        try:
            for number in torn:
                self._writable().pwrite(EMPTY_SLOT, slot_offset(number))
            self._writable().fdatasync()
        except OSError:
            self.is_poisoned = True
            self._void.update(torn)

    def close(self) -> None:
        """Nothing is made durable: the mark tells what was before. Twice is no error."""
        with self.changing():
            if self._opened is not None:
                if not self.is_gone and not self.is_poisoned:
                    with suppress(OSError):
                        self._write_mark()
                self._opened.close()
                self._opened = None

    # --- looking

    def find(self, chunk_id: ChunkId) -> Slot | None:
        """What its slot says, which may be of another chunk of the blob. OSError."""
        number = slot_number(chunk_id)
        raw = self.file.pread(SLOT_BYTES, slot_offset(number))
        return None if number in self._void else parse_slot(raw, chunk_id.blob_id)

    def list_slots(self) -> Iterator[Slot]:
        """All that are not free, in the order of their blobs. OSError."""
        return (slot for number, slot in self._list(self.file) if number not in self._void)

    def _list(self, file: OpenFile) -> Iterator[tuple[int, Slot]]:
        return parse_table(read_readable(file, TABLE_OFFSET, TABLE_BYTES), self.group)

    def holds(self, slot: Slot) -> bool:
        """Whether that very body is still there: true after a read says that what was read was no hole."""
        found = self.find(slot.chunk_id)
        return found is not None and found.identity == slot.identity

    # --- writing

    @contextmanager
    def changing(self, *, keep_open: bool = False) -> Iterator[None]:
        """Let nobody else change anything. keep_open: for writing, for the next who comes, who may be somebody else."""
        with self._lock:
            try:
                yield
            finally:
                writer = self._writer
                if writer is not None and (self.is_poisoned or not keep_open):
                    self._writer = None
                    writer.close()

    def _writable(self) -> OpenFile:
        if self._writer is None:
            self._writer = self._files.open(self._path, writable=True)
        return self._writer

    def is_free(self, chunk_id: ChunkId) -> bool:
        """Whether its slot is known to be free, within `changing`. False says nothing. OSError."""
        self._prepare()
        return self._taken is not None and not self._taken[slot_number(chunk_id)]

    def append(self, chunk_id: ChunkId, footer: Footer, buffers: Sequence[Buffer]) -> None:
        """Write a chunk, whose slot is free, behind the others; durable after `commit`. If that fails there is no
        slot."""
        self._prepare()
        number, offset, size = slot_number(chunk_id), self._end, padded(footer.length)
        file = self._writable()
        padding = size - footer.length
        file.pwritev([*buffers, _PADDING[:padding]] if padding else buffers, offset)
        self._note(number, is_taken=True)
        file.pwrite(format_slot(chunk_id, offset, footer), slot_offset(number))
        self._unsynced.append(number)
        self._end = offset + size

    def _prepare(self) -> None:
        """Before the first write: whatever took the file's end away, no slot leads to what will be written."""
        if self._is_prepared:
            return
        taken = bytearray(SLOTS)
        for number, slot in self._list(self.file):
            taken[number] = 1
            if number not in self._void and not slot.is_damaged:
                self._end = max(self._end, slot.end)
        self._durable_end = self._end
        with suppress(OSError):  # of blocks that cannot be read nobody knows whether their slots are free
            self.file.pread(TABLE_BYTES, TABLE_OFFSET)
            self._taken = taken
        self._is_prepared = True

    def _note(self, number: int, *, is_taken: bool) -> None:
        if self._taken is not None:
            self._taken[number] = is_taken

    def commit(self) -> None:
        """Make what was appended durable. After an OSError none of it is there, and the segment is poisoned."""
        try:
            self._write_mark(MARK_BEHIND_BYTES_MAX)
            self._writable().fdatasync()
            if self._must_name:
                self._files.fsync_directory(self._chunks)
                self._must_name = False
        except BaseException:
            self._poison()
            raise
        self._unsynced.clear()
        self._durable_end = self._end

    def _write_mark(self, behind_bytes_max: int = 0) -> None:
        """Unless it is no further behind what is durable."""
        mark = min(self._durable_end, *(lent.begin for lent in self._lent), self._mark_max or self._durable_end)
        if self._mark is None or mark - self._mark > behind_bytes_max:
            self._writable().pwrite(format_header(self.group, mark), 0)
            self._mark = mark

    def _poison(self) -> None:
        _log.error("%s takes no more chunks: a sync of it failed", self._path)
        self.is_poisoned = True
        self._void.update(self._unsynced)
        with suppress(OSError):
            for number in self._unsynced:
                self._writable().pwrite(EMPTY_SLOT, slot_offset(number))
            self._writable().fdatasync()
        self._unsynced.clear()

    # --- lending

    @property
    def is_lent(self) -> bool:
        """Whether another process may be writing into it. Within `changing`."""
        return bool(self._lent)

    def lend(self, length: int) -> LentRange:
        """A range of whole blocks that nobody uses, behind everything, within `changing`; until `end`. OSError."""
        self._prepare()
        end = self._end + length
        self._writable().truncate(end)
        if self._must_name:
            self._files.fsync_directory(self._chunks)
            self._must_name = False
        lent = LentRange(self._end, end, self.file.stat().inode)
        self._end = end
        self._taken = None
        self._lent.append(lent)
        return lent

    def list_lent(self, lent: LentRange) -> list[Slot]:
        """Whose bodies lie in a range. OSError."""
        raw = read_readable(self.file, TABLE_OFFSET, TABLE_BYTES)
        return find_within(raw, self.group, lent.begin, lent.end)

    def find_lent(self, slot: Slot) -> LentRange | None:
        """Where another process may just have written it. Within `changing`."""
        return next((lent for lent in self._lent if lent.begin <= slot.offset < lent.end), None)

    def end(self, lent: LentRange, ending: Ending | None) -> None:
        """Nobody writes into the range any more, or none of it counts; within `changing`. ending: how that went; None
        where nobody said."""
        self._lent.remove(lent)
        if ending is None:
            try:
                self.sync_lent()
            except OSError:
                return
            self._mark_max = min(self._mark_max or lent.begin, lent.begin)  # who was stopped may yet write a slot
        elif ending.failed:
            self._unsynced.extend(ending.failed)
            self._poison()
            return
        if not self.is_poisoned:
            self._durable_end = self._end
            with suppress(OSError):
                self._write_mark(MARK_BEHIND_BYTES_MAX)

    def sync_lent(self) -> None:
        """Make durable what another process wrote, within `changing`. The file that is open all the time tells of every
        error that there was. After an OSError the segment is poisoned."""
        try:
            self.file.fdatasync()
        except OSError:
            self._poison()
            raise

    # --- changing

    def remove(self, items: Sequence[tuple[ChunkId, bytes | None]]) -> list[Slot | None]:
        """Free slots durably and give the room of their bodies back; what was there of each chunk. With an identity:
        only if it is still that. A slot that is free is written all the same: an earlier call may have freed it, and
        failed to sync it."""
        removed: list[Slot | None] = []
        is_changed = False
        for chunk_id, identity in items:
            try:
                slot = self.find(chunk_id)
            except OSError as error:
                if not medium_errors.is_unreadable(error):
                    raise
                _log.error("chunk %s stays where it is: %s", chunk_id, error.strerror)
                removed.append(None)
                continue
            if slot is not None and (slot.chunk_id != chunk_id or identity not in (None, slot.identity)):
                removed.append(None)
                continue
            self._writable().pwrite(EMPTY_SLOT, slot_offset(slot_number(chunk_id)))
            self._note(slot_number(chunk_id), is_taken=False)
            removed.append(slot)
            is_changed = True
        if is_changed:
            self._writable().fdatasync()
        with suppress(OSError):
            for slot in removed:
                if slot is not None and not slot.is_damaged:
                    self._writable().punch(slot.offset, slot.end - slot.offset)
        return removed

    def note_verified(self, slot: Slot, verified_ms: int) -> None:
        """Remember when a body was verified, unless it went meanwhile."""
        with self.changing():
            if self.holds(slot):
                offset = slot_offset(slot_number(slot.chunk_id)) + VERIFIED_OFFSET
                self._writable().pwrite(format_verified(slot.identity, verified_ms), offset)

    def tidy(self) -> bool:
        """Remove the file if no slot is taken: True then. Else give back blocks that no slot names, which a power cut
        may have left. Nothing while a part of it is lent."""
        if self._lent:
            return False
        slots = list(self.list_slots())
        if not slots and not self._void:
            self._files.unlink(self._path)
            self.is_gone = True
            return True
        found = self.file.stat()
        extents = [(slot.offset, slot.end) for slot in slots]
        blocks = {slot_offset(slot_number(slot.chunk_id)) // BLOCK_BYTES for slot in slots}
        named = BLOCK_BYTES * (1 + len(blocks)) + sum(end - begin for begin, end in extents)
        if found.allocated_bytes > named and not any(slot.is_damaged for slot in slots):
            for offset, length in find_gaps(extents, padded(found.size)):
                if not self._writable().punch(offset, length):
                    break
        return False


def read_readable(file: OpenFile, offset: int, length: int) -> bytes:
    """Whole blocks, or what there is of them up to the file's end; those that the medium lost are zeros, as free slots
    are: to whoever compares, their chunks are missing. OSError."""
    try:
        return file.pread(length, offset)
    except OSError as error:
        if not medium_errors.is_unreadable(error):
            raise
        if length <= BLOCK_BYTES:
            _log.error("a block of slots cannot be read: %s", error.strerror)
            return bytes(length)
    starts = range(offset, offset + length, BLOCK_BYTES)
    return b"".join(read_readable(file, start, min(BLOCK_BYTES, offset + length - start)) for start in starts)


def _is_torn(file: OpenFile, slot: Slot) -> bool:
    """Whether the body behind a slot is not what was to be written. What cannot be read, or a slot that is damaged, is
    not for us to forget: a scrub finds it."""
    if slot.is_damaged:
        return False
    try:
        found = RunningDigest()
        while found.length < slot.footer.length:
            block = file.pread(min(SETTLE_BYTES, slot.footer.length - found.length), slot.offset + found.length)
            if not block:
                return True
            found.update(block)
    except OSError as error:
        if medium_errors.is_unreadable(error):
            return False
        raise
    return found.receipt() != slot.footer.receipt
