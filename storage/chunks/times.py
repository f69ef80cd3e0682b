"""PURE. When a chunk was stored and when it was last verified, as the times of its own file say.

    accessed    when it was stored
    modified    when it was last read whole from the medium and found right; until then, when it was stored

So neither needs a record beside the chunk, and a listing learns both by looking at the inode. A verified time has
VERIFIED_MARK_NS below its milliseconds: whatever else changes a file (a program that writes to it, a copy of the
directory) sets times of its own, which have not, and what changed is not taken for verified. Where a file system keeps
times too coarsely for the mark, chunks count as never verified.

Every mistake is on the safe side. Nothing is synced for a verified time, so a power cut may forget it: the chunk is
verified again. A reader that could not open the file without touching its access time makes it look stored later than
it was, at most when it was verified: it is spared by a sweep for longer. A verification puts that right, as it knows
the true time from the footer.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.base.files import FileStat

VERIFIED_MARK_NS = 271_828

_MS = 1_000_000


class ChunkTimes(NamedTuple):
    """As in storage.chunks.store.InventoryEntry."""

    stored_ms: int
    verified_ms: int


def read_times(found: FileStat) -> ChunkTimes:
    """What the file of a chunk says."""
    verified_ms = found.modified_ns // _MS if found.modified_ns % _MS == VERIFIED_MARK_NS else 0
    return ChunkTimes(min(found.accessed_ns, found.modified_ns) // _MS, verified_ms)


def stored_times(stored_ms: int) -> tuple[int, int]:
    """(accessed, modified) in nanoseconds for the file of a chunk that nobody verified yet."""
    return stored_ms * _MS, stored_ms * _MS


def verified_times(stored_ms: int, verified_ms: int) -> tuple[int, int]:
    """(accessed, modified) in nanoseconds for the file of a chunk that was verified."""
    return stored_ms * _MS, verified_ms * _MS + VERIFIED_MARK_NS
