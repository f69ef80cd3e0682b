"""Files that are longer than what is in them: what was appended is there, and nothing twice or in the wrong place."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import JournalConflict, NodeFull
from storage.base.files import DiskFiles
from storage.datanode.appended_file import AHEAD_BYTES, AppendedFile
from tests.storage.crash_files import CrashFiles, PowerCut

PATH = "/data/file"
BYTES_MAX = 1 << 30
records = st.lists(st.binary(min_size=1, max_size=AHEAD_BYTES).map(lambda data: b"r" + data), max_size=6)


def opened(files: CrashFiles, bytes_max: int = BYTES_MAX, free_bytes: int = BYTES_MAX) -> AppendedFile:
    def require_room(length: int) -> None:
        if length > free_bytes:
            raise NodeFull("full")

    return AppendedFile("file", files.open(PATH, writable=True), bytes_max, require_room)


def made(content: bytes) -> CrashFiles:
    files = CrashFiles()
    files.make_directory("/data")
    with files.create(PATH) as file:
        file.pwrite(content, 0)
        file.fsync()
    files.fsync_directory("/data")
    files.fsync_directory("/")
    return files


def read(files: CrashFiles) -> bytes:
    with files.open(PATH) as file:
        return file.pread(file.size(), 0)


@given(records, st.booleans())
def test_what_was_appended_is_what_is_in_it(appended: list[bytes], is_killed: bool) -> None:
    """Whatever the lengths, and however its process ended; the next process goes on where it is told."""
    files = made(b"header")
    content = b"header"
    for data in appended:
        file = opened(files)
        for part in (data, b"x"):
            file.append(len(content), part)
            file.append(len(content), part)  # the same again
            content += part
            assert file.length == len(content)
            if len(content) > 6:
                with pytest.raises(JournalConflict, match=f"file has {len(content)} bytes, not {len(content) - 1}"):
                    file.append(len(content) - 1, b"other")
        if is_killed:
            file.close()
            assert read(files).rstrip(b"\0") == content
        else:
            file.finish()
            assert read(files) == content


def test_bytes_are_overwritten_and_not_added() -> None:
    """But for every AHEAD_BYTES."""
    files = made(b"header")
    file = opened(files)
    sizes = []
    for number in range(40):
        file.append(6 + 16_384 * number, b"r" * 16_384)
        sizes.append(len(read(files)))
    assert len(set(sizes)) == 3
    assert sizes[0] == 6 + 16_384 + AHEAD_BYTES


def test_another_process_s_zeros_are_taken_for_what_they_are() -> None:
    """Up to as many as are ever written, and only where there is nothing else behind."""
    for zeros, is_taken in ((AHEAD_BYTES, True), (AHEAD_BYTES + 1, False)):
        files = made(b"header" + bytes(zeros))
        file = opened(files)
        if is_taken:
            file.append(6, b"record")
            assert file.length == 12
        else:
            with pytest.raises(JournalConflict):
                file.append(6, b"record")
    files = made(b"headertorn" + bytes(100))
    with pytest.raises(JournalConflict):
        opened(files).append(6, b"record")
    files = made(b"headerrecord" + bytes(100))
    file = opened(files)
    file.append(6, b"record")  # that was not answered for
    assert file.length == 12
    with pytest.raises(JournalConflict):
        file.append(6, b"rec")


def test_room_is_taken_ahead_only_where_there_is_enough() -> None:
    """Of the medium, and of what a file may have."""
    files = made(b"header")
    file = opened(files, free_bytes=100)
    file.append(6, b"r" * 100)
    assert len(read(files)) == 106
    with pytest.raises(NodeFull):
        file.append(106, b"r" * 101)
    file.append(106, b"again")
    files = made(b"header")
    opened(files, bytes_max=20).append(6, b"r" * 10)
    assert len(read(files)) == 20


def test_zeros_that_cannot_be_cut_off_stay() -> None:
    """They are nothing."""
    files = made(b"header")
    file = opened(files)
    file.append(6, b"record")
    files.fail_before(files.steps, OSError(errno.EIO, "broken"))
    file.finish()
    assert read(files).rstrip(b"\0") == b"headerrecord"


@given(records.filter(bool), st.integers(0, 2**16))
def test_the_power_leaves_what_was_answered_for(appended: list[bytes], seed: int) -> None:
    """And the writer goes on behind it, or is told of a conflict, never overwrites it."""
    complete = made(b"header")
    steps_before = complete.steps
    offset, file = 6, opened(complete)
    for data in appended:
        file.append(offset, data)
        offset += len(data)
    cut = steps_before + seed % (complete.steps - steps_before + 1)
    files = made(b"header")
    files.cut_before(cut)
    answered = b"header"
    try:
        file = opened(files)
        for data in appended:
            file.append(len(answered), data)
            answered += data
    except PowerCut:
        pass
    left = files.survivors(seed=seed)
    assert read(left).startswith(answered)
    try:
        opened(left).append(len(answered), b"next")
    except JournalConflict:
        assert read(left).startswith(answered)
    else:
        assert read(left).startswith(answered + b"next")


def test_it_is_so_on_a_disk(tmp_path: Path) -> None:
    """Over a real file."""
    path = tmp_path / "file"
    path.write_bytes(b"header")
    file = AppendedFile("file", DiskFiles().open(path, writable=True), BYTES_MAX, lambda length: None)
    file.append(6, b"record")
    assert path.stat().st_size == 12 + AHEAD_BYTES
    file.finish()
    assert path.read_bytes() == b"headerrecord"
