"""What an event loop may read at once, and what it leaves to a thread."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.base import cached_files
from storage.base.cached_files import CachedFile, open_cached, open_file

DATA = os.urandom(200_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that was written, so that all of it is in memory."""
    made = tmp_path / "file"
    made.write_bytes(DATA)
    return made


def open_now(path: Path) -> CachedFile:
    """A file whose name was just looked up, so that it is known."""
    path.stat()
    found = open_cached(os.fsencode(path))
    assert found is not None, "a name that was looked up is in memory"
    return found


def test_what_is_in_memory_is_read_at_once(path: Path) -> None:
    """Any span of it, into the middle of something larger."""
    file, target = open_now(path), bytearray(1000)
    assert file.size() == len(DATA)
    assert file.read_cached(memoryview(target)[100:900], 70_000)
    assert target == bytes(100) + DATA[70_000:70_800] + bytes(100)


def test_beyond_the_end(path: Path) -> None:
    """Not all of it is there, now or later."""
    file = open_now(path)
    assert not file.read_cached(bytearray(11), len(DATA) - 10)
    assert not file.read(bytearray(11), len(DATA) - 10)
    assert file.read(bytearray(10), len(DATA) - 10)


def test_what_the_medium_has_to_bring_is_left_to_a_thread(path: Path) -> None:
    """The page cache was told to let go of it."""
    file = open_file(os.fsencode(path))
    with path.open("rb") as writer:
        os.fsync(writer.fileno())
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    target = bytearray(len(DATA))
    if file.read_cached(target, 0):
        pytest.skip("this file system is in memory")
    assert file.read(target, 0)
    assert target == DATA
    assert file.read_cached(target, 0)


def test_a_part_that_is_in_memory_is_not_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives what it has; the rest has to be waited for."""
    file, preadv = open_now(path), os.preadv

    def give_a_page(fd: int, buffers: Sequence[Any], offset: int, flags: int = 0) -> int:
        return preadv(fd, [memoryview(buffers[0])[:4096]], offset, flags)

    monkeypatch.setattr(os, "preadv", give_a_page)
    target = bytearray(10_000)
    assert not file.read_cached(target, 0)
    assert file.read(target, 0), "in as many steps as it takes"
    assert target == DATA[:10_000]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_tell(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Is as good as a medium."""
    file = open_now(path)
    monkeypatch.setattr(os, "preadv", fail_with(number))
    assert not file.read_cached(bytearray(1), 0)


def test_a_medium_that_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises, at once and in a thread."""
    file = open_now(path)
    monkeypatch.setattr(os, "preadv", fail_with(errno.EIO))
    for read in (file.read_cached, file.read):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read(bytearray(1), 0)


def fail_with(number: int) -> Any:
    """A call that fails."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_a_kernel_that_does_not_know(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What it holds in memory, or the call: a thread opens the file."""
    monkeypatch.setattr(cached_files, "_syscall", lambda *_: -1)
    monkeypatch.setattr(cached_files.ctypes, "get_errno", lambda: number)
    assert open_cached(os.fsencode(path)) is None
    assert open_file(os.fsencode(path)).size() == len(DATA)


def test_no_such_file(tmp_path: Path) -> None:
    """A thread finds out; and who looks again knows at once."""
    missing = os.fsencode(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        open_file(missing)
    try:
        assert open_cached(missing) is None
    except FileNotFoundError as error:
        assert error.filename == os.fsdecode(missing)


def test_reading_leaves_the_times_alone(path: Path) -> None:
    """They say when a chunk was stored and verified."""
    os.utime(path, ns=(1_000_000, 2_000_000))
    assert open_now(path).read_cached(bytearray(10), 0)
    assert open_file(os.fsencode(path)).read(bytearray(10), 0)
    assert path.stat().st_atime_ns == 1_000_000


def test_it_is_open_for_as_long_as_somebody_refers_to_it(path: Path) -> None:
    """And closed at once after that."""
    file = open_now(path)
    kept = file
    fd = file._fd
    del file
    assert os.fstat(fd).st_size == len(DATA)
    del kept
    gc.collect()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
