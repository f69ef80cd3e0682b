"""Sizes, times and counts as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.cli.formats import count, format_age, format_share, format_size, format_time, name_nodes, printable

NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 50, "3.0 PiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    """In the largest unit that leaves at least one."""
    assert format_size(size_bytes) == text


def test_times() -> None:
    """UTC."""
    assert format_time(0) == "never"
    assert format_time(1_700_000_000_000) == "2023-11-14 22:13:20Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (119.9, "119 seconds"),
        (120, "2 minutes"),
        (7_199, "119 minutes"),
        (7_200, "2 hours"),
        (172_799, "47 hours"),
        (172_800, "2 days"),
        (86_400 * 1_234, "1,234 days"),
        (-5, "0 seconds"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    """In the largest unit that leaves at least two; a clock that is behind makes nothing negative."""
    assert format_age(NOW_MS - round(seconds * 1000), NOW_MS) == text
    assert format_age(0, NOW_MS) == "never"


def test_counts_and_names() -> None:
    """One and many."""
    assert (count(1, "chunk"), count(0, "chunk"), count(12_345, "copy", "copies")) == (
        "1 chunk",
        "0 chunks",
        "12,345 copies",
    )
    assert (name_nodes([3]), name_nodes([2, 1])) == ("node 3", "nodes 1, 2")


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_share_is_whole_only_when_all_is_done(done: int, total: int) -> None:
    """And never more."""
    text = format_share(done, total)
    assert text.endswith(" %")
    assert 0 <= int(text[:-2]) <= 100
    assert (text == "100 %") == (done >= total)


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    """And what it shows is as it is."""
    assert printable(text).isprintable()
    assert (printable(text) == text) == text.isprintable()
    assert printable("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
