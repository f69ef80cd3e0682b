"""An owner of the records whose groups a test can hold, refuse and fail."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

from storage.base.clock import ManualClock
from storage.base.errors import Unavailable
from storage.metadata.commands import (
    Command,
    OpenSession,
)
from storage.metadata.journal import AppliedGroup
from storage.metadata.sqlite.database import DATABASE_NAME, Execute
from storage.metadata.sqlite.open import MetadataOwner
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.metadata.sqlite.writer import LocalSink


class GatedJournal:
    """Holds the writer before a commit until the gate is open, so that a test decides what waits together."""

    def __init__(self) -> None:
        self.groups: list[AppliedGroup] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.failure: Exception | None = None
        self.is_elsewhere = False
        self.refuse_after: int | None = None
        """from this number of groups on"""
        self.reason = ""

    def append(self, execute: Execute, group: AppliedGroup) -> bool:
        self.groups.append(group)
        self.reached.set()
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if self.refuse_after is not None and len(self.groups) > self.refuse_after:
            raise Unavailable("no datanode takes it")
        return self.is_elsewhere

    def refusal(self, command: Command) -> str:
        return self.reason


class FullAtCommit:
    """A cursor of a disk that is full when the log is to be written."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    def execute(self, statement: str) -> sqlite3.Cursor:
        if statement == "COMMIT":
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise full
        return self._cursor.execute(statement)


class Owned:
    """An owner in this process with a gated journal."""

    def __init__(self, directory: Path, owner: MetadataOwner, journal: GatedJournal, clock: ManualClock) -> None:
        self.directory = directory
        self.owner = owner
        self.journal = journal
        self.clock = clock
        self.metadata = SqliteMetadata(directory / DATABASE_NAME, LocalSink(owner.committer))

    async def hold(self) -> asyncio.Task[None]:
        """Occupy the writer with one command; what is applied from now on waits for `release` as one group."""
        self.journal.reached.clear()
        self.journal.gate.clear()
        holder = asyncio.create_task(self.metadata.apply(OpenSession(len(self.journal.groups).to_bytes(8), "holder")))
        await asyncio.to_thread(self.journal.reached.wait)
        return holder

    def release(self) -> None:
        self.journal.gate.set()
