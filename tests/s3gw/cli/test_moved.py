"""After a copy to the other engine, roles that are started with a file of before it are refused: theirs are no longer
the records."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3gw.cli.home import metadata_directory
from storage.metadata.sqlite.database import DATABASE_NAME
from tests.postgres_server import shared_databases
from tests.s3gw.cli.program import Program

TIMEOUT_S = 60.0


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[Path]:
    """The config.json of a start over an empty database."""
    databases = shared_databases()
    dsn = asyncio.run(databases.take())
    file = tmp_path / "postgresql.json"
    metadata = {"engine": "postgresql", "dsn": dsn, "connections_max": 2}
    file.write_text(json.dumps({"data": [str(tmp_path / "data")], "metadata": metadata}))
    yield file
    asyncio.run(databases.give_back(dsn, is_spoiled=True))


def refuse_role(module: str, *arguments: str | Path) -> str:
    """The one line of a role that does not start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        if module == "s3gw":
            command += ["--fd", str(listener.fileno())]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, pass_fds=(listener.fileno(),)
        )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if " ERROR " in line]
    return line


def keep_role_files(run: Path, kept: Path) -> dict[str, Any]:
    """As they were before the next start wrote them anew. → the gateway's"""
    kept.mkdir()
    for name in ("master.json", "gateway.json"):
        (kept / name).write_bytes((run / name).read_bytes())
    loaded: dict[str, Any] = json.loads((kept / "gateway.json").read_text())
    return loaded


def test_what_a_copy_left_behind_is_served_by_nobody(program: Program, postgresql: Path, tmp_path: Path) -> None:
    """SQLite's by its owner, by a master and by a gateway; PostgreSQL's after the way back. The engine that has the
    records works meanwhile."""
    data = tmp_path / "data"
    sqlite = tmp_path / "sqlite.json"
    sqlite.write_text(json.dumps({"data": [str(data)]}))
    program.succeed("init", "--config", sqlite)
    places = keep_role_files(data / "run", tmp_path / "old-sqlite")["metadata"]
    program.succeed("metadata", "copy", "--data", data, "--to", postgresql)
    program.succeed("init", "--config", postgresql)
    for line in (
        refuse_role("storage.metadata", "--data", places["path"], "--socket", places["socket"]),
        refuse_role("cluster", "--config", tmp_path / "old-sqlite" / "master.json"),
        refuse_role("s3gw", "--config", tmp_path / "old-sqlite" / "gateway.json"),
    ):
        assert "were moved to another engine" in line
    assert [user["name"] for user in program.load("user", "list", "--data", data)] == ["root"]

    keep_role_files(data / "run", tmp_path / "old-postgresql")
    (metadata_directory(data) / DATABASE_NAME).unlink()
    program.succeed("metadata", "copy", "--config", postgresql, "--to", sqlite)
    program.succeed("init", "--config", sqlite)
    for line in (
        refuse_role("cluster", "--config", tmp_path / "old-postgresql" / "master.json"),
        refuse_role("s3gw", "--config", tmp_path / "old-postgresql" / "gateway.json"),
    ):
        assert "were moved to another engine" in line
    assert [user["name"] for user in program.load("user", "list", "--data", data)] == ["root"]
