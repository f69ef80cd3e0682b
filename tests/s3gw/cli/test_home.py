"""The data directory: made once, private, read again, and refused where it is not what it must be."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3gw.cli import describe_os_error
from s3gw.cli import home as home_module
from s3gw.cli.home import (
    SOCKET_PATH_BYTES_MAX,
    Credentials,
    Home,
    Origin,
    lock_home,
    make_access_key_id,
    make_secret_access_key,
    prepare_home,
    read_cluster_id,
    root_canonical_id,
    socket_directory,
)
from s3gw.config import ConfigError, load_config
from storage.base.errors import FrostbyteError
from tests.cluster.processes import short_directory

CLUSTER_ID = "0123456789abcdef" * 2


def prepare(path: Path, environment: dict[str, str] | None = None, *, cluster_id: str = "", datanodes: int = 2) -> Home:
    """Prepared and left alone again."""
    config = load_config(None, {"data": [str(path)], "datanodes": datanodes}, {})
    made = prepare_home(config, environment or {}, cluster_id)
    made.lock.close()
    return made


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary directory, with a short name and of our own."""
    with short_directory() as directory:
        monkeypatch.setattr("tempfile.tempdir", str(directory))
        yield directory


def test_the_first_start_makes_everything_private(tmp_path: Path) -> None:
    """Ids, keys and credentials; nobody else can read any of it."""
    made = prepare(tmp_path / "a" / "b")
    names = {path.name for path in made.config.home.iterdir()}
    assert names == {
        *("cluster.json", "credentials.json", "master.key", "internal.key", "keyring", "metadata", "run"),
        *("datanode-1", "datanode-2"),
    }
    assert made.credentials_origin is Origin.MADE
    assert len(made.cluster_id) == 32
    for path in made.config.home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_later_start_finds_the_same(tmp_path: Path) -> None:
    """Whatever number of datanodes is asked for then."""
    first, second = prepare(tmp_path), prepare(tmp_path, datanodes=3)
    assert second.credentials == first.credentials
    assert second.credentials_origin is Origin.FILE
    assert second.cluster_id == first.cluster_id == read_cluster_id(tmp_path)
    assert [node.node_id for node in second.datanodes[:2]] == [node.node_id for node in first.datanodes]


def test_a_cluster_id_can_be_chosen_once(tmp_path: Path) -> None:
    """For a cluster whose roles' files were written before."""
    assert prepare(tmp_path, cluster_id=CLUSTER_ID).cluster_id == CLUSTER_ID
    assert prepare(tmp_path, cluster_id=CLUSTER_ID).cluster_id == CLUSTER_ID
    with pytest.raises(ConfigError, match="belongs to cluster 0123"):
        prepare(tmp_path, cluster_id="f" * 32)
    with pytest.raises(ConfigError, match="32 lower-case hex digits"):
        prepare(tmp_path / "new", cluster_id="F" * 32)


def test_the_lock_is_free_after_a_refusal(tmp_path: Path) -> None:
    """What went wrong can be put right and tried again in the same process."""
    prepare(tmp_path)
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ConfigError, match=r"credentials\.json is damaged"):
        prepare(tmp_path)
    lock_home(tmp_path).close()
    with lock_home(tmp_path), pytest.raises(ConfigError, match="another frostbyte runs"):
        lock_home(tmp_path)


def test_credentials_of_the_environment_leave_no_file(tmp_path: Path) -> None:
    """They are the operator's to keep."""
    environment = {"FROSTBYTE_ROOT_ACCESS_KEY_ID": "AKIAX", "FROSTBYTE_ROOT_SECRET_ACCESS_KEY": "secret-of-mine"}
    made = prepare(tmp_path, environment)
    assert (made.credentials, made.credentials_origin) == (Credentials("AKIAX", "secret-of-mine"), Origin.ENVIRONMENT)
    assert not (tmp_path / "credentials.json").exists()
    for name in environment:
        with pytest.raises(ConfigError, match="go together"):
            prepare(tmp_path, {name: environment[name]})


