"""The chunks below one directory, as blocking steps: what DiskChunkStore does in its worker threads.

Small chunks lie many in a file (records.py, segment.py); here is what becomes of the others, and what is common to
both. The write of a file, and what a power cut before each step leaves:

    1 create tmp/…               nothing, or a leftover that the next start removes
    2 write bytes and footer     the same
    3 fdatasync                  the same
    4 rename to chunks/…/<id>    the same, or the whole chunk: its bytes were durable before it had its name
    5 fsync of the directory     the same
    6 answer                     the whole chunk

So a name under chunks/ always leads to bytes that were durable before it, and a chunk that was answered for is there.
Deleting is unlink, then fsync of the directory; setting aside is rename, then fsync of both directories, the target's
first, so that the chunk is under one of the two names whatever happens. A damaged chunk whose setting aside a power cut
undid is found again by the next scrub; a mark of damage whose removal it undid is there to be acknowledged again.
Several go through these steps together, each step for all of them before the next. The bytes of step 2 may be another
process's to write (lent_draft.py); all the others are taken here, in the same order. A small chunk is set aside as a
copy in a file: that is durable, in the quarantine, before its slot is freed; a power cut in between leaves both.

Nobody locks a chunk: a reader keeps the file it opened though the name may go, and the system makes each change of a
name atomic. Only two writers of one id must take turns between looking for the name, or the slot, and taking it.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress

from storage.base.clock import Clock
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, Corrupt, Unavailable
from storage.base.files import AnyPath, DiskSpace, FileSystem, OpenFile, make_directories
from storage.base.ids import ChunkId
from storage.chunks import medium_errors
from storage.chunks.draft import Draft
from storage.chunks.footer import FOOTER_BYTES, RunningDigest
from storage.chunks.groups import Groups
from storage.chunks.inventory import prune_empty_groups, read_inventory
from storage.chunks.layout import CHUNKS, LOCK, QUARANTINE, TEMPORARY, SetAside, group_name, lent_draft_name
from storage.chunks.lent_draft import LentDraft
from storage.chunks.lent_ranges import LentRanges
from storage.chunks.medium_probe import probe_medium
from storage.chunks.open_chunk import FilePlace, OpenChunk, OpenChunkFile
from storage.chunks.quarantine import Quarantine
from storage.chunks.records import PLACE_ATTEMPTS_MAX, NewRecord, RecordPlace, Records
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.segments import Segments
from storage.chunks.store import Buffer, ChunkReceipt, ChunkState, InventoryEntry, Judged, is_same_piece
from storage.chunks.tally import Tally
from storage.chunks.times import read_times

TURNSTILES = 64

_log = logging.getLogger(__name__)


class ChunkDirectory:
    """One process's directory of chunks. Every method may block and is safe to call from many threads."""

    def __init__(
        self, files: FileSystem, directory: AnyPath, clock: Clock, record_bytes_max: int = RECORD_BYTES_MAX
    ) -> None:
        """Make what is missing, take the lock, empty tmp/. Unavailable when another process holds the directory.

        record_bytes_max: of a chunk that is to lie in a segment, RECORD_BYTES_MAX at most."""
        self._files = files
        self._clock = clock
        self._root = os.fspath(directory)
        self.chunks = f"{self._root}/{CHUNKS}"
        self.tally = Tally()
        self._temporary = f"{self._root}/{TEMPORARY}"
        self._draft_numbers = itertools.count()
        self._turnstiles = [threading.Lock() for _ in range(TURNSTILES)]
        self._groups = Groups(files, self.chunks)
        quarantine = f"{self._root}/{QUARANTINE}"
        for path in (self._root, self.chunks, self._temporary, quarantine):
            make_directories(files, path)
        try:
            self._held = files.lock(f"{self._root}/{LOCK}")
        except BlockingIOError as error:
            raise Unavailable(f"another process holds {self._root}") from error
        for name in list(files.list_directory(self._temporary)):
            files.unlink(f"{self._temporary}/{name}")
        self.quarantined = Quarantine(files, quarantine, clock)
        self._record_bytes_max = min(record_bytes_max, RECORD_BYTES_MAX)
        self._segments = Segments(files, self.chunks)
        self._records = Records(files, self._segments, clock, self.tally, self)
        self.lent_ranges = LentRanges(self._segments, self.tally)
        self._leaving: set[ChunkId] = set()
        """of segments, being set aside: marked already, perhaps still in their places"""

    def close(self) -> None:
        """Let go of the segments and of the lock."""
        self._segments.close()
        self._held.close()

    def space(self) -> DiskSpace:
        """Of the file system beneath."""
        return self._files.space(self.chunks)

    def probe(self) -> None:
        """As probe_medium."""
        probe_medium(self._files, self._temporary)

    # --- writing

    def draft(self, chunk_id: ChunkId, length: int) -> Draft:
        """Begin a chunk of so many sealed bytes. Touches nothing yet."""
        return Draft(self._files, self._clock, self._temporary_path(chunk_id), chunk_id, length)

    def _temporary_path(self, chunk_id: ChunkId) -> str:
        return f"{self._temporary}/{chunk_id}.{next(self._draft_numbers)}"

    def append(self, draft: Draft, buffers: Sequence[Buffer]) -> None:
        """Write the next bytes of a draft. NodeFull."""
        with medium_errors.writing():
            draft.append(buffers)

    def store(self, draft: Draft, buffers: Sequence[Buffer]) -> ChunkReceipt:
        """Write the last bytes of a draft and make it a durable chunk. ChunkTruncated, ChunkConflict, NodeFull.

        Where only the last sync fails, the chunk keeps its name though nobody was told of it: another writer of the
        same bytes may have found it there and been answered."""
        with medium_errors.writing():
            draft.complete(buffers)
            return self._settle(draft)

    def _settle(self, draft: Draft) -> ChunkReceipt:
        """Make a complete draft a durable chunk."""
        draft.sync()
        self._place(draft)
        self._groups.sync([draft.chunk_id])
        return draft.receipt

    def lent_draft(self, chunk_id: ChunkId, token: str, length: int) -> LentDraft:
        """Begin a chunk whose bytes another process writes. Touches nothing yet."""
        path = f"{self._temporary}/{lent_draft_name(chunk_id, token)}"
        return LentDraft(self._files, self._clock, path, chunk_id, length)

    def make(self, draft: LentDraft) -> None:
        """Its file, with room for all of it. NodeFull."""
        with medium_errors.writing():
            draft.make()

    def accept(self, draft: LentDraft, receipt: ChunkReceipt) -> ChunkReceipt:
        """Make a lent draft a durable chunk, now that its bytes are written: step 2's end, and what follows. Errors as
        `store`. receipt: of the bytes, by who wrote them."""
        with medium_errors.writing():
            draft.accept(receipt)
            return self._settle(draft)

    def store_many(
        self, items: Sequence[tuple[ChunkId, Sequence[Buffer]]], *, keep_open: bool = False
    ) -> list[ChunkReceipt | ChunkError]:
        """Each item, a chunk and its bytes in order, a durable chunk, or why not; small ones with one sync for each
        segment. keep_open: more will come soon for these groups, until `rest`."""
        outcomes: dict[int, ChunkReceipt | ChunkError] = {}
        groups: dict[str, dict[int, NewRecord]] = {}
        for number, (chunk_id, blocks) in enumerate(items):
            if sum(map(len, blocks)) <= self._record_bytes_max:
                running = RunningDigest()
                for block in blocks:
                    running.update(block)
                group = groups.setdefault(group_name(str(chunk_id)), {})
                group[number] = NewRecord(chunk_id, blocks, running.receipt())
        for group in groups.values():
            outcomes |= self._records.store(group, keep_open=keep_open)
        rest = [number for number in range(len(items)) if number not in outcomes]
        if rest:
            outcomes |= zip(rest, self._store_files([items[number] for number in rest]), strict=True)
        return [outcomes[number] for number in range(len(items))]

    def rest(self, groups: Iterable[str]) -> None:
        """No more comes for these now: their segments are open for writing no longer."""
        for group in groups:
            self._segments.rest(group)

    def _store_files(self, items: Sequence[tuple[ChunkId, Sequence[Buffer]]]) -> list[ChunkReceipt | ChunkError]:
        """Each in a file of its own. All are written before the first is synced, so that one commit of the file
        system's journal serves many, and each directory is synced once."""
        drafts = [(self.draft(chunk_id, sum(map(len, blocks))), blocks) for chunk_id, blocks in items]
        failures: dict[Draft, ChunkError] = {}

        def attempt(step: Callable[[Draft, Sequence[Buffer]], None]) -> None:
            for draft, blocks in drafts:
                if draft not in failures:
                    try:
                        with medium_errors.writing():
                            step(draft, blocks)
                    except ChunkError as error:
                        draft.discard()
                        failures[draft] = error

        attempt(lambda draft, blocks: draft.complete(blocks))
        attempt(lambda draft, _: draft.sync())
        attempt(lambda draft, _: self._place(draft))
        placed = [draft.chunk_id for draft, _ in drafts if draft not in failures]
        with medium_errors.writing():
            self._groups.sync(placed)
        return [failures.get(draft) or draft.receipt for draft, _ in drafts]

    def _place(self, draft: Draft) -> None:
        """Give a synced draft its chunk's name, or find that the same bytes have it already. ChunkConflict."""
        name = str(draft.chunk_id)
        target = self._groups.path(name)
        for _ in range(PLACE_ATTEMPTS_MAX):
            self._groups.prepare(group_name(name))
            try:
                with self.turn_of(draft.chunk_id):
                    if self._groups.find(draft.chunk_id) is None and not self._records.has(draft.chunk_id):
                        self._files.replace(draft.path, target)
                        draft.moved()
                        self.tally.stored(draft.chunk_id, draft.receipt.length)
                        return
            except FileNotFoundError:  # an inventory removed the empty directory just now
                self._groups.forget(group_name(name))
                continue
            if self.holds_same(draft.chunk_id, draft.receipt):
                draft.discard()
                return
        raise ChunkError("the chunk's name is never free nor taken")

    def holds_same(self, chunk_id: ChunkId, receipt: ChunkReceipt) -> bool:
        """As Names says."""
        try:
            with self._locate(chunk_id) as place:
                try:
                    held = self._verify(chunk_id, place.open())
                except Corrupt:
                    self._set_aside_place(chunk_id, place, is_damaged=False)
                    return False
            is_durable = self._records.is_durable(chunk_id)
        except ChunkNotFound:
            return False
        except Corrupt:  # it cannot even be opened
            self.quarantine([chunk_id])
            return False
        if held != receipt:
            raise ChunkConflict(f"chunk {chunk_id} is stored with other bytes")
        if not is_durable:
            if not self.has_file(chunk_id):
                return False
            self._groups.sync([chunk_id])
        return True

    def turn_of(self, chunk_id: ChunkId) -> threading.Lock:
        """As Names says."""
        return self._turnstiles[hash(chunk_id) % TURNSTILES]

    def has_file(self, chunk_id: ChunkId) -> bool:
        """As Names says."""
        return self._groups.find(chunk_id) is not None

    # --- reading

    def open(self, chunk_id: ChunkId) -> OpenChunk:
        """Open a chunk and check its footer or slot. ChunkNotFound, Corrupt."""
        found: OpenChunk | None = self._records.open(chunk_id)
        if found is not None:
            return found
        try:
            file = self._open_file(chunk_id)
        except ChunkNotFound:
            found = self._records.open(chunk_id, is_last_hope=True)
            if found is None:
                raise
            return found
        try:
            return OpenChunkFile(file)
        except BaseException:
            file.close()
            raise

    def _open_file(self, chunk_id: ChunkId) -> OpenFile:
        with medium_errors.reading():
            try:
                return self._files.open(self._groups.path(str(chunk_id)))
            except FileNotFoundError:
                raise ChunkNotFound(f"no chunk {chunk_id}") from None

    def _locate(self, chunk_id: ChunkId) -> RecordPlace | FilePlace:
        """Where it lies, to be held as a context. ChunkNotFound, Corrupt."""
        place = self._records.locate(chunk_id)
        if place is not None:
            return place
        try:
            return FilePlace(self._open_file(chunk_id))
        except ChunkNotFound:
            place = self._records.locate(chunk_id, is_last_hope=True)
            if place is None:
                raise
            return place

    def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        """What the footer says. ChunkNotFound, Corrupt."""
        with self.open(chunk_id) as chunk:
            return chunk.footer.receipt

    def inspect(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        """What footer and file say of each; None for one that is not there or cannot be read."""
        found: list[ChunkState | None] = []
        for chunk_id in chunk_ids:
            try:
                with self.open(chunk_id) as chunk:
                    found.append(chunk.state)
            except (ChunkNotFound, Corrupt):
                found.append(None)
        return found

    def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        """The receipt, after reading every byte from the medium; the time is remembered. ChunkNotFound, Corrupt."""
        with self.open(chunk_id) as chunk:
            return self._verify(chunk_id, chunk)

    def _verify(self, chunk_id: ChunkId, chunk: OpenChunk) -> ChunkReceipt:
        before_ms, now_ms = chunk.state.verified_ms, self._clock.now_ms()
        receipt = chunk.verify()
        chunk.note_verified(now_ms)
        self.tally.verified(chunk_id, before_ms, now_ms)
        return receipt

    def check(self, chunk_id: ChunkId) -> bool:
        """Verify, and set aside as damaged what is wrong twice in a row: False then. (An error that is gone the second
        time was the way's, not the medium's.) ChunkNotFound, ChunkError; Corrupt when it cannot even be opened."""
        with self._locate(chunk_id) as place:
            try:
                self._verify(chunk_id, place.open())
            except Corrupt as error:
                _log.warning("chunk %s is read again: %s", chunk_id, error)
            else:
                return True
            try:
                self._verify(chunk_id, place.open())
            except Corrupt as error:
                if not self._set_aside_place(chunk_id, place, is_damaged=True):
                    raise ChunkNotFound(f"chunk {chunk_id} was removed or stored anew meanwhile") from None
                _log.error("chunk %s is damaged and was set aside: %s", chunk_id, error)
                return False
            return True

    def _set_aside_place(self, chunk_id: ChunkId, place: RecordPlace | FilePlace, *, is_damaged: bool) -> bool:
        """Unless the name leads to something else by now: whoever found the damage too may have put a good copy there.
        While a file is open no other can have its number, and while the turn is ours none gets its name."""
        with medium_errors.writing():
            if isinstance(place, RecordPlace):
                return self._set_aside_records([(chunk_id, place)], is_damaged=is_damaged) == [True]
            with self.turn_of(chunk_id):
                found = self._groups.find(chunk_id)
                if found is None or found.inode != place.file.stat().inode:
                    return False
                moved = self._set_aside(chunk_id, is_damaged=is_damaged)
            self.quarantined.sync()
            self._groups.sync([chunk_id])
            return moved

    def read_spans(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError | Corrupt]:
        """One outcome per span (chunk, offset, length)."""
        outcomes: list[bytes | ChunkError | Corrupt] = []
        for chunk_id, offset, length in spans:
            try:
                with self.open(chunk_id) as chunk:
                    outcomes.append(chunk.read(*chunk.clamp(offset, length)))
            except (ChunkError, Corrupt) as error:
                outcomes.append(error)
        return outcomes

    # --- removing

    def delete(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Remove durably; True where there was a chunk. What is missing is synced too: an earlier call may have
        removed it and died before its sync."""
        with medium_errors.writing():
            removed = [self._remove(chunk_id, self._files.unlink) for chunk_id in chunk_ids]
            freed = self._records.remove([(chunk_id, None) for chunk_id in chunk_ids])
            outcomes = list(zip(chunk_ids, removed, freed, strict=True))
            self._groups.sync(it for it, in_file, in_segment in outcomes if in_file or not in_segment)
            return [in_file or in_segment for _, in_file, in_segment in outcomes]

    def quarantine(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Set aside durably; True where there was a chunk."""
        with medium_errors.writing(), ExitStack() as held:
            moved = [self._set_aside(chunk_id) for chunk_id in chunk_ids]
            places: dict[ChunkId, RecordPlace] = {}
            for chunk_id in dict.fromkeys(chunk_ids):
                try:
                    place = self._records.locate(chunk_id)
                except Corrupt as error:  # as of a file whose inode cannot be read
                    _log.error("chunk %s stays where it is: %s", chunk_id, error)
                    continue
                if place is not None:
                    places[chunk_id] = held.enter_context(place)
            freed = dict(zip(places, self._set_aside_records(list(places.items())), strict=True))
            self.quarantined.sync()
            self._groups.sync([chunk_id for chunk_id in chunk_ids if chunk_id not in places])
            return [in_file or freed.pop(chunk_id, False) for chunk_id, in_file in zip(chunk_ids, moved, strict=True)]

    def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        """As ChunkStore."""
        return [self._quarantine_judged(chunk_id, state) for chunk_id, state in judged]

    def _quarantine_judged(self, chunk_id: ChunkId, judged: ChunkState | None) -> bool:
        try:
            with self._locate(chunk_id) as place:
                try:
                    state = place.open().state
                except Corrupt:
                    state = None
                return is_same_piece(state, judged) and self._set_aside_place(chunk_id, place, is_damaged=False)
        except ChunkNotFound:
            return False
        except Corrupt:  # it cannot even be opened
            return judged is None and self.quarantine([chunk_id]) == [True]

    def _set_aside_records(
        self, places: Sequence[tuple[ChunkId, RecordPlace]], *, is_damaged: bool = False
    ) -> list[bool]:
        """True where the chunk was still there. Copies that were made for nothing are harmless: a purge takes them."""
        self._leaving.update(chunk_id for chunk_id, _ in places)
        try:
            return self._move_records_aside(places, is_damaged=is_damaged)
        finally:
            self._leaving.difference_update([chunk_id for chunk_id, _ in places])

    def _move_records_aside(self, places: Sequence[tuple[ChunkId, RecordPlace]], *, is_damaged: bool) -> list[bool]:
        copied = []
        for chunk_id, place in places:
            path = self._temporary_path(chunk_id)
            if self._records.copy_out(place, path):
                try:
                    self.quarantined.take(path, chunk_id, is_damaged=is_damaged)
                except OSError:
                    with suppress(OSError):
                        self._files.unlink(path)
                    raise
                copied.append((place.slot.chunk_id, place.slot.identity))
        if not copied:
            return [False] * len(places)
        self.quarantined.sync()
        freed = dict(zip(copied, self._records.remove(copied), strict=True))
        return [freed.get((place.slot.chunk_id, place.slot.identity), False) for _, place in places]

    def list_damaged(self, after: ChunkId | None, limit: int) -> list[SetAside]:
        """As ChunkStore. What was stored anew is forgotten on the way; what is just being set aside was not."""
        listed: list[SetAside] = []
        while len(listed) < limit and (page := self.quarantined.list_damaged(after, limit - len(listed))):
            after = page[-1].chunk_id
            settled = [of.chunk_id for of in page if of.chunk_id not in self._leaving]  # asked before what is there
            with medium_errors.reading():
                healed = [of for of in settled if self.has_file(of) or self._records.has(of)]
            if healed:
                self.quarantined.forget_damaged(healed)
            listed += [found for found in page if found.chunk_id not in healed]
        return listed

    def _set_aside(self, chunk_id: ChunkId, *, is_damaged: bool = False) -> bool:
        return self._remove(chunk_id, lambda path: self.quarantined.take(path, chunk_id, is_damaged=is_damaged))

    def _remove(self, chunk_id: ChunkId, step: Callable[[str], None]) -> bool:
        """Take a chunk's name from it; False when it has none, or when the medium lost what the name leads to: nobody
        can take that away, and nobody shall wait for it."""
        path = self._groups.path(str(chunk_id))
        try:
            found = self._files.stat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if not medium_errors.is_unreadable(error):
                raise
            _log.error("chunk %s stays where it is: %s", chunk_id, error.strerror)
            return False
        try:
            step(path)
        except FileNotFoundError:
            return False
        self.tally.removed(chunk_id, max(0, found.size - FOOTER_BYTES), read_times(found).verified_ms)
        return True

    # --- all of them

    def read_inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        """As ChunkStore."""
        return read_inventory(self._files, self.chunks, after, limit, self.lent_ranges.list_slots)

    def prune(self) -> None:
        """Remove directories and segments whose chunks are all gone, and give back what nothing names. ChunkError."""
        prune_empty_groups(self._files, self.chunks)
        self._segments.prune()
