"""What was set aside: chunks that nothing referenced, kept for a while, and damaged ones, kept until the master knows.

Damage is marked by the name alone, so it is known after a restart, and taking the mark away is one rename. Every method
may block and is safe to call from many threads.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from storage.base.clock import Clock
from storage.base.files import FileSystem
from storage.base.ids import ChunkId
from storage.chunks import medium_errors
from storage.chunks.layout import SetAside, parse_quarantine_name, quarantine_name


class Quarantine:
    """The directory of that name, which exists."""

    def __init__(self, files: FileSystem, directory: str, clock: Clock) -> None:
        self._files = files
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._damaged_count = sum(found.is_damaged for found in self._list())

    @property
    def damaged_count(self) -> int:
        """Marks of damage; one that a power cut left under both names may have two of them."""
        return self._damaged_count

    def take(self, path: str, chunk_id: ChunkId, *, is_damaged: bool) -> None:
        """Move a chunk here from the path that it has; durable after `sync`. FileNotFoundError, OSError."""
        with self._lock:
            target = SetAside(chunk_id, self._clock.now_ms(), is_damaged)
            while self._has(target):  # set aside twice within a millisecond
                target = target._replace(set_aside_ms=target.set_aside_ms + 1)
            self._files.replace(path, self._path(target))
            self._damaged_count += is_damaged

    def sync(self) -> None:
        """Make every change so far durable. OSError."""
        self._files.fsync_directory(self._directory)

    def purge(self, older_than_ms: int, limit: int) -> int:
        """Delete up to `limit` chunks that were set aside before that time and are not marked; how many. ChunkError."""
        with medium_errors.writing():
            old = (found for found in self._list() if found.set_aside_ms < older_than_ms and not found.is_damaged)
            removed = 0
            for found in list(itertools.islice(old, limit)):
                with suppress(FileNotFoundError):
                    self._files.unlink(self._path(found))
                    removed += 1
            self.sync()
            return removed

    def list_damaged(self, after: ChunkId | None, limit: int) -> list[SetAside]:
        """Up to `limit` that are marked, one for each chunk, in the order of their ids after the given one; fewer only
        where there are no more. ChunkError."""
        with medium_errors.reading():
            marked = (found for found in self._list() if found.is_damaged and (after is None or found.chunk_id > after))
            return list({found.chunk_id: found for found in heapq.nsmallest(limit, marked)}.values())

    def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Take the mark from these chunks durably, so that a purge may delete them; True where there was one.
        ChunkError."""
        asked = set(chunk_ids)
        with medium_errors.writing(), self._lock:
            marked = [found for found in self._list() if found.is_damaged and found.chunk_id in asked]
            for found in marked:
                self._files.replace(self._path(found), self._path(found._replace(is_damaged=False)))
                self._damaged_count -= 1
            self.sync()
        forgotten = {found.chunk_id for found in marked}
        return [chunk_id in forgotten for chunk_id in chunk_ids]

    def _list(self) -> Iterator[SetAside]:
        for name in self._files.list_directory(self._directory):
            found = parse_quarantine_name(name)
            if found is not None:
                yield found

    def _has(self, found: SetAside) -> bool:
        try:
            self._files.stat(self._path(found))
        except FileNotFoundError:
            return False
        return True

    def _path(self, found: SetAside) -> str:
        return f"{self._directory}/{quarantine_name(found)}"
