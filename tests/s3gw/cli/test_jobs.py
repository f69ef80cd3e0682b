"""`frostbyte repair|scrub|sweep|rebalance|node remove|status` against a real master, which is served in a thread."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cluster.maintenance.survey_status import SurveyStatus
from cluster.registry.state import Holdings
from s3gw.cli import status as status_module
from storage.base.background import BackgroundLoop
from storage.base.errors import NodeUnreachable
from storage.datanode.wire import ScrubOrder, ScrubStatus
from storage.model import NodeState
from tests.cluster.nodes import CLUSTER_ID
from tests.cluster.registry.scene import INTERNAL_KEY, NODE_IDS, Scene, open_scene
from tests.probe.waiting import wait_until
from tests.s3gw.cli.program import Program

Answer = TypeVar("Answer")


class Running:
    """The scene on its own thread, and the file that names it."""

    def __init__(self, scene: Scene, loop: asyncio.AbstractEventLoop, file: Path) -> None:
        self.scene = scene
        self.file = file
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """On the master's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def add_job(
        self, name: str, work: Callable[[], Coroutine[Any, Any, None]], counts: dict[str, int]
    ) -> BackgroundLoop:
        """One more job, started."""
        job = BackgroundLoop(name, 3600, work, counts=lambda: counts)

        async def add() -> None:
            self.scene.jobs.append(job)
            job.start()

        self.run(add())
        return job


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Running]:
    """An active master that the commands find by --master."""
    (tmp_path / "internal.key").write_bytes(base64.b64encode(INTERNAL_KEY))
    file = tmp_path / "master.json"
    file.write_text(
        json.dumps(
            {
                "listen": f"unix:{tmp_path}/m.sock",
                "cluster_id": CLUSTER_ID,
                "internal_key_file": str(tmp_path / "internal.key"),
                "metadata": {"path": str(tmp_path / "nowhere"), "socket": str(tmp_path / "nowhere.sock")},
            }
        )
    )
    ready, stop, found = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with open_scene(tmp_path) as scene:
            found.append(Running(scene, asyncio.get_running_loop(), file))
            ready.set()
            await stop.wait()
            for job in scene.jobs:
                await job.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0]
    found[0]._loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    assert not thread.is_alive()


async def do_nothing() -> None:
    """A run that ends at once."""


def test_a_sweep_is_ordered(program: Program, master: Running) -> None:
    """Also with --json; and a job that this master does not have is one line."""
    counts = {"done": 0, "total": 0}
    job = master.add_job("sweep", do_nothing, counts)
    assert program.succeed("sweep", "--master", master.file) == "sweep runs\n"
    ordered = program.load("sweep", "--master", master.file)
    assert ordered["name"] == "sweep"
    assert ordered["runs"] <= job.status.runs + 2
    assert "there is no job rebalance; there are tidy-up, sweep" in program.refused(
        "rebalance", "--master", master.file
    )
    assert "has no job rebalance" in program.refused("rebalance", "--watch", "--master", master.file)


def test_a_sweep_is_watched_to_its_end(program: Program, master: Running) -> None:
    """What it did since the order is told."""
    counts = {"done": 0, "total": 3, "deleted": 10}

    async def work() -> None:
        counts["done"] = 0
        for _ in range(3):
            await asyncio.sleep(0)
            counts["done"] += 1
        counts["deleted"] += 5

    job = master.add_job("sweep", work, counts)
    wait_until(lambda: job.status.runs > 0, 60, "the first run")
    said = program.succeed("sweep", "--watch", "--master", master.file)
    assert said.splitlines()[-1] == "sweep: deleted 5."
    assert job.status.runs == 2


def test_a_repair_is_watched_to_its_end(program: Program, master: Running) -> None:
    """A walk, then what it queued."""
    survey = master.scene.survey
    survey.status = SurveyStatus(walks=1, chunks=40, healthy=38, degraded=2, queued=2)

    async def walk() -> None:
        survey.status = SurveyStatus(walks=2, chunks=40, healthy=40, repaired_pieces=2)

    master.add_job("survey", walk, {})
    said = program.succeed("repair", "--watch", "--master", master.file)
    assert said.splitlines()[-1].startswith("repair: ")
    assert "all data is being looked through" in program.succeed("repair", "--master", master.file)
    assert program.load("repair", "--master", master.file)["name"] == "survey"


