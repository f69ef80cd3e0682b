"""Memory that is there once it is written to."""

from __future__ import annotations

import os
from pathlib import Path

from storage.base.untouched import untouched_memory

LENGTH = 64 << 20


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_it_takes_nothing_until_it_is_written_to() -> None:
    """Then what is written to, and it is zeros before."""
    before = resident_bytes()
    memory = untouched_memory(LENGTH)
    assert (len(memory), memory.readonly) == (LENGTH, False)
    assert resident_bytes() - before < LENGTH // 2
    memory[-3:] = b"end"
    assert bytes(memory[-4:]) == b"\0end"


def test_a_child_has_its_own() -> None:
    """What it writes stays there."""
    memory = untouched_memory(4096)
    memory[:5] = b"first"
    child = os.fork()
    if child == 0:
        memory[:5] = b"other"
        os._exit(int(bytes(memory[:5]) != b"other"))
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(memory[:5]) == b"first"
