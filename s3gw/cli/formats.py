"""PURE. Sizes, times and counts as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

_AGES = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


def format_size(size_bytes: int) -> str:
    """In the largest binary unit that leaves at least one."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_time(time_ms: int) -> str:
    """UTC to the second; `never` for 0."""
    if not time_ms:
        return "never"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def format_age(then_ms: int, now_ms: int) -> str:
    """How long ago, in whole units: `3 days`; `never` for 0. A clock that is behind makes it `0 seconds`."""
    if not then_ms:
        return "never"
    seconds = max(0, now_ms - then_ms) // 1000
    for length, unit in _AGES:
        if seconds >= 2 * length:
            return count(seconds // length, unit)
    return count(seconds, "second")


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 chunk`, `2 chunks`, `12,345 chunks`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def name_nodes(numbers: Iterable[int]) -> str:
    """`node 3`, `nodes 1, 2`."""
    listed = sorted(numbers)
    return f"node{'' if len(listed) == 1 else 's'} {', '.join(map(str, listed))}"


def format_share(done: int, total: int) -> str:
    """Whole percent, 100 only when all is done; `100 %` of nothing."""
    return f"{min(99, done * 100 // total) if done < total else 100} %"


def printable(text: str) -> str:
    """What a terminal would not show, or would obey, as backslash escapes: an object's name may hold anything."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
