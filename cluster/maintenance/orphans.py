"""Looks through the inventories of the nodes for chunks that no row names, page by page, and sets them aside.

The order of looking is what makes it safe: inventory, then sessions, then rows. A chunk that is listed was written by a
session that had been opened; one that is not open when looked at afterwards cannot commit any more; and what no row
names after that will never be named by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.sweep import SweepSettings, choose_orphan_suspects, plan_orphans, skip_open_session
from storage.base.clock import Clock
from storage.base.ids import SESSION_ID_BYTES, ChunkId
from storage.chunks.store import InventoryEntry
from storage.metadata.interface import Metadata

PAGE_ENTRIES = 1_000
PAGES_MAX = 20
"""of each node in one run; the next run goes on from there"""
SEEN_MAX = 100_000
"""orphans of one node remembered between passes; more are found when these are gone"""


class OrphansFound(NamedTuple):
    """suspected: seen for the first time, or again too soon. quarantined: set aside now."""

    suspected: int = 0
    quarantined: int = 0


class _Pass:
    """How far the look through one node's inventory has come."""

    def __init__(self) -> None:
        self.after: ChunkId | None = None
        self.seen: dict[bytes, int] = {}
        """orphans of the last pass → when they were first seen"""
        self.seeing: dict[bytes, int] = {}
        """of this pass"""
        self.sessions: set[bytes] = set()
        """of which this pass saw chunks"""
        self.sessions_of_last: set[bytes] | None = None
        """of which the last whole pass saw chunks; None before there was one"""


class OrphanPasses:
    """Keeps the place in every node's inventory, and what was seen, between runs."""

    def __init__(self, metadata: Metadata, clock: Clock, settings: SweepSettings, pause_s: float) -> None:
        self._metadata = metadata
        self._clock = clock
        self._settings = settings
        self._pause_s = pause_s
        self._passes: dict[int, _Pass] = {}

    async def look_through(self, number: int, calls: NodeCalls, *, whole: bool) -> OrphansFound:
        """Up to PAGES_MAX pages of one node's inventory from where the last run stopped; to its end when `whole`."""
        progress = self._passes.setdefault(number, _Pass())
        suspected = quarantined = pages = 0
        while whole or pages < PAGES_MAX:
            page = await self._fetch_page(number, calls, progress.after)
            if page is None:
                break
            orphans = await self._look_at(number, calls, progress, page)
            suspected, quarantined = suspected + orphans.suspected, quarantined + orphans.quarantined
            pages += 1
            if len(page) < PAGE_ENTRIES:
                _begin_next_pass(progress)
                break
            await asyncio.sleep(self._pause_s)
        return OrphansFound(suspected, quarantined)

    def sessions_seen(self, numbers: Iterable[int]) -> set[bytes] | None:
        """The sessions of which any of these nodes held a chunk in its last whole pass or since; None when one of them
        was never looked through."""
        seen: set[bytes] = set()
        for number in numbers:
            progress = self._passes.get(number)
            if progress is None or progress.sessions_of_last is None:
                return None
            seen |= progress.sessions_of_last | progress.sessions
        return seen

    async def _fetch_page(self, number: int, calls: NodeCalls, after: ChunkId | None) -> list[InventoryEntry] | None:
        return await calls.call(number, lambda store: store.inventory(after, PAGE_ENTRIES))

    async def _look_at(
        self, number: int, calls: NodeCalls, progress: _Pass, page: list[InventoryEntry]
    ) -> OrphansFound:
        if not page:
            return OrphansFound()
        sessions = {session.session_id: session for session in await self._metadata.list_sessions()}
        now_ms = self._clock.now_ms()
        progress.sessions.update(entry.chunk_id[:SESSION_ID_BYTES] for entry in page)
        progress.after = skip_open_session(page[-1], sessions)
        suspects = choose_orphan_suspects(page, sessions, now_ms, self._settings)
        if not suspects:
            return OrphansFound()
        known = await self._metadata.find_referenced_blobs(sorted({chunk_id.blob_id for chunk_id in suspects}))
        plan = plan_orphans(suspects, known, progress.seen, now_ms, self._settings.passes_apart_ms)
        for raw, first_ms in plan.seen.items():
            if len(progress.seeing) < SEEN_MAX:
                progress.seeing[raw] = first_ms
        return OrphansFound(len(plan.seen), await self._set_aside(number, calls, plan.quarantine))

    async def _set_aside(self, number: int, calls: NodeCalls, orphans: list[ChunkId]) -> int:
        if not orphans:
            return 0
        # Once more, right before: whatever happened since the plan was made.
        known = await self._metadata.find_referenced_blobs(sorted({chunk_id.blob_id for chunk_id in orphans}))
        still = [chunk_id for chunk_id in orphans if chunk_id.blob_id not in known]
        flags = await calls.call(number, lambda store: store.quarantine_many(still)) if still else None
        return sum(flags) if flags is not None else 0


def _begin_next_pass(progress: _Pass) -> None:
    progress.after = None
    progress.seen, progress.seeing = progress.seeing, {}
    progress.sessions_of_last, progress.sessions = progress.sessions, set()
