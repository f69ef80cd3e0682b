"""The records: the real SQLite engine's handlers and reads over a database in memory, applied at once inside the loop.

What is applied is durable. A command may come late, its answer may be lost, and those that are safe to repeat are
delivered twice: the caller is told of an unknown outcome as by the real client. Reads of the SQLite engine are direct.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from storage.base.errors import Unavailable
from storage.metadata import commands as c
from storage.metadata.interface import Metadata
from storage.metadata.sqlite.apply import apply_command
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.metadata.sqlite.schema import migrate
from storage.metadata.sqlite.sessions import extend_leases, newest_renewal_ms
from tests.sim.clocks import SimClock
from tests.sim.loop import Process, VirtualLoop
from tests.sim.network import Broken, Network

PARTY = "records"
CALL_DEADLINE_S = 30.0

REPEATABLE = (
    c.RenewSession,
    c.CloseSession,
    c.FenceSessions,
    c.ForgetSessions,
    c.ReleaseBlobs,
    c.CompleteUpload,
    c.SetReplicas,
    c.Relayout,
    c.ForgetBlobs,
)
"""beside commits of new chunks: what a second delivery must not change"""


class Reads(SqliteMetadata):
    """The engine's reads over the one connection, long ones as well."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()

    async def _read_long(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        return self._connection.execute(statement, arguments).fetchall()


class SimRecords:
    """The database, and the process that owns its writes."""

    def __init__(self, loop: VirtualLoop, network: Network, clock: SimClock) -> None:
        self._loop = loop
        self._network = network
        self.clock = clock
        self.connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        migrate(self.connection)
        self.reads = Reads(self.connection)
        self._cursor = self.connection.cursor()
        self._transaction = Transaction(self._cursor)
        self.is_lost = False
        self.before_apply: Callable[[c.Command], Any] = lambda command: None
        self.on_applied: Callable[[c.Command, Any, Any], None] = lambda command, outcome, before: None
        """told of every command that was committed, at that moment, of its outcome, and of what before_apply gave"""
        self.start()

    def start(self) -> None:
        """A new owner over what was committed."""
        self.process = self._network.parties[PARTY] = Process(self._loop, PARTY)
        self._transaction.begin(newest_renewal_ms(self._cursor.execute))
        extend_leases(self._cursor.execute, self.clock.now_ms())

    def close(self) -> None:
        """At the end of the run."""
        self.connection.close()

    async def create(self, command: c.Command) -> None:
        """The first thing that is recorded."""
        self.apply(command)

    async def serve(self, command: c.Command) -> Any:
        """As the owner's server does."""
        return self.apply(command)

    def apply(self, command: c.Command) -> Any:
        """One transaction (of a DeleteBucket as many as it takes)."""
        while True:
            outcome = self._apply_step(command)
            if not isinstance(command, c.DeleteBucket) or outcome:
                return None if isinstance(command, c.DeleteBucket) else outcome

    def _apply_step(self, command: c.Command) -> Any:
        execute = self._cursor.execute
        self._transaction.begin(max(self._transaction.now_ms, self.clock.now_ms()))
        before = self.before_apply(command)
        execute("BEGIN IMMEDIATE")
        try:
            outcome = apply_command(self._transaction, command)
        except BaseException:
            execute("ROLLBACK")
            raise
        execute("COMMIT")
        self.on_applied(command, outcome, before)
        return outcome


class Records(Protocol):
    """What processes reach through their links, and the oracle looks at."""

    process: Process
    clock: SimClock
    is_lost: bool
    before_apply: Callable[[c.Command], Any]
    on_applied: Callable[[c.Command, Any, Any], None]

    @property
    def connection(self) -> sqlite3.Connection: ...

    @property
    def reads(self) -> Reads: ...

    def start(self) -> None: ...

    async def create(self, command: c.Command) -> None: ...

    async def serve(self, command: c.Command) -> Any: ...

    def close(self) -> None: ...


class MetadataLink:
    """The records as one process sees them: the Metadata protocol. Reads go straight to the database."""

    loss_window: tuple[str, ...] = ()
    at_once = None
    """every call goes over the simulated network"""

    def __init__(
        self,
        records: Records,
        network: Network,
        process: Process,
        generator: random.Random,
        note: Callable[[str], None],
    ) -> None:
        self.read_failures = 0.0
        """how likely a read finds the records away, as where they are on another machine"""
        self._records = records
        self._network = network
        self._process = process
        self._random = generator
        self._note = note

    async def apply(self, command: c.Command) -> Any:
        async def serve() -> Any:
            await asyncio.sleep(self._random.expovariate(1 / 0.002))
            return await self._records.serve(command)

        try:
            return await self._network.call(
                self._process, PARTY, describe(command), serve, CALL_DEADLINE_S, may_repeat=_is_repeatable(command)
            )
        except Broken as error:
            if not error.sent:
                raise Unavailable("the metadata owner does not answer") from None
            raise Unavailable("the metadata owner hung up", outcome="unknown") from None
        except TimeoutError:
            raise Unavailable("the metadata owner did not answer in time", outcome="unknown") from None

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Any read of the interface."""
        if name.startswith("_") or not hasattr(Metadata, name):
            raise AttributeError(name)
        return lambda *arguments, **named: self._read(name, arguments, named)

    async def close(self) -> None:
        """There is nothing to close."""

    async def _read(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._network.is_closed:
            raise Unavailable("the end of the run")
        await asyncio.sleep(self._random.expovariate(1 / 0.001))
        if self._records.is_lost:
            raise Unavailable("the records are lost")
        if self.read_failures and self._random.random() < self.read_failures:
            self._note(f"{name} fails")
            raise Unavailable("the records are away")
        return await getattr(self._records.reads, name)(*arguments, **named)


def _is_repeatable(command: c.Command) -> bool:
    if isinstance(command, c.CommitVersion):
        is_new = bool(command.blobs) and all(blob.inline is None for blob in command.blobs)
        return is_new and command.conditions == c.Conditions()  # a refused one may be met seconds later
    if isinstance(command, c.PutPart):
        return command.blob is not None and command.blob.inline is None
    return isinstance(command, REPEATABLE)


def describe(command: c.Command) -> str:
    """For the trace."""
    name = type(command).__name__
    if isinstance(command, c.CommitVersion | c.PutPart | c.CompleteUpload):
        return f"{name} {command.object_key.decode()}"
    if isinstance(command, c.DeleteVersions):
        return f"{name} {' '.join(target.object_key.decode() for target in command.targets)}"
    if isinstance(command, c.SetReplicas):
        return f"{name} {_blob(command.blob_id)}/{command.chunk_index} {command.expected} → {command.nodes}"
    if isinstance(command, c.ForgetBlobs):
        return f"{name} {' '.join(map(_blob, command.blob_ids))}"
    if isinstance(command, c.Relayout):
        return f"{name} {_blob(command.blob_id)} {command.generation} → {command.redundancy}"
    if isinstance(command, c.SetNodeState):
        return f"{name} {command.node_id[:6]} {command.state.value}"
    if isinstance(command, c.RegisterNode):
        return f"{name} {command.report.address} {command.state.value}"
    return name


def _blob(blob_id: bytes) -> str:
    return f"{blob_id[:3].hex()}.{int.from_bytes(blob_id[8:], 'big')}"
