"""Asks again about chunks of which something seemed to be missing: their rows first, then the nodes that these name.

A listing and the rows beside it are of different moments, and a piece may have been moved in between. What is still not
there when the row was read before its nodes were asked is missing: nobody takes away what a row names.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.pieces import named_pieces, position_of, receipt_of, stored_id_of
from cluster.maintenance.repair import Finding, Piece
from cluster.maintenance.survey import ChunkSurvey, Standing, needs_second_look, what_absence_means
from cluster.nodes import NodePool
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt, ChunkState
from storage.metadata.interface import ChunkPlace, Metadata

ROWS_AT_ONCE = 200
PIECES_AT_ONCE = 1_000

_SILENT_NOW = {Standing.HERE: Standing.SILENT, Standing.LEAVING: Standing.LEFT}
_States = dict[tuple[int, ChunkId], ChunkState | None]
"""(node, stored id) → what the node has; absent where it did not answer"""


class SecondLook:
    """One per surveyor."""

    def __init__(self, metadata: Metadata, nodes: NodePool) -> None:
        self._metadata = metadata
        self._nodes = nodes

    async def check(self, chunks: Sequence[ChunkSurvey], standings: Mapping[int, Standing]) -> list[ChunkSurvey]:
        """The same chunks, those with doubts as they are now; without those that are gone or released by now.
        Unavailable without the metadata."""
        doubtful = {_key(chunk.place): chunk for chunk in chunks if needs_second_look(chunk)}
        if not doubtful:
            return list(chunks)
        rows = await self._read_rows(list(doubtful))
        answering = {it for it, standing in standings.items() if standing in (Standing.HERE, Standing.LEAVING)}
        asked: defaultdict[int, set[ChunkId]] = defaultdict(set)
        for key, row in rows.items():
            for number in answering.intersection((*row.nodes, *doubtful[key].strays)):
                asked[number].add(stored_id_of(row))
        states = await self._inspect(asked)
        checked = [chunk for chunk in chunks if _key(chunk.place) not in doubtful]
        checked += [_look_again(doubtful[key], row, states, standings) for key, row in rows.items()]
        return checked

    async def _read_rows(self, keys: Sequence[tuple[bytes, int]]) -> dict[tuple[bytes, int], ChunkPlace]:
        rows: dict[tuple[bytes, int], ChunkPlace] = {}
        for begin in range(0, len(keys), ROWS_AT_ONCE):
            found = await self._metadata.find_chunk_places(keys[begin : begin + ROWS_AT_ONCE])
            rows.update({_key(place): place for place in found if not place.is_released})
        return rows

    async def _inspect(self, asked: Mapping[int, set[ChunkId]]) -> _States:
        calls = NodeCalls(self._nodes)
        states: _States = {}

        async def ask(number: int, chunk_ids: Sequence[ChunkId]) -> None:
            for begin in range(0, len(chunk_ids), PIECES_AT_ONCE):
                ids = chunk_ids[begin : begin + PIECES_AT_ONCE]
                found = await calls.call(number, lambda store, ids=ids: store.inspect_many(ids))  # type: ignore[misc]
                for chunk_id, state in zip(ids, found or [], strict=False):
                    states[number, chunk_id] = state

        await asyncio.gather(*(ask(number, sorted(ids)) for number, ids in asked.items()))
        return states


def _look_again(chunk: ChunkSurvey, row: ChunkPlace, states: _States, standings: Mapping[int, Standing]) -> ChunkSurvey:
    chunk_id = stored_id_of(row)
    pieces = []
    for position, number in named_pieces(row):
        standing = standings.get(number, Standing.SILENT)
        if (number, chunk_id) not in states:
            finding = what_absence_means(_SILENT_NOW.get(standing, standing))
        else:
            finding = _judge(states[number, chunk_id], receipt_of(row, position), standing)
        pieces.append(Piece(position, number, finding))
    found = []
    for number in chunk.strays:
        state = states.get((number, chunk_id))
        position_found = position_of(row, _receipt(state)) if state is not None else None
        if number not in row.nodes and position_found is not None:
            is_leaving = standings.get(number) is Standing.LEAVING
            found.append(Piece(position_found, number, Finding.LEAVING if is_leaving else Finding.GOOD))
    surplus = tuple(it for it in chunk.surplus if it.chunk_id != chunk_id or it.node not in row.nodes)
    strays = tuple(number for number in chunk.strays if number not in row.nodes)
    return ChunkSurvey(row, tuple(pieces), strays, surplus, tuple(found))


def _judge(state: ChunkState | None, expected: ChunkReceipt, standing: Standing) -> Finding:
    if state is None:
        return Finding.MISSING
    if _receipt(state) != expected:
        return Finding.BAD
    return Finding.LEAVING if standing is Standing.LEAVING else Finding.GOOD


def _receipt(state: ChunkState) -> ChunkReceipt:
    return ChunkReceipt(state.length, state.digest)


def _key(place: ChunkPlace) -> tuple[bytes, int]:
    return place.blob_id, place.chunk_index
