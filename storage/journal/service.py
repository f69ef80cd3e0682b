"""The journal of one owner process, put together: made before the database is opened, begun before it is served."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from storage.base.clock import Clock
from storage.base.files import DiskFiles
from storage.base.key_files import read_internal_key
from storage.crypto.keyring import Keyring
from storage.crypto.master_key import open_master_keys
from storage.journal.config import OwnerConfig
from storage.journal.custodian import Custodian
from storage.journal.keeper import JournalKeeper
from storage.journal.keys import JournalKeys
from storage.journal.nodes import JournalNodes
from storage.journal.snapshots import SnapshotTaker
from storage.journal.status import StatusFile
from storage.journal.writer import ReplicatedJournal
from storage.metadata.sqlite.database import DATABASE_NAME, connect_reader
from storage.metadata.sqlite.schema import MIGRATIONS
from storage.metadata.sqlite.writer import GroupCommitter
from storage.model import Node


class JournalService:
    """Made on the event loop. `journal` is what the database is opened with; then `begin`, `start` and `close`."""

    def __init__(self, config: OwnerConfig, environment: Mapping[str, str], clock: Clock) -> None:
        """ValueError, UnknownKeyId or Corrupt for keys that are not there or do not fit together."""
        self._settings = config.metadata
        self._clock = clock
        cluster_id = bytes.fromhex(config.cluster_id)
        master_keys = open_master_keys(DiskFiles(), Path(config.master_key_file), environment, make=False)
        keyring = Keyring(DiskFiles(), Path(config.keyring), cluster_id, master_keys, clock)
        keyring.open(make=False)
        self._keys = JournalKeys(keyring, cluster_id)
        self._pool = JournalNodes(read_internal_key(DiskFiles(), Path(config.internal_key_file)), config.tls_ca or None)
        self._keeper: JournalKeeper | None = None
        self._resources = ExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._begun: Custodian | None = None
        self.journal = ReplicatedJournal(
            self._keys, self._pool, self._choose, self._settings.journal_copies, len(MIGRATIONS), clock
        )

    async def begin(self, committer: GroupCommitter, directory: Path) -> None:
        """Once the database is open. A journal that is to be local is so when this returns."""
        database = directory / DATABASE_NAME
        readers = [self._resources.enter_context(closing(connect_reader(database))) for _ in range(2)]
        self._keeper = JournalKeeper(
            self.journal, committer, readers[0], self._keys, self._pool, self._settings, self._clock
        )
        self._begun = Custodian(
            self.journal,
            self._keeper,
            committer,
            readers[1],
            self._keys,
            self._pool,
            SnapshotTaker(database, self._keys, self._clock),
            StatusFile(directory),
            self._settings,
            self._clock,
        )
        await self._keeper.begin()

    def start(self) -> None:
        """Go on beside the commands, until `close`."""
        assert self._keeper is not None
        assert self._begun is not None
        self._tasks = [
            asyncio.create_task(self._keeper.run(), name="journal-keeper"),
            asyncio.create_task(self._begun.run(), name="journal-custodian"),
        ]

    async def close(self) -> None:
        """After the last group."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()
        self._resources.close()

    def _choose(self, avoid: Collection[int]) -> Sequence[Node]:
        return self._keeper.choose(avoid) if self._keeper is not None else ()
