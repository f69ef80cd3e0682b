"""Small whole chunks on their way to datanodes: those of a node on this machine are written straight into a segment of
its directory, several with one sync; everything else is sent.

The datanode stays the owner. It lends a worker a range of a segment (storage/datanode/range_wire.py); into that the
worker writes by itself, without a word to the datanode for each chunk (storage/chunks/near_range.py), until the range
is used up, rests, or is taken back. A chunk fails, and its node is left alone for a while, as on the other way.

Who puts little is not worth a range: it is asked for when several chunks came within a second, and what comes before it
is there is sent, as is what there is none for. So a put never waits for a range.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Protocol

from cluster.near_batches import Waiting
from cluster.near_lane import NearLane
from cluster.near_pieces import NearPieces
from cluster.near_ranges import NearRanges
from cluster.write_counts import WriteCounts
from storage.base.clock import Clock
from storage.base.ids import ChunkId
from storage.chunks.near_drafts import NotLent
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.store import Buffer, ChunkReceipt
from storage.datanode.range_client import RangeClient


class Destination(Protocol):
    """What a chunk is sent to, of a datanode."""

    @property
    def ranges(self) -> RangeClient | None: ...

    def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> Awaitable[ChunkReceipt]: ...


class NearSmallPuts:
    """Of one worker; closed once. Used from one event loop."""

    def __init__(
        self, near: NearPieces, clock: Clock, counts: WriteCounts | None = None, *, is_on: bool = True
    ) -> None:
        """near: which nodes are on this machine. is_on: else everything is sent."""
        self.counts = counts or WriteCounts()
        self._near = near
        self._is_on = is_on
        self._near_ranges = NearRanges(clock)
        self._lanes: dict[Path, NearLane] = {}

    def put(
        self, number: int, node: Destination, chunk_id: ChunkId, blocks: Sequence[Buffer]
    ) -> Awaitable[ChunkReceipt]:
        """As ChunkStore.put_whole, to a node; of a chunk that is the only one of its blob, and put once."""
        waiting = self._place(number, node, chunk_id, blocks)
        return node.put_whole(chunk_id, blocks) if waiting is None else self._wait(waiting, node)

    async def close(self) -> None:
        """Write what waits, and give everything back."""
        self._is_on = False
        for lane in self._lanes.values():
            await lane.close()
        await self._near_ranges.close()

    def _place(self, number: int, node: Destination, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> Waiting | None:
        directory = self._near.directory(number) if self._is_on else None
        ranges = node.ranges
        length = sum(map(len, blocks))
        if directory is None or ranges is None or not 0 < length <= RECORD_BYTES_MAX:
            return None
        lane = self._lanes.get(directory)
        if lane is None:
            lane = self._lanes[directory] = NearLane(self._near_ranges, directory)
        return lane.place(ranges, chunk_id, blocks, length)

    async def _wait(self, waiting: Waiting, node: Destination) -> ChunkReceipt:
        try:
            receipt = await waiting.settled
        except NotLent:  # and nothing was written: the node can be sent the very same chunk
            return await node.put_whole(waiting.body.chunk_id, waiting.body.blocks)
        self.counts.add(receipt.length)
        return receipt
