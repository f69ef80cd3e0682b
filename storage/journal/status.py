"""What the journal is at a moment, in a small file beside the database, for whoever shows it to people.

It tells; nothing relies on it. It is written when the journal's phase or its datanodes change; `updated_ms` moves every
few seconds while the owner lives.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from storage.base.errors import FrostbyteError
from storage.base.files import DiskFiles, fetch_file, store_file

STATUS_NAME = "journal.json"
STATUS_BYTES_MAX = 64 * 1024
REWRITE_AFTER_MS = 10_000
STALE_AFTER_MS = 60_000


class JournalStatus(msgspec.Struct, frozen=True):
    """As of updated_ms."""

    phase: str = ""
    """of storage.journal.writer"""
    reason: str = ""
    """why it is local or takes nothing"""
    copies: int = 0
    nodes: tuple[str, ...] = ()
    """ids of the datanodes that every group is on before it is answered"""
    domains: int = 0
    """how many disks these are on"""
    sequence: int = 0
    behind: int = 0
    """groups that are in the database and wait for the journal to take them"""
    is_covered: bool = False
    """a recovery from the datanodes reaches everything that was put into the journal; not before the first snapshot"""
    snapshot_ms: int = 0
    """when the newest whole snapshot was taken; 0: never"""
    snapshot_error: str = ""
    """of the last attempt; empty when it succeeded"""
    holders: tuple[str, ...] = ()
    """ids of the datanodes that hold what a recovery to now reads"""
    updated_ms: int = 0


class StatusFile:
    """Written by the owner."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STATUS_NAME
        self._written = JournalStatus()

    def write(self, status: JournalStatus) -> None:
        """When it differs, or is some seconds old. OSError."""
        before = msgspec.structs.replace(self._written, updated_ms=status.updated_ms)
        if before == status and status.updated_ms - self._written.updated_ms < REWRITE_AFTER_MS:
            return
        store_file(DiskFiles(), self._path, msgspec.json.encode(status) + b"\n")
        self._written = status


def read_status(directory: Path) -> JournalStatus | None:
    """None where no owner with a journal ever was. FrostbyteError for a file that is damaged."""
    try:
        return msgspec.json.decode(
            fetch_file(DiskFiles(), directory / STATUS_NAME, STATUS_BYTES_MAX), type=JournalStatus
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise FrostbyteError(f"{directory / STATUS_NAME}: {error}") from error
