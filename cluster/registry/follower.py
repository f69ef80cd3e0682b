"""Keeps a process's cluster map current: long polls of the active master, of another when that one fails, the last map
while none answers. Which master is active the others say; one that just failed is not believed in at once, so that a
takeover is waited for where it will happen.

At the start the records stand in for a master that is away, so that reads go on and a gateway can start alone.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from cluster.registry.client import MasterClient
from storage.base.background import EAGER_S, BackgroundLoop, LoopStatus
from storage.base.errors import Unavailable
from storage.model import ClusterMap

POLL_PAUSE_S = 0.02
"""between two polls; bounds what a master that answers at once can cost"""
BACKOFF_MAX_S = 1.0

_log = logging.getLogger(__name__)


class MapFollower:
    """adopt: called with every map that differs from the one before, in order, never twice at once. Maps of one epoch
    differ in figures only (free space, when a node was heard of). When it raises, the same map comes again."""

    def __init__(
        self,
        masters: Sequence[MasterClient],
        fetch_recorded: Callable[[], Awaitable[ClusterMap]],
        adopt: Callable[[ClusterMap], Awaitable[None]],
    ) -> None:
        if not masters:
            raise ValueError("at least one master is needed")
        self._masters = masters
        self._fetch_recorded = fetch_recorded
        self._adopt = adopt
        self._active = 0
        self._silent = -1
        """the master that just failed"""
        self._map: ClusterMap | None = None
        self._refused: ClusterMap | None = None
        self._loop = BackgroundLoop(
            "cluster map", POLL_PAUSE_S, self._poll, backoff_max_s=BACKOFF_MAX_S, eager_s=EAGER_S
        )

    @property
    def cluster_map(self) -> ClusterMap:
        """The newest one known here; one without nodes before the start."""
        return self._map or ClusterMap(0)

    @property
    def status(self) -> LoopStatus:
        """How the polls go."""
        return self._loop.status

    async def start(self) -> None:
        """Have a map, from a master or from the records, and follow from then on. Unavailable when neither answers."""
        try:
            await self._poll()
        except Unavailable as error:
            _log.warning("%s; starting with the recorded cluster map", error)
            await self._take(await self._fetch_recorded())
        self._loop.start()

    async def close(self) -> None:
        """Stop following and close the connections; the last map stays."""
        await self._loop.stop()
        for master in self._masters:
            await master.close()

    async def _poll(self) -> None:
        found, self._refused = self._refused, None
        if found is None:
            try:
                found = await self._masters[self._active].fetch_map()
            except Unavailable as error:
                self._turn(error.details.get("active", ""))
                raise
            self._silent = -1
        await self._take(found)

    def _turn(self, named: str) -> None:
        """Choose whom to ask next. named: the active master, as one that stands by said."""
        addresses = [str(master.address) for master in self._masters]
        if named not in addresses:
            self._silent, self._active = self._active, (self._active + 1) % len(addresses)
        elif addresses.index(named) == self._silent:
            self._silent = -1
        else:
            self._active = addresses.index(named)

    async def _take(self, found: ClusterMap) -> None:
        if found != self._map:
            self._refused = found
            await self._adopt(found)
            self._map, self._refused = found, None
