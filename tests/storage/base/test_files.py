"""DiskFiles on a real directory, and the helpers that make small files durable."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from storage.base.files import DiskFiles, fetch_file, make_directories, store_file

FILES = DiskFiles()


def test_write_appends_all_buffers_in_order(tmp_path: Path) -> None:
    """More buffers than one writev takes, of every accepted type, arrive whole."""
    pieces = [bytes([n % 251]) * (n % 7 + 1) for n in range(700)]
    buffers = [memoryview(p) if n % 3 == 0 else bytearray(p) if n % 3 == 1 else p for n, p in enumerate(pieces)]
    with FILES.create(tmp_path / "a") as file:
        file.write(buffers)
        file.write([b"end"])
        assert file.size() == sum(map(len, pieces)) + 3
    assert (tmp_path / "a").read_bytes() == b"".join(pieces) + b"end"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes only some bytes a call loses nothing and repeats nothing."""
    real_write = os.write
    monkeypatch.setattr(os, "writev", lambda fd, buffers: real_write(fd, bytes(buffers[0])[:2]))
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:1]))
    with FILES.create(tmp_path / "a") as file:
        file.write([b"abc", b"defg"])
    assert (tmp_path / "a").read_bytes() == b"abcdefg"


def test_positioned_reads_and_writes(tmp_path: Path) -> None:
    """pread gives less only at the end of the file; pread_into reports how far it came."""
    with FILES.create(tmp_path / "a") as file:
        file.write([b"0123456789"])
        file.pwrite(memoryview(b"xy"), 4)
    with FILES.open(tmp_path / "a") as file:
        assert file.pread(4, 3) == b"3xy6"
        assert file.pread(100, 8) == b"89"
        assert file.pread(5, 10) == b""
        target = bytearray(4)
        assert file.pread_into(target, 7) == 3
        assert target == b"789\0"


def test_preallocate_truncate_and_times(tmp_path: Path) -> None:
    """Room can be taken and given back, and the modification time is what it was set to."""
    with FILES.create(tmp_path / "a") as file:
        file.preallocate(8192)
        file.truncate(100)
        file.set_times(1_234_567_890_000_000_100, 1_234_567_890_123_000_007)
        file.fsync()
        file.fdatasync()
        found = FILES.stat(tmp_path / "a")
        assert found == file.stat()
    assert found[:4] == (100, 1_234_567_890_123_000_007, False, 1_234_567_890_000_000_100)
    assert found.inode == (tmp_path / "a").stat().st_ino


def test_create_and_link_never_overwrite(tmp_path: Path) -> None:
    """A taken name is an error for create, link and make_directory; replace takes it over."""
    for name in ("a", "b"):
        with FILES.create(tmp_path / name) as file:
            file.write([name.encode()])
    with pytest.raises(FileExistsError):
        FILES.create(tmp_path / "a")
    with pytest.raises(FileExistsError):
        FILES.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileExistsError):
        FILES.make_directory(tmp_path / "a")
    FILES.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a"
    assert list(FILES.list_directory(tmp_path)) == ["b"]


def test_directories(tmp_path: Path) -> None:
    """Only an empty directory can be removed, and its sync needs it to exist."""
    FILES.make_directory(tmp_path / "d")
    assert FILES.stat(tmp_path / "d").is_directory
    FILES.create(tmp_path / "d" / "x").close()
    with pytest.raises(OSError, match="not empty"):
        FILES.remove_directory(tmp_path / "d")
    FILES.unlink(tmp_path / "d" / "x")
    FILES.fsync_directory(tmp_path / "d")
    FILES.remove_directory(tmp_path / "d")
    with pytest.raises(FileNotFoundError):
        FILES.fsync_directory(tmp_path / "d")


def test_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    """Free never exceeds the capacity."""
    space = FILES.space(tmp_path)
    assert 0 < space.free_bytes <= space.capacity_bytes


def test_lock_is_exclusive_until_closed(tmp_path: Path) -> None:
    """A second holder is refused at once, and let in when the first is gone."""
    held = FILES.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        FILES.lock(tmp_path / "lock")
    held.close()
    FILES.lock(tmp_path / "lock").close()


def test_close_twice(tmp_path: Path) -> None:
    """The second close is no error and closes nobody else's descriptor."""
    file = FILES.create(tmp_path / "a")
    file.close()
    with FILES.create(tmp_path / "b") as other:
        file.close()
        other.write([b"still open"])


