"""The operator's commands beside a stopped server: users, keys, buckets, new nodes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cluster.registry.config import load_internal_key
from s3gw.cli.application import COMMANDS
from s3gw.cli.home import read_cluster_id
from s3gw.cli.offline import open_records
from s3gw.config import load_config
from storage.base.internal_auth import derive_node_key
from storage.datanode.config import parse_config
from storage.metadata.commands import CreateBucket, RegisterNode
from storage.model import NodeState
from tests.cluster.nodes import make_report
from tests.s3gw.cli.program import Program


@pytest.fixture
def data(program: Program, tmp_path: Path) -> Path:
    """After `frostbyte init`."""
    program.succeed("init", "--data", tmp_path / "data")
    return tmp_path / "data"


async def make_bucket(data: Path, name: str, owner_id: str) -> None:
    """As a gateway does."""
    async with open_records(load_config(None, {"data": [str(data)]}, {})) as metadata:
        await metadata.apply(CreateBucket(name, owner_id, "us-east-1", "bk-" + "0" * 32))


def test_init_makes_what_up_would_and_says_how_to_go_on(program: Program, tmp_path: Path) -> None:
    """The credentials are shown once; each role's file is named."""
    said = program.succeed("init", "--data", tmp_path / "data", "--cluster-id", "ab" * 16)
    credentials = json.loads((tmp_path / "data" / "credentials.json").read_text())
    assert credentials["secret_access_key"] in said
    assert "ab" * 16 in said
    for name in ("master.json", "gateway.json", "datanode-1.json", "datanode-3.json"):
        assert str(tmp_path / "data" / "run" / name) in said
    again = program.succeed("init", "--data", tmp_path / "data")
    assert credentials["secret_access_key"] not in again
    assert credentials["access_key_id"] in again
    assert [user["name"] for user in program.load("user", "list", "--data", tmp_path / "data")] == ["root"]


def test_users_are_made_listed_and_deleted(program: Program, data: Path) -> None:
    """With made credentials, or with given ones and a canonical id of somebody's own."""
    made = program.load("user", "create", "guest", "--data", data)
    assert (len(made["access_key_id"]), len(made["secret_access_key"])) == (20, 40)
    given = ("--canonical-id", "c" * 64, "--display-name", "A Tester", "--email", "tester@example.com")
    keys = ("--access-key-id", "TESTERKEY", "--secret-access-key", "tester-secret")
    tester = program.load("user", "create", "tester", *given, *keys, "--data", data)
    assert tester == {
        "name": "tester",
        "canonical_id": "c" * 64,
        "display_name": "A Tester",
        "email": "tester@example.com",
        "access_key_id": "TESTERKEY",
        "secret_access_key": "tester-secret",
    }
    listed = {user["name"]: user["access_key_ids"] for user in program.load("user", "list", "--data", data)}
    assert listed["tester"] == ["TESTERKEY"]
    assert listed["guest"] == [made["access_key_id"]]
    assert "tester-secret" not in program.succeed("user", "list", "--data", data)
    assert "is taken" in program.refused("user", "create", "tester", "--data", data)
    assert "is taken" in program.refused("user", "create", "third", *keys, "--data", data)
    assert "cannot be deleted" in program.refused("user", "delete", "root", "--data", data)
    asyncio.run(make_bucket(data, "testers", "c" * 64))
    assert "still owns buckets" in program.refused("user", "delete", "tester", "--data", data)
    program.succeed("user", "delete", "guest", "--data", data)
    assert "there is no user guest" in program.refused("user", "delete", "guest", "--data", data)
    assert {user["name"] for user in program.load("user", "list", "--data", data)} == {"root", "tester"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a b"], "a user name has"),
        (["x", "--access-key-id", "AKIAX"], "go together"),
        (["x", "--secret-access-key", "secret-secret"], "go together"),
        (["x", "--access-key-id", "a/b", "--secret-access-key", "secret-secret"], "an access key id has"),
        (["x", "--access-key-id", "AKIAX", "--secret-access-key", "short"], "a secret has"),
        (["x", "--canonical-id", "ä"], "a canonical id has"),
        (["x", "--display-name", "n" * 257], "at most 256"),
    ],
)
def test_users_that_cannot_be(program: Program, data: Path, arguments: list[str], reason: str) -> None:
    """Said before anything is asked of the records."""
    assert reason in program.refused("user", "create", *arguments, "--data", data)


