"""The command line over a real PostgreSQL: what is made, what is refused, and that the dsn is nobody's business."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from s3gw.cli.home import prepare_home, read_engine
from s3gw.cli.offline import put_root_user
from s3gw.cli.roles import plan_stages
from s3gw.cli.up import describe_metadata, describe_start
from s3gw.config import Config, ConfigError, load_config
from tests.postgres_server import shared_databases
from tests.s3gw.cli.program import Program


@pytest.fixture
def dsn() -> Iterator[str]:
    """Of an empty database, with something in it that must not be shown."""
    databases = shared_databases()
    taken = asyncio.run(databases.take())
    yield f"{taken}{'&' if '?' in taken else '?'}application_name=hunter2"
    asyncio.run(databases.give_back(taken))


@pytest.fixture
def config(tmp_path: Path, dsn: str) -> Path:
    """config.json of a `frostbyte up`."""
    file = tmp_path / "config.json"
    metadata = {"engine": "postgresql", "dsn": dsn, "connections_max": 2}
    file.write_text(json.dumps({"data": [str(tmp_path / "data")], "metadata": metadata}))
    return file


async def forget_users(dsn: str) -> None:
    """What makes records a cluster's."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("DELETE FROM frostbyte.users; DELETE FROM frostbyte.access_keys")
    await connection.close()


async def nothing() -> None:
    """Ready at once."""


def test_no_metadata_process_and_no_dsn_where_it_does_not_belong(config: Path, tmp_path: Path) -> None:
    """In private files of the roles that need it, and nowhere else: no argument, no line, no repr."""
    settings = load_config(config, {}, {})
    assert "hunter2" not in repr(settings)
    home = prepare_home(settings, {})
    with home.lock:
        loss_window = put_root_user(home)
        stages = plan_stages(home, 3, nothing)
    children = [child for stage in stages for child in stage.children]
    names = [[child.name for child in stage.children] for stage in stages[:2]]
    assert names == [["datanode-1", "datanode-2", "datanode-3"], ["master"]]
    assert "hunter2" not in str([(child.argv, child.variables) for child in children])
    with_dsn = {
        path.name for path in (tmp_path / "data").rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()
    }
    assert with_dsn == {"master.json", "gateway.json"}
    assert all((home.run / name).stat().st_mode & 0o077 == 0 for name in with_dsn)
    assert json.loads((home.run / "gateway.json").read_text())["metadata"]["connections_max"] == 2
    assert not (tmp_path / "data" / "metadata").exists()
    said = [*describe_start(home, {}), *describe_metadata(home, loss_window)]
    assert "  metadata in postgresql" in said
    assert any("no synchronous standby" in line for line in said)
    assert "hunter2" not in str(said)


def test_commands_work_beside_a_stopped_server(program: Program, config: Path, tmp_path: Path) -> None:
    """By the configuration, or by the data directory alone: the last start was told where the records are."""
    said = program.succeed("init", "--config", config)
    assert "metadata in postgresql" in said
    data = tmp_path / "data"
    guest = program.load("user", "create", "guest", "--config", config)
    for option in (("--config", config), ("--data", data)):
        assert {user["name"] for user in program.load("user", "list", *option)} == {"root", "guest"}
        assert program.load("bucket", "list", *option) == []
    program.succeed("key", "create", "payroll", "--data", data)
    assert [entry["key_id"] for entry in program.load("key", "list", "--config", config)] == ["named-payroll"]
    assert program.load("node", "add", "--data", data)["masters"]
    assert "no server runs on" in program.refused("status", "--data", data)
    program.succeed("user", "delete", "guest", "--data", data)
    assert guest["name"] not in {user["name"] for user in program.load("user", "list", "--data", data)}


def test_a_directory_remembers_its_engine(program: Program, config: Path, tmp_path: Path) -> None:
    """A start that forgot to say where the records are makes no empty store beside them."""
    data = tmp_path / "data"
    program.succeed("init", "--config", config)
    assert read_engine(data) == "postgresql"
    line = program.refused("init", "--data", data)
    assert f"the records of {data} are in postgresql, not in sqlite" in line
    (data / "run" / "master.json").unlink()
    assert "are in postgresql, not in sqlite" in program.refused("user", "list", "--data", data)
    other = tmp_path / "other"
    program.succeed("init", "--data", other)
    assert "are in sqlite, not in postgresql" in program.refused("init", "--data", other, "--config", config)


def test_a_database_of_another_cluster_is_refused(program: Program, config: Path, tmp_path: Path) -> None:
    """Its keys are others, and this cluster's sweeper would go by its records."""
    program.succeed("init", "--config", config)
    assert "the records of another cluster" in program.refused(
        "init", "--data", tmp_path / "second", "--config", config
    )


def test_records_that_are_gone_are_not_made_anew(program: Program, config: Path, tmp_path: Path) -> None:
    """In either engine: an empty database would condemn every chunk."""
    program.succeed("init", "--data", tmp_path / "lite")
    (tmp_path / "lite" / "metadata" / "metadata.db").unlink()
    assert "are gone: the sqlite database is empty" in program.refused("init", "--data", tmp_path / "lite")
    program.succeed("init", "--config", config)
    asyncio.run(forget_users(json.loads(config.read_text())["metadata"]["dsn"]))
    assert "are gone: the postgresql database is empty" in program.refused("init", "--config", config)


def test_a_database_that_is_not_there_is_one_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the dsn in it."""
    monkeypatch.setattr("s3gw.cli.offline.START_DEADLINE_S", 0)
    config = tmp_path / "config.json"
    metadata = {"engine": "postgresql", "dsn": "postgresql://u:hunter2@127.0.0.1:1/x"}
    config.write_text(json.dumps({"data": [str(tmp_path / "data")], "metadata": metadata}))
    program.succeed("init", "--data", tmp_path / "lite")
    line = program.refused("init", "--config", config)
    assert "the database does not answer" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"engine": "postgresql"}, "wants a dsn"),
        ({"dsn": "postgresql://x"}, "no dsn"),
        ({"engine": "postgresql", "dsn": "d", "path": "/p"}, "follow from the data directory"),
        ({"engine": "postgresql", "dsn": "d", "connections_max": 0}, "connections_max"),
        ({"engine": "postgresql", "dsn": "d", "password": "hunter2"}, "password"),
        ({"engine": "postgresql", "dsn": 5}, "dsn"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, metadata: dict[str, object], reason: str) -> None:
    """One line each, and no secret in it."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": [str(tmp_path / "data")], "metadata": metadata}))
    with pytest.raises(ConfigError, match=reason) as refused:
        load_config(file, {}, {})
    assert "hunter2" not in str(refused.value)


def test_without_the_extra_a_start_is_one_line(
    program: Program, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is made; the roles say the same of their own files."""
    program.succeed("init", "--config", config)
    monkeypatch.setattr("storage.metadata.settings.HAS_POSTGRESQL", False)
    for command in (
        ("up", "--config", config),
        ("user", "list", "--data", tmp_path / "data"),
        ("gateway", "--config", tmp_path / "data" / "run" / "gateway.json"),
    ):
        assert "pip install 'frostbyte[postgres]'" in program.refused(*command)


def test_settings_keep_what_they_were_told(config: Path) -> None:
    """Only SQLite's places are added."""
    settings = load_config(config, {}, {})
    assert isinstance(settings, Config)
    home = prepare_home(settings, {})
    home.lock.close()
    assert home.records == settings.metadata
