"""How a process opens the metadata, whichever engine keeps it: the one place that knows all engines.

The PostgreSQL engine is loaded when it is asked for: its library is an extra, and costs every other process 60 ms.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import cast

from storage.base.clock import Clock
from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.interface import Metadata
from storage.metadata.settings import POSTGRESQL, MetadataSettings, check_metadata_settings
from storage.metadata.sqlite.open import CONNECT_DEADLINE_S
from storage.metadata.sqlite.open import open_metadata as open_sqlite_metadata

RETRY_PAUSE_S = 0.25


async def open_metadata(
    settings: MetadataSettings, *, deadline_s: float = CONNECT_DEADLINE_S, clock: Clock | None = None
) -> Metadata:
    """For a process that is not the owner of an SQLite file. Unavailable; FrostbyteError for settings that cannot work.

    deadline_s: how long to wait for the owner of an SQLite file or for the database. clock: in place of the database's
    own, for tests.
    """
    problem = check_metadata_settings(settings)
    if problem:
        raise FrostbyteError(f"metadata: {problem}")
    if settings.engine == POSTGRESQL:
        return await _open_postgresql(settings, deadline_s, clock)
    return await open_sqlite_metadata(Path(settings.path), Path(settings.socket), deadline_s)


async def _open_postgresql(settings: MetadataSettings, deadline_s: float, clock: Clock | None) -> Metadata:
    """A database that is just being started or failed over is waited for, as an SQLite owner is."""
    engine = importlib.import_module("storage.metadata.postgresql.open")
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    while True:
        try:
            opened = await engine.open_postgres_metadata(
                settings.dsn, clock=clock, connections_max=settings.connections_max
            )
            return cast("Metadata", opened)
        except Unavailable:
            if loop.time() + RETRY_PAUSE_S > end_s:
                raise
        await asyncio.sleep(RETRY_PAUSE_S)