def test_keys_are_made_listed_and_rotated(program: Program, data: Path) -> None:
    """Named keys by name, all of them under a new master key."""
    assert program.load("key", "list", "--data", data) == []
    assert program.succeed("key", "create", "payroll", "--data", data) == "named-payroll\n"
    created = program.load("key", "create", "audit-2026.v1", "--data", data)
    assert created == {"name": "audit-2026.v1", "key_id": "named-audit-2026.v1"}
    assert "already" in program.refused("key", "create", "payroll", "--data", data)
    assert "version 2" in program.succeed("key", "rotate", "payroll", "--data", data)
    before = program.load("key", "list", "--data", data)
    assert [(entry["key_id"], entry["versions"]) for entry in before] == [
        ("named-audit-2026.v1", 1),
        ("named-payroll", 2),
    ]
    assert "4 keys" in program.succeed("key", "rotate", "--master", "--data", data)
    after = program.load("key", "list", "--data", data)
    assert {entry["key_id"]: entry["created_ms"] for entry in after} == {
        entry["key_id"]: entry["created_ms"] for entry in before
    }
    assert before[0]["master_key_ids"] != after[0]["master_key_ids"] == after[1]["master_key_ids"]
    text = program.succeed("key", "list", "--data", data)
    assert all(entry["key_id"] in text and entry["master_key_ids"][0] in text for entry in after)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["create", "a/b"], "a key's name has"),
        (["create", "../../master"], "a key's name has"),
        (["rotate", "unknown"], "there is no key named-unknown"),
        (["rotate"], "give the name of a key, or --master"),
        (["rotate", "payroll", "--master"], "give the name of a key, or --master"),
    ],
)
def test_keys_that_cannot_be(program: Program, data: Path, arguments: list[str], reason: str) -> None:
    """One line, and the keyring is as it was."""
    assert reason in program.refused("key", *arguments, "--data", data)
    assert program.load("key", "list", "--data", data) == []


