"""Waiting for what real processes bring about by themselves, never for a time alone."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Poll until it holds. → seconds that it took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < timeout_s, f"{what} did not happen in {timeout_s} s"
        time.sleep(POLL_S)
    return time.monotonic() - began_s
