"""What a directory of chunks holds, in the order of chunk ids, a page at a time, in bounded memory."""

from __future__ import annotations

import heapq
import logging
import re
from collections.abc import Iterator

from storage.base.files import FileSystem
from storage.base.ids import ChunkId, parse_chunk_id
from storage.chunks import medium_errors
from storage.chunks.footer import FOOTER_BYTES
from storage.chunks.layout import CHUNK_NAME, GROUP_NAME, group_name
from storage.chunks.store import INVENTORY_ENTRIES_MAX, InventoryEntry
from storage.chunks.times import read_times

NAMES_AT_ONCE = 1024

_log = logging.getLogger(__name__)


def read_inventory(files: FileSystem, chunks: str, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
    """Up to `limit` (at most INVENTORY_ENTRIES_MAX) chunks after the given one. `chunks`: the directory of that name.

    Length and times come from the file's own size and times, not from its footer: one look at the inode instead of a
    read from the medium for each chunk, and a damaged chunk is listed like any other, for a scrub to find. One whose
    very inode cannot be read is left out: to whoever compares it is missing, and it hides none of the others.
    """
    limit = min(limit, INVENTORY_ENTRIES_MAX)
    entries: list[InventoryEntry] = []
    with medium_errors.reading():
        names = _chunk_names(files, chunks, "" if after is None else str(after))
        while len(entries) < limit and (name := next(names, None)) is not None:
            try:
                found = files.stat(f"{chunks}/{group_name(name)}/{name}")
            except FileNotFoundError:  # deleted since it was listed
                continue
            except OSError as error:
                if not medium_errors.is_unreadable(error):
                    raise
                _log.error("chunk %s cannot be looked at: %s", name, error.strerror)
                continue
            length = max(0, found.size - FOOTER_BYTES)
            entries.append(InventoryEntry(parse_chunk_id(name).to_bytes(), length, *read_times(found)))
    return entries


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


def _chunk_names(files: FileSystem, chunks: str, after: str) -> Iterator[str]:
    """Names of chunks in order, after the given one; `` for all."""
    first_group = group_name(after)
    if first_group:
        yield from _names_in_group(files, chunks, first_group, after)
    for group in _names_after(files, chunks, first_group, GROUP_NAME):
        yield from _names_in_group(files, chunks, group, "")


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
