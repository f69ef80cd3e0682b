"""Whether the medium of a datanode can be written and read now: it is tried every few seconds, beside the requests, and
every heartbeat says what came of it. A process may live for long on a disk that is dead."""

from __future__ import annotations

import asyncio
import logging

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError
from storage.chunks.store import OwnChunkStore
from storage.model import MEDIUM_ERROR_CHARACTERS_MAX

PROBE_INTERVAL_S = 5.0
ANSWER_WAIT_S = 15.0
"""a medium that takes longer is as good as dead; a busy one does not"""

_log = logging.getLogger(__name__)


class MediumWatch:
    """`look` before every report: it never waits, and begins a trial when one is due."""

    def __init__(self, store: OwnChunkStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._probing: asyncio.Task[None] | None = None
        self._began_s = float("-inf")
        self._error = ""

    def look(self) -> str:
        """What is wrong with the medium, as far as is known now; empty when nothing is."""
        now_s = self._clock.monotonic_s()
        if self._probing is not None and self._probing.done():
            self._note(_error_of(self._probing))
            self._probing = None
        if self._probing is None:
            if now_s - self._began_s >= PROBE_INTERVAL_S:
                self._began_s = now_s
                self._probing = asyncio.get_running_loop().create_task(self._store.probe())
        elif now_s - self._began_s >= ANSWER_WAIT_S:
            self._note("the medium does not answer")
        return self._error

    def close(self) -> None:
        """Wait for nothing more."""
        if self._probing is not None:
            self._probing.cancel()

    def _note(self, error: str) -> None:
        if error != self._error:
            _log.log(logging.ERROR if error else logging.WARNING, "%s", error or "the medium works again")
        self._error = error


def _error_of(probing: asyncio.Task[None]) -> str:
    error = None if probing.cancelled() else probing.exception()
    if error is None:
        return ""
    if not isinstance(error, FrostbyteError | OSError):
        raise error
    return (str(error) or type(error).__name__)[:MEDIUM_ERROR_CHARACTERS_MAX]
