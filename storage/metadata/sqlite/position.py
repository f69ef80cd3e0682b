"""Where the database stands in its journal, as rows that change with the groups that they tell of.

    meta journal_sequence       of the last group that went through a journal; rises by one with each
    meta journal_applied_ms     when that group was applied
    meta journal_history        which journal the sequence counts in; 0: in none, a snapshot must come first
    meta journal_incarnation    of the newest segment that was opened from here, or that was replayed
    meta journal_snapshot_due   1 after a recovery, until a snapshot was taken
    journal_pending             groups that were committed while no datanode could take them, with their records

A group that cannot be put into the journal (a command on a stopped server, what the master records while no datanode
answers) is kept here instead, in its own transaction, and is the first that the next segment gets. When there are too
many of them the database leaves its history: the next one begins with a snapshot.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.metadata.commands import Command
from storage.metadata.journal import AppliedGroup, encode_group
from storage.metadata.sqlite.database import Execute

PENDING_RECORDS_MAX = 4_096
PENDING_BYTES_MAX = 8 << 20

_SELECT = "SELECT name, value FROM meta WHERE name LIKE 'journal~_%' ESCAPE '~'"
_SET = "UPDATE meta SET value = ? WHERE name = ?"
_SELECT_SEQUENCE = "SELECT value FROM meta WHERE name = 'journal_sequence'"
_SELECT_HISTORY = "SELECT value FROM meta WHERE name = 'journal_history'"
_COUNT_PENDING = "SELECT count(*), coalesce(sum(length(record)), 0) FROM journal_pending"
_SELECT_PENDING = "SELECT sequence, record FROM journal_pending ORDER BY sequence"
_KEEP_PENDING = "INSERT INTO journal_pending VALUES (?, ?)"
_CLEAR_PENDING = "DELETE FROM journal_pending"


class Position(NamedTuple):
    """See the module."""

    sequence: int
    applied_at_ms: int
    history: int
    incarnation: int
    snapshot_due: bool


def read_position(execute: Execute) -> Position:
    found = dict(execute(_SELECT).fetchall())
    return Position(
        found["journal_sequence"],
        found["journal_applied_ms"],
        found["journal_history"],
        found["journal_incarnation"],
        bool(found["journal_snapshot_due"]),
    )


def advance(execute: Execute, applied_at_ms: int) -> int:
    """The sequence of the group that this transaction is, which was applied at this time."""
    sequence: int = execute(_SELECT_SEQUENCE).fetchone()[0] + 1
    execute(_SET, (sequence, "journal_sequence"))
    execute(_SET, (applied_at_ms, "journal_applied_ms"))
    return sequence


def set_history(execute: Execute, history: int) -> None:
    execute(_SET, (history, "journal_history"))


def set_incarnation(execute: Execute, incarnation: int) -> None:
    execute(_SET, (incarnation, "journal_incarnation"))


def set_snapshot_due(execute: Execute, is_due: bool) -> None:
    execute(_SET, (int(is_due), "journal_snapshot_due"))


def list_pending(execute: Execute) -> list[tuple[int, bytes]]:
    """(sequence, record), consecutive up to the present sequence."""
    return [(sequence, record) for sequence, record in execute(_SELECT_PENDING).fetchall()]


def count_pending(execute: Execute) -> int:
    count: int = execute(_COUNT_PENDING).fetchone()[0]
    return count


def clear_pending(execute: Execute) -> None:
    execute(_CLEAR_PENDING)


class LocalJournal:
    """Nothing beyond the database's own log; what the journal of datanodes must learn later waits as pending."""

    def append(self, execute: Execute, group: AppliedGroup) -> bool:
        if execute(_SELECT_HISTORY).fetchone()[0]:
            self._keep(execute, group)
        return False

    def refusal(self, command: Command) -> str:
        """Everything is taken."""
        return ""

    @staticmethod
    def _keep(execute: Execute, group: AppliedGroup) -> None:
        record = encode_group(group)
        count, size_bytes = execute(_COUNT_PENDING).fetchone()
        sequence = advance(execute, group.applied_at_ms)
        if count >= PENDING_RECORDS_MAX or size_bytes + len(record) > PENDING_BYTES_MAX:
            set_history(execute, 0)
            clear_pending(execute)
        else:
            execute(_KEEP_PENDING, (sequence, record))
