"""Sets surplus pieces aside: last of all, and verified.

For each chunk: 1. its row is read again; 2. every node that it names says what it has, and reads it from the medium
where that is due, and those with surplus what they have of that; 3. the row is read once more, and must be what it was;
4. the surplus goes into quarantine, where it can be brought back by hand for a day: only what was said of it in 2, so
that an order that comes late or twice leaves alone what was made there meanwhile; 5. the row is read a last time: if it
names what was set aside (another process repaired the chunk onto that very node in between), the chunk is repaired at
once. A stop anywhere leaves surplus.

A master that was stopped between 3 and 4 may still send 4 when it wakes up, after another one took over and named the
very piece. Then the chunk has a piece less until the next walk, and the bytes are in quarantine.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.piece_look import PieceLook
from cluster.maintenance.pieces import named_pieces, receipt_of, stored_id_of
from cluster.maintenance.repair import Finding
from cluster.maintenance.surplus import find_unverified, same_placement
from cluster.maintenance.survey import ChunkSurvey, Surplus
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkState, Judged
from storage.metadata.interface import ChunkPlace, Metadata

BATCH_CHUNKS = 200

_States = dict[tuple[int, ChunkId], ChunkState | None]
"""(node, stored id) → what the node says of it; without nodes that do not answer"""

_log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """pieces: set aside. to_repair: chunks whose named pieces are not all there, as was found on the way."""

    pieces: tuple[Surplus, ...] = ()
    to_repair: tuple[ChunkPlace, ...] = ()


class SurplusRemover:
    """One per cluster, in the active master."""

    def __init__(
        self, metadata: Metadata, nodes: NodePool, look: PieceLook, claims: BlobClaims, throttle: Throttle
    ) -> None:
        self._metadata = metadata
        self._nodes = nodes
        self._look = look
        self._claims = claims
        self._throttle = throttle

    async def remove(self, chunks: Sequence[ChunkSurvey], returned_ms: Mapping[int, int]) -> Removed:
        """chunks: with the surplus pieces that may go. Unavailable without the metadata."""
        removed: list[Surplus] = []
        to_repair: list[ChunkPlace] = []
        for begin in range(0, len(chunks), BATCH_CHUNKS):
            batch = chunks[begin : begin + BATCH_CHUNKS]
            calls = NodeCalls(self._nodes)
            states = await self._inspect(batch, calls)
            for chunk in batch:
                place = chunk.place
                with self._claims.claim(place.blob_id) as is_mine:
                    asked = {piece.node: (piece.node, stored_id_of(place)) for piece in chunk.pieces}
                    found = {number: states[key] for number, key in asked.items() if key in states}
                    if not is_mine or len(found) < len(chunk.pieces):
                        continue
                    if not await self._is_whole(place, found, returned_ms):
                        to_repair.append(place)
                    elif same_placement(place, await self._read_rows([place])):
                        removed += await self._set_aside(chunk, states, calls)
                        to_repair += await self._named_again(chunk)
        return Removed(tuple(removed), tuple(to_repair))

    async def _inspect(self, chunks: Sequence[ChunkSurvey], calls: NodeCalls) -> _States:
        """Of chunks whose rows are what they were: of the pieces that these name, and of the surplus."""
        later = await self._read_rows([chunk.place for chunk in chunks])
        by_node: defaultdict[int, list[ChunkId]] = defaultdict(list)
        for chunk in chunks:
            if same_placement(chunk.place, later):
                for piece in chunk.pieces:
                    by_node[piece.node].append(stored_id_of(chunk.place))
                for surplus in chunk.surplus:
                    by_node[surplus.node].append(surplus.chunk_id)
        states: _States = {}

        async def ask(number: int, ids: list[ChunkId]) -> None:
            found = await calls.call(number, lambda store: store.inspect_many(ids))
            states.update(zip([(number, chunk_id) for chunk_id in ids], found or [], strict=False))

        await asyncio.gather(*(ask(number, ids) for number, ids in by_node.items()))
        return states

    async def _is_whole(
        self, place: ChunkPlace, states: Mapping[int, ChunkState | None], returned_ms: Mapping[int, int]
    ) -> bool:
        """Whether every piece that the row names is there, and reads right where it was not read since it mattered."""
        unverified = find_unverified(place, states, returned_ms)
        if unverified is None:
            return False
        for position, number in named_pieces(place):
            if number in unverified:
                expected = receipt_of(place, position)
                await self._throttle.take(expected.length)
                finding = await self._look.examine(number, stored_id_of(place), expected, deep=True)
                if finding is not Finding.GOOD:
                    return False
        return True

    async def _set_aside(self, chunk: ChunkSurvey, states: _States, calls: NodeCalls) -> list[Surplus]:
        gone: list[Surplus] = []
        for surplus in chunk.surplus:
            key = (surplus.node, surplus.chunk_id)
            if key not in states:
                continue
            judged: list[Judged] = [(surplus.chunk_id, states[key])]
            flags = await calls.call(surplus.node, lambda store, it=judged: store.quarantine_judged(it))  # type: ignore[misc]
            if flags == [True]:
                gone.append(surplus)
                _log.info("surplus piece of chunk %s set aside on node %d", surplus.chunk_id, surplus.node)
        return gone

    async def _named_again(self, chunk: ChunkSurvey) -> list[ChunkPlace]:
        ids = {(surplus.node, surplus.chunk_id) for surplus in chunk.surplus}
        rows = await self._read_rows([chunk.place])
        return [row for row in rows if any((number, stored_id_of(row)) in ids for number in row.nodes)]

    async def _read_rows(self, places: Sequence[ChunkPlace]) -> list[ChunkPlace]:
        return await self._metadata.find_chunk_places([(place.blob_id, place.chunk_index) for place in places])
