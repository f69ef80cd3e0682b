"""The one door to durable files: every byte that Frostbyte must find again after a power cut is written through here.

`FileSystem` is what the writers see, `DiskFiles` is the machine's own. The tests put a twin in its place that forgets
whatever was not synced, so the order of steps in a writer is something that a test can break. All calls are synchronous
and may block on the medium: they are made in worker threads, never on an event loop.

What counts as durable: the bytes of a file after its `fdatasync` or `fsync`; a name (created, renamed, linked, removed)
after `fsync_directory` of the directory that holds it. Nothing else.

Errors are OSError as the system gives them.
"""

# This module is the wall that os stands behind: plain text paths cost less than pathlib objects, and it calls os.
# ruff: noqa: PTH100, PTH102, PTH105, PTH106, PTH108, PTH116, PTH118, PTH120

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, Protocol, Self

from storage.base.direct_file import open_direct

Buffer = bytes | bytearray | memoryview
AnyPath = str | os.PathLike[str]

PRIVATE_FILE_MODE = 0o600
PRIVATE_DIRECTORY_MODE = 0o700
BUFFERS_PER_WRITE_MAX = 256
"""buffers handed to one writev; the system's own bound is 1024"""
TEMPORARY_SUFFIX = ".tmp"

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_STAT_BLOCK_BYTES = 512
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FileStat(NamedTuple):
    """What a name leads to. Times: nanoseconds since the epoch, as exact as the file system keeps them."""

    size: int
    modified_ns: int
    is_directory: bool
    accessed_ns: int = 0
    inode: int = 0
    """the file's own number: no other file of the file system has it while this one is open or has a name"""
    allocated_bytes: int = 0
    """what it takes of the medium: less than its size where it has holes"""


class DiskSpace(NamedTuple):
    """Of the file system beneath a path, in bytes. free_bytes: what an ordinary process may still take."""

    capacity_bytes: int
    free_bytes: int


class AlignedFile(Protocol):
    """Open for writing past the page cache, until nobody refers to it any more. Used by one thread at a time."""

    def fileno(self) -> int:
        """As of OpenFile."""
        ...

    def pwrite(self, data: memoryview, offset: int) -> None:
        """All of the data, from memory, to an offset, and of a length that are multiples of ALIGNMENT_BYTES
        (direct_file.py). Durable as what is written through the page cache: after a sync of the file."""
        ...


class OpenFile(AbstractContextManager["OpenFile"], Protocol):
    """An open file. Used by one thread at a time; leaving the `with` closes it, which makes nothing durable."""

    def fileno(self) -> int:
        """The descriptor, for a call that is not here; OSError of a file that the system does not know."""
        ...

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Append all of the buffers, in order."""
        ...

    def pwrite(self, data: Buffer, offset: int) -> None:
        """Write all of the data at an offset."""
        ...

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all of the buffers at an offset, one behind the other."""
        ...

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes from an offset; fewer only where the file ends."""
        ...

    def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
        """Fill the target from an offset; how many bytes, fewer than asked only where the file ends."""
        ...

    def preallocate(self, length: int) -> None:
        """Take room for `length` bytes now (ENOSPC now, not midway); no effect where that is not supported."""
        ...

    def punch(self, offset: int, length: int) -> bool:
        """Give the room of whole blocks back: they read as zeros from now on. False, with nothing changed, where that
        is not supported."""
        ...

    def truncate(self, length: int) -> None: ...

    def set_times(self, accessed_ns: int, modified_ns: int) -> None:
        """Set the times that `stat` gives. The file need not be writable, but must be the process's own."""
        ...

    def reopen_direct(self) -> AlignedFile:
        """The same file, for large writes of what need not be in memory afterwards. Where its file system cannot pass
        by the page cache they go through it."""
        ...

    def stat(self) -> FileStat:
        """Of the file itself, whatever its name leads to by now."""
        ...

    def size(self) -> int: ...

    def drop_cached(self, offset: int = 0, length: int = 0) -> None:
        """Let what is read next, of a range or (for a length of 0) up to the end, come from the medium. As far as the
        system allows: what was not synced yet, or is just being used by another reader, may stay in memory."""
        ...

    def fdatasync(self) -> None:
        """The bytes and the size are durable when it returns. After an error the file must be thrown away."""
        ...

    def fsync(self) -> None:
        """As fdatasync, and mode and times too."""
        ...

    def close(self) -> None:
        """Twice is no error."""
        ...


