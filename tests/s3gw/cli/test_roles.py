"""The files that roles are started with: each is accepted by its role, and nobody is told more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.registry.config import MaintenanceSettings, load_internal_key
from cluster.survival import SurviveMin
from s3gw.cli.forks import role_command
from s3gw.cli.home import Home, prepare_home
from s3gw.cli.roles import plan_stages, store_role_files
from s3gw.config import load_config
from s3gw.worker_config import load_worker_config
from storage.base.internal_auth import derive_node_key
from storage.datanode.config import load_config as load_datanode_config
from storage.datanode.config import load_node_key

ROLES = ("storage.metadata", "storage.datanode", "cluster", "s3gw")


def prepare(path: Path, **settings: Any) -> Home:
    """A data directory, prepared and left alone again."""
    home = prepare_home(load_config(None, {"data": [str(path)], **settings}, {}), {})
    home.lock.close()
    return home


def read(home: Home, name: str) -> dict[str, Any]:
    """A role's file."""
    document: dict[str, Any] = json.loads((home.run / f"{name}.json").read_text())
    return document


async def nothing() -> None:
    """Ready at once."""


def test_every_file_is_private_and_accepted(tmp_path: Path) -> None:
    """One for the master, one for the owner of the records, one for all gateways, one for each datanode."""
    files = store_role_files(prepare(tmp_path, datanodes=2))
    names = ["master.json", "metadata.json", "gateway.json", "datanode-1.json", "datanode-2.json"]
    assert [file.name for file in files] == names
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_a_datanode_knows_its_own_key_only(tmp_path: Path) -> None:
    """Not the internal key, nor where it is; not the master key."""
    home = prepare(tmp_path)
    store_role_files(home)
    internal_key = load_internal_key(home.internal_key_file)
    for datanode in home.datanodes:
        config = load_datanode_config(home.run / f"datanode-{datanode.number}.json")
        assert load_node_key(config, datanode.node_id) == derive_node_key(internal_key, "datanode", datanode.node_id)
        text = (home.run / f"datanode-{datanode.number}.json").read_text()
        assert "internal.key" not in text
        assert "master.key" not in text


def test_on_one_machine_everything_is_a_socket(tmp_path: Path) -> None:
    """No port but the public one."""
    home = prepare(tmp_path)
    store_role_files(home)
    listens = [read(home, name)["listen"] for name in ("master", "datanode-1", "datanode-2", "datanode-3")]
    assert all(listen.startswith("unix:/") for listen in listens)
    assert len(set(listens)) == 4
    assert read(home, "gateway")["listen"] == "127.0.0.1:9000"


def test_opened_to_other_machines(tmp_path: Path) -> None:
    """The master's address, datanodes on the ports above, and what to trust, in every file."""
    internal = {"listen": "https://node:9100", "tls_cert": "/c.pem", "tls_key": "/k.pem", "tls_ca": "/ca.pem"}
    home = prepare(tmp_path, internal=internal)
    store_role_files(home)
    assert read(home, "master")["listen"] == "https://node:9100"
    assert [read(home, f"datanode-{number}")["listen"] for number in (1, 2)] == [
        "https://node:9101",
        "https://node:9102",
    ]
    assert read(home, "datanode-1")["masters"] == read(home, "gateway")["masters"] == ["https://node:9100"]
    assert read(home, "gateway")["internal_ca"] == read(home, "master")["tls_ca"] == "/ca.pem"


def test_settings_reach_the_roles(tmp_path: Path) -> None:
    """What an operator says once."""
    told = {"reserve_bytes": 5, "durability": "none", "scrub_bytes_per_s": 1000, "scrub_interval_s": 60.0}
    home = prepare(tmp_path, replicas=3, lease_ttl_s=7.0, zone="rack-1", workers=2, **told)
    stages = plan_stages(home, 3, nothing)
    assert read(home, "master")["maintenance"]["lease_ttl_s"] == read(home, "gateway")["lease_ttl_s"] == 7
    assert set(read(home, "master")["maintenance"]) == set(MaintenanceSettings.__struct_fields__)
    assert read(home, "master")["redundancy"] == read(home, "gateway")["redundancy"] == "replica:3"
    datanode = read(home, "datanode-2")
    assert {"zone": "rack-1", **told}.items() <= datanode.items()
    assert [[child.name for child in stage.children] for stage in stages] == [
        ["datanode-1", "datanode-2", "datanode-3"],
        ["metadata"],
        ["master"],
        ["gateway-1", "gateway-2"],
    ]
    assert "reserve_bytes" not in read_again(tmp_path / "other")


@pytest.mark.parametrize("is_told", [True, False])
def test_gateways_are_told_the_directories_of_datanodes(tmp_path: Path, is_told: bool) -> None:
    """Unless they are to ask the datanodes themselves."""
    home = prepare(tmp_path, datanodes=2, local_reads=is_told)
    store_role_files(home)
    directories = [str(tmp_path / "datanode-1"), str(tmp_path / "datanode-2")]
    assert read(home, "gateway")["datanode_directories"] == (directories if is_told else [])
    assert load_worker_config(home.run / "gateway.json").datanode_directories == tuple(directories if is_told else ())


@pytest.mark.parametrize("is_on", [True, False])
def test_gateways_are_told_whether_to_write_into_them(tmp_path: Path, is_on: bool) -> None:
    """Which needs the directories, that reads are told of anyway."""
    home = prepare(tmp_path, local_writes=is_on)
    store_role_files(home)
    config = load_worker_config(home.run / "gateway.json")
    assert config.local_writes is is_on
    assert config.datanode_directories


def test_erasure_coding_and_what_must_be_survived_reach_the_roles(tmp_path: Path) -> None:
    """The master lays out anew by the one, the gateways refuse by the other."""
    home = prepare(tmp_path, datanodes=6, redundancy="ec:4+2", survive_min={"level": "host", "losses": 1})
    store_role_files(home)
    assert read(home, "master")["redundancy"] == read(home, "gateway")["redundancy"] == "ec:4+2"
    survived = load_worker_config(home.run / "gateway.json").survived
    assert survived == SurviveMin("host", 1)


def read_again(path: Path) -> dict[str, Any]:
    """The file of a datanode that was told no reserve: it chooses by its own disk."""
    home = prepare(path)
    store_role_files(home)
    return read(home, "datanode-1")


def test_a_setting_that_a_role_refuses_stops_the_start(tmp_path: Path) -> None:
    """With the file's name, before anything runs."""
    with pytest.raises(ValueError, match=r"datanode-1\.json: zone"):
        store_role_files(prepare(tmp_path, zone="a/b"))


def test_directories_of_the_working_directory_are_no_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data in ./storage and ./cluster does not hide the program."""
    for name in ("storage", "cluster", "s3gw"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for module in ROLES:
        command = [*role_command(module), "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ROLES)
def test_roles_do_not_load_the_command_line(module: str) -> None:
    """What is printed nicely for people costs time and memory, six times over."""
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "storage.base" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("typer", "rich") or name.startswith("s3gw.cli")}


def test_up_loads_no_server_and_no_client() -> None:
    """The parent only starts others: it stays small, and begins at once."""
    code = "import sys; from s3gw.cli.application import load_commands; load_commands('up'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"uvicorn", "starlette", "awscrt", "rich.table"} & set(done.stdout.split())
