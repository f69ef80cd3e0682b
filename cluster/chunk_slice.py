"""PURE. A piece of one chunk that a read wants, where the record says that the chunk is, and what fetching it holds."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from cluster.redundancy import Redundancy, parse_redundancy
from storage.base.errors import Corrupt
from storage.base.ids import ChunkId, stored_chunk_id
from storage.crypto.envelope import FRAME_LOG2, SEALED_FRAME_BYTES
from storage.model import Blob, Chunk


@lru_cache(maxsize=256)
def _parse(redundancy: str) -> Redundancy:
    """Of a record. Corrupt for what is none."""
    try:
        return parse_redundancy(redundancy)
    except ValueError as error:
        raise Corrupt(str(error)) from error


class Layout(NamedTuple):
    """Where the pieces of a chunk are: replicas on any of `nodes`, or a fragment on each, 0 for one that is nowhere."""

    chunk_id: ChunkId
    """as datanodes know it"""
    redundancy: Redundancy
    nodes: tuple[int, ...]


def make_layout(blob_id: bytes, chunk_index: int, generation: int, redundancy: str, nodes: tuple[int, ...]) -> Layout:
    """From what the records say. Corrupt for a redundancy that is none."""
    return Layout(stored_chunk_id(blob_id, chunk_index, generation), _parse(redundancy), nodes)


class ChunkSlice(NamedTuple):
    """The plaintext [start, end) of one chunk, counted inside the chunk."""

    blob: Blob
    chunk: Chunk
    start: int
    end: int

    @property
    def layout(self) -> Layout:
        """As the record says that was read. Corrupt."""
        blob = self.blob
        return make_layout(blob.blob_id, self.chunk.index, blob.generation, blob.redundancy, self.chunk.nodes)

    @property
    def held_bytes(self) -> int:
        """The sealed bytes that are in memory at most while the slice is fetched: of fragments whole stripes, as a lost
        cell takes as many others as a stripe has frames."""
        needed = self._needed
        if needed == 1:
            return self.end - self.start + SEALED_FRAME_BYTES
        first, last = self.start >> FRAME_LOG2, (self.end - 1) >> FRAME_LOG2
        return (last // needed - first // needed + 1) * needed * SEALED_FRAME_BYTES

    def cut(self, frames_max: int) -> tuple[ChunkSlice, ChunkSlice | None]:
        """(a slice that ends with the frames_max-th frame at the latest, the rest).

        Where stripes are, it ends with one, so that no stripe is rebuilt for two slices: it may be longer than
        frames_max then, as each fragment gives its share only. A single frame is never more than that."""
        needed, first = self._needed, self.start >> FRAME_LOG2
        stop = first + frames_max
        if needed > 1 and frames_max > 1:
            stop = (first // needed + max(1, (frames_max + 1) // needed)) * needed
        end = stop << FRAME_LOG2
        if end >= self.end:
            return self, None
        return self._replace(end=end), self._replace(start=end)

    @property
    def _needed(self) -> int:
        """Frames of a stripe; 1 where replicas are."""
        return _parse(self.blob.redundancy).needed
