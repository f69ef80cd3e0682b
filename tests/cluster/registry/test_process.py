"""Real processes: metadata, master and datanodes find each other, and kills of each are seen and survived."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.registry.client import MasterClient
from cluster.registry.follower import MapFollower
from storage.base.address import parse_address
from storage.base.errors import Unavailable
from storage.model import ClusterMap, NodeState
from tests.storage.datanode.nodes import CLUSTER_ID, running_node

INTERNAL_KEY = bytes(range(32))
TIMEOUT_S = 30.0
TIMING = {"heartbeat_interval_s": 0.1, "joining_interval_s": 0.05, "suspect_after_s": 0.6, "dead_after_s": 1.2}


@contextmanager
def process(home: Path, name: str, *arguments: str, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …`, waited for until its log says that it is ready; killed when the block is left."""
    log = home / f"{name}.log"
    offset = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        running = subprocess.Popen([sys.executable, "-m", *arguments], stdout=output, stderr=output, env=os.environ)
    try:
        end_s = time.monotonic() + TIMEOUT_S
        while ready not in log.read_bytes()[offset:].decode():
            assert running.poll() is None and time.monotonic() < end_s, log.read_text()
            time.sleep(0.01)
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(TIMEOUT_S)


class Cluster:
    """A home directory and how its processes are started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = f"unix:{home}/master.sock"
        (home / "internal.key").write_bytes(base64.b64encode(INTERNAL_KEY))
        document: dict[str, Any] = {
            "listen": self.socket,
            "cluster_id": CLUSTER_ID,
            "internal_key_file": str(home / "internal.key"),
            "metadata": {"path": str(home / "metadata"), "socket": str(home / "metadata.sock")},
            "timing": {**TIMING, "tick_interval_s": 0.1},
        }
        self.config = home / "master.json"
        self.config.write_text(json.dumps(document))

    def metadata(self) -> Any:
        """The owner of the records."""
        arguments = ("storage.metadata", "--data", f"{self.home}/metadata", "--socket", f"{self.home}/metadata.sock")
        return process(self.home, "metadata", *arguments, ready="metadata ready")

    def master(self) -> Any:
        """The registry."""
        return process(self.home, "master", "cluster", "--config", str(self.config), ready="master ready")

    def datanode(self, number: int) -> Any:
        """One datanode that reports to the master."""
        directory = self.home / f"node-{number}"
        directory.mkdir(exist_ok=True)
        key_file = str(self.home / "internal.key")
        return running_node(directory, masters=[self.socket], node_key=None, internal_key_file=key_file)

    async def ask(self) -> ClusterMap:
        """The master's map, now. Unavailable while it is away."""
        client = MasterClient(parse_address(self.socket), INTERNAL_KEY)
        try:
            return await client.fetch_map()
        finally:
            await client.close()

    async def jobs(self) -> list[str]:
        """The names of the master's jobs; none of them may have failed."""
        client = MasterClient(parse_address(self.socket), INTERNAL_KEY)
        try:
            listed = json.loads(await client.call("GET", "/v1/jobs"))
        finally:
            await client.close()
        assert {job["last_error"] for job in listed} == {""}
        return [job["name"] for job in listed]

    async def wait_for(self, condition: Callable[[ClusterMap], bool]) -> ClusterMap:
        """Follow the map until it is so."""
        found: asyncio.Future[ClusterMap] = asyncio.get_running_loop().create_future()

        async def look(cluster_map: ClusterMap) -> None:
            if condition(cluster_map) and not found.done():
                found.set_result(cluster_map)

        async def nothing_recorded() -> ClusterMap:
            return ClusterMap(0)

        follower = MapFollower([MasterClient(parse_address(self.socket), INTERNAL_KEY)], nothing_recorded, look)
        await follower.start()
        try:
            return await asyncio.wait_for(found, TIMEOUT_S)
        except TimeoutError:
            raise AssertionError((self.home / "master.log").read_text()) from None
        finally:
            await follower.close()


def states(cluster_map: ClusterMap) -> list[NodeState]:
    """In the order of the numbers."""
    return [node.state for node in cluster_map.nodes]


def all_up(count: int) -> Callable[[ClusterMap], bool]:
    """So many nodes, each of them up."""
    return lambda cluster_map: states(cluster_map) == [NodeState.UP] * count


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """In a directory of its own."""
    return Cluster(tmp_path)


async def test_processes_find_each_other_and_deaths_are_seen(cluster: Cluster) -> None:
    """Two datanodes are up; one is killed and becomes suspect, then dead; it comes back under its number; the master
    is killed and started again, and knows them; SIGTERM ends it in order, with a poll waiting."""
    with ExitStack() as running:
        running.enter_context(cluster.metadata())
        master = running.enter_context(cluster.master())
        node = running.enter_context(cluster.datanode(1))
        first = await cluster.wait_for(all_up(1))
        running.enter_context(cluster.datanode(2))
        both = await cluster.wait_for(all_up(2))
        jobs = ["registry tick", "sweep", "survey", "repair", "damage", "lifecycle", "rebalance", "rewrite"]
        assert await cluster.jobs() == jobs
        assert both.nodes[0].report.node_id == first.nodes[0].report.node_id
        node.kill()
        await cluster.wait_for(lambda it: states(it) == [NodeState.SUSPECT, NodeState.UP])
        await cluster.wait_for(lambda it: states(it) == [NodeState.DEAD, NodeState.UP])
        running.enter_context(cluster.datanode(1))
        await cluster.wait_for(all_up(2))
        master.kill()
        master.wait(TIMEOUT_S)
        with pytest.raises(Unavailable):
            await cluster.ask()
        again = running.enter_context(cluster.master())
        back = await cluster.wait_for(all_up(2))
        assert [it.report.node_id for it in back.nodes] == [it.report.node_id for it in both.nodes]
        again.send_signal(signal.SIGTERM)
        assert again.wait(TIMEOUT_S) == 0


async def test_the_metadata_may_die_and_come_back(cluster: Cluster) -> None:
    """Meanwhile leases are renewed, so that nobody is dead when it is there again; a new node registers then."""
    with ExitStack() as running:
        metadata = running.enter_context(cluster.metadata())
        running.enter_context(cluster.master())
        running.enter_context(cluster.datanode(1))
        await cluster.wait_for(all_up(1))
        metadata.kill()
        metadata.wait(TIMEOUT_S)
        running.enter_context(cluster.datanode(2))
        assert states(await cluster.ask()) == [NodeState.UP]
        running.enter_context(cluster.metadata())
        await cluster.wait_for(all_up(2))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"listen": "http://10.1.2.3:80"}, "loopback"),
        ({"internal_key_file": "/nonexistent/internal.key"}, "cannot read"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_start_that_cannot_be_is_one_line(cluster: Cluster, change: dict[str, Any], reason: str) -> None:
    """And exit status 1, before anything is waited for."""
    cluster.config.write_text(json.dumps({**json.loads(cluster.config.read_text()), **change}))
    command = [sys.executable, "-m", "cluster", "--config", str(cluster.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
