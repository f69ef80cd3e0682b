"""`frostbyte metadata migrate|check` for both engines, and the owner's process under its old name."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from tests.postgres_server import shared_databases
from tests.s3gw.cli.program import Program


@pytest.fixture
def dsn() -> Iterator[str]:
    """Of an empty database."""
    databases = shared_databases()
    taken = asyncio.run(databases.take())
    yield taken
    asyncio.run(databases.give_back(taken))


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """config.json over either engine."""
    metadata: dict[str, str] = {"engine": request.param}
    if request.param == "postgresql":
        metadata["dsn"] = request.getfixturevalue("dsn")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": [str(tmp_path / "data")], "metadata": metadata}))
    return file


async def execute(dsn: str, statement: str) -> None:
    """As somebody who must not."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


def damage(config: Path) -> None:
    """An access key without a user, in either engine."""
    settings = json.loads(config.read_text())
    if settings["metadata"]["engine"] == "postgresql":
        asyncio.run(execute(settings["metadata"]["dsn"], "DELETE FROM frostbyte.users"))
        return
    with closing(sqlite3.connect(Path(settings["data"][0]) / "metadata" / "metadata.db")) as database:
        database.execute("DELETE FROM users")
        database.commit()


def test_records_are_checked(program: Program, config: Path) -> None:
    """Whole, or the rule that does not hold and exit status 1."""
    program.succeed("init", "--config", config)
    engine = json.loads(config.read_text())["metadata"]["engine"]
    assert program.succeed("metadata", "check", "--config", config) == f"{engine}: the records are whole\n"
    damage(config)
    status, said, _ = program.run("metadata", "check", "--config", config)
    assert status == 1
    assert "an access key without a user" in said
    status, said, _ = program.run("metadata", "check", "--config", config, "--json")
    assert status == 1
    assert len(json.loads(said)["problems"]) == 1


def test_records_are_migrated(program: Program, config: Path) -> None:
    """To the version that this program knows; twice is once. A newer one is refused in one line."""
    program.succeed("init", "--config", config)
    engine = json.loads(config.read_text())["metadata"]["engine"]
    told = program.load("metadata", "migrate", "--config", config)
    assert told["engine"] == engine
    assert told["before"] == told["now"] >= 1
    assert "nothing to do" in program.succeed("metadata", "migrate", "--config", config)
    newer = "UPDATE {}meta SET value = 999 WHERE name = 'schema_version'"
    settings = json.loads(config.read_text())
    if engine == "postgresql":
        asyncio.run(execute(settings["metadata"]["dsn"], newer.format("frostbyte.")))
    else:
        with closing(sqlite3.connect(Path(settings["data"][0]) / "metadata" / "metadata.db")) as database:
            database.execute(newer.format(""))
            database.commit()
    for command in ("migrate", "check"):
        assert "start the newer Frostbyte again" in program.refused("metadata", command, "--config", config)
    if engine == "postgresql":
        asyncio.run(execute(settings["metadata"]["dsn"], newer.replace("999", str(told["now"])).format("frostbyte.")))


def test_a_damaged_file_is_told(program: Program, tmp_path: Path) -> None:
    """Whatever SQLite says of it, in one line."""
    program.succeed("init", "--data", tmp_path / "data")
    file = tmp_path / "data" / "metadata" / "metadata.db"
    file.write_bytes(b"this is no database" * 1000)
    status, said, errors = program.run("metadata", "check", "--data", tmp_path / "data")
    assert status == 1
    assert "not a database" in said + errors


def test_what_is_not_there_cannot_be_checked(program: Program, tmp_path: Path) -> None:
    """No directory, or none of ours."""
    assert "no data directory" in program.refused("metadata", "check")
    assert "holds no frostbyte data" in program.refused("metadata", "check", "--data", tmp_path)


@pytest.mark.parametrize(
    "arguments", [(), ("--data", "d"), ("--socket", "s"), ("--data", "d", "check"), ("--socket", "s", "migrate")]
)
def test_the_owner_wants_both_places(program: Program, arguments: tuple[str, ...]) -> None:
    """And a command has its own options."""
    status, _, errors = program.run("metadata", *arguments)
    assert status == 2
    assert "Usage" in errors
