"""Writing past the page cache where that can be had, and through it where it cannot."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.base.direct_file import ALIGNMENT_BYTES, BUFFER_BYTES, AlignedBuffers, DirectFile, open_direct

OPEN = os.open
PWRITE = os.pwrite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty file."""
    made = tmp_path / "file"
    made.touch()
    return made


def write_all(file: DirectFile, data: bytes) -> None:
    """As a writer does: aligned pieces, and what is left at the end."""
    with AlignedBuffers().borrow() as buffer:
        for offset in range(0, len(data), BUFFER_BYTES):
            piece = data[offset : offset + BUFFER_BYTES]
            whole = len(piece) - len(piece) % ALIGNMENT_BYTES
            buffer[: len(piece)] = piece
            file.pwrite(buffer[:whole], offset)
            buffer[: len(piece) - whole] = piece[whole:]
            file.pwrite(buffer[: len(piece) - whole], offset + whole)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, BUFFER_BYTES, BUFFER_BYTES + 5000])
def test_what_is_written_is_there(path: Path, size: int) -> None:
    """Whatever the length."""
    data = os.urandom(size)
    file = open_direct(str(path))
    write_all(file, data)
    assert path.read_bytes() == data


def refuse_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no O_DIRECT")
        return OPEN(name, flags)

    monkeypatch.setattr(os, "open", refuse)


def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[int] = []

    def refuse(fd: int, data: memoryview, offset: int) -> int:
        if not refused:
            refused.append(fd)
            raise OSError(errno.EINVAL, "another alignment")
        return PWRITE(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)


@pytest.mark.parametrize("refuse", [refuse_opening, refuse_writing])
def test_a_file_system_without_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Found out when the file is opened, or by the first write."""
    data = os.urandom(20_000)
    refuse(monkeypatch)
    file = open_direct(str(path))
    write_all(file, data)
    assert not file.is_direct
    assert path.read_bytes() == data


def test_short_writes_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the rest is not aligned any more."""
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: PWRITE(fd, bytes(data[:1000]), offset))
    data = os.urandom(8192)
    file = open_direct(str(path))
    file._leave_direct()
    write_all(file, data)
    assert path.read_bytes() == data


def test_other_errors_are_told(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made, and a full medium is not taken for one without O_DIRECT."""
    with pytest.raises(FileNotFoundError):
        open_direct(str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()
    file = open_direct(str(path))

    def fill(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", fill)
    with pytest.raises(OSError, match="full"):
        write_all(file, bytes(8192))


def test_the_file_is_closed_when_nobody_refers_to_it(path: Path) -> None:
    """And not before."""
    file = open_direct(str(path))
    fd = file._fd
    os.fstat(fd)
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_buffers_are_used_again() -> None:
    """As many as are needed at once; none after they were shed."""
    buffers = AlignedBuffers()
    with buffers.borrow() as first, buffers.borrow() as second:
        first[:] = b"1" * BUFFER_BYTES
        second[:] = b"2" * BUFFER_BYTES
    with buffers.borrow() as again:
        assert again[:1] in (b"1", b"2")
    assert len(buffers._free) == 2
    buffers.shed()
    with buffers.borrow() as fresh:
        assert fresh[:1] == b"\0"