def test_store_file_replaces_whole_and_private(tmp_path: Path) -> None:
    """The new bytes take the old ones' place with the asked mode, and no temporary file stays."""
    path = tmp_path / "credentials.json"
    store_file(FILES, path, b"old")
    store_file(FILES, path, b"new")
    assert fetch_file(FILES, path, 100) == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["credentials.json"]


def test_store_file_exclusive_keeps_the_first(tmp_path: Path) -> None:
    """The loser of a race learns of it and leaves nothing behind."""
    path = tmp_path / "master.key"
    store_file(FILES, path, b"winner", exclusive=True)
    with pytest.raises(FileExistsError):
        store_file(FILES, path, b"loser", exclusive=True)
    assert path.read_bytes() == b"winner"
    assert os.listdir(tmp_path) == ["master.key"]


def test_store_file_into_a_missing_directory_is_refused(tmp_path: Path) -> None:
    """Directories are made durable by make_directories, never on the side."""
    with pytest.raises(FileNotFoundError):
        store_file(FILES, tmp_path / "no" / "file", b"x")


def test_fetch_file_bounds_what_it_reads(tmp_path: Path) -> None:
    """A file above the bound is refused, one at the bound is read."""
    store_file(FILES, tmp_path / "a", bytes(10))
    assert fetch_file(FILES, tmp_path / "a", 10) == bytes(10)
    with pytest.raises(ValueError, match="larger than 9 bytes"):
        fetch_file(FILES, tmp_path / "a", 9)


def test_make_directories_makes_parents_once(tmp_path: Path) -> None:
    """Missing parents are made, an existing directory is fine, a file in the way is not."""
    make_directories(FILES, tmp_path / "a" / "b" / "c")
    make_directories(FILES, tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    store_file(FILES, tmp_path / "file", b"")
    with pytest.raises(FileExistsError):
        make_directories(FILES, tmp_path / "file")


def test_reading_leaves_the_access_time_alone(tmp_path: Path) -> None:
    """Though it is older than the modification, which would move it on most systems."""
    store_file(FILES, tmp_path / "a", b"abc")
    with FILES.open(tmp_path / "a") as file:
        file.set_times(5_000_000_000, 9_000_000_000)
        assert file.pread(3, 0) == b"abc"
        file.drop_cached()
        assert file.pread(3, 0) == b"abc"
    assert FILES.stat(tmp_path / "a").accessed_ns == 5_000_000_000


def test_a_file_of_somebody_else_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its owner may ask the system to leave the access time alone."""
    store_file(FILES, tmp_path / "a", b"abc")
    open_file = os.open

    def refuse_owners_rights(path: str, flags: int, *more: int) -> int:
        if flags & os.O_NOATIME:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        return open_file(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse_owners_rights)
    with FILES.open(tmp_path / "a") as file:
        assert file.pread(3, 0) == b"abc"


def test_buffers_are_written_at_an_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One behind the other, more than one call takes, and though a call takes only some of them."""
    pieces = [bytes([n % 251]) * (n % 7 + 1) for n in range(700)]
    real_pwrite = os.pwrite
    for limit in (1 << 20, 1000):

        def some(fd: int, buffers: list[bytes], offset: int, limit: int = limit) -> int:
            return real_pwrite(fd, b"".join(buffers)[:limit], offset)

        monkeypatch.setattr(os, "pwritev", some)
        with FILES.create(tmp_path / str(limit)) as file:
            file.pwritev([memoryview(piece) for piece in pieces], 100)
        assert (tmp_path / str(limit)).read_bytes() == bytes(100) + b"".join(pieces)


def test_room_in_the_middle_is_given_back(tmp_path: Path) -> None:
    """What is left stays where it was."""
    with FILES.create(tmp_path / "a") as file:
        file.write([b"x" * 65_536])
        file.fdatasync()
        before = file.stat()
        if not file.punch(8192, 16_384):
            pytest.skip("the file system punches no holes")
        found = file.stat()
    assert found.size == before.size
    assert before.allocated_bytes - found.allocated_bytes == 16_384
    assert (tmp_path / "a").read_bytes() == b"x" * 8192 + bytes(16_384) + b"x" * 40_960


def test_a_hole_that_cannot_be_punched_is_no_error(tmp_path: Path) -> None:
    """Where the file system knows no holes; others are."""
    with FILES.create(tmp_path / "a") as file:
        file.write([b"x" * 4096])
        assert not file.punch(0, 0), "which the system refuses"
    with FILES.open(tmp_path / "a") as file, pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        file.punch(0, 4096)
