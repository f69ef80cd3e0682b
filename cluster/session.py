"""The worker's write session: what names its blobs, lets it commit, and tells the sweeper which reads still run.

A session is one incarnation of one worker, not of a request: its id is in every chunk id, so that the sweeper can fence
a dead worker's session first (its commits fail from then on) and delete its unreferenced chunks later. A worker that
was stopped for longer than the lease finds itself fenced, opens a new session and goes on; what it had been writing
under the old one fails with SessionFenced (a client sees 503 and tries again).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from storage.base.background import BackgroundLoop
from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, SessionFenced, Unavailable
from storage.base.ids import SESSION_ID_BYTES, make_blob_id
from storage.metadata.commands import CloseSession, OpenSession, RenewSession
from storage.metadata.interface import Metadata

LEASE_TTL_S = 30.0
RENEWALS_PER_LEASE = 6
CALLS_PER_LEASE = 3
"""a call to the metadata may take a third of a lease; the sweeper keeps half of one as its margin for reads"""

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


class WriteSession:
    """Opened by `start`, renewed every sixth of the lease (5 s), closed by `stop`."""

    def __init__(
        self,
        metadata: Metadata,
        reads: ReadTracker,
        clock: Clock,
        lease_ttl_s: float = LEASE_TTL_S,
    ) -> None:
        self.renew_interval_s = lease_ttl_s / RENEWALS_PER_LEASE
        self._metadata = metadata
        self._reads = reads
        self._clock = clock
        self._lease_ttl_s = lease_ttl_s
        self._call_deadline_s = lease_ttl_s / CALLS_PER_LEASE
        self._session_id: bytes | None = None
        self._counter = 0
        self._renewed_s = 0.0
        self._loop = BackgroundLoop(
            "write-session", self.renew_interval_s, self.renew, backoff_max_s=self.renew_interval_s, clock=clock
        )

    @property
    def is_open(self) -> bool:
        """Whether a commit has a chance: opened, and renewed within the lease."""
        return self._session_id is not None and self.renewed_age_s < self._lease_ttl_s

    @property
    def renewed_age_s(self) -> float:
        """How long ago the metadata last took a command of this session."""
        return self._clock.monotonic_s() - self._renewed_s

    @property
    def session_id(self) -> bytes:
        """Of the open session. Unavailable when there is none, or when its lease has run out."""
        if self._session_id is None or not self.is_open:
            raise Unavailable("this worker has no open write session")
        return self._session_id

    def next_blob_id(self) -> bytes:
        """16 bytes that no other blob has or ever had. Unavailable as `session_id`."""
        session_id = self.session_id
        self._counter += 1
        return make_blob_id(session_id, self._counter)

    async def start(self) -> None:
        """Open the session (Unavailable when the metadata does not answer) and begin to renew it."""
        await self._open()
        self._loop.start()

    async def stop(self) -> None:
        """Close in order: its unreferenced chunks may be swept from now on."""
        await self._loop.stop()
        session_id, self._session_id = self._session_id, None
        if session_id is None:
            return
        try:
            async with asyncio.timeout(self._call_deadline_s):
                await self._metadata.apply(CloseSession(session_id))
        except (FrostbyteError, TimeoutError) as error:
            _log.info("write session %s was not closed (%s); its lease will run out", session_id.hex(), error)

    async def renew(self) -> None:
        """Keep the lease, or open a new session where the old one was fenced. Unavailable."""
        session_id = self._session_id
        if session_id is None:
            await self._open()
            return
        # The lease counts from before the call: the far side cannot have begun it earlier.
        called_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._call_deadline_s):
                await self._metadata.apply(RenewSession(session_id, self._reads.oldest_age_ms()))
        except TimeoutError:
            raise Unavailable("the metadata did not renew the write session in time") from None
        except SessionFenced:
            _log.warning("write session %s was fenced; what it was writing fails", session_id.hex())
            self._session_id = None
            await self._open()
            return
        self._renewed_s = called_s

    async def _open(self) -> None:
        session_id = os.urandom(SESSION_ID_BYTES)
        called_s = self._clock.monotonic_s()
        owner = f"gateway {socket.gethostname()} {os.getpid()}"
        try:
            async with asyncio.timeout(self._call_deadline_s):
                await self._metadata.apply(OpenSession(session_id, owner))
        except TimeoutError:
            raise Unavailable("the metadata did not open a write session in time") from None
        self._session_id, self._counter, self._renewed_s = session_id, 0, called_s
        if self._reads.running:
            # Reads that began under the old session are not covered by a new one until it says so.
            self._loop.wake()
