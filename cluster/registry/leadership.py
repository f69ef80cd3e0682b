"""Whether this master is the active one: a lease in the records, renewed well before it runs out.

Every master asks for the lease again and again, six times in its length. Who has it loads the registry and runs the
jobs; the others stand by and tell callers whose it is. The records' clock decides whose it is, this process's steady
clock how long it may rely on that: nine tenths of the lease, counted from before it asked. Then it stands by, whether
or not anybody answers, and its jobs have stopped before another master can begin.

A process that was stopped (SIGSTOP, a machine that hangs) may send one thing more when it wakes up, before it has
looked at the clock. Its writes to the registry carry its term and are refused once another master took over; and the
jobs do only what stays right at any later time: what is released, orphaned or silent stays so.

What is killed or cut when:
1. the active master dies: the lease runs out, the next to ask gets it (3.5 s at the latest, by the defaults).
2. it stops in order: it releases the lease, the next to ask gets it (0.5 s).
3. it is started again at its address: it takes its own lease over at once.
4. the records do not answer: nobody is active. A master that is the only one goes on answering from memory, without
   jobs and without recording anything, since nobody else can have taken over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from storage.base.background import BackgroundLoop, LoopStatus
from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, NotActiveMaster, Unavailable
from storage.metadata.commands import AcquireMasterLease, MasterLease, ReleaseMasterLease
from storage.metadata.interface import Metadata

LEASE_TTL_S = 3.0
RENEWALS_PER_LEASE = 6
CALLS_PER_LEASE = 3
"""how many calls fit into a lease when each takes as long as it may"""
RELIED_ON_SHARE = 0.9
"""of the lease: the rest is for clocks that do not run at one speed"""
MASTER_ID_BYTES = 8

_log = logging.getLogger(__name__)


class Leadership:
    """One master's. on_active: called with the term, before anything is answered under it; when it fails it is called
    again. on_standby: ends what only the active master may do."""

    def __init__(
        self,
        metadata: Metadata,
        clock: Clock,
        on_active: Callable[[int], Awaitable[None]],
        on_standby: Callable[[], Awaitable[None]],
        *,
        ttl_s: float = LEASE_TTL_S,
        is_alone: bool = True,
    ) -> None:
        self.master_id = os.urandom(MASTER_ID_BYTES).hex()
        self._metadata = metadata
        self._clock = clock
        self._on_active = on_active
        self._on_standby = on_standby
        self._ttl_s = ttl_s
        self._is_alone = is_alone
        self._address = ""
        self._is_new = True
        """until the first answer: only a start can succeed an earlier incarnation at its address"""
        self._leads = False
        self._loaded_term = 0
        self._until_s = 0.0
        self._lease: MasterLease | None = None
        self._alarm: asyncio.TimerHandle | None = None
        interval_s = ttl_s / RENEWALS_PER_LEASE
        self._loop = BackgroundLoop("master lease", interval_s, self.renew, backoff_max_s=interval_s, clock=clock)

    @property
    def is_active(self) -> bool:
        """Whether nobody else can be the active master now."""
        return self._leads and self._clock.monotonic_s() < self._until_s

    @property
    def answers(self) -> bool:
        """Whether the registry here is what callers want: of the active master, or of one that has no successor."""
        if self.is_active:
            return True
        lease = self._lease
        return self._is_alone and lease is not None and self._is_mine(lease) and lease.term == self._loaded_term

    @property
    def lease(self) -> MasterLease | None:
        """As the records said last, whoever holds it."""
        return self._lease

    @property
    def status(self) -> LoopStatus:
        """How asking for the lease goes."""
        return self._loop.status

    def require(self) -> None:
        """NotActiveMaster unless requests are to be answered here; details say where, if that is known."""
        if self.answers:
            return
        if self._lease is None or self._is_mine(self._lease):
            raise NotActiveMaster("this master is not the active one now, and knows of no other")
        raise NotActiveMaster(f"the active master is {self._lease.address}", active=self._lease.address)

    async def start(self, address: str) -> None:
        """address: where this master serves already. Asks once, and then by itself."""
        self._address = address
        try:
            await self.renew()
        except FrostbyteError as error:
            _log.warning("the lease of the active master cannot be asked for: %s", error)
        self._loop.start()

    def doubt(self) -> None:
        """Something says that another master took over: ask now."""
        self._loop.wake()

    async def stop(self) -> None:
        """Stand by and let another take over at once."""
        await self._loop.stop()
        if self._alarm is not None:
            self._alarm.cancel()
        led = self._leads
        await self._stand_by("stopping")
        if led:
            try:
                async with asyncio.timeout(self._ttl_s / CALLS_PER_LEASE):
                    await self._metadata.apply(ReleaseMasterLease(self.master_id))
            except (FrostbyteError, TimeoutError) as error:
                _log.info("the lease was not released (%s); it will run out", error)

    async def renew(self) -> None:
        """Ask once. Unavailable."""
        await self._stand_by_if_late()
        asked_s = self._clock.monotonic_s()
        try:
            lease = await self._acquire(asked_s)
        except FrostbyteError:
            await self._stand_by_if_late()
            raise
        self._is_new, before, self._lease = False, self._lease, lease
        if not self._is_mine(lease):
            if before is None or before.term != lease.term:
                _log.info("the active master is %s, term %d", lease.address, lease.term)
            await self._stand_by("another one took over")
            return
        self._rely_until(asked_s + RELIED_ON_SHARE * self._ttl_s)
        await self._stand_by_if_late()
        if not self._leads and self._clock.monotonic_s() < self._until_s:
            await self._lead(lease.term)

    async def _acquire(self, asked_s: float) -> MasterLease:
        """While active no call outlasts what is left of the lease."""
        call_s = self._ttl_s / CALLS_PER_LEASE
        if self._leads:
            call_s = min(call_s, max(self._until_s - asked_s, 0.0))
        command = AcquireMasterLease(self.master_id, self._address, round(self._ttl_s * 1000), self._is_new)
        try:
            async with asyncio.timeout(call_s):
                lease: MasterLease = await self._metadata.apply(command)
        except TimeoutError:
            raise Unavailable("the metadata did not answer for the master's lease in time") from None
        return lease

    async def _lead(self, term: int) -> None:
        try:
            async with asyncio.timeout(self._ttl_s / CALLS_PER_LEASE):
                await self._on_active(term)
        except TimeoutError:
            raise Unavailable("the metadata did not answer in time for what it has on the cluster") from None
        self._leads, self._loaded_term = True, term
        _log.info("this master is active, term %d", term)

    async def _stand_by_if_late(self) -> None:
        if self._leads and self._clock.monotonic_s() >= self._until_s:
            await self._stand_by("the lease was not renewed in time")

    async def _stand_by(self, reason: str) -> None:
        self._until_s = 0.0
        if self._leads:
            self._leads = False
            _log.warning("this master stands by: %s", reason)
            await self._on_standby()

    def _rely_until(self, until_s: float) -> None:
        """The loop is woken when it is over: a pause must not outlast it."""
        self._until_s = until_s
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(
            max(until_s - self._clock.monotonic_s(), 0.0), self._loop.wake
        )

    def _is_mine(self, lease: MasterLease) -> bool:
        return lease.master_id == self.master_id
