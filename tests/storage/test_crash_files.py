"""The crash twin: what it lets a power cut take away, and what it must never take away."""

from __future__ import annotations

import errno

import pytest

from storage.base.files import FileSystem, fetch_file, make_directories, store_file
from tests.storage.crash_files import CrashFiles, PowerCut

SEEDS = range(40)


def _read(files: FileSystem, path: str) -> bytes | None:
    try:
        return fetch_file(files, path, 1 << 20)
    except FileNotFoundError:
        return None


def _stored(path: str, data: bytes) -> CrashFiles:
    files = CrashFiles()
    store_file(files, path, data)
    return files


def test_a_running_process_sees_its_own_writes() -> None:
    """Before any cut the twin is a plain file system."""
    files = CrashFiles()
    files.make_directory("/d")
    with files.create("/d/a") as file:
        file.write([b"abc", bytearray(b"def")])
        file.pwrite(b"X", 1)
        assert file.pread(10, 2) == b"cdef"
        file.set_times(66, 77)
        assert files.stat("/d/a") == file.stat()
    assert files.stat("/d/a")[:4] == (6, 77, False, 66)
    assert _read(files, "/d/a") == b"aXcdef"
    assert list(files.list_directory("/d")) == ["a"]


def test_unsynced_bytes_are_lost() -> None:
    """A durable name with unsynced bytes is an empty file afterwards."""
    files = CrashFiles()
    with files.create("/a") as file:
        file.write([b"abc"])
    files.fsync_directory("/")
    assert _read(files.survivors(), "/a") == b""


def test_unsynced_names_are_lost() -> None:
    """Synced bytes without a synced name are gone."""
    files = CrashFiles()
    with files.create("/a") as file:
        file.write([b"abc"])
        file.fdatasync()
    assert _read(files.survivors(), "/a") is None
    assert _read(files.survivors(names=True), "/a") == b"abc"
    files.fsync_directory("/")
    assert _read(files.survivors(), "/a") == b"abc"


def test_a_directory_needs_its_parent_synced() -> None:
    """Everything below a directory whose own name was lost is lost."""
    files = CrashFiles()
    files.make_directory("/d")
    store_file(files, "/d/a", b"abc")
    assert list(files.survivors().list_directory("/")) == []
    files.fsync_directory("/")
    assert _read(files.survivors(), "/d/a") == b"abc"


def test_rename_before_sync_is_caught() -> None:
    """The classic mistake: rename without fdatasync leaves a name with nothing in it."""
    files = CrashFiles()
    with files.create("/a.tmp") as file:
        file.write([b"abc"])
    files.replace("/a.tmp", "/a")
    assert _read(files.survivors(names=True), "/a") == b""


def test_unsynced_unlink_comes_back() -> None:
    """A removed name is there again unless the directory was synced."""
    files = _stored("/a", b"abc")
    files.unlink("/a")
    assert _read(files, "/a") is None
    assert _read(files.survivors(), "/a") == b"abc"
    files.fsync_directory("/")
    assert _read(files.survivors(), "/a") is None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rename_never_loses_the_file(seed: int) -> None:
    """Whatever survives of a rename between directories, at least one of the names leads to the bytes."""
    files = _stored("/a", b"abc")
    make_directories(files, "/d")
    files.replace("/a", "/d/b")
    files.fsync_directory("/")
    survivors = files.survivors(seed=seed)
    assert b"abc" in (_read(survivors, "/a"), _read(survivors, "/d/b"))
    files.fsync_directory("/d")
    files.fsync_directory("/")
    assert (_read(files.survivors(), "/a"), _read(files.survivors(), "/d/b")) == (None, b"abc")


def test_a_name_made_again_after_a_rename_is_kept() -> None:
    """A removal that waits for its rename does not strike the file that took the name since."""
    files = _stored("/a", b"old")
    make_directories(files, "/d")
    files.replace("/a", "/d/b")
    store_file(files, "/a", b"new")
    files.fsync_directory("/d")
    files.fsync_directory("/")
    assert (_read(files.survivors(), "/a"), _read(files.survivors(), "/d/b")) == (b"new", b"old")


