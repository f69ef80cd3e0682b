"""PURE. A scrub: reading every chunk from the medium again, in the order of their ids, no faster than it may.

A pass has a begin, and a place that it has come to. It reads what was stored before it began and was not verified
since, by itself before a restart or by anybody else; what comes later is the next pass's. So it ends, however much is
written, and a pass that lost the last moments of its place goes over them without reading again.

Times are judged by a clock that may be set: a verification in the future is not believed, and a pass that seems not to
have begun yet is begun.
"""

from __future__ import annotations

import msgspec

from storage.chunks.store import Figures, InventoryEntry

PASS_BYTES_MAX = 4096
SEEK_BYTES = 64 * 1024
"""the way to a chunk costs a disk about as much as reading this"""

_FORMAT = 1


class ScrubPass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The pass under way, or the last one. Times in ms, as in InventoryEntry; figures as in wire.ScrubStatus."""

    format_version: int = _FORMAT
    started_ms: int = 0
    """0: there was none yet"""
    ended_ms: int = 0
    """of the last whole one; 0: there was none yet"""
    is_running: bool = False
    position: str = ""
    """hex digits of the last chunk that is done; empty at the begin"""
    checked_chunks: int = 0
    checked_bytes: int = 0
    total_chunks: int = 0
    total_bytes: int = 0
    damaged: int = 0


def begin_pass(last: ScrubPass, now_ms: int) -> ScrubPass:
    """A new one, from the first chunk on."""
    return ScrubPass(started_ms=now_ms, ended_ms=last.ended_ms, is_running=True)


def with_totals(scrub: ScrubPass, found: Figures) -> ScrubPass:
    """What there was at its begin."""
    return msgspec.structs.replace(scrub, total_chunks=found.chunk_count, total_bytes=found.stored_bytes)


def is_due(last: ScrubPass, interval_ms: int, now_ms: int) -> bool:
    """Whether a new pass is to begin: none runs, and the last one began an interval ago or, it seems, in the future."""
    return not last.is_running and not last.started_ms <= now_ms < last.started_ms + interval_ms


def needs_check(scrub: ScrubPass, entry: InventoryEntry, now_ms: int) -> bool:
    """Whether this pass must read a chunk."""
    came_later = scrub.started_ms < entry.stored_ms <= now_ms
    was_verified = scrub.started_ms <= entry.verified_ms <= now_ms
    return not came_later and not was_verified


def advance(scrub: ScrubPass, entry: InventoryEntry, *, is_damaged: bool = False) -> ScrubPass:
    """A chunk is done, whether or not it had to be read."""
    return msgspec.structs.replace(
        scrub,
        position=entry.chunk_id.hex(),
        checked_chunks=scrub.checked_chunks + 1,
        checked_bytes=scrub.checked_bytes + entry.length,
        damaged=scrub.damaged + is_damaged,
    )


def end_pass(scrub: ScrubPass, now_ms: int) -> ScrubPass:
    """There are no more chunks."""
    return msgspec.structs.replace(scrub, is_running=False, ended_ms=now_ms)


def encode_pass(scrub: ScrubPass) -> bytes:
    """As it is kept."""
    return msgspec.json.encode(scrub)


def parse_pass(data: bytes) -> ScrubPass:
    """What is no record of a pass, or one of another format, is a store that was never scrubbed."""
    try:
        scrub = msgspec.json.decode(data, type=ScrubPass)
        bytes.fromhex(scrub.position)
    except ValueError:
        return ScrubPass()
    return scrub if scrub.format_version == _FORMAT and len(scrub.position) in (0, 40) else ScrubPass()


class Pacer:
    """Says how long to wait between reads, so that they come to a pace in the long run. No time that was not used is
    made up for. pace: bytes per second."""

    def __init__(self, pace: int) -> None:
        self.pace = pace
        self._free_s = 0.0

    def change(self, pace: int) -> None:
        """From now on; what is owed to the old pace is forgotten."""
        self.pace = pace
        self._free_s = 0.0

    def charge(self, length: int, began_s: float, now_s: float) -> float:
        """A read of so many bytes began and has ended: the pause in seconds before the next. Times are monotonic."""
        self._free_s = max(self._free_s, began_s) + (length + SEEK_BYTES) / self.pace
        return max(0.0, self._free_s - now_s)
