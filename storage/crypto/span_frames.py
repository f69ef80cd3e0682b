"""SANS-IO. The frames of a plaintext range of one chunk, opened in whatever order they come.

Beside FrameReader, which takes a stream in order: what comes from several places at once comes here. Frames are opened
straight into the one buffer that goes out.
"""

from __future__ import annotations

from storage.base.errors import SealBroken
from storage.crypto.envelope import FRAME_BYTES, FRAME_LOG2, TAG_BYTES, Buffer, Opener, frame_count, sealed_span


class SpanFrames:
    """The range [start, end) of a chunk of plain_length bytes. Every frame of `missing` has to be opened once."""

    def __init__(self, opener: Opener, start: int, end: int, plain_length: int) -> None:
        """ValueError for an empty range and for one outside the chunk."""
        span = sealed_span(start, end, plain_length)
        self.first_frame = span.first_frame
        self.last_frame = span.last_frame
        self.missing = set(range(span.first_frame, span.last_frame + 1))
        """frames that were not opened yet"""
        self._opener = opener
        self._final_frame = frame_count(plain_length) - 1
        self._base = span.first_frame << FRAME_LOG2
        self._cut = (start - self._base, end - self._base)
        self._plaintext = bytearray(span.length - len(self.missing) * TAG_BYTES)

    def open(self, frame: int, sealed: Buffer) -> None:
        """A sealed frame of this chunk, whole. One that the range does not have, or has already, is opened all the
        same, to know that it is right. SealBroken."""
        if frame not in self.missing:
            self._opener.open_frame(frame, sealed, frame == self._final_frame)
            return
        at = (frame << FRAME_LOG2) - self._base
        room = memoryview(self._plaintext)[at : at + FRAME_BYTES]
        if len(sealed) != len(room) + TAG_BYTES:
            raise SealBroken("a frame does not have the length that it must have", frame=str(frame))
        self._opener.open_frame_into(frame, sealed, frame == self._final_frame, room)
        self.missing.discard(frame)

    def take(self) -> Buffer:
        """The plaintext of the range, once nothing is missing."""
        assert not self.missing, "nothing goes out before every frame has opened"
        start, end = self._cut
        if start == 0 and end == len(self._plaintext):
            return self._plaintext
        return memoryview(self._plaintext)[start:end]