def test_seeds_tear_writes_and_drop_names() -> None:
    """Random survival is repeatable and reaches all, some and none of an unsynced write."""
    files = CrashFiles()
    file = files.create("/a")
    files.fsync_directory("/")
    file.write([b"x" * 4096])
    files.create("/b")
    outcomes = {_read(files.survivors(seed=seed), "/a") for seed in SEEDS}
    assert outcomes == {_read(files.survivors(seed=seed), "/a") for seed in SEEDS}
    assert {b"", b"x" * 4096} < outcomes
    assert any(data and b"x" in data and data != b"x" * len(data) for data in outcomes)
    assert {_read(files.survivors(seed=seed), "/b") for seed in SEEDS} == {None, b""}


def test_synced_things_survive_every_seed() -> None:
    """Chance never takes what was made durable."""
    files = _stored("/a", b"abc")
    with files.open("/a", writable=True) as file:
        file.pwrite(b"zzz", 3)
    for seed in SEEDS:
        assert (_read(files.survivors(seed=seed), "/a") or b"")[:3] == b"abc"


def test_after_the_cut_nothing_works() -> None:
    """Clean-up code of a dead process changes nothing: every call raises, on open files too."""
    files = _stored("/a", b"abc")
    file = files.open("/a", writable=True)
    files.cut_before(files.steps + 1)
    file.pwrite(b"X", 0)
    for action in (
        lambda: file.pwrite(b"Y", 0),
        lambda: file.pread(1, 0),
        lambda: file.fdatasync(),
        lambda: files.unlink("/a"),
        lambda: files.stat("/a"),
        lambda: list(files.list_directory("/")),
        lambda: files.space("/"),
    ):
        with pytest.raises(PowerCut):
            action()
    assert files.is_cut
    assert _read(files.survivors(), "/a") == b"abc"


def test_a_failing_step_fails_once() -> None:
    """fail_before makes one step an OSError; a failed sync takes its bytes with it."""
    files = CrashFiles()
    file = files.create("/a")
    files.fsync_directory("/")
    file.write([b"abc"])
    files.fail_before(files.steps, OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        file.fdatasync()
    assert _read(files.survivors(seed=1), "/a") == b""


def test_a_full_disk_refuses_writes() -> None:
    """Room is counted in bytes over all files; overwriting takes none."""
    files = CrashFiles(capacity_bytes=10)
    file = files.create("/a")
    file.preallocate(8)
    assert files.space("/") == (10, 2)
    with pytest.raises(OSError, match="No space"):
        file.pwrite(b"abc", 8)
    file.pwrite(b"abcdefgh", 0)


def test_locks_and_their_end() -> None:
    """As on the machine: one holder, free after close."""
    files = CrashFiles()
    held = files.lock("/lock")
    with pytest.raises(BlockingIOError):
        files.lock("/lock")
    held.close()
    files.lock("/lock")


def test_errors_are_those_of_the_system() -> None:
    """Callers that handle a file system's errors handle the twin's."""
    files = _stored("/a", b"abc")
    files.make_directory("/d")
    store_file(files, "/d/x", b"")
    cases = [
        (FileExistsError, lambda: files.create("/a")),
        (FileExistsError, lambda: files.link("/a", "/d/x")),
        (FileExistsError, lambda: files.make_directory("/a")),
        (FileNotFoundError, lambda: files.open("/no")),
        (FileNotFoundError, lambda: files.create("/no/a")),
        (NotADirectoryError, lambda: files.fsync_directory("/a")),
        (NotADirectoryError, lambda: files.stat("/a/b")),
        (IsADirectoryError, lambda: files.unlink("/d")),
        (OSError, lambda: files.remove_directory("/d")),
        (OSError, lambda: files.open("/a").pwrite(b"", 0)),
        (ValueError, lambda: files.stat("relative")),
    ]
    for error, action in cases:
        with pytest.raises(error):
            action()


@pytest.mark.parametrize("seed", [None, *SEEDS])
def test_store_file_is_all_or_nothing_at_every_step(seed: int | None) -> None:
    """Cut store_file before each of its steps: the old bytes or the new ones, and the new ones once it has returned."""
    steps_needed = 5
    for cut in range(steps_needed + 1):
        files = _stored("/a", b"old")
        files.cut_before(files.steps + cut)
        try:
            store_file(files, "/a", b"new")
            done = True
        except PowerCut:
            done = False
        for survivors in (files.survivors(seed=seed), files.survivors(names=True)):
            assert _read(survivors, "/a") in ({b"new"} if done else {b"old", b"new"})
        assert done == (cut == steps_needed)
