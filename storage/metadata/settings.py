"""Which engine keeps the records, as a setting. Loads no engine: everything that is configured reads this."""

from __future__ import annotations

import importlib.util

import msgspec

SQLITE = "sqlite"
POSTGRESQL = "postgresql"
CONNECTIONS_MAX_DEFAULT = 16
CONNECTIONS_MAX = 256

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

    def __repr__(self) -> str:
        return f"MetadataSettings(engine={self.engine!r}, path={self.path!r}, socket={self.socket!r})"


def check_metadata_settings(settings: MetadataSettings) -> str:
    """What is wrong with the settings, in one line; empty when nothing is."""
    if settings.engine == SQLITE:
        if not settings.path or not settings.socket or settings.dsn:
            return "the sqlite engine wants a path and a socket, and no dsn"
        return ""
    if settings.engine == POSTGRESQL:
        if not settings.dsn or settings.path or settings.socket:
            return "the postgresql engine wants a dsn, and neither path nor socket"
        if not 1 <= settings.connections_max <= CONNECTIONS_MAX:
            return f"connections_max is between 1 and {CONNECTIONS_MAX}, not {settings.connections_max}"
        return "" if HAS_POSTGRESQL else "the postgresql engine is not installed: pip install 'frostbyte[postgres]'"
    return f"there is no metadata engine {settings.engine!r}: it is {SQLITE} or {POSTGRESQL}"
