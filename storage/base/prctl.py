"""What Linux lets a process say of itself (prctl(2)): whose end it shares, whose orphans it takes, what ps shows of it.

Other systems have no such call; there nothing is said.
"""

from __future__ import annotations

import ctypes
import signal
import struct
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_PR_SET_MM = 35
_PR_SET_MM_MAP = 14
_PR_SET_CHILD_SUBREAPER = 36
_EXE_UNCHANGED = 0xFFFFFFFF

_shown: list[ctypes.Array[ctypes.c_char]] = []
"""what the kernel reads: must stay where it is for as long as the process lives"""

if sys.platform == "linux":
    _libc = ctypes.CDLL(None)
    _libc.sbrk.restype = ctypes.c_void_p

    def die_with_parent() -> None:
        """SIGKILL once the parent is gone; whoever asks that late looks whether it is there still."""
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def adopt_orphans() -> None:
        """What descendants leave behind becomes children of this process, not of init."""
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def show_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Let /proc/PID/cmdline and environ, and so ps, be those of a process that was started with them. → whether
        the kernel does so (it needs CONFIG_CHECKPOINT_RESTORE, and no privilege)."""
        shown = b"".join(_terminated(it) for it in arguments)
        shown_environment = b"".join(_terminated(f"{name}={value}") for name, value in environment.items())
        text = ctypes.create_string_buffer(shown + shown_environment)
        start = ctypes.addressof(text)
        middle, end = start + len(shown), start + len(shown) + len(shown_environment)
        # struct prctl_mm_map of <linux/prctl.h>: everything but the arguments and the environment stays as it is.
        places = (*_memory_layout(), start, middle, middle, end)
        layout = struct.pack("=11Q", *places) + struct.pack("=QII", 0, 0, _EXE_UNCHANGED)
        if _libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, layout, ctypes.c_ulong(len(layout)), ctypes.c_ulong(0)) != 0:
            return False
        _shown[:] = [text]
        return True

    def _memory_layout() -> tuple[int, ...]:
        """start_code, end_code, start_data, end_data, start_brk, brk and start_stack of this process, most of them by
        their numbers in proc_pid_stat(5)."""
        with open("/proc/self/stat") as file:  # noqa: PTH123 - the supervisor, which holds little, goes without pathlib
            fields = file.read().rpartition(")")[2].split()
        numbered = dict(enumerate(fields, 3))
        start_brk, start_stack = int(numbered[47]), int(numbered[28])
        return *(int(numbered[number]) for number in (26, 27, 45, 46)), start_brk, _libc.sbrk(0), start_stack

    def _terminated(text: str) -> bytes:
        return text.encode(errors="surrogateescape") + b"\0"
else:  # pragma: no cover - there a killed parent leaves its children running

    def die_with_parent() -> None:
        """Nothing."""

    def adopt_orphans() -> None:
        """Nothing."""

    def show_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Nothing."""
        return False
