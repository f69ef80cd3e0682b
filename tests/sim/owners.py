"""The records as production keeps them: the process that owns metadata.db, with its journal on the datanodes.

Everything of it runs as it is (the group committer on its thread, by turns; keeper, custodian, snapshots; SQLite on
files), and so does `frostbyte recover` when its host is lost. The way of commands is the network's, not a Unix socket.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from s3gw.cli.recover import RecoverOptions, recover_records
from s3gw.config import ConfigError
from storage.base.errors import FrostbyteError, Unavailable
from storage.crypto.keyring import Keyring
from storage.journal.config import OwnerConfig
from storage.journal.custodian import Custodian
from storage.journal.service import JournalService
from storage.journal.status import JournalStatus
from storage.journal.writer import Phase
from storage.metadata import commands as c
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite.database import DATABASE_NAME, connect_reader
from storage.metadata.sqlite.intake import Submission
from storage.metadata.sqlite.open import MetadataOwner
from storage.metadata.sqlite.writer import GroupCommitter, LocalSink
from tests.cluster.world import FixedMasterKey
from tests.sim.clocks import SimClock
from tests.sim.loop import Process, VirtualLoop, require_process
from tests.sim.metadata import PARTY, Reads
from tests.sim.network import Network
from tests.storage.crash_files import CrashFiles

KEYRING = Path("/keyring")
START_WITHIN_S = 30.0
START_AGAIN_S = 1.0
RECOVER_AGAIN_S = 3.0


class OwnedRecords:
    """The place of the owner's process. Its host may be lost, with everything that was there.

    connection, reads: what is committed; of a lost host what was, until it is recovered."""

    connection: sqlite3.Connection
    reads: Reads

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        clock: SimClock,
        key_files: CrashFiles,
        cluster_id: bytes,
        internal_key: bytes,
        note: Callable[[str], None],
    ) -> None:
        self.clock = clock
        self.key_files = key_files
        self.before_apply: Callable[[c.Command], Any] = lambda command: None
        self.on_applied: Callable[[c.Command, Any, Any], None] = lambda command, outcome, before: None
        self.addresses: Callable[[], list[str]] = list
        """of the datanodes that a recovery asks"""
        self.is_lost = False
        self._loop = loop
        self._network = network
        self._cluster_id = cluster_id
        self._note = note
        self._host = Path(tempfile.mkdtemp(prefix="frostbyte-sim-"))
        self._homes = 0
        self._owner: MetadataOwner | None = None
        """while it serves"""
        self._custodian: Custodian | None = None
        keyring = Keyring(key_files, KEYRING, cluster_id, FixedMasterKey(), clock)
        keyring.open()
        keyring.keep_internal_key(internal_key)
        self._directory = self._new_home() / "metadata"
        self._opened = ExitStack()
        self.process = Process(loop, PARTY, self)
        self.process.kill()

    def start(self) -> None:
        """A new owner; where the host was lost, on another one, that recovers the records first."""
        self.process = self._network.parties[PARTY] = Process(self._loop, PARTY, self)
        self.process.start(self._run(self.process)).add_done_callback(_raise_failure)

    async def create(self, command: c.Command) -> None:
        """The first thing that is recorded."""
        self.start()
        async with asyncio.timeout(START_WITHIN_S):
            while self._owner is None:
                await asyncio.sleep(0.01)
        await self.serve(command)

    async def serve(self, command: c.Command) -> Any:
        """As the server does with what came over its socket."""
        if self._owner is None:
            raise Unavailable("the metadata owner is starting")
        return await LocalSink(self._owner.committer).apply(command)

    def is_covered(self) -> bool:
        """Whether a recovery would bring back everything that was acknowledged."""
        custodian = None if self._owner is None else self._custodian
        if custodian is None:
            return False
        status = custodian.describe(custodian._read_position())
        return status.is_covered and status.phase == Phase.OPEN

    def lose(self) -> None:
        """The host and its disk."""
        self.process.kill()
        self.is_lost = True
        shutil.rmtree(self._directory.parent)

    def close(self) -> None:
        """At the end of the run."""
        self.process.kill()
        self._opened.close()
        shutil.rmtree(self._host)

    # ------------------------------------------------------------------ the process

    async def _run(self, process: Process) -> None:
        while self.is_lost:
            try:
                await self._recover()
            except (FrostbyteError, ConfigError) as error:
                self._note(f"cannot be recovered: {error}")
                await asyncio.sleep(RECOVER_AGAIN_S)
        service = JournalService(self._config(), {}, self.clock)
        owner = await MetadataOwner.open(self._directory, clock=self.clock, journal=service.journal)
        process.on_death[owner] = lambda: self._let_go(owner, service)
        await service.begin(owner.committer, self._directory)
        service.start()
        self._look()
        self._owner, self._custodian = owner, service._begun
        self._note("serves")
        reason = await owner.committer.failed
        self._note(f"ends: {reason}")
        self._loop.later(START_AGAIN_S, lambda: None if self.process is not process else self.start())
        process.kill()

    async def _recover(self) -> None:
        """As `frostbyte recover --node … --keyring …`."""
        home = self._new_home()
        keyring = home / "kept"
        keyring.mkdir()
        for name in self.key_files.list_directory(KEYRING):
            with self.key_files.open(KEYRING / name) as file:
                (keyring / name).write_bytes(file.pread(file.size(), 0))
        options = RecoverOptions(home, [], self.addresses(), keyring, home / "none", None, None, False, False)
        report = await recover_records(options)
        self._directory = home / "metadata"
        self.is_lost = False
        self._note(f"recovered to {report.built.recovered.sequence}, {report.built.recovered.replayed} replayed")

    def _let_go(self, owner: MetadataOwner, service: JournalService) -> None:
        """As the kernel does for a dead process: locks and files."""
        self._owner = None
        service._resources.close()
        owner._resources.close()

    def _look(self) -> None:
        self.connection = self._opened.enter_context(closing(connect_reader(self._directory / DATABASE_NAME)))
        self.reads = Reads(self.connection)

    def _new_home(self) -> Path:
        self._homes += 1
        home = self._host / str(self._homes)
        home.mkdir()
        return home

    def _config(self) -> OwnerConfig:
        settings = MetadataSettings(path=str(self._directory), socket="none")
        return OwnerConfig(self._cluster_id.hex(), str(KEYRING), "none", "none", settings)


def _raise_failure(task: asyncio.Task[None]) -> None:
    """Told by the loop as a defect."""
    if not task.cancelled():
        task.result()


class WatchedCommitter(GroupCommitter):
    """Says what is applied, and what was committed, at that moment."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._place: OwnedRecords = require_process().place
        self._seen: dict[int, Any] = {}

    def _apply_all(self, group: list[Submission]) -> Any:
        self._seen = {id(submission): self._place.before_apply(submission.command) for submission in group}
        return super()._apply_all(group)

    def _answer(self, answered: list[tuple[Submission, Any]]) -> None:
        for submission, outcome in answered:
            if not isinstance(outcome, FrostbyteError):
                self._place.on_applied(submission.command, outcome, self._seen.get(id(submission)))
        super()._answer(answered)


class NoStatusFile:
    """In place of the file that the owner writes its status to every second."""

    def __init__(self, directory: Path) -> None:
        """directory: of the records."""

    def write(self, status: JournalStatus) -> None:
        """Nobody reads it."""


def unsynced(connect: Callable[[Path], sqlite3.Connection]) -> Callable[[Path], sqlite3.Connection]:
    """Connections that do not wait for a medium: hosts of the records are lost whole, or not at all."""

    def connect_unsynced(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    return connect_unsynced
