"""One walk over all chunk rows beside the inventories of all nodes that can be reached, window by window.

What is remembered between windows is one page of rows and one page of each inventory. A window that fails leaves the
walk where it was, to be tried again; a node that fails is left alone for the rest of the walk, and what it holds is
unknown. A node that comes (back) meanwhile is looked through from there on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.survey import Listed, Standing, cut_to_whole_blobs, end_of_blob
from cluster.nodes import NodePool
from storage.base.ids import CHUNK_INDEX_MAX, ChunkId, chunk_id_from_bytes
from storage.chunks.store import InventoryEntry
from storage.metadata.interface import ChunkPlace, Metadata
from storage.model import ClusterMap, NodeState

PAGE_ROWS = 1_000
PAGE_ENTRIES = 1_000
NODES_AT_ONCE = 16
"""whose pages are fetched side by side"""


class Window(NamedTuple):
    """What was found of a run of blobs."""

    places: list[ChunkPlace]
    listed: Mapping[int, Listed]
    standings: Mapping[int, Standing]


class _Cursor:
    """How far the look through one inventory has come: the entries read ahead, and what to go on after."""

    def __init__(self, after: ChunkId | None) -> None:
        self.after = after
        self.ahead: list[InventoryEntry] = []
        self.is_over = False


class Walk:
    """`next_window`, and `accept` once it was dealt with, until `is_over`."""

    def __init__(
        self, metadata: Metadata, nodes: NodePool, page_rows: int = PAGE_ROWS, page_entries: int = PAGE_ENTRIES
    ) -> None:
        self._metadata = metadata
        self._calls = NodeCalls(nodes)
        self._page_rows = page_rows
        self._page_entries = page_entries
        self._after: tuple[bytes, int] | None = None
        self._cursors: dict[int, _Cursor] = {}
        self._end: bytes | None = None
        """of the window that was given last"""
        self._is_accepted = True
        self.is_over = False

    async def next_window(self, cluster_map: ClusterMap) -> Window:
        """The run of blobs behind the last one that was accepted. Unavailable without the metadata."""
        if not self._is_accepted:
            self._cursors.clear()  # they are ahead of where the walk is
        self._is_accepted = False
        places, self._end = await self._read_places()
        listed = await self._list_until(self._end, {place.blob_id for place in places}, cluster_map)
        return Window(places, listed, self._standings(cluster_map, listed))

    def accept(self) -> None:
        """The last window was dealt with: go on behind it."""
        self._is_accepted = True
        if self._end is None:
            self.is_over = True
        else:
            self._after = end_of_blob(self._end)

    async def _read_places(self) -> tuple[list[ChunkPlace], bytes | None]:
        """(rows of whole blobs, the last blob id that they cover; None: all that are left)"""
        places = await self._metadata.list_chunk_places(self._after, self._page_rows)
        if len(places) < self._page_rows:
            return places, None
        whole = cut_to_whole_blobs(places)
        if whole is not places:
            return whole, whole[-1].blob_id
        while True:  # one blob that fills a page: all of it, which is bounded by the size of a blob
            last = places[-1]
            page = await self._metadata.list_chunk_places((last.blob_id, last.chunk_index), self._page_rows)
            same = [place for place in page if place.blob_id == last.blob_id]
            places = [*places, *same]
            if len(same) < self._page_rows:
                return places, last.blob_id

    async def _list_until(self, end: bytes | None, blob_ids: set[bytes], cluster_map: ClusterMap) -> dict[int, Listed]:
        reachable = [
            node.number
            for node in cluster_map.nodes
            if node.state not in (NodeState.DEAD, NodeState.GONE) and node.number not in self._calls.unreachable
        ]
        gate = asyncio.Semaphore(NODES_AT_ONCE)

        async def list_one(number: int) -> Listed | None:
            async with gate:
                return await self._list_node(number, end, blob_ids)

        listings = await asyncio.gather(*(list_one(number) for number in reachable))
        return {number: it for number, it in zip(reachable, listings, strict=True) if it is not None}

    async def _list_node(self, number: int, end: bytes | None, blob_ids: set[bytes]) -> Listed | None:
        """One node's entries up to the end of the window; None when it failed. Of entries without a row only the sum is
        kept: there may be any number of them."""
        cursor = self._cursors.get(number)
        if cursor is None:
            begin = ChunkId(self._after[0], CHUNK_INDEX_MAX) if self._after is not None else None
            cursor = self._cursors[number] = _Cursor(begin)
        found: dict[ChunkId, int] = {}
        pieces = total_bytes = 0
        while True:
            taken = 0
            for entry in cursor.ahead:
                chunk_id = chunk_id_from_bytes(entry.chunk_id)
                if end is not None and chunk_id.blob_id > end:
                    break
                taken += 1
                pieces, total_bytes = pieces + 1, total_bytes + entry.length
                if chunk_id.blob_id in blob_ids:
                    found[chunk_id] = entry.length
            del cursor.ahead[:taken]
            if cursor.ahead or cursor.is_over:
                return Listed(found, pieces, total_bytes)
            if not await self._read_ahead(number, cursor):
                return None

    async def _read_ahead(self, number: int, cursor: _Cursor) -> bool:
        page = await self._calls.call(number, lambda store: store.inventory(cursor.after, self._page_entries))
        if page is None:
            return False
        cursor.ahead, cursor.is_over = page, len(page) < self._page_entries
        if page:
            cursor.after = chunk_id_from_bytes(page[-1].chunk_id)
        return True

    def _standings(self, cluster_map: ClusterMap, listed: Mapping[int, Listed]) -> dict[int, Standing]:
        return {node.number: _standing(node.state, node.number in listed) for node in cluster_map.nodes}


def _standing(state: NodeState, was_listed: bool) -> Standing:
    if state is NodeState.GONE:
        return Standing.GONE
    if state is NodeState.DEAD:
        return Standing.DEAD
    if state is NodeState.DRAINING:
        return Standing.LEAVING if was_listed else Standing.LEFT
    return Standing.HERE if was_listed else Standing.SILENT
