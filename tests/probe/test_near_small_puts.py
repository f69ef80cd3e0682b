"""Gateways write small chunks into the segments of datanodes, and one of either dies: nothing acknowledged is lost."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probe import load
from tests.probe.killing import kill_under_load
from tests.probe.load import verify
from tests.probe.server import Server
from tests.probe.test_whole_writes import PlainWriters
from tests.probe.waiting import wait_until

SIZES = (64 << 10, 20_000, 200_001)
SETTLE_S = 60.0


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two nodes and one worker, so that chunks for each come one upon the other."""
    running = Server(tmp_path_factory.mktemp("near"), None, "--datanodes", "2", "--workers", "1")
    running.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the puts of a writer."""
    monkeypatch.setattr(load, "PAUSE_S", 0.0)


def written(server: Server) -> float:
    """How many chunks went into segments past the datanodes; of workers that are running or not."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/-/metrics", timeout=60) as answer:
        found = re.search(r"^frostbyte_write_local_pieces_total (\S+)$", answer.read().decode(), re.MULTILINE)
    return 0.0 if found is None else float(found.group(1))


@pytest.mark.parametrize("role", ["datanode", "gateway"])
def test_kill_under_load(server: Server, role: str) -> None:
    """Every acknowledged object is whole on the node that was killed as well as on the other; what was not acknowledged
    is whole or not there. A datanode that begins anew lends ranges again."""
    server.client().create_bucket(Bucket="load")
    counts: list[float] = []

    def count() -> None:
        before = max(counts, default=0.0)
        wait_until(lambda: written(server) > before + 10, SETTLE_S, "chunks past the datanodes")
        counts.append(written(server))

    kill_under_load(server, role, PlainWriters(server, "load", SIZES, threads=12), "load", 12, count)
    assert len(counts) == 2


def test_a_gateway_that_stops_for_a_while(server: Server) -> None:
    """Longer than a datanode waits for it: it goes on, and everything that it then acknowledges is there."""
    server.client().create_bucket(Bucket="load")
    with PlainWriters(server, "load", SIZES, threads=12) as writers:
        wait_until(lambda: written(server) > 10, SETTLE_S, "chunks past the datanodes")
        writers.wait_for_acknowledged(12)
        (gateway,) = server.pids("gateway")
        os.kill(gateway, signal.SIGSTOP)
        try:
            for datanode in server.pids("datanode"):
                os.kill(datanode, signal.SIGKILL)
            wait_until(lambda: len(server.pids("datanode")) == 2, SETTLE_S, "two datanodes")
        finally:
            os.kill(gateway, signal.SIGCONT)
        server.wait_ready()
        writers.wait_for_acknowledged(12)
    verify(server.client(), "load", writers)


def test_ranges_are_given_back_at_rest(server: Server) -> None:
    """A second later no gateway has a segment open for writing, so that the disk can be made read-only."""
    server.client().create_bucket(Bucket="load")
    with PlainWriters(server, "load", SIZES, threads=12):
        wait_until(lambda: written(server) > 10, SETTLE_S, "chunks past the datanodes")
        assert open_for_writing(server)
    wait_until(lambda: not open_for_writing(server), SETTLE_S, "the end of all ranges")


def open_for_writing(server: Server) -> list[str]:
    """Segments that gateways have open so."""
    found = []
    for pid in server.pids("gateway"):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                path = os.readlink(f"/proc/{pid}/fd/{fd}")
                flags = re.search(r"flags:\s+0?(\d+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text())
            except FileNotFoundError:  # closed meanwhile
                continue
            if path.endswith(".segment") and flags is not None and int(flags.group(1), 8) & os.O_ACCMODE:
                found.append(path)
    return found
