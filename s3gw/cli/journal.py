"""The journal of SQLite's records as its owner tells of it, for commands on the owner's machine."""

from __future__ import annotations

from pathlib import Path

from cluster.registry.config import MasterConfig
from storage.base.errors import FrostbyteError
from storage.journal.status import JournalStatus, read_status
from storage.metadata.settings import SQLITE


def read_journal(config: MasterConfig) -> JournalStatus | None:
    """None for PostgreSQL, for an owner without a journal, on another machine, and where the file cannot be read."""
    if config.metadata.engine != SQLITE or not config.metadata.path:
        return None
    try:
        return read_status(Path(config.metadata.path))
    except FrostbyteError:
        return None


def find_holders(config: MasterConfig) -> tuple[str, ...]:
    """Ids of the datanodes that a recovery of the records needs: they must not be switched off."""
    journal = read_journal(config)
    return journal.holders if journal is not None else ()
