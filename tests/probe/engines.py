"""The engines that probes run over: the embedded one, and a PostgreSQL of the test's own in the long runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.metadata.sqlite.check import check_integrity
from tests.postgres_server import PostgresMissingError, PostgresServer, shared_databases
from tests.probe.roles import succeed
from tests.probe.server import Server

SQLITE, POSTGRESQL = "sqlite", "postgresql"
ENGINES = [SQLITE, pytest.param(POSTGRESQL, marks=pytest.mark.long)]
CONNECTIONS_MAX = 8
"""of each process"""


@contextmanager
def running_database() -> Iterator[PostgresServer]:
    """Skips without PostgreSQL's programs, or fails with CI=true."""
    try:
        database = PostgresServer()
    except PostgresMissingError:
        shared_databases()  # which skips or fails, and says why
        pytest.skip("needs a PostgreSQL server of its own")
    try:
        yield database
    finally:
        database.stop()


def database_settings(database: PostgresServer) -> dict[str, Any]:
    """Of config.json."""
    return {"metadata": {"engine": POSTGRESQL, "dsn": database.dsn(), "connections_max": CONNECTIONS_MAX}}


@contextmanager
def running_server(home: Path, engine: str, settings: Mapping[str, Any], datanodes: int = 3) -> Iterator[Server]:
    """With two workers; stopped at the end, before its database is."""
    flags = ("--workers", "2", "--datanodes", str(datanodes))
    if engine == SQLITE:
        with _started(Server(home, settings, *flags)) as running:
            yield running
        return
    with running_database() as database:
        server = Server(home, {**settings, **database_settings(database)}, *flags, database=database)
        with _started(server) as running:
            yield running


@contextmanager
def _started(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def require_whole_metadata(server: Server, told: object) -> None:
    """Whichever engine holds it."""
    if server.database is not None:
        assert "whole" in succeed("metadata", "check", "--data", server.data), told
        return
    with closing(sqlite3.connect(f"file:{server.data}/metadata/metadata.db?mode=ro", uri=True)) as database:
        database.isolation_level = None
        assert check_integrity(database) == [], told
