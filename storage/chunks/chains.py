"""Chains of writes and a sync (storage/base/uring.py) as futures of an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from storage.base.settling import settle
from storage.base.uring import ChainEnd, Uring, Write

CLOSE_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)


class Chains:
    """Of one event loop, on which all of its calls are made; closed once. Takes nothing of the system before `run`."""

    def __init__(self) -> None:
        self._ring: Uring | None = None
        self.is_refused = False
        """by the system: threads it is, for good"""
        self._running: dict[int, asyncio.Future[ChainEnd]] = {}

    def run(self, writes: Sequence[Write], synced_fd: int) -> asyncio.Future[ChainEnd] | None:
        """How a chain ends, as Uring.begin; never an exception. None where there is no ring, or no room: nothing of it
        was begun then, or all of it may be done once more."""
        ring = None if self.is_refused else self._ring or self._open()
        if ring is None:
            return None
        try:
            number = ring.begin(writes, synced_fd)
        except OSError as error:
            _log.warning("chunks are written by threads from now on: io_uring: %s", error.strerror)
            self.is_refused = True
            return None
        if number is None:
            return None
        ended = self._running[number] = asyncio.get_running_loop().create_future()
        return ended

    def _open(self) -> Uring | None:
        try:
            self._ring = Uring()
        except OSError as error:
            _log.info("chunks are written by threads: io_uring: %s", error.strerror)
            self.is_refused = True
            return None
        asyncio.get_running_loop().add_reader(self._ring.ready_fd, self._look, self._ring)
        return self._ring

    def _look(self, ring: Uring) -> None:
        for end in ring.reap():
            ended = self._running.pop(end.chain, None)
            if ended is not None:  # else it was begun by halves, and given up
                settle(ended, end)

    async def close(self) -> None:
        """Wait for what is under way; what hangs is left to the system."""
        self.is_refused = True
        if self._running:
            await asyncio.wait(self._running.values(), timeout=CLOSE_TIMEOUT_S)
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.ready_fd)
            self._ring.close()
            self._ring = None
