"""The one owner of checkpoints: copies the write-ahead log into the database file, off the way of the commits.

A pass on a thread of its own copies most of the log beside running commits. A log can only start over once it is copied
whole, which under load a pass beside commits never reaches; so when the log has grown past its bound, the writer itself
copies the small rest between two groups, and its next commit starts the log over. Neither ever waits for a reader: a
reader that holds an old snapshot only puts off the start-over to the next attempt, and no read outlasts its page.
"""

from __future__ import annotations

import logging
import sqlite3
import threading

LOG_PAGES_PER_PASS = 4_096
"""a pass begins when about this many pages were written (16 MiB)"""

LOG_PAGES_MAX = 16_384
"""the writer joins in when the log is longer, or when a pass is this far behind (64 MiB)"""

_PAGE_BYTES = 4096
_PAGES_PER_GROUP = 4
_PAGES_PER_COMMAND = 2
"""what a group of small PUTs adds to the log, roughly; it only decides how often a pass looks at the real length"""

_PASSIVE = "PRAGMA wal_checkpoint(PASSIVE)"
_TRUNCATE = "PRAGMA wal_checkpoint(TRUNCATE)"

_log = logging.getLogger(__name__)


class Checkpointer:
    """`beside` and `within`: a connection of its own, and the writer's."""

    def __init__(
        self,
        beside: sqlite3.Connection,
        within: sqlite3.Connection,
        *,
        log_pages_per_pass: int = LOG_PAGES_PER_PASS,
        log_pages_max: int = LOG_PAGES_MAX,
    ) -> None:
        self._beside = beside
        self._within = within
        self._log_pages_per_pass = log_pages_per_pass
        self._log_pages_max = log_pages_max
        self._pages_since_pass = 0
        self._wanted = threading.Event()
        self._lock = threading.Lock()  # two passes at a time would only find each other busy
        self._closing = False
        self._finish_wanted = False
        self._thread = threading.Thread(target=self._run, name="metadata-checkpoint", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def after_group(self, commands: int, size_bytes: int) -> None:
        """On the writer's thread, between two groups."""
        written = _PAGES_PER_GROUP + commands * _PAGES_PER_COMMAND + size_bytes // _PAGE_BYTES
        self._pages_since_pass += written
        if self._pages_since_pass >= self._log_pages_per_pass:
            self._wanted.set()
        if self._finish_wanted or self._pages_since_pass >= self._log_pages_max:
            self._finish_wanted = False
            self._pages_since_pass = 0
            self._pass(self._within)

    def close(self) -> None:
        """After the writer's last group: leave a short log and a whole file."""
        if self._closing:
            return
        self._closing = True
        self._wanted.set()
        self._thread.join()
        try:
            self._within.execute(_TRUNCATE).fetchall()
        except sqlite3.Error as error:  # the log stays, and is as good as the file
            _log.warning("metadata: last checkpoint: %s", error)

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closing:
                return
            self._wanted.clear()
            self._pages_since_pass = 0
            if self._pass(self._beside) >= self._log_pages_max:
                self._pass(self._beside)  # what came meanwhile, so that little is left for the writer
                self._finish_wanted = True

    def _pass(self, connection: sqlite3.Connection) -> int:
        """→ the length of the log in pages."""
        try:
            with self._lock:
                _, log_pages, _ = connection.execute(_PASSIVE).fetchone()
        except sqlite3.Error as error:  # a full or failing disk shows itself to the writer
            _log.warning("metadata: checkpoint: %s", error)
            return 0
        return int(log_pages)
