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

from s3gw.cli.home import lock_home
from storage.metadata.open import open_metadata
from storage.metadata.settings import MetadataSettings
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


def write_config(path: Path, data: Path, **metadata: str) -> Path:
    """Of a start."""
    path.write_text(json.dumps({"data": [str(data)], "metadata": metadata}))
    return path


def test_a_store_moves_to_postgresql_and_back(program: Program, tmp_path: Path, dsn: str) -> None:
    """Everything is there, the directory remembers where, and the one left behind is refused."""
    data = tmp_path / "data"
    lite = write_config(tmp_path / "lite.json", data, engine="sqlite")
    large = write_config(tmp_path / "large.json", data, engine="postgresql", dsn=dsn)
    program.succeed("init", "--config", lite)
    guest = program.load("user", "create", "guest", "--data", data)
    users = program.load("user", "list", "--data", data)
    assert "the same engine" in program.refused("metadata", "copy", "--data", data, "--to", lite)

    copied = program.load("metadata", "copy", "--data", data, "--to", large)
    assert (copied["from"], copied["to"]) == ("sqlite", "postgresql")
    assert (copied["rows"]["users"], copied["rows"]["access_keys"]) == (2, 2)
    assert "are in postgresql, not in sqlite" in program.refused("init", "--config", lite)
    program.succeed("init", "--config", large)
    assert program.load("user", "list", "--data", data) == users
    program.succeed("user", "delete", guest["name"], "--data", data)
    program.succeed("metadata", "check", "--config", large)

    back = ("metadata", "copy", "--config", large, "--to", lite)
    assert "already" in program.refused(*back)
    (data / "metadata" / "metadata.db").rename(tmp_path / "left.db")
    assert "every one compared" in program.succeed(*back)
    program.succeed("init", "--config", lite)
    assert [user["name"] for user in program.load("user", "list", "--data", data)] == ["root"]
    assert "are in sqlite, not in postgresql" in program.refused("init", "--config", large)
    assert "holds a store already" in program.refused("metadata", "copy", "--data", data, "--to", large)


def test_a_store_in_use_is_not_copied(program: Program, tmp_path: Path, dsn: str) -> None:
    """Neither beside a `frostbyte up` nor beside a gateway of another machine."""
    data = tmp_path / "data"
    lite = write_config(tmp_path / "lite.json", data, engine="sqlite")
    large = write_config(tmp_path / "large.json", data, engine="postgresql", dsn=dsn)
    program.succeed("init", "--config", large)
    with lock_home(data):
        assert "another frostbyte runs" in program.refused("metadata", "copy", "--config", large, "--to", lite)

    async def beside() -> str:
        gateway = await open_metadata(MetadataSettings(engine="postgresql", dsn=dsn))
        await gateway.configuration_sequence()
        try:
            return await asyncio.to_thread(program.refused, "metadata", "copy", "--config", large, "--to", lite)
        finally:
            await gateway.close()

    assert "1 connections of running Frostbyte processes" in asyncio.run(beside())
    assert not (data / "metadata" / "metadata.db").exists()


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