def test_a_master_key_of_the_environment_is_the_operators_to_rotate(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says how."""
    old, new = "A" * 43 + "=", "B" * 42 + "A="
    monkeypatch.setenv("FROSTBYTE_MASTER_KEY", old)
    program.succeed("init", "--data", tmp_path / "data")
    assert not (tmp_path / "data" / "master.key").exists()
    line = program.refused("key", "rotate", "--master", "--data", tmp_path / "data")
    assert "FROSTBYTE_MASTER_KEY_PREVIOUS" in line
    monkeypatch.setenv("FROSTBYTE_MASTER_KEY", new)
    monkeypatch.setenv("FROSTBYTE_MASTER_KEY_PREVIOUS", old)
    said = program.succeed("key", "rotate", "--master", "--data", tmp_path / "data")
    assert "can be taken away" in said
    assert "master.key" not in said
    monkeypatch.delenv("FROSTBYTE_MASTER_KEY_PREVIOUS")
    assert program.load("key", "list", "--data", tmp_path / "data") == []


def test_buckets_of_all_users(program: Program, data: Path) -> None:
    """By name, with their owners' names."""
    guest = program.load("user", "create", "guest", "--data", data)
    root = next(user for user in program.load("user", "list", "--data", data) if user["name"] == "root")
    asyncio.run(make_bucket(data, "zebra", root["canonical_id"]))
    asyncio.run(make_bucket(data, "aardvark", guest["canonical_id"]))
    listed = program.load("bucket", "list", "--data", data)
    assert [(bucket["name"], bucket["owner"]) for bucket in listed] == [("aardvark", "guest"), ("zebra", "root")]
    assert "aardvark" in program.succeed("bucket", "list", "--data", data)


async def make_nodes(data: Path, count: int) -> None:
    """As a master records them."""
    async with open_records(load_config(None, {"data": [str(data)]}, {})) as metadata:
        for number in range(1, count + 1):
            await metadata.apply(RegisterNode(make_report(number), NodeState.UP))


async def settings_of(data: Path, name: str) -> dict[str, bytes]:
    """What is recorded of a bucket."""
    async with open_records(load_config(None, {"data": [str(data)]}, {})) as metadata:
        bucket = await metadata.find_bucket(name)
        assert bucket is not None
        return bucket.settings


def test_a_bucket_gets_a_redundancy_of_its_own(program: Program, data: Path) -> None:
    """Shown, set and taken back; refused in one line where the cluster cannot do it, and for nonsense."""
    asyncio.run(make_bucket(data, "films", "o" * 64))
    asyncio.run(make_nodes(data, 5))
    shown = ("bucket", "redundancy", "films", "--data", data)
    assert program.load(*shown) == {"name": "films", "redundancy": "replica:2", "is_default": True}
    assert "by default" in program.succeed(*shown)
    program.succeed("bucket", "redundancy", "films", "ec:3+2", "--data", data)
    assert program.load(*shown) == {"name": "films", "redundancy": "ec:3+2", "is_default": False}
    assert asyncio.run(settings_of(data, "films")) == {"redundancy": b"ec:3+2"}
    refused = {
        "ec:4+2": "ec:4+2 needs 6 datanodes; the cluster has 5",
        "replica:6": "replica:6 needs 6 datanodes; the cluster has 5",
        "ec:25+1": "at most 24",
        "raid:5": "is no redundancy",
    }
    for setting, reason in refused.items():
        assert reason in program.refused("bucket", "redundancy", "films", setting, "--data", data)
    assert "films: ec:3+2, set for this bucket" in program.succeed(*shown)
    assert "there is no bucket" in program.refused("bucket", "redundancy", "other", "replica:2", "--data", data)
    program.succeed("bucket", "redundancy", "films", "default", "--data", data)
    assert asyncio.run(settings_of(data, "films")) == {}


def test_a_bucket_is_not_set_to_less_than_must_be_survived(program: Program, data: Path, tmp_path: Path) -> None:
    """As the gateways of the last start were told."""
    told = {"data": [str(data)], "replicas": 3, "survive_min": {"level": "host", "losses": 2}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    program.succeed("init", "--config", tmp_path / "config.json")
    asyncio.run(make_bucket(data, "films", "o" * 64))
    asyncio.run(make_nodes(data, 5))
    assert program.load("bucket", "redundancy", "films", "--data", data)["redundancy"] == "replica:3"
    refused = program.refused("bucket", "redundancy", "films", "ec:3+1", "--data", data)
    assert "ec:3+1 survives 1 losses, and the loss of 2 hosts must be survived" in refused
    program.succeed("bucket", "redundancy", "films", "ec:3+2", "--data", data)


def test_laying_a_bucket_out_anew_is_stopped_and_resumed(program: Program, data: Path) -> None:
    """And how far it is."""
    asyncio.run(make_bucket(data, "films", "o" * 64))
    shown = ("bucket", "rewrite", "films", "--data", data)
    state = {"name": "films", "redundancy": "replica:2", "blobs": {}, "left": 0, "is_stopped": False}
    assert program.load(*shown) == state
    assert "0 to be laid out anew: done" in program.succeed(*shown)
    assert program.load(*shown, "--stop") == {**state, "is_stopped": True}
    assert asyncio.run(settings_of(data, "films")) == {"rewrite": b"stopped"}
    assert "stopped" in program.succeed(*shown)
    assert program.load(*shown, "--resume") == state
    assert asyncio.run(settings_of(data, "films")) == {}
    assert "not both" in program.refused(*shown, "--stop", "--resume")
    assert "there is no bucket" in program.refused("bucket", "rewrite", "other", "--data", data)


def test_a_new_node_gets_an_id_and_a_key_of_its_own(program: Program, data: Path) -> None:
    """Complete, accepted by a datanode, and without the internal key; every time another one."""
    one, other = (program.load("node", "add", "--data", data, "--zone", "rack-2") for _ in range(2))
    config = parse_config(json.dumps(one))
    internal_key = load_internal_key(data / "internal.key")
    assert config.node_key == derive_node_key(internal_key, "datanode", config.node_id).hex()
    assert (config.cluster_id, config.zone) == (read_cluster_id(data), "rack-2")
    assert list(config.masters) == [json.loads((data / "run" / "master.json").read_text())["listen"]]
    assert one["node_id"] != other["node_id"]
    assert one["listen"] != other["listen"]
    assert internal_key.hex() not in json.dumps(one)


def test_a_new_nodes_key_in_a_file_of_its_own(program: Program, data: Path, tmp_path: Path) -> None:
    """Private, and not in the configuration."""
    file = tmp_path / "node.key"
    named = ("--node-id", "d" * 32, "--key-file", file)
    document = program.load("node", "add", "--data", data, *named)
    assert (document["node_id"], document["node_key_file"]) == ("d" * 32, str(file))
    assert "node_key" not in document
    assert file.stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex(file.read_text())) == 32


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["add", "--listen", "https://h:9"], "on this machine only"),
        (["add", "--listen", "http://10.0.0.1:9"], "loopback only"),
        (["add", "--node-id", "xyz"], "node_id is 32"),
        (["add", "--zone", "a/b"], "zone"),
        (["list"], "no server runs on"),
        (["drain", "1"], "no server runs on"),
        (["resume", "1"], "no server runs on"),
        (["remove", "1"], "no server runs on"),
    ],
)
def test_node_commands_that_cannot_be(program: Program, data: Path, arguments: list[str], reason: str) -> None:
    """One line each."""
    assert reason in program.refused("node", *arguments, "--data", data)


def test_status_of_what_does_not_run(program: Program, data: Path, tmp_path: Path) -> None:
    """Stopped, never started, or nothing at all."""
    assert f"no server runs on {data}" in program.refused("status", "--data", data)
    assert "holds no frostbyte data" in program.refused("status", "--data", tmp_path)
    (data / "run" / "master.json").unlink()
    assert "no server has run on" in program.refused("status", "--data", data)
    assert "no data directory" in program.refused("status")
    assert "cannot read" in program.refused("status", "--master", tmp_path / "nowhere.json")


def test_help_names_every_command(program: Program) -> None:
    """With what each is for."""
    said = program.succeed("--help")
    for name in ("up", "init", *COMMANDS):
        assert f" {name} " in said


def test_commands_that_are_none(program: Program) -> None:
    """Exit status 2, as for every wrong usage."""
    for arguments in (("nonsense",), ("up", "--nonsense"), ("key", "nonsense"), ("master",)):
        status, _, errors = program.run(*arguments)
        assert status == 2
        assert "Usage" in errors
