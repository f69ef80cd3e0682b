"""A mark beside a metadata.db whose records were moved to another engine: what is left must not be served any more.

The data directory remembers the engine as well, but a role that runs alone with a file of before the move does not look
there.
"""

from __future__ import annotations

from pathlib import Path

from storage.base.errors import FrostbyteError
from storage.base.files import DiskFiles, store_file

MOVED_NAME = "moved"


def mark_moved(directory: Path, engine: str) -> None:
    """Durable when it returns; engine: which has the records now."""
    store_file(DiskFiles(), directory / MOVED_NAME, engine.encode() + b"\n")


def clear_moved(directory: Path) -> None:
    """The records are here again."""
    (directory / MOVED_NAME).unlink(missing_ok=True)


def require_not_moved(directory: Path) -> None:
    """FrostbyteError, in one line, for what was left behind."""
    if (directory / MOVED_NAME).exists():
        raise FrostbyteError(
            f"the records in {directory} were moved to another engine and are no longer used: this role's file is of"
            " before that, take the one that the last start wrote"
        )
