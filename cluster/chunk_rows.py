"""Chunk rows of a blob, page after page, each with the layout that it belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from storage.metadata.interface import CHUNK_PAGE_ROWS, Metadata
from storage.model import Blob, Chunk


async def page_chunks(metadata: Metadata, blob: Blob) -> AsyncIterator[tuple[Blob, Sequence[Chunk]]]:
    """The rows that a read brought along, then further pages until there are no more. The blob comes with the
    redundancy and the generation that the rows of this page have: it may be laid out anew between two pages."""
    next_index = 0
    rows: Sequence[Chunk] = blob.chunks
    placed = blob
    while True:
        if rows:
            yield placed, rows
            next_index = rows[-1].index + 1
        rows = await metadata.read_chunks(blob.blob_id, next_index, CHUNK_PAGE_ROWS)
        if not rows:
            return
        placed, rows = await _with_layout(metadata, blob, rows)


async def _with_layout(metadata: Metadata, blob: Blob, rows: Sequence[Chunk]) -> tuple[Blob, Sequence[Chunk]]:
    """One snapshot of the layout of these rows; what else they say never changes."""
    places = {
        place.chunk_index: place
        for place in await metadata.find_chunk_places([(blob.blob_id, row.index) for row in rows])
    }
    replace = msgspec.structs.replace
    placed: list[Chunk] = []
    for row in rows:
        place = places.get(row.index)
        placed.append(row if place is None else replace(row, digest=place.digest, nodes=place.nodes))
    for place in places.values():
        return replace(blob, redundancy=place.redundancy, generation=place.generation), placed
    return blob, placed
