"""Metadata engines as the conformance suite sees them: start, connect any number of workers, check, stop."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Protocol

import msgspec

from storage.base.clock import ManualClock
from storage.metadata.commands import Command
from storage.metadata.interface import Metadata
from storage.metadata.journal import AppliedGroup
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import DATABASE_NAME, Execute, read_only_uri
from storage.metadata.sqlite.open import MetadataOwner, open_metadata
from storage.metadata.sqlite.server import MetadataServer


class Engine(Protocol):
    """One running metadata store on a clock that tests move."""

    clock: ManualClock

    async def connect(self) -> Metadata:
        """A worker's own access to it."""
        ...

    async def start(self) -> None: ...

    def client_arguments(self) -> list[str]:
        """The settings that a client process connects with, as JSON (see tests.linear.racer)."""
        ...

    async def check(self) -> list[str]:
        """What is not whole; empty when all is well."""
        ...

    async def stop(self) -> None:
        """All workers' accesses end with it."""
        ...


class RecordingJournal:
    """Keeps every group, for tests to look at."""

    def __init__(self) -> None:
        self.groups: list[AppliedGroup] = []

    def append(self, execute: Execute, group: AppliedGroup) -> bool:
        self.groups.append(group)
        return False

    def refusal(self, command: Command) -> str:
        return ""


class SqliteEngine:
    """The owner and its socket server in this process, workers through the socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket_path = directory / "s"
        self.clock = ManualClock()
        self.journal = RecordingJournal()
        self._workers: list[Metadata] = []
        self._owner: MetadataOwner | None = None
        self._server: MetadataServer | None = None

    async def start(self) -> None:
        self._owner = await MetadataOwner.open(self.directory, clock=self.clock, journal=self.journal)
        self._server = MetadataServer(self._owner.committer)
        await self._server.start(self.socket_path)

    async def connect(self) -> Metadata:
        worker = await open_metadata(self.directory, self.socket_path)
        self._workers.append(worker)
        return worker

    def client_arguments(self) -> list[str]:
        settings = MetadataSettings(path=str(self.directory), socket=str(self.socket_path))
        return [msgspec.json.encode(settings).decode()]

    async def check(self) -> list[str]:
        return check_database(self.directory)

    async def stop(self) -> None:
        for worker in self._workers:
            await worker.close()
        assert self._server is not None
        assert self._owner is not None
        await self._server.close()
        await self._owner.close()


def check_database(directory: Path) -> list[str]:
    """check_integrity over a connection of its own."""
    connection = sqlite3.connect(read_only_uri(directory / DATABASE_NAME), uri=True, isolation_level=None)
    try:
        return check_integrity(connection)
    finally:
        connection.close()
