"""How much a store holds, in a few numbers: counted once in a while, and kept up with what changes in between.

A count goes through the chunks in the order of their ids. What changes behind the place where it is, is added to it;
what changes before it, it will see. A change in the very page that is being read may be counted twice or not at all,
until the next count.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks.store import Figures, InventoryEntry


class _Sums:
    def __init__(self) -> None:
        self.chunks = self.stored_bytes = self.unverified = self.oldest_verified_ms = 0

    def add(self, sign: int, length: int, verified_ms: int) -> None:
        self.chunks += sign
        self.stored_bytes += sign * length
        self.verify(sign * (not verified_ms), verified_ms if sign > 0 else 0)

    def verify(self, unverified: int, verified_ms: int) -> None:
        self.unverified += unverified
        if verified_ms:
            self.oldest_verified_ms = min(self.oldest_verified_ms or verified_ms, verified_ms)


class Tally:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = _Sums()
        self._next: _Sums | None = None
        self._counted: ChunkId | None = None

    @property
    def figures(self) -> Figures:
        """All but damaged_count, which is not known here."""
        with self._lock:
            sums = self._sums
            held = max(0, sums.chunks), max(0, sums.stored_bytes), max(0, sums.unverified)
            return Figures(*held, sums.oldest_verified_ms)

    def stored(self, chunk_id: ChunkId, length: int) -> None:
        """A chunk came."""
        with self._lock:
            for sums in self._concerned(chunk_id):
                sums.add(1, length, 0)

    def removed(self, chunk_id: ChunkId, length: int, verified_ms: int) -> None:
        """A chunk went, deleted or set aside."""
        with self._lock:
            for sums in self._concerned(chunk_id):
                sums.add(-1, length, verified_ms)

    def verified(self, chunk_id: ChunkId, before_ms: int, now_ms: int) -> None:
        """A chunk was verified, for the first time when before_ms is 0."""
        with self._lock:
            for sums in self._concerned(chunk_id):
                sums.verify(-(not before_ms), now_ms)

    def begin_count(self) -> None:
        """From the first chunk on; a count under way is given up."""
        with self._lock:
            self._next, self._counted = _Sums(), None

    def count(self, page: Sequence[InventoryEntry]) -> ChunkId:
        """The next chunks, at least one; the last of them."""
        last = chunk_id_from_bytes(page[-1].chunk_id)
        with self._lock:
            if self._next is not None:
                for entry in page:
                    self._next.add(1, entry.length, entry.verified_ms)
                self._counted = last
        return last

    def end_count(self) -> None:
        """The count is what is known from now on."""
        with self._lock:
            if self._next is not None:
                self._sums, self._next = self._next, None

    def _concerned(self, chunk_id: ChunkId) -> tuple[_Sums, ...]:
        if self._next is None or self._counted is None or chunk_id > self._counted:
            return (self._sums,)
        return (self._sums, self._next)
