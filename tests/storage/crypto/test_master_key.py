"""Where the master key comes from: files on disk and the environment, good ones and bad ones."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from storage.base.files import DiskFiles
from storage.crypto.master_key import MasterKeyFile, MasterKeyVariable, open_master_keys, parse_key
from tests.storage.crash_files import CrashFiles, PowerCut

SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()


def test_the_file_is_made_once_and_private(tmp_path: Path) -> None:
    """The first start makes it 0600; a second one reads the same key."""
    path = tmp_path / "master.key"
    first = open_master_keys(DiskFiles(), path, {}, make=True).load()
    assert len(first) == 1
    assert len(first[0]) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert open_master_keys(DiskFiles(), path, {}, make=True).load() == first
    assert open_master_keys(DiskFiles(), path, {}, make=False).load() == first


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """One line, with the file and its mode."""
    path = tmp_path / "master.key"
    open_master_keys(DiskFiles(), path, {}, make=True)
    for mode in (0o640, 0o604, 0o660):
        os.chmod(path, mode)
        with pytest.raises(ValueError, match=f"mode 0{mode:o}"):
            open_master_keys(DiskFiles(), path, {}, make=False)


def test_a_missing_file_is_not_made_behind_the_operators_back(tmp_path: Path) -> None:
    """On a later start a lost master key is an error, not a new key."""
    with pytest.raises(ValueError, match="no master key"):
        open_master_keys(DiskFiles(), tmp_path / "master.key", {}, make=False)
    assert not list(tmp_path.iterdir())


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    """And then no file is made."""
    keys = open_master_keys(DiskFiles(), tmp_path / "master.key", {"FROSTBYTE_MASTER_KEY": TEXT}, make=True)
    assert keys.load() == (SECRET,)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "short", "not base64 at all!", TEXT + TEXT, base64.b64encode(bytes(31)).decode()])
def test_bad_keys_are_named_but_not_shown(text: str) -> None:
    """The message says where and what, never the content."""
    with pytest.raises(ValueError, match="FROM HERE") as caught:
        parse_key(text, "FROM HERE")
    assert not text or text not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    """Whatever bytes are in it."""
    path = tmp_path / "master.key"
    for content in (b"", b"\xff\xfe\x00", b"A" * 5000):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ValueError, match=r"master\.key"):
            open_master_keys(DiskFiles(), path, {}, make=True)


def test_rotation_by_file_keeps_both_keys_until_it_is_finished(tmp_path: Path) -> None:
    """Begin is repeatable and keeps the same new key; finish leaves only that."""
    keys = MasterKeyFile(DiskFiles(), tmp_path / "master.key")
    keys.make()
    (old,) = keys.load()
    keys.begin_rotation()
    new, still = keys.load()
    assert still == old != new
    keys.begin_rotation()
    assert keys.load() == (new, old)
    keys.finish_rotation()
    assert keys.load() == (new,)
    keys.finish_rotation()
    assert keys.load() == (new,)
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]


def test_rotation_by_environment_needs_the_old_key_as_well() -> None:
    """The operator sets both; the first one wraps."""
    environment = {"FROSTBYTE_MASTER_KEY": TEXT}
    with pytest.raises(ValueError, match="FROSTBYTE_MASTER_KEY_PREVIOUS"):
        MasterKeyVariable(environment).begin_rotation()
    environment["FROSTBYTE_MASTER_KEY_PREVIOUS"] = base64.b64encode(bytes(32)).decode()
    keys = MasterKeyVariable(environment)
    keys.begin_rotation()
    assert keys.load() == (SECRET, bytes(32))
    keys.finish_rotation()
    assert keys.load() == (SECRET, bytes(32))


def test_a_key_that_was_loaded_survives_every_power_cut() -> None:
    """At no step can a key that somebody could have wrapped with vanish."""
    step = 0
    while True:
        files = CrashFiles()
        keys = MasterKeyFile(files, Path("/master.key"))
        files.cut_before(step)
        loaded: list[bytes] = []
        try:
            keys.make()
            loaded += keys.load()
            keys.begin_rotation()
            loaded = [*keys.load()]
        except PowerCut:
            pass
        for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=step)):
            if loaded:
                assert set(loaded) <= set(MasterKeyFile(survivors, Path("/master.key")).load())
        if not files.is_cut:
            break
        step += 1
    assert step > 8
