"""Looks after what lies on the datanodes: takes snapshots when they are due, deletes what is past its retention, and
writes down how the journal is.

A snapshot is due when there is none of the present history, when much was written since the last one, when it is a day
old, after a migration, and when what a recovery needs is not on as many datanodes any more as it should be.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from typing import NamedTuple

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError
from storage.journal.ensemble import count_spread, is_writable
from storage.journal.holdings import count_bytes, find_holders, find_newest, list_keeping
from storage.journal.keeper import JournalKeeper
from storage.journal.keys import JournalKeys
from storage.journal.nodes import JournalNodes
from storage.journal.retention import choose_names, list_needed, plan_deletions
from storage.journal.snapshots import SnapshotFailed, SnapshotTaker, Taken
from storage.journal.start import reach_nodes
from storage.journal.status import JournalStatus, StatusFile
from storage.journal.stock import Source, Stock, take_stock
from storage.journal.writer import Phase, ReplicatedJournal
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite.database import Snapshot
from storage.metadata.sqlite.position import Position, count_pending, read_position, set_snapshot_due
from storage.metadata.sqlite.schema import MIGRATIONS
from storage.metadata.sqlite.writer import GroupCommitter
from storage.model import Node

SNAPSHOT_AFTER_BYTES = 256 << 20
"""of the journal: what a recovery has to replay at most, and a segment more"""
SNAPSHOT_AFTER_MS = 86_400_000
UNDER_COPIED_AFTER_S = 60.0
"""how long a datanode that holds something must have been away before that is put on others"""
KEPT_BYTES_MAX = 8 << 30
"""of one copy of everything that the retention keeps beyond what a recovery to now needs"""
LOOK_S = 300.0
TICK_S = 1.0
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0

_log = logging.getLogger(__name__)


class _Newest(NamedTuple):
    """The newest whole snapshot of the present history, and the nodes (by number) that hold all of it."""

    taken: Taken
    bytes_written: int
    """what the journal had written by then; negative for what an earlier owner wrote since"""


class Custodian:
    """One per owner, beside the keeper. `run` as a task until it stops."""

    def __init__(
        self,
        journal: ReplicatedJournal,
        keeper: JournalKeeper,
        committer: GroupCommitter,
        reader: sqlite3.Connection,
        keys: JournalKeys,
        pool: JournalNodes,
        taker: SnapshotTaker,
        status: StatusFile,
        settings: MetadataSettings,
        clock: Clock,
    ) -> None:
        """reader: a connection of its own."""
        self._journal = journal
        self._keeper = keeper
        self._committer = committer
        self._reader = reader
        self._keys = keys
        self._pool = pool
        self._taker = taker
        self._status = status
        self._settings = settings
        self._clock = clock
        self._stock: Stock | None = None
        self._holders: dict[bytes, frozenset[int]] = {}
        """file id → the nodes that have it, as of the last look"""
        self._newest: _Newest | None = None
        self._next_look_s = 0.0
        self._next_attempt_s = 0.0
        self._failures = 0
        self._error = ""
        self._thin_since_s = 0.0
        self._taking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until cancelled. A step that fails is told and tried again later."""
        self._taker.clear()
        try:
            while True:
                try:
                    await self._tick()
                except (FrostbyteError, sqlite3.Error, OSError) as error:
                    _log.warning("metadata journal: %s", error)
                    self._next_look_s = self._clock.monotonic_s() + RETRY_FIRST_S
                await self._pause()
        finally:
            if self._taking is not None:
                self._taking.cancel()
                await asyncio.gather(self._taking, return_exceptions=True)

    async def _pause(self) -> None:
        """For a tick, or until there is something else to tell."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._journal.changed.wait()

    async def _tick(self) -> None:
        self._journal.changed.clear()
        self._status.write(self.describe(self._read_position()))
        if self._journal.phase is not Phase.OPEN:
            return
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_look_s:
            await self._look()
            self._next_look_s = now_s + LOOK_S
        if self._taking is not None and not self._taking.done():
            return
        position = self._read_position()
        if now_s >= self._next_attempt_s and self._is_due(position, now_s):
            self._taking = asyncio.create_task(self._take(position), name="metadata-snapshot")

    # ------------------------------------------------------------------ looking and deleting

    async def _look(self) -> None:
        """At every file of every datanode that answers, and delete what may go."""
        reached = await reach_nodes(self._keeper.nodes, self._pool)
        self._stock = stock = await take_stock(reached.listings, self._keys, self._stock)
        numbers: dict[Source, int] = {source: node.number for node, source in self._pool.replicas(reached.nodes)}
        self._holders = find_holders(stock, numbers)
        self._adopt_newest(stock)
        segment = self._journal.segment
        if segment is None:
            return
        now_ms = self._clock.now_ms()
        deletions = plan_deletions(
            list_keeping(stock),
            count_bytes(reached.listings),
            self._journal.history,
            older_than_ms=now_ms - round(self._settings.journal_retention_s * 1000),
            bytes_max=0 if any(map(_is_full, self._keeper.nodes)) else KEPT_BYTES_MAX,
        )
        spared = frozenset({segment.header.segment_id, self._taker.running or b""})
        for node, client in self._pool.replicas(reached.nodes):
            for name in choose_names(reached.listings[client].files, deletions, spared):
                try:
                    await client.delete(self._journal.owner, name)
                except FrostbyteError as error:
                    _log.warning("metadata journal: node %d does not delete %s: %s", node.number, name, error)
                    break

    def _adopt_newest(self, stock: Stock) -> None:
        """What an earlier owner, or an earlier attempt of this one, left."""
        newest = find_newest(stock, self._journal.history)
        if newest is None:
            self._newest = None
            return
        taken = Taken(newest.snapshot_id, newest.manifest, tuple(self._holders.get(newest.snapshot_id, ())))
        if self._newest is not None and self._newest.taken.snapshot_id == newest.snapshot_id:
            written = self._newest.bytes_written
        else:
            sizes = count_bytes(stock.listings)
            since = sum(sizes.get(it, 0) for it in list_needed(list_keeping(stock), newest.snapshot_id))
            written = self._journal.bytes_written - since
        self._newest = _Newest(taken, written)

    # ------------------------------------------------------------------ snapshots

    def _is_due(self, position: Position, now_s: float) -> bool:
        newest = self._newest
        if newest is None or position.snapshot_due:
            return True
        if not self._is_thin(newest):
            self._thin_since_s = now_s
        manifest = newest.taken.manifest
        return (
            manifest.schema_version != len(MIGRATIONS)
            or self._journal.bytes_written - newest.bytes_written >= SNAPSHOT_AFTER_BYTES
            or (position.sequence > manifest.sequence and self._is_a_day_old(newest))
            or now_s - self._thin_since_s >= UNDER_COPIED_AFTER_S
        )

    def _is_a_day_old(self, newest: _Newest) -> bool:
        return self._clock.now_ms() - newest.taken.manifest.taken_ms >= SNAPSHOT_AFTER_MS

    def _is_thin(self, newest: _Newest) -> bool:
        """Whether something that a recovery needs is on fewer datanodes than it should be."""
        there = {node.number for node in self._keeper.nodes if is_writable(node)}
        copies = self._settings.journal_copies
        return any(len(there & holders) < copies for holders in self._list_needed(newest))

    def _list_needed(self, newest: _Newest) -> list[frozenset[int]]:
        """Of each file that a recovery to now reads, who has it."""
        needed = [frozenset(newest.taken.numbers)]
        if self._stock is not None and newest.taken.snapshot_id in self._stock.snapshots:
            segments = list_needed(list_keeping(self._stock), newest.taken.snapshot_id)
            needed += [self._holders.get(segment_id, frozenset()) for segment_id in segments]
        if self._journal.segment is not None:
            needed.append(frozenset(node.number for node in self._journal.segment.nodes))
        return needed

    async def _take(self, position: Position) -> None:
        written = self._journal.bytes_written
        nodes = self._keeper.choose(self._journal.avoided())
        try:
            if len(nodes) < self._settings.journal_copies:
                raise SnapshotFailed(f"{self._settings.journal_copies} datanodes for it cannot be had")
            taken = await self._taker.take(self._journal.history, self._pool.replicas(nodes), self._journal.owner)
        except (FrostbyteError, sqlite3.Error, OSError) as error:
            self._note_failure(error)
            return
        self._newest = _Newest(taken, written)
        self._failures, self._error = 0, ""
        self._thin_since_s = self._clock.monotonic_s()
        self._next_look_s = 0.0
        self._journal.changed.set()
        manifest = taken.manifest
        _log.info("metadata journal: snapshot of %d bytes at %d", manifest.size_bytes, manifest.sequence)
        if position.snapshot_due:
            async with self._committer.held() as connection:
                await asyncio.to_thread(set_snapshot_due, connection.execute, False)

    def _note_failure(self, error: Exception) -> None:
        if isinstance(error, SnapshotFailed):
            self._journal.avoid(error.numbers)
        pause_s = min(RETRY_FIRST_S * 2 ** min(self._failures, 16), RETRY_MAX_S)
        self._failures += 1
        self._error = f"{type(error).__name__}: {error}"[:500]
        self._next_attempt_s = self._clock.monotonic_s() + pause_s
        _log.warning("metadata journal: no snapshot could be taken: %s", self._error)

    # ------------------------------------------------------------------ telling

    def describe(self, position: Position) -> JournalStatus:
        """As of now."""
        journal, newest = self._journal, self._newest
        nodes = journal.segment.nodes if journal.segment is not None else ()
        now_ms = self._clock.now_ms()
        names = {node.number: node.report.node_id for node in self._keeper.nodes}
        needed = self._list_needed(newest) if newest is not None else []
        return JournalStatus(
            phase=journal.phase.value,
            reason=journal.reason,
            copies=self._settings.journal_copies,
            nodes=tuple(node.report.node_id for node in nodes),
            domains=count_spread(nodes)[2],
            sequence=position.sequence,
            behind=count_pending(self._reader.execute),
            is_covered=newest is not None and newest.taken.manifest.history == position.history != 0,
            snapshot_ms=newest.taken.manifest.taken_ms if newest is not None else 0,
            snapshot_error=self._error,
            holders=tuple(sorted({names[it] for holders in needed for it in holders if it in names})),
            updated_ms=now_ms,
        )

    def _read_position(self) -> Position:
        with Snapshot(self._reader) as execute:
            return read_position(execute)


def _is_full(node: Node) -> bool:
    return node.report.free_bytes <= node.report.reserve_bytes
