"""Process trees, memory and processor time, on real processes."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.bench.processes import PeakMemory, find_tree, read_arguments, read_cpu_s, read_pss_mib

MIB = 1 << 20
CHILD = "import sys; data = bytearray({size}); print('ready', flush=True); sys.stdin.read()"


def start(size: int) -> subprocess.Popen[bytes]:
    """A Python process that holds `size` bytes until its standard input closes."""
    command = [sys.executable, "-c", CHILD.format(size=size)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Close its input and wait."""
    process.communicate()


def test_the_tree_holds_children() -> None:
    """A child is found below this process and not afterwards."""
    process = start(0)
    assert {os.getpid(), process.pid} <= set(find_tree([os.getpid()]))
    assert find_tree([process.pid]) == [process.pid]
    assert read_arguments(process.pid)[:2] == [sys.executable, "-c"]
    end(process)
    assert process.pid not in find_tree([os.getpid()])


def test_memory_grows_with_what_is_held() -> None:
    """64 MiB more are seen; a process that ended counts nothing."""
    small, large = start(0), start(64 * MIB)
    grown = read_pss_mib([large.pid]) - read_pss_mib([small.pid])
    end(small)
    end(large)
    assert 48 < grown < 80
    assert read_pss_mib([large.pid]) == 0


def test_processor_time_of_the_dead_is_nothing() -> None:
    """This process has used some; one that ended has no figure."""
    process = start(0)
    end(process)
    assert read_cpu_s([os.getpid()]) > 0
    assert read_cpu_s([process.pid]) == 0
    assert read_arguments(process.pid) == []


def test_the_peak_is_kept() -> None:
    """The highest sum stays after the process is gone."""
    process = start(32 * MIB)
    with PeakMemory(lambda: [process.pid]) as memory:
        expected = read_pss_mib([process.pid])
    end(process)
    assert memory.peak_mib > 0.9 * expected
