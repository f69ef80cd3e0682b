"""What a directory of chunks holds, in the order of chunk ids, a page at a time, in bounded memory."""

from __future__ import annotations

import heapq
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator

from storage.base.files import FileSystem
from storage.base.ids import ChunkId, parse_chunk_id
from storage.chunks import medium_errors
from storage.chunks.footer import FOOTER_BYTES
from storage.chunks.layout import CHUNK_NAME, GROUP_ENTRY_NAME, GROUP_NAME, group_name, segment_name
from storage.chunks.segment import read_readable
from storage.chunks.segment_format import TABLE_BYTES, TABLE_OFFSET, Slot, parse_table
from storage.chunks.store import INVENTORY_ENTRIES_MAX, InventoryEntry
from storage.chunks.times import read_times

NAMES_AT_ONCE = 1024

_log = logging.getLogger(__name__)


SlotLister = Callable[[str], Iterable[Slot]]
"""the slots of a group's segment that are taken, in order; none where there is no segment"""


def read_inventory(
    files: FileSystem, chunks: str, after: ChunkId | None, limit: int, list_slots: SlotLister | None = None
) -> list[InventoryEntry]:
    """Up to `limit` (at most INVENTORY_ENTRIES_MAX) chunks after the given one. `chunks`: the directory of that name.
    list_slots: by whoever owns the directory; anybody else's look is at the segment's file.

    Of a file, length and times come from its own size and times, not from its footer: one look at the inode instead of
    a read from the medium for each chunk. A damaged chunk is listed like any other, for a scrub to find. One whose very
    inode or slot cannot be read is left out: to whoever compares it is missing, and it hides none of the others.
    """
    limit = min(limit, INVENTORY_ENTRIES_MAX)
    entries: list[InventoryEntry] = []
    lister = list_slots or (lambda group: _read_slots(files, chunks, group))
    with medium_errors.reading():
        found = _list_chunks(files, chunks, "" if after is None else str(after), lister)
        while len(entries) < limit and (listed := next(found, None)) is not None:
            name, slot = listed
            entry = _enter_slot(slot) if slot is not None else _enter_file(files, chunks, name)
            if entry is not None:
                entries.append(entry)
    return entries


def _enter_slot(slot: Slot) -> InventoryEntry:
    return InventoryEntry(slot.chunk_id.to_bytes(), slot.footer.length, slot.footer.stored_ms, slot.verified_ms)


def _enter_file(files: FileSystem, chunks: str, name: str) -> InventoryEntry | None:
    try:
        found = files.stat(f"{chunks}/{group_name(name)}/{name}")
    except FileNotFoundError:  # deleted since it was listed
        return None
    except OSError as error:
        if not medium_errors.is_unreadable(error):
            raise
        _log.error("chunk %s cannot be looked at: %s", name, error.strerror)
        return None
    return InventoryEntry(parse_chunk_id(name).to_bytes(), max(0, found.size - FOOTER_BYTES), *read_times(found))


def _read_slots(files: FileSystem, chunks: str, group: str) -> list[Slot]:
    try:
        with files.open(f"{chunks}/{segment_name(group)}") as file:
            return [slot for _, slot in parse_table(read_readable(file, TABLE_OFFSET, TABLE_BYTES), group)]
    except FileNotFoundError:
        return []


def prune_empty_groups(files: FileSystem, chunks: str) -> int:
    """Remove the directories whose chunks are all gone; how many. A writer that needs one again makes it again."""
    removed = 0
    with medium_errors.writing():
        for group in _names_after(files, chunks, "", GROUP_NAME):
            path = f"{chunks}/{group}"
            if next(files.list_directory(path), None) is None:
                removed += _remove_empty(files, path)
    return removed


def _remove_empty(files: FileSystem, path: str) -> bool:
    try:
        files.remove_directory(path)
    except OSError:  # a chunk was placed in it just now
        return False
    return True


def _list_chunks(
    files: FileSystem, chunks: str, after: str, list_slots: SlotLister
) -> Iterator[tuple[str, Slot | None]]:
    """Names of chunks in order, after the given one (`` for all), each with its slot or without one for a file. One
    that is there as both is listed once."""
    first_group = group_name(after)
    last = after
    for group in itertools.chain([first_group] if first_group else [], _groups_after(files, chunks, first_group)):
        slots = ((str(slot.chunk_id), slot) for slot in list_slots(group))
        in_files = ((name, None) for name in _names_in_group(files, chunks, group, last))
        for name, slot in heapq.merge(slots, in_files, key=lambda listed: listed[0]):
            if name > last:
                last = name
                yield name, slot


def _groups_after(files: FileSystem, chunks: str, after: str) -> Iterator[str]:
    """That have a directory or a segment."""
    last = after
    for entry in _names_after(files, chunks, segment_name(after) if after else "", GROUP_ENTRY_NAME):
        if group_name(entry) != last:
            last = group_name(entry)
            yield last


def _names_in_group(files: FileSystem, chunks: str, group: str, after: str) -> Iterator[str]:
    for name in _names_after(files, f"{chunks}/{group}", after, CHUNK_NAME):
        if group_name(name) == group:
            yield name


def _names_after(files: FileSystem, directory: str, after: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Sorted names of a directory, NAMES_AT_ONCE in memory. A directory that is not there has none."""
    while True:
        try:
            names = (name for name in files.list_directory(directory) if name > after and pattern.match(name))
            page = heapq.nsmallest(NAMES_AT_ONCE, names)
        except FileNotFoundError:
            return
        yield from page
        if len(page) < NAMES_AT_ONCE:
            return
        after = page[-1]
