"""A primary and its synchronous standby, which one DSN names, for tests in which the primary dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import asyncpg
import pytest

from tests.postgres_server import (
    USER,
    PostgresMissingError,
    PostgresServer,
    server_processes,
    shared_databases,
)

_POLL_S = 0.01


class PostgresPair:
    """Every commit on the primary waits until the standby has it on its disk. Made by `running_pair`."""

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self.primary = primary
        self.standby = standby

    @property
    def dsn(self) -> str:
        """Leads to whichever takes writes."""
        hosts = quote(f"{self.primary.directory},{self.standby.directory}", safe="")
        return f"postgresql://{USER}@/postgres?host={hosts}&target_session_attrs=read-write"

    def kill_primary(self) -> None:
        """kill -9 of all its processes, as with its machine."""
        for pid in server_processes(self.primary):
            os.kill(pid, signal.SIGKILL)
        self.primary.end()

    async def make_synchronous(self) -> None:
        """Returns when the standby counts."""
        admin = await asyncpg.connect(self.primary.dsn())
        await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await admin.execute("SELECT pg_reload_conf()")
        while await admin.fetchval("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != 1:
            await asyncio.sleep(_POLL_S)
        await admin.close()


@contextmanager
def running_pair() -> Iterator[PostgresPair]:
    """Both on disks that are synced, so that nothing is said to be lost. Skips without PostgreSQL's programs, or fails
    with CI=true."""
    try:
        primary = PostgresServer(fsync=True)
    except PostgresMissingError:
        assert shared_databases().server  # which skips or fails, and says why
        pytest.skip("needs PostgreSQL servers of its own")
    standby = None
    try:
        standby = PostgresServer(fsync=True, standby_of=primary)
        yield PostgresPair(primary, standby)
    finally:
        if standby is not None:
            standby.stop()
        primary.stop()
