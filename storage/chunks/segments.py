"""The segments of a directory: each open once, the least used closed, the empty ones removed."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from storage.base.errors import ChunkError
from storage.base.files import FileSystem
from storage.chunks import medium_errors
from storage.chunks.layout import SEGMENT_NAME, group_name
from storage.chunks.segment import Segment

OPEN_SEGMENTS_MAX = 64
"""beside those in use and those that are poisoned"""
TOUCHED_MAX = 4096
TIDIED_AT_ONCE = 256
"""looked through by a pass beside those that were touched; the passes go round"""
TAKE_ATTEMPTS_MAX = 8


class Segments:
    """Safe to use from many threads; every method may block."""

    def __init__(self, files: FileSystem, chunks: str) -> None:
        """chunks: the directory of that name."""
        self._files = files
        self._chunks = chunks
        self._lock = threading.Lock()
        self._open: dict[str, Segment] = {}
        """the least recently used first"""
        self._touched: dict[str, None] = {}
        """groups from which something was removed since the last pass"""
        self._tidied_to = ""

    def find(self, group: str) -> Segment | None:
        """To be released; None where there is none. ChunkError, Corrupt."""
        return self._take(group, make=False)

    def make(self, group: str) -> Segment:
        """The one that is there or a new one, to be released. ChunkError, Corrupt."""
        segment = self._take(group, make=True)
        assert segment is not None
        return segment

    @contextmanager
    def using(self, group: str) -> Iterator[Segment | None]:
        """As `find`, for a while."""
        segment = self.find(group)
        try:
            yield segment
        finally:
            if segment is not None:
                self.release(segment)

    def release(self, segment: Segment) -> None:
        """It is not used any more."""
        with self._lock:
            segment.users -= 1
            is_over = segment.is_gone and not segment.users
        if is_over:
            segment.close()

    def rest(self, group: str) -> None:
        """Whoever kept it open for writing needs it no more."""
        with self._lock:
            segment = self._open.get(group)
            if segment is None:
                return
            segment.users += 1
        try:
            with segment.changing():
                pass
        finally:
            self.release(segment)

    def touch(self, group: str) -> None:
        """Something was removed from it: the next pass looks at it."""
        with self._lock:
            if len(self._touched) < TOUCHED_MAX:
                self._touched[group] = None

    def prune(self) -> None:
        """Remove the segments that are empty, and tidy others: those that something was removed from, and some more, as
        what a power cut left behind is known to nobody. ChunkError."""
        with self._lock:
            groups, self._touched = dict(self._touched), {}
        with medium_errors.writing():
            names = (name for name in self._files.list_directory(self._chunks) if SEGMENT_NAME.match(name))
            more = heapq.nsmallest(TIDIED_AT_ONCE, (name for name in names if group_name(name) > self._tidied_to))
            self._tidied_to = group_name(more[-1]) if len(more) == TIDIED_AT_ONCE else ""
            for group in dict.fromkeys([*groups, *map(group_name, more)]):
                with self.using(group) as segment:
                    if segment is not None:
                        self._tidy(segment)

    def _tidy(self, segment: Segment) -> None:
        with segment.changing():
            is_gone = not segment.is_gone and segment.tidy()
        if is_gone:
            self._forget(segment)

    def close(self) -> None:
        """Nothing is used any more."""
        with self._lock:
            segments, self._open = list(self._open.values()), {}
        for segment in segments:
            segment.close()

    def _take(self, group: str, *, make: bool) -> Segment | None:
        for _ in range(TAKE_ATTEMPTS_MAX):
            segment = self._hold(group)
            is_there = False
            try:
                is_there = segment.open(make=make)
            finally:
                if not is_there:
                    self._forget(segment)
                    self.release(segment)
            if is_there:
                return segment
            if segment.is_absent and not make:
                return None
        raise ChunkError("the segment goes whenever it is taken")

    def _hold(self, group: str) -> Segment:
        with self._lock:
            segment = self._open.pop(group, None) or Segment(self._files, self._chunks, group)
            self._open[group] = segment
            segment.users += 1
            evicted = self._evict() if len(self._open) > OPEN_SEGMENTS_MAX else []
        for old in evicted:
            old.close()
        return segment

    def _evict(self) -> list[Segment]:
        unused = [segment for segment in self._open.values() if not segment.users and not segment.is_poisoned]
        evicted = unused[: len(self._open) - OPEN_SEGMENTS_MAX]
        for segment in evicted:
            del self._open[segment.group]
        return evicted

    def _forget(self, segment: Segment) -> None:
        """The next who needs it opens it anew."""
        with self._lock:
            if self._open.get(segment.group) is segment:
                del self._open[segment.group]
