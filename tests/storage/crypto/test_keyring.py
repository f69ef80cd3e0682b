"""The keyring: made once, durable, private, rotated through crashes, destroyed for good."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import Corrupt, SealBroken, Unavailable, UnknownKeyId
from storage.base.files import DiskFiles, FileSystem, make_directories
from storage.crypto import keyring as keyring_module
from storage.crypto.keyring import CACHE_TTL_S, INTERNAL_KEY_ID, Keyring
from storage.crypto.keys import named_key_id
from storage.crypto.master_key import MasterKeyFile, MasterKeyVariable
from tests.storage.crash_files import CrashFiles, PowerCut

CLUSTER_ID = b"cluster-id-16byt"


def keyring_at(files: FileSystem, root: Path, clock: ManualClock | None = None, *, make: bool = True) -> Keyring:
    """Opened over root/keyring and root/master.key."""
    make_directories(files, root)
    masters = MasterKeyFile(files, root / "master.key")
    if make:
        masters.make()
    keyring = Keyring(files, root / "keyring", CLUSTER_ID, masters, clock or ManualClock())
    keyring.open()
    return keyring


def test_a_created_key_is_there_for_everybody(tmp_path: Path) -> None:
    """Another process with the same directory finds the same 32 bytes."""
    one, other = keyring_at(DiskFiles(), tmp_path), keyring_at(DiskFiles(), tmp_path)
    key_id = one.create_bucket_key()
    assert key_id.startswith("bk-")
    current = other.current_bucket_key(key_id)
    assert (current.key_id, current.version, len(current.secret)) == (key_id, 1, 32)
    assert one.bucket_key(key_id, 1) == other.bucket_key(key_id, 1) == current.secret
    assert one.create_bucket_key() != key_id


def test_what_a_write_needs_comes_at_once(tmp_path: Path) -> None:
    """The newest key, and that of the version asked for."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    key_id = keyring.create_bucket_key()
    first = keyring.bucket_key(key_id, 1)
    assert keyring.keys_to_write(key_id, 1) == (keyring.current_bucket_key(key_id), first)
    other = keyring_at(DiskFiles(), tmp_path)
    other.add_version(key_id)
    current, second = other.keys_to_write(key_id, 1)
    assert (current, second) == (other.current_bucket_key(key_id), first) and current.version == 2


def test_files_are_private_and_hold_no_key(tmp_path: Path) -> None:
    """0600, the directory 0700, wraps only."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    secret = keyring.current_bucket_key(keyring.create_bucket_key()).secret
    assert (tmp_path / "keyring").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "keyring").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        content = path.read_bytes()
        assert secret not in content
        assert base64.b64encode(secret) not in content
        assert secret.hex().encode() not in content


def test_nothing_prints_a_key(tmp_path: Path) -> None:
    """repr of every object on the way, and of the cache."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    key_id = keyring.create_bucket_key()
    current = keyring.current_bucket_key(key_id)
    shown = repr(keyring) + repr(current) + str(current) + repr(keyring._cache) + f"{current}"
    assert repr(current.secret) not in shown
    assert current.secret.hex() not in shown


def test_unknown_ids_and_versions(tmp_path: Path) -> None:
    """Never made, of no such version, and names that are no ids at all."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    key_id = keyring.create_bucket_key()
    with pytest.raises(UnknownKeyId, match="no version 2"):
        keyring.bucket_key(key_id, 2)
    with pytest.raises(UnknownKeyId, match="no version 2"):
        keyring.keys_to_write(key_id, 2)
    for unknown in ("bk-" + "0" * 32, "../master.key", "bk-../../x", "", "bk-" + "A" * 32, key_id + "\n"):
        with pytest.raises(UnknownKeyId):
            keyring.bucket_key(unknown, 1)


def test_a_wrong_master_key_is_one_clear_line(tmp_path: Path) -> None:
    """It names the file and both fingerprints, and no key."""
    keyring_at(DiskFiles(), tmp_path)
    text = base64.b64encode(bytes(range(32))).decode()
    other = Keyring(
        DiskFiles(), tmp_path / "keyring", CLUSTER_ID, MasterKeyVariable({"FROSTBYTE_MASTER_KEY": text}), ManualClock()
    )
    with pytest.raises(
        UnknownKeyId, match=r"system\.json is wrapped by master key mk-\w{16}, .* is mk-\w{16}"
    ) as caught:
        other.open()
    assert "\n" not in str(caught.value)
    assert text not in str(caught.value)


def test_a_keyring_of_another_cluster_does_not_open(tmp_path: Path) -> None:
    """The same master key is not enough: the cluster is bound."""
    keyring_at(DiskFiles(), tmp_path)
    masters = MasterKeyFile(DiskFiles(), tmp_path / "master.key")
    with pytest.raises(SealBroken):
        Keyring(DiskFiles(), tmp_path / "keyring", b"another-cluster-", masters, ManualClock()).open()


def test_damaged_files_are_corrupt_and_strangers_do_not_open(tmp_path: Path) -> None:
    """Bad JSON, unknown fields, another key's content, a flipped bit: named, never used."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    key_id, other_id = keyring.create_bucket_key(), keyring.create_bucket_key()
    path = tmp_path / "keyring" / f"{key_id}.json"
    good, stranger = json.loads(path.read_text()), (tmp_path / "keyring" / f"{other_id}.json").read_text()
    flipped = json.loads(path.read_text())
    wrapped = bytearray(base64.b64decode(flipped["versions"][0]["wrapped"]))
    wrapped[20] ^= 1
    flipped["versions"][0]["wrapped"] = base64.b64encode(wrapped).decode()
    renamed = {**json.loads(stranger), "key_id": key_id}
    cases = ["", "{", stranger, json.dumps({**good, "more": 1}), json.dumps({**good, "format": 2}), "x" * 70_000]
    cases += [json.dumps({**good, "versions": []}), json.dumps(flipped), json.dumps(renamed)]
    for content in cases:
        path.write_text(content)
        with pytest.raises(Corrupt):
            keyring.bucket_key(key_id, 1)


