"""The directories of chunks that have files of their own, one for each group (layout.py)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress

from storage.base.files import FileStat, FileSystem
from storage.base.ids import ChunkId
from storage.chunks.layout import group_name

GROUPS_REMEMBERED_MAX = 4096


class Groups:
    """Of one process's directory; safe to use from many threads. OSError as the medium gives it."""

    def __init__(self, files: FileSystem, chunks: str) -> None:
        """chunks: the directory of that name."""
        self._files = files
        self._chunks = chunks
        self._lock = threading.Lock()
        self._durable: dict[str, None] = {}
        """whose own name is known to be durable, the oldest first"""
        self._absent: dict[str, None] = {}
        """that have no directory, the oldest first; most small chunks are of these"""
        self._made = 0
        """how often one was"""

    def path(self, chunk_name: str) -> str:
        """Of a chunk's file."""
        return f"{self._chunks}/{group_name(chunk_name)}/{chunk_name}"

    def find(self, chunk_id: ChunkId) -> FileStat | None:
        """The chunk's file. Who looks while it is his turn to give the name (Names.turn_of) misses none: a group has
        its directory before anybody takes a turn to put a file there."""
        name = str(chunk_id)
        group = group_name(name)
        if group in self._absent:
            return None
        try:
            return self._files.stat(self.path(name))
        except FileNotFoundError:
            self._look(group)
            return None

    def _look(self, group: str) -> None:
        """Remember a directory that is not there, unless one was made meanwhile."""
        made = self._made
        try:
            self._files.stat(f"{self._chunks}/{group}")
        except FileNotFoundError:
            with self._lock:
                if made == self._made:
                    _remember(self._absent, group)

    def prepare(self, group: str) -> None:
        """Make a directory durable, once in this process's life (or again when it was forgotten)."""
        if group in self._durable:
            return
        with suppress(FileExistsError):
            self._files.make_directory(f"{self._chunks}/{group}")
        self._files.fsync_directory(self._chunks)
        with self._lock:
            self._made += 1
            self._absent.pop(group, None)
            _remember(self._durable, group)

    def forget(self, group: str) -> None:
        """An inventory removed the directory, which was empty."""
        self._durable.pop(group, None)

    def sync(self, chunk_ids: Iterable[ChunkId]) -> None:
        """Make the names of these chunks durable, or that they have none."""
        for group in dict.fromkeys(group_name(str(chunk_id)) for chunk_id in chunk_ids):
            try:
                self._files.fsync_directory(f"{self._chunks}/{group}")
            except FileNotFoundError:  # the directory itself is gone: its names are when that is durable
                self._files.fsync_directory(self._chunks)


def _remember(groups: dict[str, None], group: str) -> None:
    groups[group] = None
    if len(groups) > GROUPS_REMEMBERED_MAX:
        del groups[next(iter(groups))]
