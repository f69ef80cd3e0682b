"""Servers for the probe tests, and two gateways over one PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.probe.gateways import Gateway, Hosts, running_hosts
from tests.probe.roles import wait_for_nodes
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


@contextmanager
def running_datanodes(data: Path, settings: Mapping[str, Any], count: int) -> Iterator[Server]:
    """A server of one worker and so many datanodes, all of them up; stopped at the end."""
    running = Server(data, settings, "--datanodes", str(count), "--workers", "1")
    try:
        running.start()
        wait_for_nodes(running.data, count)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Gateway, Gateway]]:
    """Started once for all tests of the group MANY_GATEWAYS: each makes its own buckets, and leaves both running."""
    with running_hosts(tmp_path_factory.mktemp("hosts")) as running:
        yield running


@pytest.fixture
def east(hosts: tuple[Hosts, Gateway, Gateway]) -> Any:
    """A client of one gateway."""
    return hosts[1].client()


@pytest.fixture
def west(hosts: tuple[Hosts, Gateway, Gateway]) -> Any:
    """A client of the other."""
    return hosts[2].client()
