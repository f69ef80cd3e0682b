"""The datanode's routes for the scrub and for what it found: /v1/scrub, /v1/damaged."""

from __future__ import annotations

from storage.chunks.store import OwnChunkStore
from storage.datanode import wire
from storage.datanode.exchange import Exchange, Handler
from storage.datanode.scrubber import Scrubber


class ScrubRoutes:
    """Called by the application for an authenticated request."""

    def __init__(self, store: OwnChunkStore, scrubber: Scrubber) -> None:
        self._store = store
        self._scrubber = scrubber
        self.handlers: dict[tuple[str, str], Handler] = {
            ("GET", wire.DAMAGED): self._list_damaged,
            ("POST", wire.DAMAGED_FORGET): self._forget_damaged,
            ("GET", wire.SCRUB): self._status,
            ("POST", wire.SCRUB): self._order,
        }

    async def _list_damaged(self, exchange: Exchange) -> None:
        after, limit = exchange.read_query(wire.parse_page)
        found = await self._store.list_damaged(after, limit)
        listed = [wire.DamagedChunk(chunk_id.to_bytes(), found_ms) for chunk_id, found_ms in found]
        await exchange.answer(200, wire.encode(listed))

    async def _forget_damaged(self, exchange: Exchange) -> None:
        chunk_ids = await exchange.read_parsed(wire.parse_chunk_ids, wire.BATCH_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._store.forget_damaged(chunk_ids)))

    async def _status(self, exchange: Exchange) -> None:
        await exchange.answer(200, wire.encode(self._scrubber.status))

    async def _order(self, exchange: Exchange) -> None:
        order = await exchange.read_parsed(wire.parse_scrub_order, wire.SMALL_BODY_BYTES_MAX)
        await exchange.answer(200, wire.encode(await self._scrubber.order(order)))
