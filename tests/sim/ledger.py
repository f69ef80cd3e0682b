"""What clients were told, and whether what is read can be true after that. PURE.

A write begins, and ends when its client is told: done (acknowledged), refused (it did not happen and will not), or not
known, and then it may happen at any later time. A read sees some write that began before the read ended and that no
acknowledged write certainly came after: none that began after that one had ended, and ended before the read began.
"""

from __future__ import annotations

import enum
import hashlib
from typing import NamedTuple

NEVER_S = float("inf")


class Fate(enum.Enum):
    """As its client knows it."""

    UNDER_WAY = "under way"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Write:
    """A put, a copy, a completed upload or a delete of one key. content None: a delete."""

    __slots__ = ("begun_s", "content", "ended_s", "etag", "fate", "number", "version_id", "what")

    def __init__(self, number: int, what: str, content: bytes | None, begun_s: float, etag: str = "") -> None:
        self.number = number
        self.what = what
        self.content = content
        self.begun_s = begun_s
        self.ended_s = NEVER_S
        self.fate = Fate.UNDER_WAY
        self.version_id: str | None = None
        self.etag = etag
        if content is not None and not etag:
            self.etag = hashlib.md5(content, usedforsecurity=False).hexdigest()

    def __str__(self) -> str:
        size = "" if self.content is None else f" of {len(self.content)} bytes"
        return f"{self.what} {self.number}{size} ({self.fate.value}, {self.begun_s:.3f} to {self.ended_s:.3f})"


class Place(NamedTuple):
    """An object."""

    bucket: str
    key: bytes


class Ledger:
    """Of one run."""

    def __init__(self) -> None:
        self._writes: dict[Place, list[Write]] = {}
        self._by_etag: dict[str, Write] = {}
        self._number = 0
        self.removed: dict[tuple[Place, str], Fate] = {}
        """versions that were deleted by their id"""
        self.stirred: set[Place] = set()
        """of which a version was deleted by its id: an older one may be the current one again"""
        self.acknowledged = 0

    def begin(self, place: Place, what: str, content: bytes | None, now_s: float, etag: str = "") -> Write:
        """A client is about to send it."""
        self._number += 1
        write = Write(self._number, what, content, now_s, etag)
        self._writes.setdefault(place, []).append(write)
        if content is not None:
            self._by_etag.setdefault(write.etag, write)
        return write

    def end(self, write: Write, fate: Fate, now_s: float, version_id: str | None = None) -> None:
        """The client was told."""
        write.fate = fate
        write.version_id = version_id
        if fate is Fate.DONE:
            write.ended_s = now_s
            self.acknowledged += 1

    def content_of(self, etag: str) -> bytes | None:
        """Of any write that was ever begun with this ETag."""
        write = self._by_etag.get(etag)
        return None if write is None else write.content

    def places(self) -> list[Place]:
        """Every object that was ever written."""
        return list(self._writes)

    def find_flaw(self, place: Place, found: bytes | None, etag: str, begun_s: float, ended_s: float) -> str:
        """Of a read that saw this (None: nothing) between these times; empty when it can be true. found may be b"" with
        an etag, when only the head was asked for."""
        writes = self._writes.get(place, [])
        if found is None and (place in self.stirred or not _is_superseded(-NEVER_S, writes, begun_s)):
            return ""
        if found is not None and self.content_of(etag) is None:
            return f"{place} is something that nobody wrote ({etag})"
        for write in writes:
            same = write.content is None if found is None else write.content is not None and write.etag == etag
            if not same or write.fate is Fate.REFUSED or write.begun_s > ended_s:
                continue
            if place in self.stirred or not _is_superseded(write.ended_s, writes, begun_s):
                return ""
        seen = "is not there" if found is None else f"is what {self._by_etag[etag]} wrote"
        told = "; ".join(str(write) for write in writes[-6:])
        return f"{place} {seen}, read from {begun_s:.3f} to {ended_s:.3f}, after: {told}"

    def find_version_flaw(self, place: Place, version_id: str, etag: str, *, is_marker: bool) -> str:
        """Of a version that a listing shows at the end."""
        writes = self._writes.get(place, [])
        if self.removed.get((place, version_id)) is Fate.DONE:
            return f"{place} still has version {version_id}, which was deleted"
        for write in writes:
            if write.fate is Fate.REFUSED or (write.content is None) != is_marker:
                continue
            if write.version_id == version_id or (write.fate is Fate.UNKNOWN and (is_marker or write.etag == etag)):
                return "" if is_marker or write.etag == etag else f"{place} {version_id} has changed into {etag}"
        return f"{place} has a version {version_id} ({etag}) that nobody was told of"

    def expected_versions(self, place: Place) -> dict[str, Write]:
        """By id: acknowledged in a versioned bucket, and nobody tried to delete them."""
        return {
            write.version_id: write
            for write in self._writes.get(place, [])
            if write.fate is Fate.DONE
            and write.version_id is not None
            and (place, write.version_id) not in self.removed
        }


def _is_superseded(ended_s: float, writes: list[Write], before_s: float) -> bool:
    """Whether an acknowledged write came after what ended then, and was over before."""
    return any(write.fate is Fate.DONE and write.begun_s > ended_s and write.ended_s < before_s for write in writes)
