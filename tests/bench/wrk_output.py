"""PURE. The line of JSON that wrk.lua prints at the end of a run."""

from __future__ import annotations

import json
from typing import NamedTuple

MARK = "frostbyte-bench "


class WrkResult(NamedTuple):
    """One run of wrk: counts, seconds, bytes and latencies in milliseconds."""

    requests: int
    duration_s: float
    received_bytes: int
    errors: int
    """connect, read, write and timeout errors, and answers other than 2xx"""
    p50_ms: float
    p99_ms: float
    exhausted: bool
    """the paths ran out before the time did"""

    @property
    def requests_per_s(self) -> float:
        """Completed requests a second; those answered with an error are not among them."""
        return max(0, self.requests - self.errors) / self.duration_s if self.duration_s else 0.0


def parse_wrk_output(printed: str) -> WrkResult:
    """Find and read the marked line; ValueError when there is none or a field is missing."""
    for line in printed.splitlines():
        if line.startswith(MARK):
            try:
                fields = json.loads(line.removeprefix(MARK))
                return WrkResult(
                    requests=int(fields["requests"]),
                    duration_s=float(fields["duration_us"]) / 1e6,
                    received_bytes=int(fields["bytes"]),
                    errors=sum(int(fields[name]) for name in ("connect", "read", "write", "status", "timeout")),
                    p50_ms=float(fields["p50_us"]) / 1e3,
                    p99_ms=float(fields["p99_us"]) / 1e3,
                    exhausted=bool(fields["exhausted"]),
                )
            except (KeyError, TypeError, json.JSONDecodeError) as error:
                raise ValueError(f"cannot read wrk's result: {line[:200]}") from error
    raise ValueError(f"wrk printed no result: {printed[-500:]}")
