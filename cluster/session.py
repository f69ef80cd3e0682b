"""The worker's write session: what names its blobs, lets it commit, and tells the sweeper which reads still run.

A session is one incarnation of one worker, not of a request: its id is in every chunk id, so that the sweeper can fence
a dead worker's session first (its commits fail from then on) and delete its unreferenced chunks later. A worker that
was stopped for longer than the lease finds itself fenced, opens a new session and goes on; what it had been writing
under the old one fails with SessionFenced (a client sees 503 and tries again).

What a worker's failed writes left and could not take back is an orphan only when its session is over. So a worker that
runs for months begins a new session every day; the old one is kept alive until its last write has ended, then closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from storage.base.background import EAGER_S, BackgroundLoop
from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, SessionFenced, Unavailable
from storage.base.ids import SESSION_ID_BYTES, make_blob_id
from storage.metadata.commands import CloseSession, Command, OpenSession, RenewSession
from storage.metadata.interface import Metadata

LEASE_TTL_S = 30.0
RENEWALS_PER_LEASE = 6
CALLS_PER_LEASE = 3
"""a call to the metadata may take a third of a lease; the sweeper keeps half of one as its margin for reads"""
ROTATE_AFTER_S = 86_400.0
"""the age at which a session is replaced by a new one"""

_log = logging.getLogger(__name__)


class ReadTracker:
    """The running reads of this process. A released blob is swept only when no read is as old as its release."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = count()
        # Insertion order is order of age, so that the oldest read is found without a search.
        self._started_s: dict[int, float] = {}

    @property
    def running(self) -> int:
        """How many reads are open."""
        return len(self._started_s)

    def oldest_age_ms(self) -> int:
        """How long ago the oldest running read began, rounded up; 0 when none runs."""
        for started_s in self._started_s.values():
            return int((self._clock.monotonic_s() - started_s) * 1000) + 1
        return 0

    @contextmanager
    def track(self) -> Iterator[None]:
        """Enter before the metadata read, so that nothing it saw can be swept until the exit."""
        token = next(self._tokens)
        self._started_s[token] = self._clock.monotonic_s()
        try:
            yield
        finally:
            del self._started_s[token]


class Incarnation:
    """One session. `writes` counts those that hold it: while there are any it is not closed."""

    __slots__ = ("counter", "needed_s", "opened_s", "renewed_s", "replaced_s", "session_id", "writes")

    def __init__(self, session_id: bytes, opened_s: float) -> None:
        self.session_id = session_id
        self.opened_s = self.renewed_s = opened_s
        self.replaced_s = self.needed_s = 0.0
        """when another one took its place, and when it was last needed after that"""
        self.counter = 0
        self.writes = 0

    def next_blob_id(self) -> bytes:
        """16 bytes that no other blob has or ever had."""
        self.counter += 1
        return make_blob_id(self.session_id, self.counter)

    def leave(self) -> None:
        """The write that held it is over."""
        self.writes -= 1


