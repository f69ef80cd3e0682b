"""Chains of writes that end with a sync, which the kernel carries out one step after the other: io_uring(7).

A thread that writes and syncs has to have the interpreter's lock back after each call, from an event loop that is
busy, and has to wake that loop in the end. A chain costs one call, and wakes the loop itself. With 16 PUTs of 64 KiB in
flight on two processors there are 7 ± 6 % more of them, for 9 ± 5 % less processor time (BENCHMARKS.md).

What is used of it: linked requests of which only the one that ends the chain is told of (IOSQE_IO_LINK and
IOSQE_CQE_SKIP_SUCCESS, Linux 5.17), all of a call submitted whatever becomes of one (IORING_SETUP_SUBMIT_ALL, 5.18),
and an eventfd. Kernels before that, and containers and systems that forbid io_uring, say so when a ring is made: that
is OSError, and who is refused uses threads. So does every processor but x86-64, on whose order of loads reading the
kernel's answers relies. The kernel may interrupt the thread that submitted, to go on with a chain: to wait until it
makes a call of its own (IORING_SETUP_COOP_TASKRUN) costs more time than it saves.

The packages that wrap liburing want memory copied, or take none that is aligned for O_DIRECT; so the three calls are
made here, by the layout of linux/io_uring.h.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

CHAIN_STEPS_MAX = 16
"""of one, its sync among them"""
CHAINS_MAX = 32
"""at once"""

_ENTRIES = CHAIN_STEPS_MAX
"""of the submission queue, which is empty after each call; a chain tells one thing, so the other queue has room"""
_COMPLETIONS = 2 * CHAINS_MAX
_SETUP, _ENTER, _REGISTER = 425, 426, 427
_SETUP_CQSIZE, _SETUP_SUBMIT_ALL = 1 << 3, 1 << 7
_FEAT_SINGLE_MMAP, _FEAT_CQE_SKIP = 1 << 0, 1 << 11
_REGISTER_EVENTFD = 4
_OFFSET_QUEUES, _OFFSET_REQUESTS = 0, 0x10000000
_OP_FSYNC, _OP_WRITE = 3, 23
_LINKED, _QUIET = 1 << 2, 1 << 6
_FSYNC_DATASYNC = 1
_REQUEST = struct.Struct("=BBHiQQIIQ24x")
"""struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, rw_flags or fsync_flags, user_data"""
_COMPLETION = struct.Struct("=QiI")
"""struct io_uring_cqe: user_data, res, flags"""
_PARAMETERS = struct.Struct("=10I10I10I")
"""struct io_uring_params: sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, …; the offsets of the
submission queue: head, tail, ring_mask, ring_entries, flags, dropped, array, …; those of the completion queue: head,
tail, ring_mask, ring_entries, overflow, cqes, …"""
_WORD = 4

# The calls never wait, so they keep the interpreter's lock.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long,) * 7
_syscall.restype = ctypes.c_long


class Write(NamedTuple):
    """A step: all of the data, at an offset of a file that is open for writing."""

    fd: int
    data: memoryview
    """of memory that can be written to; left alone until the chain has ended"""
    offset: int


class ChainEnd(NamedTuple):
    """How a chain ended."""

    chain: int
    error: int
    """errno, of the first step that failed; 0 where all went well. A write that came to less than its data is EIO"""
    has_written: bool
    """whether it came as far as its sync"""


class Uring:
    """Used by one thread."""

    def __init__(self) -> None:
        """OSError where the system has none, or not all that is needed of it."""
        if platform.machine() != "x86_64":
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        parameters = bytearray(_PARAMETERS.size)
        _PARAMETERS.pack_into(parameters, 0, 0, _COMPLETIONS, _FLAGS, *bytes(27))
        self._fd = _call(_SETUP, _ENTRIES, _address(memoryview(parameters)))
        self.ready_fd = -1
        """an eventfd: readable when a chain has ended"""
        try:
            self._map(_PARAMETERS.unpack(parameters))
            self.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            number = memoryview(bytearray(struct.pack("=i", self.ready_fd)))
            _call(_REGISTER, self._fd, _REGISTER_EVENTFD, _address(number), 1)
        except BaseException:
            self._close()
            raise
        self._chains: dict[int, tuple[Write, ...]] = {}
        """that have not ended, with the memory that they need"""
        self._last = 0
        self._is_broken = False

    def _map(self, parameters: tuple[int, ...]) -> None:
        entries, completions, features = parameters[0], parameters[1], parameters[5]
        if features & (_FEAT_SINGLE_MMAP | _FEAT_CQE_SKIP) != _FEAT_SINGLE_MMAP | _FEAT_CQE_SKIP:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        submission, completion = parameters[10:20], parameters[20:30]
        array, self._completions_at = submission[6], completion[5]
        size = max(array + entries * _WORD, self._completions_at + completions * _COMPLETION.size)
        self._queues = mmap.mmap(self._fd, size, offset=_OFFSET_QUEUES)
        self._requests = mmap.mmap(self._fd, entries * _REQUEST.size, offset=_OFFSET_REQUESTS)
        # whole words, so that each is read and written at once
        self._words = memoryview(self._queues)[: size // _WORD * _WORD].cast("I")
        self._tail_at, self._head_at, self._ended_at = (
            offset // _WORD for offset in (submission[1], completion[0], completion[1])
        )
        self._entries, self._completions = entries, completions
        for number in range(entries):
            self._words[array // _WORD + number] = number

    def begin(self, writes: Sequence[Write], synced_fd: int) -> int | None:
        """The number of a chain of these writes and an fdatasync of a file, in this order; nothing after a step that
        fails. None where there is no room for it. OSError: nobody knows what became of it, and the next one fares as
        this one."""
        if len(writes) >= CHAIN_STEPS_MAX or len(self._chains) >= CHAINS_MAX:
            return None
        if self._is_broken:
            raise OSError(errno.EIO, "the ring is broken")
        self._last += 1
        tail, user_data = self._words[self._tail_at], self._last * CHAIN_STEPS_MAX
        for fd, data, offset in writes:
            request = _OP_WRITE, _LINKED | _QUIET, 0, fd, offset, _address(data), len(data), 0, user_data
            self._put(tail, request)
            tail, user_data = tail + 1, user_data + 1
        self._put(tail, (_OP_FSYNC, 0, 0, synced_fd, 0, 0, 0, _FSYNC_DATASYNC, user_data))
        self._words[self._tail_at] = (tail + 1) & 0xFFFFFFFF
        self._chains[self._last] = tuple(writes)
        self._submit(len(writes) + 1)
        return self._last

    def _put(self, tail: int, request: tuple[int, ...]) -> None:
        _REQUEST.pack_into(self._requests, tail % self._entries * _REQUEST.size, *request)

    def _submit(self, count: int) -> None:
        """After anything but a whole chain was taken the memory of the ring and of its chains is never let go of."""
        try:
            if _call(_ENTER, self._fd, count) == count:
                return
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError:
            self._is_broken = True
            _left_behind.append(self)
            raise

    def reap(self) -> list[ChainEnd]:
        """The chains that ended, once `ready_fd` is readable or not."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.ready_fd)
        head, tail = self._words[self._head_at], self._words[self._ended_at]
        ended: list[ChainEnd] = []
        while head != tail:
            at = self._completions_at + head % self._completions * _COMPLETION.size
            user_data, result, _ = _COMPLETION.unpack_from(self._queues, at)
            ended.append(self._end(user_data // CHAIN_STEPS_MAX, user_data % CHAIN_STEPS_MAX, result))
            head = (head + 1) & 0xFFFFFFFF
        self._words[self._head_at] = head
        return ended

    def _end(self, chain: int, step: int, result: int) -> ChainEnd:
        writes = self._chains.pop(chain)
        has_written = step == len(writes)
        wanted = 0 if has_written else len(writes[step].data)
        return ChainEnd(chain, -result if result < 0 else 0 if result == wanted else errno.EIO, has_written)

    def close(self) -> None:
        """A ring with chains under way is left behind, as the kernel may yet look at their memory. Twice is no
        error."""
        if self._chains or self._is_broken:
            _left_behind.append(self)
        elif self.ready_fd >= 0:
            self._words.release()
            self._queues.close()
            self._requests.close()
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1


_FLAGS = _SETUP_CQSIZE | _SETUP_SUBMIT_ALL
_left_behind: list[Uring] = []


def _call(number: int, fd: int, *arguments: int) -> int:
    result = _syscall(number, fd, *arguments, *(0,) * (5 - len(arguments)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