def test_nothing_shows_the_secret(tmp_path: Path) -> None:
    """A home may be logged."""
    made = prepare(tmp_path)
    assert made.credentials.secret_access_key not in repr(made) + str(made.credentials) + repr(made.credentials)


def test_formats_of_other_releases_are_refused(tmp_path: Path) -> None:
    """By number."""
    prepare(tmp_path)
    document = json.loads((tmp_path / "cluster.json").read_text())
    (tmp_path / "cluster.json").write_text(json.dumps({**document, "format_version": 2}))
    with pytest.raises(ConfigError, match="format 2; this program reads format 1"):
        prepare(tmp_path)
    (tmp_path / "cluster.json").write_text(json.dumps({"cluster_id": "x"}))
    with pytest.raises(ConfigError, match="is damaged"):
        prepare(tmp_path)


def test_a_directory_that_holds_nothing(tmp_path: Path) -> None:
    """Commands beside a server make no new cluster by mistake."""
    with pytest.raises(ConfigError, match="holds no frostbyte data"):
        read_cluster_id(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lost_master_key_is_not_replaced(tmp_path: Path) -> None:
    """With a keyring there, a new key would open nothing."""
    prepare(tmp_path)
    (tmp_path / "master.key").unlink()
    with pytest.raises(FrostbyteError, match="there is no master key"):
        prepare(tmp_path)
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("length", [10, 60, 83, 84, 90, 200])
def test_sockets_are_where_their_paths_fit(temporary: Path, length: int) -> None:
    """In the data directory while they do, else in a private place that is found again."""
    root = Path("/nonexistent") / ("x" * length)
    found = socket_directory(root)
    assert len(os.fsencode(found / "datanode-64.sock")) <= SOCKET_PATH_BYTES_MAX
    fits = len(os.fsencode(root / "run" / "datanode-64.sock")) <= SOCKET_PATH_BYTES_MAX
    assert (found == root / "run") is fits
    if not fits:
        assert stat.S_IMODE(found.stat().st_mode) == 0o700
        assert socket_directory(root) == found != socket_directory(root.with_name("y" * length))


def test_a_place_for_sockets_that_others_can_enter_is_refused(temporary: Path) -> None:
    """Somebody may have made it before us: the temporary directory is everybody's."""
    root = Path("/nonexistent") / ("x" * 200)
    found = socket_directory(root)
    found.chmod(0o755)
    with pytest.raises(ConfigError, match="not a private directory"):
        socket_directory(root)
    found.rmdir()
    (temporary / "elsewhere").mkdir(mode=0o700)
    found.symlink_to(temporary / "elsewhere")
    with pytest.raises(ConfigError, match="not a private directory"):
        socket_directory(root)


def test_made_credentials_need_no_quoting() -> None:
    """In a shell, a URL or a configuration file; each is new."""
    ids, secrets = {make_access_key_id() for _ in range(200)}, {make_secret_access_key() for _ in range(200)}
    assert len(ids) == len(secrets) == 200
    assert all(len(text) == 20 and text.isalnum() and text.isupper() for text in ids)
    assert all(len(text) == 40 and text.replace("-", "").replace("_", "").isalnum() for text in secrets)


def test_the_root_user_is_the_same_for_the_life_of_a_cluster() -> None:
    """64 hex digits, as AWS's canonical ids are."""
    assert root_canonical_id(CLUSTER_ID) == root_canonical_id(CLUSTER_ID) != root_canonical_id("f" * 32)
    assert len(bytes.fromhex(root_canonical_id(CLUSTER_ID))) == 32


def test_errors_of_the_system_name_the_path() -> None:
    """Where there is one."""
    assert describe_os_error(OSError(30, "Read-only file system", "/x")) == "/x: Read-only file system"
    assert describe_os_error(OSError(28, "No space left on device")) == "No space left on device"
    assert describe_os_error(TimeoutError("too slow")) == "too slow"


def test_the_longest_name_of_a_socket_is_known() -> None:
    """As many datanodes as are allowed."""
    assert len(home_module.LONGEST_SOCKET_NAME) >= max(map(len, ("datanode-64.sock", "metadata.sock", "master.sock")))
