"""How much of a medium may still be taken: what was admitted is counted until it is stored, and no chunk may reach into
the reserve.

While there is plenty, the system is asked for the free space every FREE_KEPT_S only, and what was admitted since counts
as taken. The call itself takes 2 µs; but it gives up the interpreter's lock, and the event loop gets that back only
once the worker threads let it, which took 70. Near the reserve it is asked for every chunk.
"""

from __future__ import annotations

from collections.abc import Callable

from storage.base.clock import Clock
from storage.base.errors import ChunkError, NodeFull
from storage.chunks import medium_errors
from storage.chunks.footer import CHUNK_LENGTH_MAX

FREE_KEPT_S = 0.1
PLENTY_BYTES = 1 << 30
"""above the reserve: more than others on the same medium write within FREE_KEPT_S"""


class Share:
    """Of one chunk, from when it is admitted until it is stored or given up."""

    __slots__ = ("_length", "_room")

    def __init__(self, room: Room, length: int) -> None:
        self._room = room
        self._length = length

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Twice is no error."""
        self._room.promised_bytes -= self._length
        self._length = 0


class Room:
    """Used on an event loop."""

    def __init__(self, fetch_free_bytes: Callable[[], int], reserve_bytes: int, clock: Clock) -> None:
        """fetch_free_bytes: of the medium; OSError. reserve_bytes: that no chunk may touch."""
        self.promised_bytes = 0
        """admitted and not stored yet, as far as is known"""
        self._fetch_free_bytes = fetch_free_bytes
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._left_bytes = 0
        """above the reserve, behind all that was admitted"""
        self._fresh_until_s = float("-inf")

    def take(self, length: int) -> Share:
        """NodeFull when the chunk, with all that was promised room before, would reach into the reserve. ChunkError for
        a length that no chunk has, or where the medium says nothing."""
        if not 0 < length <= CHUNK_LENGTH_MAX:
            raise ChunkError(f"a chunk has 1 to {CHUNK_LENGTH_MAX} bytes, not {length}")
        now_s = self._clock.monotonic_s()
        if now_s >= self._fresh_until_s or self._left_bytes - length < PLENTY_BYTES:
            self._measure(length)
            self._fresh_until_s = now_s + FREE_KEPT_S
        self._left_bytes -= length
        self.promised_bytes += length
        return Share(self, length)

    def _measure(self, length: int) -> None:
        with medium_errors.writing():
            free_bytes = self._fetch_free_bytes()
        self._left_bytes = free_bytes - self.promised_bytes - self._reserve_bytes
        if self._left_bytes < length:
            raise NodeFull(f"{free_bytes} bytes free, {self._reserve_bytes} in reserve")
