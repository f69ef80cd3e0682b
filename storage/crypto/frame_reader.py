"""SANS-IO. Turns sealed bytes, in whatever pieces a network brings them, into the opened plaintext of a range.

A whole frame inside one piece is opened straight from it; only a frame that straddles two pieces is copied together
first. What comes out of one `feed` is one buffer, already trimmed to the range.
"""

from __future__ import annotations

from storage.base.blocks import BLOCKS
from storage.base.errors import Corrupt
from storage.crypto.envelope import FRAME_BYTES, FRAME_LOG2, TAG_BYTES, Buffer, Opener, frame_count, sealed_span


class FrameReader:
    """Reads the plaintext range [start, end) of a chunk of plain_length bytes.

    Ask the store for `span` (offset, length), feed what comes, call `finish` at its end. After an exception, begin anew
    on another replica with a new reader from `position`: everything before it was verified and handed out.
    """

    def __init__(self, opener: Opener, start: int, end: int, plain_length: int) -> None:
        self.span = sealed_span(start, end, plain_length)
        self.position = start
        """plaintext offset inside the chunk up to which the range was handed out"""
        self._opener = opener
        self._end = end
        self._plain_length = plain_length
        self._final_frame = frame_count(plain_length) - 1
        self._next_frame = self.span.first_frame
        self._unfed = self.span.length
        self._pending = bytearray()

    def feed(self, piece: Buffer) -> Buffer:
        """Plaintext of the range that this piece completes, b"" when no frame is complete yet.

        SealBroken when a frame does not open; Corrupt when more comes than the span has. Nothing of the piece is
        kept by reference.
        """
        if len(piece) > self._unfed:
            raise Corrupt("more sealed bytes came than were asked for")
        self._unfed -= len(piece)
        frames = self._complete_frames(memoryview(piece))
        if not frames:
            return b""
        first = self._next_frame
        self._next_frame += len(frames)
        if len(frames) == 1:
            return self._trim(self._opener.open_frame(first, frames[0], first == self._final_frame), first)
        plaintext = BLOCKS.take_filling(sum(map(len, frames)) - TAG_BYTES * len(frames))
        for number, frame in enumerate(frames):
            room = plaintext[number << FRAME_LOG2 : (number + 1) << FRAME_LOG2]
            self._opener.open_frame_into(first + number, frame, first + number == self._final_frame, room)
        return self._trim(plaintext, first)

    def finish(self) -> None:
        """Corrupt unless the whole span was fed."""
        if self._unfed:
            raise Corrupt(f"{self._unfed} sealed bytes are missing at the end")

    def _complete_frames(self, view: memoryview) -> list[Buffer]:
        """The sealed frames that are whole now; what is left over waits in the pending buffer."""
        frames: list[Buffer] = []
        frame_index, at = self._next_frame, 0
        if self._pending:
            at = self._sealed_frame_length(frame_index) - len(self._pending)
            self._pending += view[:at]
            if len(view) < at:
                return frames
            frames.append(self._pending)
            self._pending = bytearray()
            frame_index += 1
        while frame_index <= self.span.last_frame:
            end = at + self._sealed_frame_length(frame_index)
            if end > len(view):
                break
            frames.append(view[at:end])
            frame_index, at = frame_index + 1, end
        self._pending += view[at:]
        return frames

    def _sealed_frame_length(self, frame_index: int) -> int:
        return min(FRAME_BYTES, self._plain_length - (frame_index << FRAME_LOG2)) + TAG_BYTES

    def _trim(self, plaintext: Buffer, first_frame: int) -> Buffer:
        """Cut what lies outside the range, without a copy, and advance the position."""
        base = first_frame << FRAME_LOG2
        start, end = self.position - base, min(self._end - base, len(plaintext))
        self.position = base + end
        if start == 0 and end == len(plaintext):
            return plaintext
        return memoryview(plaintext)[start:end]
