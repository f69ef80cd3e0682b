"""What keeps `frostbyte up` from starting is one line and exit status 1, and changes nothing that was there."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s3gw.cli.home import FILES, lock_home, prepare_home
from s3gw.config import load_config
from storage.datanode.identity import store_identity
from tests.probe.server import free_port
from tests.s3gw.cli.program import Refused
from tests.tls import make_internal_tls


@pytest.fixture
def listen() -> str:
    """An address that can be had."""
    return f"127.0.0.1:{free_port()}"


def test_a_port_that_is_taken(refused: Refused, tmp_path: Path) -> None:
    """Said before anything is made, so that the credentials are shown by the start that succeeds."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = refused("up", "--data", tmp_path / "new", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "cannot listen on 127.0.0.1" in line
    assert "in use" in line
    assert not (tmp_path / "new").exists()


def test_a_directory_in_use(refused: Refused, home: Path, listen: str) -> None:
    """By another supervisor."""
    with lock_home(home):
        assert f"another frostbyte runs on {home}" in refused("up", "--data", home, "--listen", listen)


def test_a_directory_of_another_cluster(refused: Refused, home: Path, tmp_path: Path, listen: str) -> None:
    """A disk that was moved by mistake."""
    other = tmp_path / "other" / "datanode"
    other.mkdir(parents=True)
    store_identity(FILES, other, "ab" * 16)
    line = refused("up", "--data", home, "--data", tmp_path / "other", "--listen", listen)
    assert f"{other} belongs to cluster {'ab' * 16}" in line


def change_mode(home: Path) -> None:
    """Others may read it."""
    (home / "master.key").chmod(0o644)


def put_a_directory(home: Path) -> None:
    """Nobody can read it as a file, the superuser neither."""
    (home / "master.key").unlink()
    (home / "master.key").mkdir(mode=0o700)


def put_garbage(home: Path) -> None:
    """Something else."""
    (home / "master.key").write_text("not a key\n")


def put_another_key(home: Path) -> None:
    """A good key, but not the one."""
    (home / "master.key").write_bytes(base64.b64encode(bytes(32)))


def remove_the_key(home: Path) -> None:
    """It was never copied."""
    (home / "master.key").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (change_mode, "master.key can be read by others (mode 0644); make it 0600"),
        (put_a_directory, "master.key: Is a directory"),
        (put_garbage, "master.key is not base64"),
        (put_another_key, "is wrapped by master key mk-"),
        (remove_the_key, "there is no master key: "),
    ],
)
def test_a_master_key_that_does_not_do(
    refused: Refused, home: Path, listen: str, damage: Callable[[Path], None], reason: str
) -> None:
    """And no new one is made in its place, which would only hide that the right one is missing."""
    damage(home)
    before = [path.name for path in home.iterdir()]
    assert reason in refused("up", "--data", home, "--listen", listen)
    assert [path.name for path in home.iterdir()] == before


