"""Random trouble under random load: nothing acknowledged is lost, nothing deleted comes back, nothing is mixed, nothing
stays behind. The seed is printed, and FROSTBYTE_CHAOS_SEED repeats the order of events (not their timing)."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.probe.chaos import Chaos
from tests.probe.chaos_load import BUCKET, JOIN_S, LARGE_SIZES, SIZES, ChaosClient
from tests.probe.conftest import FAST_SWEEP
from tests.probe.engines import POSTGRESQL, SQLITE, require_whole_metadata, running_server
from tests.probe.roles import load_json, succeed
from tests.probe.server import Server
from tests.probe.test_restart_and_kill import SWEEP_WAIT_S, leftovers
from tests.probe.waiting import wait_until

JOURNAL = {"metadata": {"engine": SQLITE, "journal": "replicated"}}
BY_WIRE = {"local_reads": False}
"""what a killed datanode holds cannot be read then"""
FAST_SURVEY = {"survey_interval_s": 5, "surplus_age_s": 1}
HEAL_WAIT_S = 120.0
CLIENTS = 4
QUICK_S = 10.0
LONG_S = 420.0
PROGRESS_S = 60.0


class Setup(NamedTuple):
    """What a server of these tests is made of."""

    engine: str
    datanodes: int = 3
    settings: Mapping[str, Any] = {}


SETUPS = [
    pytest.param(Setup(SQLITE), id="replicas", marks=pytest.mark.long),
    pytest.param(
        Setup(SQLITE, 5, {"redundancy": "ec:3+2", "survive_min": {"level": "node", "losses": 1}, **JOURNAL, **BY_WIRE}),
        id="fragments-and-journal",
    ),
    pytest.param(Setup(POSTGRESQL), id="postgresql", marks=pytest.mark.long),
]


@pytest.fixture(params=SETUPS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Over each engine; with replicas, and with fragments and a journal on other nodes."""
    setup: Setup = request.param
    with running_server(
        tmp_path / "frost", setup.engine, {**FAST_SWEEP, **FAST_SURVEY, **setup.settings}, setup.datanodes
    ) as running:
        yield running


def seed_of_the_day() -> int:
    """From the environment, or a new one; printed either way."""
    seed = int(os.environ.get("FROSTBYTE_CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"FROSTBYTE_CHAOS_SEED={seed}")
    return seed


@contextmanager
def running(clients: list[ChaosClient]) -> Iterator[None]:
    """All clients at work until the block is left."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a request hung"


def wait_for_progress(clients: list[ChaosClient], count: int) -> None:
    """Until this many more requests were acknowledged and one is under way."""
    goal = sum(client.acknowledged for client in clients) + count
    deadline_s = time.monotonic() + PROGRESS_S
    while sum(client.acknowledged for client in clients) < goal or not any(client.in_flight for client in clients):
        assert time.monotonic() < deadline_s, "the server is ready and does nothing"
        time.sleep(0.005)


def verify(server: Server, clients: list[ChaosClient], steps: list[str]) -> None:
    """Every key holds what it may; the metadata is whole; no process met what it did not expect."""
    problems = [violation for client in clients for violation in client.violations]
    for client in clients:
        problems += [problem for key in client.possible if (problem := client.check(key, lenient=False))]
    assert not problems, f"{problems[:10]} after {steps}"
    require_whole_metadata(server, steps)
    assert not [line for line in server.log.read_text().splitlines() if "Traceback" in line]


def wait_until_whole(server: Server) -> None:
    """Until a walk that began now or later finds every chunk with all of its pieces, and no piece too many."""
    began_ms = time.time() * 1000
    succeed("repair", "--data", server.data)

    def is_whole() -> bool:
        survey = load_json("status", "--data", server.data)["survey"]
        is_full = survey["healthy"] == survey["chunks"] and not survey["queued"] and not survey["surplus_pieces"]
        return bool(survey["walk_started_ms"] >= began_ms and is_full)

    took_s = wait_until(is_whole, HEAL_WAIT_S, "full redundancy")
    print(f"full redundancy after {took_s:.1f} s")


def delete_everything(server: Server) -> None:
    """Objects and open uploads."""
    client = server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        if targets := [{"Key": entry["Key"]} for entry in page.get("Contents", [])]:
            client.delete_objects(Bucket=BUCKET, Delete={"Objects": targets})
    for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET):
        for upload in page.get("Uploads", []):
            client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])


def run_chaos(server: Server, seed: int, duration_s: float, sizes: tuple[int, ...]) -> None:
    """Trouble until the time is over, then the account."""
    server.client().create_bucket(Bucket=BUCKET)
    clients = [ChaosClient(server, seed * 100 + number, sizes) for number in range(CLIENTS)]
    chaos = Chaos(server, seed)
    end_s = time.monotonic() + duration_s
    with running(clients):
        while time.monotonic() < end_s:
            wait_for_progress(clients, 12)
            print(f"{end_s - time.monotonic():.1f} s left: {chaos.step()}")
        wait_for_progress(clients, 12)
    acknowledged, failed = (
        sum(counts) for counts in zip(*((it.acknowledged, it.failed) for it in clients), strict=True)
    )
    print(f"{acknowledged} requests acknowledged, {failed} broken, {len(chaos.steps)} steps")
    verify(server, clients, chaos.steps)
    wait_until_whole(server)
    delete_everything(server)
    server.restart()  # what is left of a session that is open is swept when it ends
    wait_until(lambda: not leftovers(server), SWEEP_WAIT_S, "sweeping")


@pytest.mark.timeout(300)
def test_chaos(server: Server) -> None:
    """The quick version."""
    run_chaos(server, seed_of_the_day(), QUICK_S, SIZES)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_long_chaos(server: Server) -> None:
    """Minutes of it, with bodies of up to 64 MiB."""
    run_chaos(server, seed_of_the_day(), LONG_S, LARGE_SIZES)
