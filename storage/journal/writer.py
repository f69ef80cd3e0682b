"""ReplicatedJournal: the journal on datanodes, as the group committer calls it.

What it is at a moment is its *phase*:

    starting   nothing is taken: it is being found out what the datanodes have
    local      everything is taken, and kept in the database alone (storage.metadata.sqlite.position)
    open       everything is taken, and is on every datanode of the ensemble before it is committed
    closed     no ensemble can be had: what the master records is taken and kept, everything else is refused
    over       a later owner was at the datanodes: nothing is taken, and the process ends

An append that fails on one datanode goes on as the first record of a new segment on another ensemble, inside the same
group: its clients only wait. What is left when the process dies at each step:
1. sealed, not sent: nothing.
2. on some datanodes, or on all, not committed: the next owner finds the record and applies it, or opens its segment at
   the same sequence, which makes it void. Nobody was told of an outcome.
3. a new segment with the record on some datanodes: the same.
4. committed: the record is on every datanode of an ensemble.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from storage.base.clock import Clock
from storage.base.errors import Unavailable
from storage.datanode.journal_wire import NO_OWNER
from storage.journal.keys import JournalKeys
from storage.journal.nodes import JournalNodes
from storage.journal.record import Record
from storage.journal.segment import OpenSegment, ReplicaFailed
from storage.metadata.commands import Command
from storage.metadata.journal import REGISTRY_COMMANDS, AppliedGroup, encode_group
from storage.metadata.sqlite.database import Execute
from storage.metadata.sqlite.position import LocalJournal, advance, set_incarnation
from storage.model import Node

OPEN_ATTEMPTS_MAX = 4
REPLICATE_TIMEOUT_S = 15.0
"""of one group with all its attempts: well below what a caller waits (storage.metadata.sqlite.client)"""
AVOID_S = 30.0
"""how long a datanode that failed is the last choice"""

_log = logging.getLogger(__name__)

Chooser = Callable[[Collection[int]], Sequence[Node]]
"""numbers to avoid → the ensemble, as many nodes as there are to be copies; fewer: there are no others"""


class Phase(enum.StrEnum):
    """See the module."""

    STARTING = "starting"
    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"
    OVER = "over"


class ReplicatedJournal:
    """Made on the event loop of the owner; `append` runs on the writer's thread, all else on the loop.

    While a record is sent to the datanodes of the open segment the thread waits for them itself: a hop to the loop and
    back for each group cost more than sending it. The loop then only ever sets the phase, takes the segment away (it
    goes on with the one it has) or asks it to move."""

    def __init__(
        self, keys: JournalKeys, nodes: JournalNodes, choose: Chooser, copies: int, schema_version: int, clock: Clock
    ) -> None:
        self.phase = Phase.STARTING
        self.reason = "the journal of the metadata is being looked for on the datanodes"
        """why nothing is taken, or why it is local"""
        self.owner = NO_OWNER
        """what datanodes know this process by, once it was at them: higher than every earlier owner"""
        self.segment: OpenSegment | None = None
        self.history = 0
        self.incarnation = 0
        """of the newest segment; only ever rises"""
        self.bytes_written = 0
        """to segments, since the process began"""
        self.changed = asyncio.Event()
        """set with another phase, reason or segment; for whoever tells people, and clears it"""
        self._keys = keys
        self._nodes = nodes
        self._choose = choose
        self._copies = copies
        self._schema_version = schema_version
        self._clock = clock
        self._local = LocalJournal()
        self._avoid: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self._must_move = False

    # ------------------------------------------------------------------ as the committer sees it

    def append(self, execute: Execute, group: AppliedGroup) -> bool:
        phase = self.phase
        if phase is Phase.OPEN:
            self._append_everywhere(execute, Record(advance(execute, group.applied_at_ms), encode_group(group)))
            return True
        if phase is not Phase.LOCAL and not all(
            isinstance(command, REGISTRY_COMMANDS) for command, applied in group.entries if applied
        ):
            raise Unavailable(self.reason)
        return self._local.append(execute, group)

    def refusal(self, command: Command) -> str:
        if self.phase in (Phase.OPEN, Phase.LOCAL):
            return ""
        return "" if self.phase is Phase.CLOSED and isinstance(command, REGISTRY_COMMANDS) else self.reason

    def _append_everywhere(self, execute: Execute, record: Record) -> None:
        before = self.incarnation
        failure: ReplicaFailed | None = None
        try:
            if self._append_here(record):
                return
        except ReplicaFailed as error:
            failure = error
        asyncio.run_coroutine_threadsafe(self._append_elsewhere(record, failure), self._loop).result()
        if self.incarnation != before:
            set_incarnation(execute, self.incarnation)

    def _append_here(self, record: Record) -> bool:
        """To the segment that is open. ReplicaFailed. False: the record belongs into another one."""
        segment = self.segment
        if segment is None or self._must_move or not segment.takes(record):
            return False
        before = segment.length
        segment.append(record)
        self.bytes_written += segment.length - before
        return True

    # ------------------------------------------------------------------ on the event loop

    async def begin(self, history: int, first_sequence: int, records: Sequence[Record]) -> bool:
        """Begin a segment with what waits. False: no ensemble could be had, and the phase is `closed` (or `over`, or
        `local` as before)."""
        self.history = history
        return await self._open_segment(first_sequence, records)

    def be_open(self) -> None:
        """Take everything, into the segment that was begun."""
        self._enter(Phase.OPEN, "")

    def be_local(self, reason: str) -> None:
        """Take everything, and keep it here. reason: for people."""
        self.segment = None
        self._enter(Phase.LOCAL, reason)

    def close(self, reason: str) -> None:
        """Take nothing of clients any more."""
        self.segment = None
        self._enter(Phase.CLOSED, reason)

    def end(self, reason: str) -> None:
        """Take nothing any more, for good."""
        self.segment = None
        self._enter(Phase.OVER, reason)

    def avoid(self, numbers: Iterable[int]) -> None:
        """These datanodes failed: others first, for a while."""
        self._avoid.update(dict.fromkeys(numbers, self._clock.monotonic_s() + AVOID_S))

    def avoided(self) -> set[int]:
        """Which failed lately."""
        now_s = self._clock.monotonic_s()
        self._avoid = {number: until_s for number, until_s in self._avoid.items() if until_s > now_s}
        return set(self._avoid)

    def move(self) -> None:
        """Let the next record begin a segment on another ensemble."""
        self._must_move = True

    async def _append_elsewhere(self, record: Record, failure: ReplicaFailed | None = None) -> None:
        """As the first one of a new segment. Unavailable when the record is not on a whole ensemble in time; it may be
        on a part of one."""
        try:
            async with asyncio.timeout(REPLICATE_TIMEOUT_S):
                is_over = failure is not None and self._note(failure)
                if not is_over and await self._open_segment(record.sequence, (record,)):
                    return
        except TimeoutError:
            self.close("no datanodes took the journal of the metadata in time")
        raise Unavailable(self.reason, outcome="unknown")

    async def _open_segment(self, first_sequence: int, records: Sequence[Record]) -> bool:
        self.segment = None
        failed: set[int] = set()
        for _ in range(OPEN_ATTEMPTS_MAX):
            nodes = self._choose(self.avoided())
            if len(nodes) < self._copies or not failed.isdisjoint(node.number for node in nodes):
                break
            self.incarnation += 1
            seal = self._keys.new_segment(
                self.incarnation,
                self.history,
                first_sequence,
                self._clock.now_ms(),
                self._schema_version,
                self._copies,
            )
            segment = OpenSegment(self.owner, seal, self._nodes.replicas(nodes))
            try:
                await segment.create(records)
            except ReplicaFailed as failure:
                failed.update(failure.numbers)
                if self._note(failure):
                    return False
                continue
            name = segment.header.segment_id.hex()
            _log.info("metadata journal: segment %s on nodes %s", name, [node.number for node in nodes])
            self._must_move = False
            self.segment = segment
            self.bytes_written += segment.length
            self.changed.set()
            return True
        if self.phase is not Phase.LOCAL:
            self.close(f"{self._copies} datanodes that take the journal of the metadata cannot be had")
        return False

    def _note(self, failure: ReplicaFailed) -> bool:
        """→ whether this owner is over."""
        if self.phase is Phase.OPEN:
            _log.warning("metadata journal: nodes %s do not take it: %s", list(failure.numbers), failure)
        self.avoid(failure.numbers)
        if failure.fenced:
            self.end("another owner of the metadata took over")
        return failure.fenced

    def _enter(self, phase: Phase, reason: str) -> None:
        if (phase, reason) != (self.phase, self.reason):
            _log.log(
                logging.INFO if phase in (Phase.OPEN, Phase.LOCAL) else logging.WARNING,
                "metadata journal: %s%s",
                phase.value,
                f", {reason}" if reason else "",
            )
            self.changed.set()
        self.phase, self.reason = phase, reason