class WriteSession:
    """Opened by `start`, renewed every sixth of the lease (5 s), replaced every day, closed by `stop`."""

    def __init__(
        self,
        metadata: Metadata,
        reads: ReadTracker,
        clock: Clock,
        lease_ttl_s: float = LEASE_TTL_S,
        rotate_after_s: float = ROTATE_AFTER_S,
    ) -> None:
        self.renew_interval_s = lease_ttl_s / RENEWALS_PER_LEASE
        self._metadata = metadata
        self._reads = reads
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._rotate_after_s = rotate_after_s
        self._call_deadline_s = lease_ttl_s / CALLS_PER_LEASE
        self._current: Incarnation | None = None
        self._replaced: list[Incarnation] = []
        self._renewing = asyncio.Lock()
        self._loop = BackgroundLoop(
            "write-session",
            self.renew_interval_s,
            self.renew,
            backoff_max_s=self.renew_interval_s,
            clock=clock,
            eager_s=EAGER_S,
        )

    @property
    def is_open(self) -> bool:
        """Whether a commit has a chance: opened, and renewed within the lease."""
        current = self._current
        return current is not None and self._clock.monotonic_s() - current.renewed_s < self._lease_ttl_s

    @property
    def renewed_age_s(self) -> float:
        """How long ago the metadata last took a command of this session."""
        return self._clock.monotonic_s() - (self._current.renewed_s if self._current is not None else 0.0)

    @property
    def session_id(self) -> bytes:
        """Of the open session. Unavailable when there is none, or when its lease has run out."""
        return self._open_one().session_id

    def next_blob_id(self) -> bytes:
        """As Incarnation. Unavailable as `session_id`."""
        return self._open_one().next_blob_id()

    def enter(self) -> Incarnation:
        """The open session, held for one write until its `leave`. Unavailable as `session_id`."""
        current = self._open_one()
        current.writes += 1
        return current

    async def start(self) -> None:
        """Open the session and begin to renew it. Where the metadata takes no writes now there is none until it does:
        reads need none, as nothing that they find can be released meanwhile."""
        try:
            await self._open()
        except Unavailable as error:
            _log.warning("no write session yet: %s", error)
        self._loop.start()

    async def stop(self) -> None:
        """Close in order: its unreferenced chunks may be swept from now on."""
        await self._loop.stop()
        ending = [*self._replaced, *([self._current] if self._current is not None else [])]
        self._current, self._replaced = None, []
        for incarnation in ending:
            session_id = incarnation.session_id
            try:
                await self._apply(CloseSession(session_id))
            except FrostbyteError as error:
                _log.info("write session %s was not closed (%s); its lease will run out", session_id.hex(), error)

    async def renew(self) -> None:
        """Keep the lease, or open a new session where the old one was fenced or is a day old. Unavailable."""
        async with self._renewing:
            current = self._current
            if current is None or not await self._renew(current):
                self._current = None
                await self._open()
                return
            for replaced in list(self._replaced):
                await self._renew_or_close(replaced)
            if self._clock.monotonic_s() - current.opened_s >= self._rotate_after_s:
                await self._open()
                current.replaced_s = current.needed_s = self._clock.monotonic_s()
                self._replaced.append(current)

    def _open_one(self) -> Incarnation:
        current = self._current
        if current is None or not self.is_open:
            raise Unavailable("this worker has no open write session")
        return current

    async def _renew(self, incarnation: Incarnation) -> bool:
        """False when it was fenced."""
        # The lease counts from before the call: the far side cannot have begun it earlier.
        called_s = self._clock.monotonic_s()
        try:
            await self._apply(RenewSession(incarnation.session_id, self._reads.oldest_age_ms()))
        except SessionFenced:
            _log.warning("write session %s was fenced; what it was writing fails", incarnation.session_id.hex())
            return False
        incarnation.renewed_s = called_s
        return True

    async def _renew_or_close(self, replaced: Incarnation) -> None:
        """A replaced session ends a lease after its last write (a commit without blobs holds nothing) and after the
        last read that began before the new one was opened, which does not say of reads that are older than itself."""
        if replaced.writes or self._reads.oldest_age_ms() >= (self._clock.monotonic_s() - replaced.replaced_s) * 1000:
            replaced.needed_s = self._clock.monotonic_s()
        if self._clock.monotonic_s() - replaced.needed_s >= self._lease_ttl_s:
            await self._apply(CloseSession(replaced.session_id))
        elif await self._renew(replaced):
            return
        self._replaced.remove(replaced)

    async def _open(self) -> None:
        session_id = os.urandom(SESSION_ID_BYTES)
        called_s = self._clock.monotonic_s()
        await self._apply(OpenSession(session_id, f"gateway {socket.gethostname()} {os.getpid()}"))
        self._current = Incarnation(session_id, called_s)
        if self._reads.running:
            # Reads that began under the old session are not covered by a new one until it says so.
            self._loop.wake()

    async def _apply(self, command: Command) -> None:
        try:
            async with asyncio.timeout(self._call_deadline_s):
                await self._metadata.apply(command)
        except TimeoutError:
            raise Unavailable("the metadata did not answer for the write session in time") from None
