"""The hook for a journal: every group of commands that was committed, before any of them is answered.

A command decides its outcome from itself, the rows and the time that it is applied at, so the groups in order replay to
the same rows. A journal that replicates makes the metadata as durable as the chunks; the local one keeps nothing, as
the write-ahead log of the database is all there is to replay on one disk.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from storage.metadata.commands import Command


class AppliedGroup(NamedTuple):
    """One durable transaction. entries: each command in order, and whether it was applied (False: refused, no trace).

    A large DeleteVersions appears as several, each with the targets that its transaction took.
    """

    applied_at_ms: int
    entries: tuple[tuple[Command, bool], ...]


class Journal(Protocol):
    """Called on the writer's thread, one group at a time, in commit order."""

    def append(self, group: AppliedGroup) -> None:
        """Make the group durable elsewhere, then return. What it raises turns the group's answers into Unavailable with
        an unknown outcome: the rows are committed here, and the caller must not assume either way."""
        ...


class LocalJournal:
    """Nothing beyond the database's own log."""

    def append(self, group: AppliedGroup) -> None:
        pass