def test_a_wrong_master_key_in_the_environment(
    refused: Refused, home: Path, listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment goes before the file."""
    monkeypatch.setenv("FROSTBYTE_MASTER_KEY", base64.b64encode(bytes(32)).decode())
    assert "is wrapped by master key mk-" in refused("up", "--data", home, "--listen", listen)


@pytest.mark.parametrize("file", ["cluster.json", "credentials.json"])
@pytest.mark.parametrize("content", ["", "{", '{"more": 1}', "[]"])
def test_damaged_files_are_named(refused: Refused, home: Path, listen: str, file: str, content: str) -> None:
    """Never made anew over what was there."""
    (home / file).write_text(content)
    assert f"{home / file} is damaged" in refused("up", "--data", home, "--listen", listen)
    assert (home / file).read_text() == content


def test_credentials_that_others_can_read(refused: Refused, home: Path, listen: str) -> None:
    """They open everything that S3 can reach."""
    (home / "credentials.json").chmod(0o640)
    assert "credentials.json can be read by others" in refused("up", "--data", home, "--listen", listen)


def test_half_of_the_credentials(refused: Refused, home: Path, listen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An access key without its secret."""
    monkeypatch.setenv("FROSTBYTE_ROOT_ACCESS_KEY_ID", "AKIAHALF")
    monkeypatch.delenv("FROSTBYTE_ROOT_SECRET_ACCESS_KEY", raising=False)
    assert "go together" in refused("up", "--data", home, "--listen", listen)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('{"surprise": 1}', "surprise"),
        ('{"replicas": "many"}', "replicas"),
        ("[]", "a JSON object is expected"),
        ("{", "not JSON"),
        ('{"zone": "a/b"}', "zone"),
        ('{"lease_ttl_s": 0}', "lease_ttl_s"),
    ],
)
def test_a_bad_configuration_file(refused: Refused, tmp_path: Path, listen: str, settings: str, reason: str) -> None:
    """What a role would refuse is said here, before any role is started."""
    file = tmp_path / "config.json"
    file.write_text(settings)
    assert reason in refused("up", "--data", tmp_path / "home", "--config", file, "--listen", listen)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data", "a", "--data", "b", "--datanodes", "2"], "--datanodes goes with a single --data"),
        (["--data", "a", "--data", "./a"], "given twice"),
        (["--data", "a", "--replicas", "4"], "--replicas 4 needs as many datanodes; there are 3"),
        (["--data", "a", "--datanodes", "-1"], "between 0 and 64 datanodes, not -1"),
        (["--data", "a", "--datanodes", "65"], "between 0 and 64 datanodes, not 65"),
        (["--data", "a", "--workers", "65"], "workers"),
        (["--data", "a", "--tls-cert", "c.pem"], "go together"),
        (["--data", "a", "--tls-key", "k.pem"], "go together"),
        (["--data", "a", "--tls-cert", "c.pem", "--tls-key", "k.pem"], "cannot load"),
        (["--data", "a", "--listen", "9000"], "HOST:PORT"),
        (["--data", "a", "--config", "nowhere.json"], "nowhere.json: No such file"),
        ([], "no data directory"),
    ],
)
def test_flags_that_cannot_be(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], reason: str
) -> None:
    """Nothing is made for them."""
    monkeypatch.chdir(tmp_path)
    assert reason in refused("up", *flags)
    assert list(tmp_path.iterdir()) == []


def test_tls_files_that_do_not_fit(refused: Refused, tmp_path: Path, listen: str) -> None:
    """A certificate with the key of another."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = make_internal_tls(tmp_path / "one").files, make_internal_tls(tmp_path / "other").files
    flags = ("--listen", listen, "--tls-cert", one.cert, "--tls-key", other.key)
    assert "cannot load" in refused("up", "--data", tmp_path / "home", *flags)


def test_a_file_in_place_of_the_directory(refused: Refused, tmp_path: Path, listen: str) -> None:
    """The system's reason, with the path."""
    (tmp_path / "file").write_text("")
    line = refused("up", "--data", tmp_path / "file", "--listen", listen)
    assert str(tmp_path / "file") in line


def test_a_disk_that_is_read_only(tmp_path: Path, home: Path, listen: str) -> None:
    """At a first start, and at a later one over a directory that is whole."""
    command = [sys.executable, "-m", "s3gw.cli", "up", "--listen", listen, "--data"]
    read_only = "mount --bind -o ro $1 $1 && mount -o remount,bind,ro $1 && shift && exec $@"
    isolated = ["unshare", "--mount", "sh", "-c", read_only, "sh", str(tmp_path)]
    probe = [*isolated, "true"]
    if (
        os.geteuid()
        or not shutil.which("unshare")
        or subprocess.run(probe, capture_output=True, check=False).returncode
    ):
        pytest.skip("a read-only mount needs the superuser and unshare")
    for data in (tmp_path / "new", home):
        done = subprocess.run([*isolated, *command, str(data)], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "Read-only file system" in done.stderr
        assert str(tmp_path) in done.stderr


def test_sockets_whose_paths_would_be_too_long_everywhere(
    refused: Refused, tmp_path: Path, listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary directory is no way out when it is as deep."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert "too long" in refused("up", "--data", deep / "home", "--listen", listen)


def test_a_second_start_keeps_everything(home: Path) -> None:
    """Ids, keys and credentials are made once."""
    config = load_config(None, {"data": [str(home)]}, {})
    files = {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "lock"}
    again = prepare_home(config, {})
    again.lock.close()
    assert {path: path.read_bytes() for path in files} == files
    assert json.loads((home / "credentials.json").read_text())["access_key_id"] == again.credentials.access_key_id
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.rglob("*"))
