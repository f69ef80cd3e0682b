"""How the SQLite metadata is opened: by a worker beside a running owner, or as the owner itself.

An owner holds an exclusive lock on DIR/metadata.lock for as long as it lives (the kernel drops it with the process), so
that two can never write one database.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from storage.base.clock import Clock, SystemClock
from storage.base.errors import Unavailable
from storage.metadata.commands import ExtendLeases
from storage.metadata.journal import Journal
from storage.metadata.sqlite.checkpoint import Checkpointer
from storage.metadata.sqlite.client import MetadataClient
from storage.metadata.sqlite.database import DATABASE_NAME, connect_writer, translate
from storage.metadata.sqlite.moved import require_not_moved
from storage.metadata.sqlite.position import LocalJournal
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.metadata.sqlite.schema import migrate, read_schema_version
from storage.metadata.sqlite.space import RESERVE_BYTES, SpaceReserve
from storage.metadata.sqlite.writer import GroupCommitter, LocalSink

LOCK_NAME = "metadata.lock"
CONNECT_DEADLINE_S = 10.0


async def open_metadata(directory: Path, socket_path: Path, deadline_s: float = CONNECT_DEADLINE_S) -> SqliteMetadata:
    """For workers: commands through the owner's socket, reads straight from the file. Waits for the owner to answer;
    Unavailable past the deadline; FrostbyteError for records that were moved."""
    require_not_moved(directory)
    client = MetadataClient(socket_path)
    await client.connect(deadline_s)
    try:
        return SqliteMetadata(directory / DATABASE_NAME, client)
    except BaseException:
        await client.close()
        raise


async def open_owned_metadata(
    directory: Path, *, clock: Clock | None = None, journal: Journal | None = None
) -> SqliteMetadata:
    """For a command line beside a stopped server, and for tests: be the owner inside this process. Unavailable while
    another process is; FrostbyteError for records that were moved."""
    require_not_moved(directory)
    owner = await MetadataOwner.open(directory, clock=clock, journal=journal)
    try:
        return SqliteMetadata(directory / DATABASE_NAME, LocalSink(owner.committer), owner.close)
    except BaseException:
        await owner.close()
        raise


def migrate_owned_metadata(directory: Path) -> tuple[int, int]:
    """Bring the schema forward. → (version before, version now). Errors as MetadataOwner.open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as resources:
        resources.callback(os.close, _lock(directory / LOCK_NAME))
        try:
            writing = resources.enter_context(closing(connect_writer(directory / DATABASE_NAME)))
            before = read_schema_version(writing)
            return before, migrate(writing)
        except sqlite3.Error as error:
            raise translate(error) from error


class MetadataOwner:
    """The lock, the writer's connection, the committer and the checkpointer of one database. Made by `open`."""

    def __init__(self, resources: ExitStack, writing: sqlite3.Connection, parts: _Parts) -> None:
        self._resources = resources
        self.writing = writing
        checkpointing = resources.enter_context(closing(connect_writer(parts.path)))
        self._checkpointer = Checkpointer(checkpointing, writing)
        self.committer = GroupCommitter(writing, parts.clock, parts.journal, self._checkpointer, parts.space)

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        clock: Clock | None = None,
        journal: Journal | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> MetadataOwner:
        """Lock, migrate, start. Unavailable when another owner lives; FrostbyteError for a newer schema.

        Leases are extended first of all; where the journal takes nothing yet, whoever opens it does that."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = _Parts(
            directory / DATABASE_NAME,
            clock or SystemClock(),
            journal or LocalJournal(),
            SpaceReserve(directory, reserve_bytes),
        )
        with ExitStack() as resources:
            resources.callback(os.close, _lock(directory / LOCK_NAME))
            try:
                writing = resources.enter_context(closing(connect_writer(parts.path)))
                migrate(writing)
                owner = cls(resources, writing, parts)
            except sqlite3.Error as error:
                raise translate(error) from error
            owner._resources = resources.pop_all()
        owner._checkpointer.start()
        owner.committer.start()
        try:
            if not parts.journal.refusal(ExtendLeases()):
                await LocalSink(owner.committer).apply(ExtendLeases())
        except BaseException:
            await owner.close()
            raise
        return owner

    async def close(self) -> None:
        """Answer everything, leave a short log, let go of the lock."""
        await self.committer.close()
        await asyncio.to_thread(self._checkpointer.close)
        self._resources.close()


class _Parts(NamedTuple):
    path: Path
    clock: Clock
    journal: Journal
    space: SpaceReserve


def _lock(path: Path) -> int:
    lock_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock_fd)
        raise Unavailable(f"another process owns the metadata in {path.parent}") from None
    return lock_fd