class FileSystem(Protocol):
    """A tree of files. Names are durable only after fsync_directory."""

    def create(self, path: AnyPath, mode: int = PRIVATE_FILE_MODE) -> OpenFile:
        """A new file to read and write. FileExistsError when the name is taken."""
        ...

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        """An existing file. Reading it leaves its access time alone where the system allows that (to its owner)."""
        ...

    def replace(self, source: AnyPath, target: AnyPath) -> None:
        """Give a file another name, in one step, whatever was there before."""
        ...

    def link(self, source: AnyPath, target: AnyPath) -> None:
        """Give a file a second name. FileExistsError when it is taken: of two racing callers one wins."""
        ...

    def unlink(self, path: AnyPath) -> None: ...

    def make_directory(self, path: AnyPath, mode: int = PRIVATE_DIRECTORY_MODE) -> None:
        """FileExistsError when the name is taken."""
        ...

    def remove_directory(self, path: AnyPath) -> None:
        """An empty one; OSError (ENOTEMPTY) otherwise."""
        ...

    def fsync_directory(self, path: AnyPath) -> None:
        """Every change of names in this directory that came before is durable when it returns."""
        ...

    def list_directory(self, path: AnyPath) -> Iterator[str]:
        """Names in no order, without `.` and `..`; read as it is iterated, so a huge directory costs no memory."""
        ...

    def stat(self, path: AnyPath) -> FileStat:
        """FileNotFoundError when there is nothing of this name."""
        ...

    def space(self, path: AnyPath) -> DiskSpace: ...

    def lock(self, path: AnyPath) -> OpenFile:
        """Hold an exclusive lock on a file (made if need be) until it is closed or the process dies.

        BlockingIOError when another process holds it."""
        ...


