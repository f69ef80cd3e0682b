"""Keeps the journal in the phase that it should be in: by the settings, the registry's nodes, and who answers.

At a start it waits for the datanodes that were up (they may be starting too), shuts out earlier owners, brings the
database up to date and opens the first segment. Later it moves the journal away from nodes that are on their way out,
opens it again after an outage, and turns it local and back where the settings leave that to the nodes. Whatever changes
the phase is done while the writer is held, so that no group is under way.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from storage.base.clock import Clock
from storage.base.errors import Corrupt, FrostbyteError, JournalFenced
from storage.journal.ensemble import Wanted, choose_ensemble, choose_mode, is_leaving, is_writable, should_move
from storage.journal.history import JournalGap
from storage.journal.keys import JournalKeys, new_history
from storage.journal.nodes import JournalNodes
from storage.journal.record import Record, parse_incarnation
from storage.journal.start import Contact, Diverged, catch_up, fence_nodes, reach_nodes
from storage.journal.writer import Phase, ReplicatedJournal
from storage.metadata.commands import ExtendLeases
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite import nodes as node_rows
from storage.metadata.sqlite.database import Snapshot
from storage.metadata.sqlite.position import (
    clear_pending,
    list_pending,
    read_position,
    set_history,
    set_incarnation,
    set_snapshot_due,
)
from storage.metadata.sqlite.writer import GroupCommitter
from storage.model import Node, NodeState

START_WAIT_S = 10.0
"""how long a start waits for datanodes that the registry does not know to be dead"""
TICK_S = 0.5
STARTING_TICK_S = 0.05
MOVE_AFTER_S = 5.0
"""how long a better ensemble must have been there before the journal moves to it"""

_log = logging.getLogger(__name__)


class JournalKeeper:
    """One per owner. `begin` before the owner serves, `run` as a task until it stops."""

    def __init__(
        self,
        journal: ReplicatedJournal,
        committer: GroupCommitter,
        reader: sqlite3.Connection,
        keys: JournalKeys,
        pool: JournalNodes,
        settings: MetadataSettings,
        clock: Clock,
    ) -> None:
        """reader: a connection of its own, to read the registry's nodes."""
        self.nodes: tuple[Node, ...] = ()
        """as of the last look; without those that are gone"""
        self._journal = journal
        self._committer = committer
        self._reader = reader
        self._keys = keys
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._wait_until_s = self._eager_until_s = clock.monotonic_s() + START_WAIT_S
        self._caught_up = False
        self._fenced: set[int] = set()
        self._better_since_s = 0.0

    def choose(self, avoid: Collection[int]) -> Sequence[Node]:
        """For the journal."""
        return choose_ensemble(self.nodes, self._settings.journal_copies, avoid)

    async def begin(self) -> None:
        """The first look: a journal that is to be local is so from the first command on."""
        wanted = await self._look()
        if read_position(self._reader.execute).snapshot_due:
            self._wait_until_s = 0.0  # these records were just made out of what the datanodes have
        if not wanted.is_replicated:
            await self._be_local(wanted.reason)

    async def run(self) -> None:
        """Until cancelled. A look that fails is told and tried again."""
        while self._journal.phase is not Phase.OVER:
            try:
                await self._tick()
            except (FrostbyteError, sqlite3.Error, OSError) as error:
                _log.warning("metadata journal: %s", error)
            await asyncio.sleep(STARTING_TICK_S if self._is_starting() else TICK_S)
        self._committer.give_up(self._journal.reason)

    def _is_starting(self) -> bool:
        """Nothing is taken yet, and datanodes may be about to join: then each look that comes late is waited for."""
        phase = self._journal.phase
        waits = self._clock.monotonic_s() < self._eager_until_s
        return phase is Phase.STARTING or (phase is Phase.CLOSED and not self._caught_up and waits)

    async def _tick(self) -> None:
        wanted = await self._look()
        phase = self._journal.phase
        if not wanted.is_replicated:
            if phase is not Phase.LOCAL or wanted.reason != self._journal.reason:
                await self._be_local(wanted.reason)
        elif phase is Phase.OPEN:
            await self._fence_late()
            self._consider_moving()
        elif self._caught_up:
            await self._open_again()
        else:
            await self._open_first()

    async def _look(self) -> Wanted:
        with Snapshot(self._reader) as execute:
            nodes = node_rows.cluster_map(execute).nodes
        self.nodes = tuple(node for node in nodes if node.state is not NodeState.GONE)
        await self._pool.adopt(self.nodes)
        return choose_mode(self._settings.journal, self.nodes)

    # ------------------------------------------------------------------ changes of the phase

    async def _be_local(self, reason: str) -> None:
        was_closed = self._journal.phase in (Phase.STARTING, Phase.CLOSED)
        async with self._committer.held():
            self._journal.be_local(reason)
            if was_closed:
                self._committer.submit(ExtendLeases(), _Nobody(), None)

    async def _open_first(self) -> None:
        reached = await reach_nodes(self.nodes, self._pool)
        expected = [node for node in self.nodes if node.state is not NodeState.DEAD]
        waits = self._clock.monotonic_s() < self._wait_until_s
        if waits and not all(node in reached.nodes for node in expected):
            return
        copies = self._settings.journal_copies
        if sum(map(is_writable, reached.nodes)) < copies:
            if self._journal.phase is not Phase.LOCAL:
                self._journal.close(
                    f"{len(reached.nodes)} datanodes answer, the journal of the metadata needs {copies}"
                )
            return
        contact = await fence_nodes(reached, self._pool, self._journal.incarnation)
        self._journal.avoid(node.number for node in self.nodes if node not in contact.nodes)
        try:
            async with self._committer.held() as connection:
                await self._open_held(connection, contact)
        except (JournalGap, Diverged, Corrupt) as error:
            self._journal.close(f"the journal of the metadata cannot be gone on with: {error}")
            return
        if self._journal.phase is Phase.OPEN:
            self._fenced = {node.number for node in contact.nodes}

    async def _open_held(self, connection: sqlite3.Connection, contact: Contact) -> None:
        position = read_position(connection.execute)
        self._journal.owner = contact.owner
        reached = parse_incarnation(contact.owner)
        self._journal.incarnation = max(self._journal.incarnation, position.incarnation, reached)
        records = await catch_up(connection, self._keys, contact)
        self._caught_up = True
        await self._open_segment(connection, records)

    async def _open_again(self) -> None:
        """Nobody is held up before enough of the nodes answer."""
        if (
            len((await reach_nodes(self.choose(self._journal.avoided()), self._pool)).nodes)
            < self._settings.journal_copies
        ):
            return
        async with self._committer.held() as connection:
            await self._open_segment(connection, [])

    async def _open_segment(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        """records: that the segment begins with, beside what waits; the writer is held."""
        position = read_position(connection.execute)
        pending = [] if records else [Record(*row) for row in list_pending(connection.execute)]
        records = records or pending
        history = position.history or new_history()
        if history != position.history:
            await asyncio.to_thread(_begin_history, connection, history)
        first_sequence = records[0].sequence if records else position.sequence + 1
        was_closed = self._journal.phase in (Phase.STARTING, Phase.CLOSED)
        if not await self._journal.begin(history, first_sequence, records):
            return
        await asyncio.to_thread(_attach, connection, self._journal.incarnation)
        self._journal.be_open()
        if was_closed:  # at once, so that nothing that could fence comes before it
            self._committer.submit(ExtendLeases(), _Nobody(), None)

    # ------------------------------------------------------------------ while it is open

    def _consider_moving(self) -> None:
        segment = self._journal.segment
        if segment is None:
            return
        now_s = self._clock.monotonic_s()
        if not should_move(segment.nodes, self.nodes, self._settings.journal_copies):
            self._better_since_s = now_s
        elif now_s - self._better_since_s >= MOVE_AFTER_S or is_leaving(segment.nodes, self.nodes):
            self._journal.move()

    async def _fence_late(self) -> None:
        """Datanodes that did not answer at the start: no earlier owner may find them open."""
        late = [node for node in self.nodes if node.number not in self._fenced and node.state is NodeState.UP]
        if not late:
            return
        clients = [(node, self._pool.client(node)) for node in late]
        answers = await asyncio.gather(*(it.fence(self._journal.owner) for _, it in clients), return_exceptions=True)
        for (node, _), answer in zip(clients, answers, strict=True):
            if isinstance(answer, JournalFenced):
                self._journal.end("another owner of the metadata took over")
            elif not isinstance(answer, BaseException):
                self._fenced.add(node.number)


class _Nobody:
    """Waits for no answer."""

    def answer(self, batch: list[tuple[object, object]]) -> None:
        pass


def _begin_history(connection: sqlite3.Connection, history: int) -> None:
    """What the database holds now is in no journal until a snapshot was taken."""
    with _committed(connection):
        set_history(connection.execute, history)
        set_snapshot_due(connection.execute, True)
        clear_pending(connection.execute)


def _attach(connection: sqlite3.Connection, incarnation: int) -> None:
    """What waited is in the journal."""
    with _committed(connection):
        set_incarnation(connection.execute, incarnation)
        clear_pending(connection.execute)


@contextmanager
def _committed(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
