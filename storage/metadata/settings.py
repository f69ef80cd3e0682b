"""Which engine keeps the records, as a setting. Loads no engine: everything that is configured reads this."""

from __future__ import annotations

import importlib.util

import msgspec

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
CONNECTIONS_MAX_DEFAULT = 16
CONNECTIONS_MAX = 256
JOURNAL_AUTO = "auto"
JOURNAL_LOCAL = "local"
JOURNAL_REPLICATED = "replicated"
JOURNAL_COPIES_DEFAULT = 2
JOURNAL_COPIES_MAX = 8
JOURNAL_RETENTION_S_DEFAULT = 7 * 86_400.0
JOURNAL_RETENTION_S_MAX = 366 * 86_400.0

HAS_POSTGRESQL = importlib.util.find_spec("asyncpg") is not None
"""asyncpg comes with the extra `postgres`"""


class MetadataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`{"path": DIR, "socket": PATH}`, or `{"engine": "postgresql", "dsn": "postgresql://…"}`."""

    engine: str = SQLITE
    path: str = ""
    """of SQLite: the directory of metadata.db"""
    socket: str = ""
    """of SQLite: where its owner listens"""
    dsn: str = ""
    """of PostgreSQL; a password in it is shown to nobody"""
    connections_max: int = CONNECTIONS_MAX_DEFAULT
    """of PostgreSQL: of one process. All gateway workers and masters together stay below the server's
    max_connections"""
    journal: str = JOURNAL_AUTO
    """of SQLite: `replicated` on datanodes, `local`, or whichever makes sense (storage.journal.ensemble)"""
    journal_copies: int = JOURNAL_COPIES_DEFAULT
    """of SQLite: on how many datanodes each record and snapshot is"""
    journal_retention_s: float = JOURNAL_RETENTION_S_DEFAULT
    """of SQLite: how far back `frostbyte recover --at` reaches"""

    def __repr__(self) -> str:
        return f"MetadataSettings(engine={self.engine!r}, path={self.path!r}, socket={self.socket!r})"


def check_metadata_settings(settings: MetadataSettings) -> str:
    """What is wrong with the settings, in one line; empty when nothing is."""
    if settings.engine == SQLITE:
        if not settings.path or not settings.socket or settings.dsn:
            return "the sqlite engine wants a path and a socket, and no dsn"
        return _check_journal(settings)
    if settings.engine == POSTGRESQL:
        if not settings.dsn or settings.path or settings.socket:
            return "the postgresql engine wants a dsn, and neither path nor socket"
        if not 1 <= settings.connections_max <= CONNECTIONS_MAX:
            return f"connections_max is between 1 and {CONNECTIONS_MAX}, not {settings.connections_max}"
        return "" if HAS_POSTGRESQL else "the postgresql engine is not installed: pip install 'frostbyte[postgres]'"
    return f"there is no metadata engine {settings.engine!r}: it is {SQLITE} or {POSTGRESQL}"


def _check_journal(settings: MetadataSettings) -> str:
    if settings.journal not in (JOURNAL_AUTO, JOURNAL_LOCAL, JOURNAL_REPLICATED):
        return f"journal is {JOURNAL_AUTO}, {JOURNAL_LOCAL} or {JOURNAL_REPLICATED}, not {settings.journal!r}"
    if not 1 <= settings.journal_copies <= JOURNAL_COPIES_MAX:
        return f"journal_copies is between 1 and {JOURNAL_COPIES_MAX}, not {settings.journal_copies}"
    if not 0 <= settings.journal_retention_s <= JOURNAL_RETENTION_S_MAX:
        return "journal_retention_s is at most a year, in seconds"
    return ""
