"""The group committer: one thread that takes all waiting commands, applies each so that a refusal undoes only its own,
commits once and then answers all of them. One sync of the log pays for the whole group; while it runs, the next group
gathers.

A savepoint costs a small PUT a third of its time, and nearly every refusal comes before the command's first change. So
a group is first applied without savepoints; when a command does fail after a change, the group is rolled back and
applied again, at the same time, with a savepoint for each.

What a crash leaves, step by step:
1. received, not begun: nothing; the caller learns Unavailable with an unknown outcome.
2. applied, not in the journal: nothing; the transaction is not in the log.
3. in the journal, not committed: the next owner finds the group there and applies it, or, where no datanode that has it
   answers, goes on without it.
4. committed (the log is synced), not answered: the commands are there; the caller learns an unknown outcome.
5. answered: the commands are there, and in the journal.
So Unavailable with details outcome=unknown means either; without it, the command was not applied and will not be. What
a reader sees is in the journal already, as the commit comes after it.

A DeleteVersions of many targets and a DeleteBucket with many open uploads are applied in steps, one step a group, so
that the writes beside them wait for a step and not for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, Refused, Unavailable
from storage.base.settling import settle
from storage.metadata.commands import (
    Command,
    CommitVersion,
    CreateUpload,
    DeleteBucket,
    DeleteVersions,
    PutPart,
    Relayout,
)
from storage.metadata.journal import AppliedGroup, Journal
from storage.metadata.sqlite.apply import apply_command
from storage.metadata.sqlite.checkpoint import Checkpointer
from storage.metadata.sqlite.configuration import configuration_sequence
from storage.metadata.sqlite.configuration_page import ConfigurationPage
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.intake import Hold, Intake, Peer, Sink, Submission
from storage.metadata.sqlite.owner_time import OwnerTime
from storage.metadata.sqlite.sessions import newest_renewal_ms
from storage.metadata.sqlite.space import SpaceReserve

QUEUE_COMMANDS_MAX = 4096
QUEUE_BYTES_MAX = 64 << 20
GROUP_COMMANDS_MAX = 256
GROUP_BYTES_MAX = 8 << 20
"""nothing more is taken into a group that has as many: it is one record of the journal"""
DELETE_TARGETS_PER_STEP = 64

LINGER_BELOW = 0.75
LINGER_BELOW_QUICK = 0.5
LINGER_QUICK = 2.0
LINGER_SHARE = 0.5
LINGER_S_MAX = 0.005
"""A group that is smaller than LINGER_BELOW of those who are there (who were answered last, and who was waiting then)
waits for its companions, LINGER_SHARE of the time that the last group took at most: two groups that alternate
cost two syncs, and twice two of a replicated journal, where one does. A lone client never waits, and a load that ends
waits once. Of 16 clients a model of the processes on two processors says, where a sync takes 3 ms: 2,700 PUTs a second,
2,200 without.

