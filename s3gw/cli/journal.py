"""The journal of SQLite's records: as its owner tells of it, and in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cluster.registry.config import MasterConfig
from s3gw.cli.formats import count, format_age
from storage.base.errors import FrostbyteError
from storage.journal.status import STALE_AFTER_MS, JournalStatus, read_status
from storage.journal.writer import Phase
from storage.metadata.settings import POSTGRESQL

ALONE = (
    "Records and the smallest objects are in the metadata directory alone, with no copy on the datanodes: keep it on a"
    " disk that you trust."
)
IN_POSTGRESQL = (
    "Records and the smallest objects are in the PostgreSQL database alone, with no copy on the datanodes: its"
    " replication and its backups are what they have."
)


class JournalReport(NamedTuple):
    """notes say how durable the records are, warnings what is wrong."""

    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    takes_writes: bool = True
    """False: commits are refused now"""


def read_journal(config: MasterConfig) -> JournalStatus | None:
    """None for PostgreSQL, for an owner without a journal, on another machine, and where the file cannot be read."""
    if config.metadata.engine == POSTGRESQL or not config.metadata.path:
        return None
    try:
        return read_status(Path(config.metadata.path))
    except FrostbyteError:
        return None


def find_holders(config: MasterConfig) -> tuple[str, ...]:
    """Ids of the datanodes that a recovery of the records needs: they must not be switched off."""
    journal = read_journal(config)
    return journal.holders if journal is not None else ()


def describe_journal(engine: str, journal: JournalStatus | None, now_ms: int) -> JournalReport:
    """What an acknowledged write rests on, as far as it is known here."""
    if engine == POSTGRESQL:
        return JournalReport((IN_POSTGRESQL,))
    if journal is None:
        return JournalReport((ALONE,))
    warnings = []
    if now_ms - journal.updated_ms > STALE_AFTER_MS:
        age = format_age(journal.updated_ms, now_ms)
        warnings.append(f"What is known of the metadata's journal is of {age} ago.")
    if journal.snapshot_error:
        warnings.append(f"The last snapshot of the metadata failed: {journal.snapshot_error}.")
    if journal.phase == Phase.LOCAL:
        return JournalReport((ALONE, f"The metadata's journal is local: {journal.reason}."), tuple(warnings))
    if journal.phase != Phase.OPEN:
        warnings.insert(0, f"The metadata takes no writes, its journal is {journal.phase}: {journal.reason}.")
        return JournalReport((), tuple(warnings), takes_writes=False)
    if journal.domains < 2:
        warnings.append("All copies of the metadata's journal are on one disk.")
    places = f"{count(len(journal.nodes), 'datanode')} on {count(journal.domains, 'disk')}"
    notes = [f"Records and the smallest objects are in a journal on {places} as well, before they are acknowledged."]
    if journal.is_covered:
        taken = format_age(journal.snapshot_ms, now_ms)
        notes.append(f"`frostbyte recover` brings them back from there; the newest snapshot was taken {taken} ago.")
    else:
        notes.append("`frostbyte recover` cannot bring them back yet: there is no snapshot that it can begin with.")
    if journal.behind:
        warnings.append(f"{count(journal.behind, 'group')} of commits are not in the metadata's journal yet.")
    return JournalReport(tuple(notes), tuple(warnings))