def test_a_named_key_is_made_once_and_listed(tmp_path: Path) -> None:
    """Its id says its name; a second one of that name is refused and the first stays as it is."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    key_id = keyring.create_named_key("payroll.2026")
    assert key_id == named_key_id("payroll.2026") == "named-payroll.2026"
    secret = keyring.bucket_key(key_id, 1)
    with pytest.raises(ValueError, match="already"):
        keyring.create_named_key("payroll.2026")
    assert keyring.add_version(key_id) == 2
    other = keyring_at(DiskFiles(), tmp_path)
    assert other.bucket_key(key_id, 1) == secret
    assert other.current_bucket_key(key_id).version == 2
    bucket_key_id = keyring.create_bucket_key()
    assert {file.key_id for file in keyring.list_key_files()} == {key_id, bucket_key_id}
    assert keyring.rotate_master() == 3


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a\\b", "a\n", "a b", "ä", "x" * 65, "a\0"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing but a plain file of the keyring can come of a name."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    with pytest.raises(ValueError, match="a key's name"):
        keyring.create_named_key(name)
    assert [path.name for path in (tmp_path / "keyring").iterdir()] == ["system.json"]


def test_a_new_version_seals_and_the_old_one_still_opens(tmp_path: Path) -> None:
    """Blobs name the version that they were sealed with."""
    clock = ManualClock()
    keyring, other = keyring_at(DiskFiles(), tmp_path), keyring_at(DiskFiles(), tmp_path, clock)
    key_id = keyring.create_bucket_key()
    first = other.current_bucket_key(key_id)
    assert keyring.add_version(key_id) == 2
    assert keyring.current_bucket_key(key_id).version == 2
    assert keyring.bucket_key(key_id, 1) == first.secret != keyring.bucket_key(key_id, 2)
    clock.advance(CACHE_TTL_S)
    assert other.current_bucket_key(key_id) == keyring.current_bucket_key(key_id)


def test_destroying_is_final_here_at_once_and_elsewhere_within_the_ttl(tmp_path: Path) -> None:
    """The file is gone; another process's cache runs out."""
    clock = ManualClock()
    keyring, other = keyring_at(DiskFiles(), tmp_path), keyring_at(DiskFiles(), tmp_path, clock)
    key_id = keyring.create_bucket_key()
    other.bucket_key(key_id, 1)
    keyring.destroy(key_id)
    assert not (tmp_path / "keyring" / f"{key_id}.json").exists()
    clock.advance(CACHE_TTL_S)
    for ring in (keyring, other):
        with pytest.raises(UnknownKeyId):
            ring.bucket_key(key_id, 1)
        with pytest.raises(UnknownKeyId):
            ring.destroy(key_id)
    with pytest.raises(ValueError, match="system"):
        keyring.destroy("system")


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many keys are used, only so many stay in memory."""
    monkeypatch.setattr(keyring_module, "CACHED_KEYS_MAX", 3)
    keyring = keyring_at(DiskFiles(), tmp_path)
    ids = [keyring.create_bucket_key() for _ in range(8)]
    secrets = [keyring.bucket_key(key_id, 1) for key_id in ids]
    assert len(keyring._cache) == 3
    assert [keyring.bucket_key(key_id, 1) for key_id in ids] == secrets
    assert len(keyring._cache) == 3


def test_cached_keys_need_no_file(tmp_path: Path) -> None:
    """The hot path reads nothing."""
    files = CrashFiles()
    keyring = keyring_at(files, Path("/data"))
    key_id = keyring.create_bucket_key()
    secret = keyring.bucket_key(key_id, 1)
    files.cut_now()
    assert keyring.bucket_key(key_id, 1) == secret
    assert keyring.current_bucket_key(key_id).secret == secret


def test_the_internal_key_is_kept_as_it_is(tmp_path: Path) -> None:
    """Found again by whoever has the keyring and the master key; a new one takes its place; rotation keeps it."""
    first, second = bytes(range(32)), bytes(range(1, 33))
    keyring = keyring_at(DiskFiles(), tmp_path)
    assert keyring.find_internal_key() is None
    keyring.keep_internal_key(first)
    keyring.keep_internal_key(first)
    assert keyring_at(DiskFiles(), tmp_path).find_internal_key() == first
    keyring.keep_internal_key(second)
    keyring.rotate_master()
    assert keyring_at(DiskFiles(), tmp_path).find_internal_key() == second
    assert list(keyring.list_key_files()) == []
    with pytest.raises(ValueError, match="internal key cannot"):
        keyring.destroy(INTERNAL_KEY_ID)


def test_access_secrets_are_sealed_for_their_access_key(tmp_path: Path) -> None:
    """Any process of the cluster opens them, under that access key id only."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    sealed = keyring.seal_access_secret("AKIA1", "söcret/+")
    assert "söcret".encode() not in sealed
    assert sealed != keyring.seal_access_secret("AKIA1", "söcret/+")
    assert keyring_at(DiskFiles(), tmp_path).open_access_secret("AKIA1", sealed) == "söcret/+"
    with pytest.raises(SealBroken):
        keyring.open_access_secret("AKIA2", sealed)
    with pytest.raises(UnknownKeyId):
        keyring.open_access_secret("AKIA1", sealed[:4] + b"\x02" + sealed[5:])