class DiskFile:
    """OpenFile over a file descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, buffers: Sequence[Buffer]) -> None:
        for start in range(0, len(buffers), BUFFERS_PER_WRITE_MAX):
            batch = buffers[start : start + BUFFERS_PER_WRITE_MAX]
            missing = sum(map(len, batch)) - os.writev(self._fd, batch)
            if missing:
                self._write_rest(b"".join(batch)[-missing:])

    def _write_rest(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def pwrite(self, data: Buffer, offset: int) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        for start in range(0, len(buffers), BUFFERS_PER_WRITE_MAX):
            batch = buffers[start : start + BUFFERS_PER_WRITE_MAX]
            length = sum(map(len, batch))
            written = os.pwritev(self._fd, batch, offset)
            if written < length:
                self.pwrite(b"".join(batch)[written:], offset + written)
            offset += length

    def pread(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
        rest = memoryview(target)
        while rest:
            read = os.preadv(self._fd, [rest], offset)
            if not read:
                break
            rest, offset = rest[read:], offset + read
        return len(target) - len(rest)

    def preallocate(self, length: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def punch(self, offset: int, length: int) -> bool:
        if _fallocate(self._fd, _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in _NOT_SUPPORTED:
            return False
        raise OSError(number, os.strerror(number))

    def truncate(self, length: int) -> None:
        os.ftruncate(self._fd, length)

    def set_times(self, accessed_ns: int, modified_ns: int) -> None:
        os.utime(self._fd, ns=(accessed_ns, modified_ns))

    def reopen_direct(self) -> AlignedFile:
        return open_direct(f"/proc/self/fd/{self._fd}")  # by its name it might be another file meanwhile

    def stat(self) -> FileStat:
        return _as_file_stat(os.fstat(self._fd))

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def drop_cached(self, offset: int = 0, length: int = 0) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def fdatasync(self) -> None:
        os.fdatasync(self._fd)

    def fsync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class DiskFiles:
    """FileSystem of the machine."""

    file_class = DiskFile

    def create(self, path: AnyPath, mode: int = PRIVATE_FILE_MODE) -> OpenFile:
        return self.file_class(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC
        try:
            return self.file_class(os.open(path, flags | os.O_NOATIME))
        except PermissionError:  # of somebody else's file
            return self.file_class(os.open(path, flags))

    def replace(self, source: AnyPath, target: AnyPath) -> None:
        os.replace(source, target)

    def link(self, source: AnyPath, target: AnyPath) -> None:
        os.link(source, target)

    def unlink(self, path: AnyPath) -> None:
        os.unlink(path)

    def make_directory(self, path: AnyPath, mode: int = PRIVATE_DIRECTORY_MODE) -> None:
        os.mkdir(path, mode)

    def remove_directory(self, path: AnyPath) -> None:
        os.rmdir(path)

    def fsync_directory(self, path: AnyPath) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def list_directory(self, path: AnyPath) -> Iterator[str]:
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name

    def stat(self, path: AnyPath) -> FileStat:
        return _as_file_stat(os.stat(path))

    def space(self, path: AnyPath) -> DiskSpace:
        found = os.statvfs(path)
        return DiskSpace(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def lock(self, path: AnyPath) -> DiskFile:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return DiskFile(fd)


def _as_file_stat(found: os.stat_result) -> FileStat:
    is_directory = stat.S_ISDIR(found.st_mode)
    allocated_bytes = found.st_blocks * _STAT_BLOCK_BYTES
    return FileStat(found.st_size, found.st_mtime_ns, is_directory, found.st_atime_ns, found.st_ino, allocated_bytes)


def store_file(
    files: FileSystem, path: AnyPath, data: Buffer, mode: int = PRIVATE_FILE_MODE, *, exclusive: bool = False
) -> None:
    """Make a small file durable, whole or not at all: temporary file → fsync → rename → fsync of the directory.

    A power cut at any step leaves the old file or the new one, and at most a temporary `.<name>.<hex>.tmp` beside it,
    which readers never look at. exclusive: an existing file is kept and FileExistsError raised, so that of two
    processes making the same secret at once one wins and the other reads the winner's.
    """
    directory, name = os.path.split(os.fspath(path))
    directory = directory or "."
    temporary = os.path.join(directory, f".{name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        with files.create(temporary, mode) as file:
            file.write([data])
            file.fsync()
        if exclusive:
            files.link(temporary, path)
            files.unlink(temporary)
        else:
            files.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            files.unlink(temporary)
        raise
    files.fsync_directory(directory)


def fetch_file(files: FileSystem, path: AnyPath, size_bytes_max: int) -> bytes:
    """The whole of a small file. FileNotFoundError; ValueError when it is larger than the bound."""
    with files.open(path) as file:
        data = file.pread(size_bytes_max + 1, 0)
    if len(data) > size_bytes_max:
        raise ValueError(f"{os.fspath(path)} is larger than {size_bytes_max} bytes")
    return data


def make_directories(files: FileSystem, path: AnyPath, mode: int = PRIVATE_DIRECTORY_MODE) -> None:
    """Make a directory durable, with its missing parents. An existing one is made durable all the same: whoever made
    it may have died before the sync."""
    text = os.path.abspath(os.fspath(path))
    parent = os.path.dirname(text)
    try:
        files.make_directory(text, mode)
    except FileExistsError:
        if not files.stat(text).is_directory:
            raise
    except FileNotFoundError:
        make_directories(files, parent, mode)
        with suppress(FileExistsError):
            files.make_directory(text, mode)
    files.fsync_directory(parent)
