"""Chains of writes and a sync (storage/base/uring.py) whose ends an event loop is told of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from storage.base.settling import settle
from storage.base.uring import ChainEnd, Uring, Write
from storage.chunks.worker_pool import CLOSE_TIMEOUT_S

OnEnd = Callable[[ChainEnd], None]
"""is told how a chain ended, later and once; must not raise"""

_log = logging.getLogger(__name__)


class Chains:
    """Of one event loop, on which all of its calls are made; closed once. Takes nothing of the system before `run`."""

    def __init__(self) -> None:
        self._ring: Uring | None = None
        self.is_refused = False
        """by the system: threads it is, for good"""
        self.is_broken = False
        """of the last chain nobody knows what became, or will: its memory and its files are the kernel's"""
        self._running: dict[int, OnEnd] = {}
        self._idle: asyncio.Future[None] | None = None
        """settled when nothing is under way any more, for `close`"""

    def run(self, writes: Sequence[Write], synced_fd: int, on_end: OnEnd) -> bool:
        """As Uring.begin. False where there is no ring, or no room, and nothing of it was begun; or where the ring
        broke. In either case all of it may be done once more."""
        ring = None if self.is_refused else self._ring or self._open()
        if ring is None:
            return False
        try:
            number = ring.begin(writes, synced_fd)
        except OSError as error:
            _log.warning("chunks are written by threads from now on: io_uring: %s", error.strerror)
            self.is_refused = self.is_broken = True
            return False
        if number is None:
            return False
        self._running[number] = on_end
        return True

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
            on_end = self._running.pop(end.chain, None)
            if on_end is not None:  # else it was begun by halves, and given up
                on_end(end)
        if self._idle is not None and not self._running:
            settle(self._idle, None)

    async def close(self) -> None:
        """Wait for what is under way; what hangs is left to the system."""
        self.is_refused = True
        loop = asyncio.get_running_loop()
        if self._running:
            self._idle = loop.create_future()
            await asyncio.wait((self._idle,), timeout=CLOSE_TIMEOUT_S)
        if self._ring is not None:
            loop.remove_reader(self._ring.ready_fd)
            self._ring.close()
            self._ring = None
