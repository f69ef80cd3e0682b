"""PURE. Where a listing starts, where it may jump to and what it rolls up: the arithmetic of skip-scans over byte keys.

Every engine lists with these and a keyset seek (`object_key >= start`), never with OFFSET. A rolled-up prefix costs one
seek: the scan goes on at the upper bound of that prefix.
"""

from __future__ import annotations

BEHIND_ALL_KEYS = b"\xff" * 1025
"""object keys have at most 1,024 bytes (AWS: Naming Amazon S3 objects)"""


def prefix_upper_bound(prefix: bytes) -> bytes | None:
    """The least key that is greater than every key with this prefix; None when there is none (empty or all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def common_prefix(object_key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """What a key with this prefix rolls up into: up to and with the first delimiter after the prefix, or None."""
    if not delimiter:
        return None
    at = object_key.find(delimiter, len(prefix))
    return None if at < 0 else object_key[: at + len(delimiter)]


def scan_start(prefix: bytes, after: bytes, delimiter: bytes) -> bytes | None:
    """The least key that may be listed after `after`; None when nothing can follow.

    A common prefix that is <= after was given before (or lies before the place that the caller chose), so neither it
    nor any key below it comes again: the scan starts behind it.
    """
    if not after.startswith(prefix):
        return prefix if after < prefix else None
    rolled_up = common_prefix(after, prefix, delimiter)
    return after + b"\x00" if rolled_up is None else prefix_upper_bound(rolled_up)