def test_a_scrub_is_ordered_of_all_or_of_one(program: Program, master: Running) -> None:
    """With a pace; who does not answer is named."""
    stores = master.scene.stores
    assert "scrub begins on nodes 1, 2, 3" in program.succeed("scrub", "--master", master.file)
    assert stores[1].orders == [ScrubOrder(0, True)]
    stores[3].failure = NodeUnreachable("refused")
    said = program.succeed("scrub", "--no-begin", "--pace", "1048576", "--master", master.file)
    assert said == "pace is set on nodes 1, 2\n! node 3 does not answer: refused\n"
    assert stores[2].orders[1] == ScrubOrder(1 << 20, False)
    assert "scrub begins on node 2" in program.succeed("scrub", "--node", "2", "--master", master.file)
    assert [len(store.orders) for store in stores.values()] == [2, 3, 2]
    (told,) = program.load("scrub", "--node", NODE_IDS[0], "--master", master.file)
    assert (told["number"], told["status"]["total_chunks"]) == (1, 10)
    assert "no node is '9'" in program.refused("scrub", "--node", "9", "--master", master.file)
    for wrong in ("-1", str(1 << 41), "fast"):
        assert program.run("scrub", "--pace", wrong, "--master", master.file)[0] == 2


def test_a_scrub_is_watched_to_its_end(program: Program, master: Running) -> None:
    """Only the node that was asked for; what it found is told."""
    store = master.scene.stores[2]
    store.status = ScrubStatus(1_000, 2_000, False, 10, 10_240, 10, 10_240, 1, 1 << 20)
    said = program.succeed("scrub", "--node", "2", "--watch", "--master", master.file)
    assert said.splitlines() == [
        "node 2 100 % 10.0 KiB of 10.0 KiB, 1 piece damaged",
        "node 2: 10 pieces read (10.0 KiB), 1 piece damaged.",
    ]
    assert store.orders == [ScrubOrder(0, True)]


def test_a_node_is_drained_and_removed(program: Program, master: Running) -> None:
    """What has to happen first is one line each time."""
    at = ("--master", master.file)
    assert "drain it first" in program.refused("node", "remove", "1", *at)
    assert "node 1 is draining" in program.succeed("node", "drain", "1", *at)
    master.scene.survey.found[1] = Holdings(5, 0, is_final=False)
    assert "5 pieces are left" in program.refused("node", "remove", "1", *at)
    assert "one more walk" in program.refused("node", "remove", "1", "--force", *at)
    master.scene.survey.found[1] = Holdings(5, 0, is_final=True)
    assert "node 1 is gone" in program.succeed("node", "remove", "1", "--force", *at)
    assert master.scene.state(1) is NodeState.GONE
    assert "node 2 is draining" in program.succeed("node", "drain", "2", *at)
    assert "no longer draining" in program.succeed("node", "resume", "2", *at)
    assert program.load("node", "drain", "2", *at) == {"number": 2, "outcome": "draining"}
    assert program.load("node", "resume", "2", *at) == {"number": 2, "outcome": "resumed"}
    assert program.load("node", "remove", "1", *at) == {"number": 1, "outcome": "gone"}


def test_nodes_are_listed_with_what_they_hold(program: Program, master: Running) -> None:
    """The figures of their reports."""
    listed = program.load("node", "list", "--master", master.file)
    assert [it["number"] for it in listed] == [1, 2, 3]
    figures = {"chunk_count", "stored_bytes", "requests", "damaged_count", "unverified_count", "oldest_verified_ms"}
    assert figures < set(listed[0])
    text = program.succeed("node", "list", "--master", master.file)
    assert "pieces" in text
    assert "damaged" in text


def test_status_checks_for_monitoring(program: Program, master: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata of this cluster does not answer: nothing can be read. Without --check the command succeeds."""
    monkeypatch.setattr(status_module, "METADATA_DEADLINE_S", 0.1)
    assert program.load("status", "--master", master.file)["verdict"] == "lost"
    status, said, _ = program.run("status", "--check", "--master", master.file)
    assert status == 2
    assert "the metadata does not answer" in said


@pytest.mark.parametrize("command", [("repair",), ("sweep",), ("rebalance",), ("scrub",), ("node", "drain", "1")])
def test_watching_is_for_people(program: Program, master: Running, command: tuple[str, ...]) -> None:
    """And nothing is ordered by a command that is refused."""
    assert "give one of them" in program.refused(*command, "--watch", "--json", "--master", master.file)
    assert not any(store.orders for store in master.scene.stores.values())
    assert master.scene.state(1) is NodeState.UP
