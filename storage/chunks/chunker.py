"""SANS-IO. Cuts the plaintext of one blob into chunks, and each chunk into the frames that are sealed one by one.

The blob's length is known before its first byte, so it is known of every frame whether it ends its chunk: the sealed
length of a chunk can be announced before its first frame is there, and the final bit is right the first time.

    chunker = Chunker(length)
    for block in body:
        for frame in chunker.feed(block):
            sealed = sealer.seal(frame.data, …)      # frame.chunk_index changes: the next chunk begins
    chunker.finish()

A frame that lies within one block is a view of that block, without a copy; only a frame that straddles blocks is put
together, with one copy of its bytes. Between calls at most one frame is held, and never a reference to a block.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.base.errors import ChunkTruncated
from storage.base.ids import CHUNK_INDEX_MAX
from storage.chunks.store import Buffer
from storage.crypto.envelope import FRAME_BYTES

CHUNK_BYTES = 8 << 20
"""plaintext bytes of every chunk of a blob but the last, unless configured otherwise"""


class ChunkSpan(NamedTuple):
    """The plaintext of one chunk inside its blob, in bytes."""

    chunk_index: int
    offset: int
    length: int


class Frame(NamedTuple):
    """One piece of plaintext to seal. FRAME_BYTES long, the last of a chunk 1 to FRAME_BYTES."""

    chunk_index: int
    frame_index: int
    """within its chunk"""
    data: Buffer
    """a view of the block that was fed where it could be: alive for as long as the frame is"""
    ends_chunk: bool
    """the final bit of STREAM"""


def chunk_count(length: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Chunks of a blob of `length` bytes; none for an empty one."""
    return -(-length // chunk_bytes)


def chunk_span(length: int, chunk_index: int, chunk_bytes: int = CHUNK_BYTES) -> ChunkSpan:
    """Where one chunk of a blob of `length` bytes lies. ValueError when there is no such chunk."""
    if not 0 <= chunk_index < chunk_count(length, chunk_bytes):
        raise ValueError(f"a blob of {length} bytes has no chunk {chunk_index}")
    offset = chunk_index * chunk_bytes
    return ChunkSpan(chunk_index, offset, min(chunk_bytes, length - offset))


class Chunker:
    """The cutter of one blob. `length`: bytes of its plaintext; `chunk_bytes`: a multiple of `frame_bytes`."""

    __slots__ = ("_chunk", "_chunk_bytes", "_filled", "_frame_bytes", "_frame_index", "_held", "_length", "_taken")

    def __init__(self, length: int, chunk_bytes: int = CHUNK_BYTES, frame_bytes: int = FRAME_BYTES) -> None:
        if length < 0 or frame_bytes < 1 or chunk_bytes < 1 or chunk_bytes % frame_bytes:
            raise ValueError(f"cannot cut {length} bytes into chunks of {chunk_bytes} and frames of {frame_bytes}")
        if chunk_count(length, chunk_bytes) > CHUNK_INDEX_MAX:
            raise ValueError(f"{length} bytes are more chunks of {chunk_bytes} than a blob can have")
        self._length = length
        self._chunk_bytes = chunk_bytes
        self._frame_bytes = frame_bytes
        self._taken = 0
        self._chunk = chunk_span(length, 0, chunk_bytes) if length else ChunkSpan(0, 0, 0)
        self._frame_index = 0
        self._held = bytearray()
        self._filled = 0

    def feed(self, block: Buffer) -> list[Frame]:
        """The frames that this block completes, in order. ChunkTruncated when there are more bytes than announced.

        The block must not change for as long as one of the frames is in use.
        """
        view = memoryview(block)
        size = len(view)
        if size > self._length - self._taken:
            raise ChunkTruncated(f"more than the {self._length} bytes announced")
        self._taken += size
        frames: list[Frame] = []
        position = 0
        while position < size:
            frame_start = self._frame_index * self._frame_bytes
            frame_length = min(self._frame_bytes, self._chunk.length - frame_start)
            piece = view[position : position + frame_length - self._filled]
            position += len(piece)
            if self._filled + len(piece) < frame_length:
                self._hold(piece, frame_length)
                break
            frames.append(self._complete(piece, ends_chunk=frame_start + frame_length == self._chunk.length))
        return frames

    def _hold(self, piece: memoryview, frame_length: int) -> None:
        """Keep the beginning of a frame until a later block brings the rest."""
        if not self._filled:
            self._held = bytearray(frame_length)
        self._held[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)

    def _complete(self, piece: memoryview, *, ends_chunk: bool) -> Frame:
        data: Buffer = piece
        if self._filled:
            self._held[self._filled :] = piece
            data, self._held, self._filled = self._held, bytearray(), 0
        frame = Frame(self._chunk.chunk_index, self._frame_index, data, ends_chunk)
        self._frame_index += 1
        if ends_chunk:
            self._begin_chunk(self._chunk.chunk_index + 1)
        return frame

    def _begin_chunk(self, chunk_index: int) -> None:
        self._frame_index = 0
        if chunk_index < chunk_count(self._length, self._chunk_bytes):
            self._chunk = chunk_span(self._length, chunk_index, self._chunk_bytes)

    def finish(self) -> None:
        """After the last block. ChunkTruncated when bytes are missing."""
        if self._taken < self._length:
            raise ChunkTruncated(f"{self._taken} of the {self._length} bytes announced")
