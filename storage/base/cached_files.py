"""Files that somebody else writes, read without waiting for the medium: what is not in memory is left to a thread.

An event loop may look here for what the kernel has cached, a name by openat2(RESOLVE_CACHED) (Linux 5.12) and bytes by
preadv2(RWF_NOWAIT) (4.14), and is told to come back with a thread where either would have to ask a medium, which may
take as long as it likes. Where the kernel or the file system has not got them, everything is left to threads.
"""

# This module is the wall that os stands behind, as storage.base.files is.

from __future__ import annotations

import ctypes
import errno
import os
import struct

_OPENAT2 = 437
"""the same number on every architecture that we run on"""
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME
"""the times of a chunk's file say when it was stored: who may not leave them alone (it is somebody else's file) gets a
PermissionError"""
_OPEN_HOW = struct.pack("=QQQ", _FLAGS, 0, _RESOLVE_CACHED)
_ASK_A_THREAD = frozenset((errno.EAGAIN, errno.ENOSYS, errno.EINVAL, errno.EPERM))
"""not in memory, no such call, no such flag, or a sandbox that knows no such call: opening it will tell"""
_NOT_CACHED = frozenset((errno.EAGAIN, errno.EOPNOTSUPP))

_syscall = ctypes.PyDLL(None, use_errno=True).syscall  # PyDLL: too short a call to let go of the interpreter for it
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


class CachedFile:
    """Open until nobody refers to it: a thread may still be reading what the event loop has forgotten."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __del__(self) -> None:
        os.close(self._fd)

    def size(self) -> int:
        """In bytes, now."""
        return os.fstat(self._fd).st_size

    def read_cached(self, target: bytearray | memoryview, offset: int) -> bool:
        """Fill the target from an offset, if all of it is in memory. OSError."""
        try:
            return os.preadv(self._fd, (target,), offset, os.RWF_NOWAIT) == len(target)
        except OSError as error:
            if error.errno in _NOT_CACHED:
                return False
            raise

    def read(self, target: bytearray | memoryview, offset: int) -> bool:
        """The same, however long it takes; False where the file ends before. OSError."""
        rest = memoryview(target)
        while rest:
            read = os.preadv(self._fd, (rest,), offset)
            if not read:
                return False
            rest, offset = rest[read:], offset + read
        return True


def open_file(path: bytes) -> CachedFile:
    """However long it takes. OSError; PermissionError also for a file of another user."""
    return CachedFile(os.open(path, _FLAGS))


def open_cached(path: bytes) -> CachedFile | None:
    """None unless all that has to be known for it is in memory; then `open_file` says more. OSError."""
    fd = _syscall(_OPENAT2, _AT_FDCWD, path, _OPEN_HOW, len(_OPEN_HOW))
    if fd >= 0:
        return CachedFile(fd)
    number = ctypes.get_errno()
    if number in _ASK_A_THREAD:
        return None
    raise OSError(number, os.strerror(number), os.fsdecode(path))