def test_rotation_rewraps_everything_and_keeps_every_key(tmp_path: Path) -> None:
    """No file names the old master key afterwards, and a running process follows by itself."""
    clock = ManualClock()
    keyring, running = keyring_at(DiskFiles(), tmp_path), keyring_at(DiskFiles(), tmp_path, clock)
    ids = [keyring.create_bucket_key() for _ in range(5)]
    keyring.add_version(ids[0])
    before = [keyring.bucket_key(key_id, 1) for key_id in ids] + [keyring.bucket_key(ids[0], 2)]
    sealed = keyring.seal_access_secret("AKIA1", "secret")
    old = (tmp_path / "master.key").read_bytes()
    assert keyring.rotate_master() == 6
    assert (tmp_path / "master.key").read_bytes() != old
    fresh = keyring_at(DiskFiles(), tmp_path, make=False)
    clock.advance(CACHE_TTL_S)
    for ring in (keyring, running, fresh):
        assert [ring.bucket_key(key_id, 1) for key_id in ids] + [ring.bucket_key(ids[0], 2)] == before
        assert ring.open_access_secret("AKIA1", sealed) == "secret"
    masters = {version.master_key_id for file in fresh.list_key_files() for version in file.versions}
    assert len(masters) == 1
    created = running.create_bucket_key()
    assert fresh.bucket_key(created, 1) == running.bucket_key(created, 1)


def test_rotation_by_environment(tmp_path: Path) -> None:
    """With both keys set everything moves to the new one, and the old one can go."""
    old, new = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    directory = tmp_path / "keyring"
    first = Keyring(DiskFiles(), directory, CLUSTER_ID, MasterKeyVariable({"FROSTBYTE_MASTER_KEY": old}), ManualClock())
    first.open()
    key_id = first.create_bucket_key()
    secret = first.bucket_key(key_id, 1)
    both = MasterKeyVariable({"FROSTBYTE_MASTER_KEY": new, "FROSTBYTE_MASTER_KEY_PREVIOUS": old})
    rotating = Keyring(DiskFiles(), directory, CLUSTER_ID, both, ManualClock())
    rotating.open()
    assert rotating.rotate_master() == 2
    assert rotating.rotate_master() == 0
    after = Keyring(DiskFiles(), directory, CLUSTER_ID, MasterKeyVariable({"FROSTBYTE_MASTER_KEY": new}), ManualClock())
    after.open()
    assert after.bucket_key(key_id, 1) == secret


