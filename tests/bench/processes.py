"""What a side costs: the process tree below a process id, its memory and its processor time, from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

KIB_PER_MIB = 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def find_tree(root_pids: Iterable[int]) -> list[int]:
    """The processes and all their descendants that are running now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = list(root_pids)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def read_pss_mib(pids: Iterable[int]) -> float:
    """Proportional set size of these processes together; those that ended meanwhile count nothing."""
    total_kib = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total_kib / KIB_PER_MIB


def read_cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes so far."""
    total = 0.0
    for pid in pids:
        if fields := _stat_fields(pid):
            total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return total


def read_arguments(pid: int) -> list[str]:
    """The command line of a process; empty when it ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


class PeakMemory:
    """Samples the PSS of changing sets of processes in a thread and keeps the highest sum."""

    def __init__(self, pids: Callable[[], Iterable[int]], interval_s: float = 0.25) -> None:
        self._pids = pids
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_mib = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, read_pss_mib(self._pids()))
            if self._stopped.wait(self._interval_s):
                return


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on (the name before it may hold spaces); index 1 is the parent."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()
