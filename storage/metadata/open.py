"""Which engine keeps the records, as a setting, and how a process opens it: the one place that knows all engines."""

from __future__ import annotations

from pathlib import Path

import msgspec

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError
from storage.metadata.interface import Metadata
from storage.metadata.sqlite.open import CONNECT_DEADLINE_S
from storage.metadata.sqlite.open import open_metadata as open_sqlite_metadata

try:
    from storage.metadata.postgresql.open import open_postgres_metadata
except ModuleNotFoundError as missing:  # asyncpg comes with the extra `postgres`
    if missing.name != "asyncpg":
        raise
    HAS_POSTGRESQL = False
else:
    HAS_POSTGRESQL = True

SQLITE = "sqlite"
POSTGRESQL = "postgresql"


class MetadataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`{"path": DIR, "socket": PATH}`, or `{"engine": "postgresql", "dsn": "postgresql://…"}`."""

    engine: str = SQLITE
    path: str = ""
    """of SQLite: the directory of metadata.db"""
    socket: str = ""
    """of SQLite: where its owner listens"""
    dsn: str = ""
    """of PostgreSQL; a password in it is shown to nobody"""

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
        return "" if HAS_POSTGRESQL else "the postgresql engine is not installed: pip install 'frostbyte[postgres]'"
    return f"there is no metadata engine {settings.engine!r}: it is {SQLITE} or {POSTGRESQL}"


async def open_metadata(
    settings: MetadataSettings, *, deadline_s: float = CONNECT_DEADLINE_S, clock: Clock | None = None
) -> Metadata:
    """For a process that is not the owner of an SQLite file. Unavailable; FrostbyteError for settings that cannot work.

    deadline_s: how long to wait for the owner of an SQLite file. clock: in place of the database's own, for tests.
    """
    problem = check_metadata_settings(settings)
    if problem:
        raise FrostbyteError(f"metadata: {problem}")
    if settings.engine == POSTGRESQL:
        return await open_postgres_metadata(settings.dsn, clock=clock)
    return await open_sqlite_metadata(Path(settings.path), Path(settings.socket), deadline_s)
