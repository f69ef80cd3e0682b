"""Gaps that a process leaves between its objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from s3gw import gaps

FILLS = """
import sys
from s3gw.gaps import SIZES, fill_gaps
made = [bytes(size - 33) for size in SIZES for _ in range(2000)]
held = made[::2]
del made
shared = {id(it) // 4096 for it in held}
if sys.argv[1] == "fill":
    fillers = fill_gaps()
new = [bytes(size - 33) for size in SIZES for _ in range(40)]
print(sum(id(it) // 4096 in shared for it in new), len(new))
"""


def new_objects_beside_old(word: str) -> tuple[int, int]:
    """Of a process full of gaps: how many new objects share a page with old ones, and of how many."""
    root = Path(__file__).resolve().parents[2]
    words = (sys.executable, "-c", FILLS, word)
    printed = subprocess.run(words, cwd=root, check=True, capture_output=True, text=True, timeout=60).stdout
    beside, new = map(int, printed.split())
    return beside, new


def test_new_objects_have_pages_of_their_own() -> None:
    """But for a few that go where the interpreter has freed something since."""
    assert new_objects_beside_old("leave")[0] > 800
    beside, new = new_objects_beside_old("fill")
    assert beside < new // 20


def test_a_python_with_other_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is held."""
    monkeypatch.setattr(gaps, "POOL_HEADER_BYTES", 3)
    assert gaps.fill_gaps() == ()
