"""Memory that is freed is there for the next body, and goes back to the system when the process rests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from storage.base.freed_memory import FreedMemory, _find_glibc

PROGRAM = """
import json, resource
from pathlib import Path
from storage.base.freed_memory import FreedMemory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        held = [bytearray(65_700) for _ in range(100)]
        del held
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / rounds

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

without = faults(20)
used = iter((0.0, 9.0, 9.0))
times = iter((0.0, 10.0, 20.0))
memory = FreedMemory(lambda: next(used), lambda: next(times))
memory.keep()
faults(1)
kept, full = faults(20), resident()
assert not memory.shed()
assert memory.shed()
print(json.dumps([without, kept, full - resident()]))
"""
"""bodies of 64 KiB come and go: page faults a round of 100 without and with, and the bytes that are given back"""


class Times:
    """Two clocks that are set by hand."""

    def __init__(self) -> None:
        self.used_s = self.now_s = 0.0

    def memory(self) -> FreedMemory:
        """That looks at them."""
        return FreedMemory(lambda: self.used_s, lambda: self.now_s)


def test_it_goes_back_once_after_work() -> None:
    """Not while there is work, and not again without any in between."""
    times = Times()
    memory = times.memory()
    told = []
    for used_s in (0.0, 1.0, 3.0, 0.01, 0.0, 0.3, 0.2, 0.1):
        times.now_s += 5.0
        times.used_s += used_s
        told.append(memory.shed())
    assert told == [False, False, False, True, False, False, True, False]


@pytest.mark.skipif(_find_glibc() is None, reason="another allocator")
def test_what_was_freed_is_not_touched_for_the_first_time_again() -> None:
    """In a process of its own: there is hardly a page fault any more, and when it rests the memory is gone."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    without, kept, given_back = json.loads(done.stdout)
    assert without > 1000 and kept < 100
    assert given_back > 4 << 20
