"""Servers for the probe tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probe.server import Server

FAST_SWEEP = {
    "sweep_interval_s": 0.5,
    "lease_ttl_s": 3,
    "orphan_age_s": 0.1,
    "quarantine_s": 0.1,
}
"""so that a test sees the whole life of an orphan in seconds"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server with three datanodes and two workers; stopped at the end."""
    running = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "2")
    try:
        running.start()
        yield running
    finally:
        running.stop()