def test_only_one_process_rotates(tmp_path: Path) -> None:
    """The second one is told so, and nothing changes."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    with DiskFiles().lock(tmp_path / "keyring" / ".lock"), pytest.raises(Unavailable, match="another process"):
        keyring.rotate_master()
    assert keyring.rotate_master() == 1


class InterposingKeys(MasterKeyFile):
    """A master key file during whose first load of a kind something else happens in another process."""

    def __init__(self, files: FileSystem, path: Path) -> None:
        super().__init__(files, path)
        self.after_load = lambda: None

    def load(self) -> tuple[bytes, ...]:
        loaded = super().load()
        action, self.after_load = self.after_load, lambda: None
        action()
        return loaded


def test_a_key_made_while_a_rotation_runs_by_is_not_left_behind(tmp_path: Path) -> None:
    """Its maker saw the old master key, the rotation did not see the file: the maker re-wraps it."""
    keyring = keyring_at(DiskFiles(), tmp_path)
    masters = InterposingKeys(DiskFiles(), tmp_path / "master.key")
    slow = Keyring(DiskFiles(), tmp_path / "keyring", CLUSTER_ID, masters, ManualClock())
    slow.open()
    masters.after_load = lambda: keyring.rotate_master() and None
    key_id = slow.create_bucket_key()
    fresh = keyring_at(DiskFiles(), tmp_path, make=False)
    assert fresh.bucket_key(key_id, 1) == slow.bucket_key(key_id, 1)


def test_first_starts_at_once_agree_on_one_system_key(tmp_path: Path) -> None:
    """Several workers start over an empty directory; a secret sealed by any opens in all."""
    make_directories(DiskFiles(), tmp_path)
    barrier, rings = threading.Barrier(6), []

    def start() -> None:
        barrier.wait()
        rings.append(keyring_at(DiskFiles(), tmp_path))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rings) == 6
    for one, other in itertools.product(rings, rings):
        assert other.open_access_secret("AKIA1", one.seal_access_secret("AKIA1", "s")) == "s"
    assert sorted(path.name for path in (tmp_path / "keyring").iterdir()) == ["system.json"]


def test_a_key_is_durable_when_its_id_is_returned() -> None:
    """A power cut at any step: every id that was handed out still opens, and every secret that was sealed."""
    root, step = Path("/data"), 0
    while True:
        files = CrashFiles()
        files.cut_before(step)
        made: dict[str, bytes] = {}
        sealed: list[bytes] = []
        try:
            keyring = keyring_at(files, root)
            sealed.append(keyring.seal_access_secret("AKIA1", "secret"))
            key_id = keyring.create_bucket_key()
            made[key_id] = keyring.bucket_key(key_id, 1)
        except PowerCut:
            pass
        for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=step)):
            again = keyring_at(survivors, root)
            assert {key_id: again.bucket_key(key_id, 1) for key_id in made} == made
            assert [again.open_access_secret("AKIA1", secret) for secret in sealed] == ["secret"] * len(sealed)
        if not files.is_cut:
            break
        step += 1
    assert step > 15


def test_a_rotation_cut_off_at_any_step_loses_nothing_and_can_be_finished() -> None:
    """Old and new master key are both there as long as any file needs them."""
    root = Path("/data")
    prepared = CrashFiles()
    keyring = keyring_at(prepared, root)
    ids = [keyring.create_bucket_key() for _ in range(3)]
    secrets = [keyring.bucket_key(key_id, 1) for key_id in ids]
    step = 0
    while True:
        files = prepared.survivors()
        rotating = keyring_at(files, root, make=False)
        files.cut_before(files.steps + step)
        with suppress(PowerCut):
            rotating.rotate_master()
        for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=step)):
            again = keyring_at(survivors, root, make=False)
            assert [again.bucket_key(key_id, 1) for key_id in ids] == secrets
            again.rotate_master()
            after = keyring_at(survivors, root, make=False)
            assert [after.bucket_key(key_id, 1) for key_id in ids] == secrets
            assert "master.key.next" not in set(survivors.list_directory(root))
        if not files.is_cut:
            break
        step += 1
    assert step > 20


def test_a_destroyed_key_stays_destroyed_after_a_power_cut() -> None:
    """Once destroy returned, no survivor has the file."""
    files, root = CrashFiles(), Path("/data")
    keyring = keyring_at(files, root)
    key_id = keyring.create_bucket_key()
    keyring.destroy(key_id)
    for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=1)):
        with pytest.raises(UnknownKeyId):
            keyring_at(survivors, root).bucket_key(key_id, 1)


def test_who_joins_makes_no_keyring(tmp_path: Path) -> None:
    """A new system key would open no secret of the cluster, so that an empty or missing directory is refused and left
    as it is; one that is there is opened."""
    masters = MasterKeyFile(DiskFiles(), tmp_path / "master.key")
    masters.make()
    for name in ("missing", "empty"):
        directory = tmp_path / name
        if name == "empty":
            directory.mkdir()
        with pytest.raises(UnknownKeyId, match="holds no keyring"):
            Keyring(DiskFiles(), directory, CLUSTER_ID, masters, ManualClock()).open(make=False)
        assert not directory.exists() or not list(directory.iterdir())
    Keyring(DiskFiles(), tmp_path / "kept", CLUSTER_ID, masters, ManualClock()).open()
    Keyring(DiskFiles(), tmp_path / "kept", CLUSTER_ID, masters, ManualClock()).open(make=False)