Where it is quick, two halves that alternate keep the workers busy while this one commits: then LINGER_BELOW_QUICK of
those who are there are enough. It is quick while what a group waits for (journal, log) takes less than LINGER_QUICK of
the time that applying all of them takes. The model says 6,600 where there were 5,700 with the local journal (5,400 were
measured), and 4,900 where there were 4,000 with that of datanodes; the two are even at a sync of 1.5 ms. (LINGER_QUICK
was 1.5 until applying cost a quarter less.)"""

_GROWING = (CommitVersion, PutPart, CreateUpload, Relayout)
"""refused below the disk's reserve; deletes, completions and the cluster's own records are not"""

_Arrivals = queue.SimpleQueue[Submission | Hold | Intake | None] | Intake

_log = logging.getLogger(__name__)


class _LeftChangesError(Exception):
    """A command failed after its first change, without a savepoint to go back to."""


class _Step(NamedTuple):
    submission: Submission
    command: Command
    outcome: Any


class GroupCommitter:
    """The one writer of a database. Submit and close on the event loop; everything between runs on its thread, the
    reading of its connections as well."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        journal: Journal,
        checkpointer: Checkpointer,
        space: SpaceReserve,
    ) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._transaction = Transaction(self._cursor)
        self._clock = clock
        self._time = OwnerTime(clock, newest_renewal_ms(self._cursor.execute))
        self._journal = journal
        self._checkpointer = checkpointer
        self._space = space
        self._loop = asyncio.get_running_loop()
        self._arrivals: _Arrivals = queue.SimpleQueue()
        """what the writer takes from"""
        self._inlet: _Arrivals = self._arrivals
        """where the event loop puts in"""
        self._holds: list[Hold] = []
        self._continued: deque[Submission] = deque()
        self._commands_waiting = 0
        self._bytes_waiting = 0
        self._closing = False
        self._companions = 0
        """how many came back, or might, when the last group was committed"""
        self._wanted = 0.0
        """how many of them the next group waits for, if it waits"""
        self._patience_s = 0.0
        """how long it does so"""
        self._applied_s = 0.0
        """when the last group was, and what came then was waiting for the journal and the log"""
        self._group_bytes = 0
        self._page: ConfigurationPage | None = None
        self._thread = threading.Thread(target=self._run, name="metadata-writer", daemon=True)
        self.failed: asyncio.Future[str] = self._loop.create_future()
        """resolves when the database can no longer be written; the owner must end then"""

    def start(self) -> None:
        self._thread.start()

    def submit(self, command: Command, sink: Sink, ticket: Any, size_bytes: int = 0) -> None:
        """Queue a command; its answer comes through the sink. Unavailable at once when too much is waiting."""
        if refusal := self._refusal(command):
            raise Unavailable(refusal)
        if self._commands_waiting >= QUEUE_COMMANDS_MAX or self._bytes_waiting + size_bytes > QUEUE_BYTES_MAX:
            raise Unavailable("too many writes are waiting for the metadata")
        self._commands_waiting += 1
        self._bytes_waiting += size_bytes
        self._inlet.put(Submission(command, sink, ticket, size_bytes))

    def listen(self, listening: socket.socket, page: ConfigurationPage) -> None:
        """Once: take commands from the connections of this socket as well, until `close`, and tell the configuration
        sequence on this page."""
        self._page = page
        intake = Intake(listening, self._refusal)
        self._inlet.put(intake)
        self._inlet = intake

    async def close(self) -> None:
        """Apply and answer everything that was submitted, then stop."""
        if not self._closing:
            self._closing = True
            self._inlet.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # the last answers were handed to the loop before the thread ended

    @asynccontextmanager
    async def held(self) -> AsyncIterator[sqlite3.Connection]:
        """Between two groups, the writer's connection outside of a transaction; what is submitted meanwhile waits.
        Unavailable when the committer is stopping."""
        if self._closing or self.failed.done():
            raise Unavailable("the metadata owner is stopping")
        hold = Hold(self._loop, threading.Event())
        self._inlet.put(hold)
        try:
            await hold.reached
            yield self._connection
        finally:
            hold.released.set()

    def give_up(self, reason: str) -> None:
        """Take nothing any more and let the owner end: it is not the owner any more."""
        self._fail(reason)

    def _refusal(self, command: Command) -> str:
        """Why a command is not taken now; empty when it is. On any thread."""
        if self._closing or self.failed.done():
            return "the metadata owner is stopping"
        if isinstance(command, _GROWING) and self._space.is_low():
            return "the metadata disk is below its reserve"
        return self._journal.refusal(command)

    # ------------------------------------------------------------------ on the writer's thread

    def _run(self) -> None:
        open_for_more = True
        while open_for_more or self._continued:
            group, open_for_more = self._gather(open_for_more)
            if group:
                began_s = self._clock.monotonic_s()
                self._commit_group(group)
                self._plan_wait(len(group), self._applied_s - began_s, self._clock.monotonic_s() - self._applied_s)
                self._checkpointer.after_group(len(group), sum(submission.size_bytes for submission in group))
            for hold in self._holds:
                self._loop.call_soon_threadsafe(_settle, hold.reached)
                hold.released.wait()
                self._time.skip_to(newest_renewal_ms(self._cursor.execute))
                self._tell_configuration()
            self._holds.clear()
        if isinstance(self._arrivals, Intake):
            self._arrivals.close()

    def _gather(self, open_for_more: bool) -> tuple[list[Submission], bool]:
        """All that waits, up to the bound, and then one step of the longest waiting command that takes several."""
        group: list[Submission] = []
        self._group_bytes = 0
        if open_for_more and not self._continued:
            open_for_more = self._take(group, self._arrivals.get())
        until_s: float | None = None
        while (
            open_for_more
            and not self._holds
            and len(group) < GROUP_COMMANDS_MAX
            and self._group_bytes < GROUP_BYTES_MAX
        ):
            try:
                open_for_more = self._take(group, self._arrivals.get_nowait())
            except queue.Empty:
                if self._continued or not 0 < len(group) < self._wanted:
                    break
                now_s = self._clock.monotonic_s()
                until_s = now_s + min(LINGER_S_MAX, self._patience_s) if until_s is None else until_s
                try:
                    open_for_more = self._take(group, self._arrivals.get(timeout=max(0.0, until_s - now_s)))
                except queue.Empty:
                    break
        self._companions = len(group)
        if self._continued:
            group.append(self._continued.popleft())
        return group, open_for_more

    def _plan_wait(self, size: int, applying_s: float, waiting_s: float) -> None:
        """For the next group. size, and the times: of the last one."""
        is_quick = waiting_s < LINGER_QUICK * applying_s / size * self._companions
        self._wanted = self._companions * (LINGER_BELOW_QUICK if is_quick else LINGER_BELOW)
        self._patience_s = (applying_s + waiting_s) * LINGER_SHARE

    def _take(self, group: list[Submission], arrival: Submission | Hold | Intake | None) -> bool:
        """→ False for the mark that nothing more will come."""
        if isinstance(arrival, Submission):
            group.append(arrival)
            self._group_bytes += arrival.size_bytes
        elif isinstance(arrival, Hold):
            self._holds.append(arrival)
        elif arrival is not None:
            self._arrivals = arrival
            self._tell_configuration()
        return arrival is not None

    def _commit_group(self, group: list[Submission]) -> None:
        execute = self._cursor.execute
        now_ms = self._time.now_ms()
        self._transaction.begin(now_ms)
        is_elsewhere = False
        self._applied_s = self._clock.monotonic_s()  # for a group that is not even applied
        try:
            execute("BEGIN IMMEDIATE")
            steps = self._apply_all(group)
            self._applied_s = self._clock.monotonic_s()
            entries = tuple((step.command, not isinstance(step.outcome, FrostbyteError)) for step in steps)
            if any(applied for _, applied in entries):
                is_elsewhere = self._journal.append(execute, AppliedGroup(now_ms, entries))
            execute("COMMIT")
            if self._transaction.raises_configuration:
                self._tell_configuration()
        except sqlite3.OperationalError as error:
            self._roll_back(group, error, is_elsewhere=is_elsewhere)
        except Unavailable as refusal:
            self._refuse(group, refusal)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: whatever a journal raises, nobody may wait forever
            self._give_up(group, error)
        else:
            self._companions += self._arrivals.qsize()
            self._answer([done for step in steps if (done := self._advance(step)) is not None])

    def _tell_configuration(self) -> None:
        """After a commit that raised its sequence, or that somebody else made; before anybody is answered."""
        self._transaction.raises_configuration = False
        if self._page is not None:
            self._page.tell(configuration_sequence(self._cursor.execute))

    def _apply_all(self, group: list[Submission]) -> list[_Step]:
        try:
            return [self._apply(submission) for submission in group]
        except _LeftChangesError:
            self._cursor.execute("ROLLBACK")
            self._transaction.writable.clear()
            self._cursor.execute("BEGIN IMMEDIATE")
            return [self._apply_in_savepoint(submission) for submission in group]

    def _apply(self, submission: Submission) -> _Step:
        """One command, or one step of it, that fails before its first change if at all; _LeftChangesError otherwise."""
        command = _next_step(submission)
        changes_before = self._connection.total_changes
        try:
            return _Step(submission, command, apply_command(self._transaction, command))
        except Refused as refusal:
            if self._connection.total_changes != changes_before:
                raise _LeftChangesError from None
            return _Step(submission, command, refusal)
        except sqlite3.OperationalError:
            raise
        except Exception as error:
            raise _LeftChangesError from error

    def _apply_in_savepoint(self, submission: Submission) -> _Step:
        """One command, or one step of it. A failure undoes what this command did and nothing else."""
        execute = self._cursor.execute
        command = _next_step(submission)
        execute("SAVEPOINT command")
        try:
            outcome = apply_command(self._transaction, command)
        except Refused as refusal:
            execute("ROLLBACK TO command")
            self._transaction.writable.clear()
            outcome = refusal
        except sqlite3.OperationalError:
            raise
        except Exception:  # noqa: BLE001 - one command that trips over a bug or absurd numbers must not stop the writer
            _log.exception("metadata command %s failed", type(command).__name__)
            execute("ROLLBACK TO command")
            self._transaction.writable.clear()
            outcome = Unavailable(f"{type(command).__name__} failed inside the metadata")
        execute("RELEASE command")
        return _Step(submission, command, outcome)

    def _advance(self, step: _Step) -> tuple[Submission, Any] | None:
        """The submission's final outcome, or None after it was put back for its next step."""
        submission, command, outcome = step
        if isinstance(outcome, FrostbyteError):
            return submission, outcome
        if isinstance(command, DeleteVersions):
            submission.outcomes += outcome
            submission.position += len(command.targets)
            assert isinstance(submission.command, DeleteVersions)
            if submission.position >= len(submission.command.targets):
                return submission, submission.outcomes
        elif isinstance(command, DeleteBucket):
            if outcome:
                return submission, None
        else:
            return submission, outcome
        self._continued.append(submission)
        return None

    def _roll_back(self, group: list[Submission], error: sqlite3.OperationalError, *, is_elsewhere: bool) -> None:
        """A full disk undoes the group and is survived. After any other failure of the medium it is not known what a
        later sync would make durable, so the owner ends; a new one begins from what the log proves."""
        full = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL
        try:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        except sqlite3.Error:
            full = False
        if not full:
            self._give_up(group, error)
            return
        _log.error("metadata: the disk is full, %d writes were undone", len(group))
        details = {"outcome": "unknown"} if is_elsewhere else {}
        self._answer([(submission, Unavailable("the metadata disk is full", **details)) for submission in group])

    def _refuse(self, group: list[Submission], refusal: Unavailable) -> None:
        """The journal did not take the group, so nothing of it is here, but of a later step what came before it."""
        try:
            self._cursor.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._give_up(group, error)
            return
        unknown = Unavailable(str(refusal), **{**refusal.details, "outcome": "unknown"})
        self._answer([(it, unknown if _was_begun(it) else refusal) for it in group])

    def _give_up(self, group: list[Submission], error: Exception) -> None:
        _log.error("metadata: cannot write any more: %s", error)
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
        unknown = Unavailable(f"the metadata cannot be written: {error}", outcome="unknown")
        self._loop.call_soon_threadsafe(self._fail, str(error))
        self._answer([(submission, unknown) for submission in group])

    def _answer(self, answered: list[tuple[Submission, Any]]) -> None:
        near: dict[Peer, list[tuple[Any, Any]]] = {}
        far: list[tuple[Submission, Any]] = []
        for submission, outcome in answered:
            if isinstance(submission.sink, Peer):
                near.setdefault(submission.sink, []).append((submission.ticket, outcome))
            else:
                far.append((submission, outcome))
        for peer, batch in near.items():
            peer.answer(batch)
        if far:
            self._loop.call_soon_threadsafe(self._deliver, far)

    # ------------------------------------------------------------------ on the event loop

    def _deliver(self, answered: list[tuple[Submission, Any]]) -> None:
        batches: dict[Sink, list[tuple[Any, Any]]] = {}
        for submission, outcome in answered:
            self._commands_waiting -= 1
            self._bytes_waiting -= submission.size_bytes
            batches.setdefault(submission.sink, []).append((submission.ticket, outcome))
        for sink, batch in batches.items():
            sink.answer(batch)

    def _fail(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(reason)


def _was_begun(submission: Submission) -> bool:
    """A command of several steps of which some were applied, and will not be undone."""
    return submission.position > 0 or isinstance(submission.command, DeleteBucket)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _next_step(submission: Submission) -> Command:
    command = submission.command
    if isinstance(command, DeleteVersions) and len(command.targets) > DELETE_TARGETS_PER_STEP:
        start = submission.position
        return msgspec.structs.replace(command, targets=command.targets[start : start + DELETE_TARGETS_PER_STEP])
    return command


class LocalSink:
    """Answers within this process; the ticket is what takes the outcome."""

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer

    async def apply(self, command: Command) -> Any:
        """As Metadata.apply."""
        answer = asyncio.get_running_loop().create_future()
        self._committer.submit(command, self, partial(settle, answer))
        return await answer

    def submit(self, command: Command, on_outcome: Callable[[Any], None]) -> None:
        """As AtOnce.submit."""
        self._committer.submit(command, self, on_outcome)

    def configuration_sequence(self) -> int | None:
        """It is in the database."""
        return None

    async def close(self) -> None:
        """The committer has its own owner."""

    def answer(self, batch: list[tuple[Any, Any]]) -> None:
        for on_outcome, outcome in batch:
            on_outcome(outcome)
