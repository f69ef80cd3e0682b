"""A cluster that heals itself, of real processes: a datanode is lost for good, comes back, is drained and switched off,
or rots; with the master killed in the middle as well. Every object reads right all the time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.probe.load import body_of
from tests.probe.machines import Machines
from tests.probe.roles import succeed
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import damage_chunk

DATANODES = 5
BUCKETS = {"copies": "replica:2", "fragments": "ec:2+2"}
OBJECTS = 8
CHUNK_BYTES = 1 << 20
SIZES = [20_000, 300_000, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]
TIMING = {"timing": {"suspect_after_s": 1.5, "dead_after_s": 3.0}}
SETTINGS = {
    "chunk_size_bytes": CHUNK_BYTES,
    "lease_ttl_s": 3.0,
    "sweep_interval_s": 0.5,
    "survey_interval_s": 5.0,
    "surplus_age_s": 3.0,
    "rebalance_interval_s": 3_600.0,
}
"""what moves for evenness alone is not looked at here"""
SLOW_REPAIR = {"repair_bytes_per_s": 1 << 20}
"""so that a test can do something while it goes on"""
UP_WAIT_S = 60.0
HEAL_WAIT_S = 120.0

pytestmark = pytest.mark.timeout(400)


class Cluster:
    """Five datanodes, a master, records and a gateway, each a process of its own; with objects in both buckets."""

    def __init__(self, root: Path, running: ExitStack, settings: dict[str, Any]) -> None:
        self.machines = Machines(root, running, settings={**SETTINGS, **settings})
        self.machines.change_master(TIMING)
        self.machines.start_records_and_master()
        for number in range(1, DATANODES + 1):
            self.machines.start_datanode(number)
        self.machines.wait_until_up(DATANODES)
        self.client = self.machines.start_gateway()
        self.bodies: dict[tuple[str, str], bytes] = {}
        for bucket, redundancy in BUCKETS.items():
            self.client.create_bucket(Bucket=bucket)
            succeed("bucket", "redundancy", bucket, redundancy, "--data", self.machines.main)
        for bucket in BUCKETS:
            for number in range(OBJECTS):
                self.put(bucket, f"object-{number}", SIZES[number % len(SIZES)])

    def put(self, bucket: str, key: str, size: int) -> None:
        """An object whose body follows from its name."""
        body = body_of(f"{bucket}/{key}", size)
        self.client.put_object(Bucket=bucket, Key=key, Body=body)
        self.bodies[bucket, key] = body

    def read_all(self) -> None:
        """Every object, whole and right."""
        for (bucket, key), body in self.bodies.items():
            got = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest(), (bucket, key)

    def nodes(self) -> dict[int, dict[str, Any]]:
        """By the number of their machine: the order in which they joined."""
        return dict(enumerate(self.machines.nodes(), 1))

    def states(self) -> list[str]:
        """Of all nodes."""
        return [node["state"] for node in self.machines.nodes()]

    def is_whole_without(self, number: int) -> bool:
        """Whether every chunk has all of its pieces, and none of them on this node (0: on any), by a walk that is not
        older than the last repair."""
        survey = self.machines.survey()
        named = sum(node["named_pieces"] for node in survey["nodes"] if node["number"] == number)
        return bool(survey["healthy"] == survey["chunks"] > 0 and not survey["queued"] and not named)

    def pieces(self) -> int:
        """Files on all disks."""
        return sum(len(self.machines.chunks(number)) for number in self.machines.datanodes)

    def kill(self, number: int) -> None:
        """kill -9 of a datanode."""
        process = self.machines.datanodes[number]
        process.kill()
        process.wait()

    def kill_master(self) -> None:
        """kill -9, and start it again."""
        self.machines.master.kill()
        self.machines.master.wait()
        self.machines.start_master()


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Healthy by its first survey."""
    with ExitStack() as running:
        made = Cluster(tmp_path, running, getattr(request, "param", {}))
        wait_until(lambda: made.is_whole_without(0), HEAL_WAIT_S, "the first survey")
        yield made


def lose_for_good(cluster: Cluster, number: int, *, kill_master: bool = False) -> None:
    """kill -9 of a datanode: everything that it held is made again on the others."""
    before = cluster.machines.survey()
    held = next(node["named_pieces"] for node in before["nodes"] if node["number"] == number)
    assert held > 0
    cluster.kill(number)
    cluster.read_all()
    if kill_master:
        wait_until(
            lambda: 0 < cluster.machines.survey()["repaired_pieces"] < held, HEAL_WAIT_S, "the middle of the repair"
        )
        cluster.kill_master()
    wait_until(lambda: cluster.states()[number - 1] == "dead", HEAL_WAIT_S, "the death of the node")
    wait_until(lambda: cluster.is_whole_without(number), HEAL_WAIT_S, "full redundancy")
    cluster.read_all()


def drain_and_switch_off(cluster: Cluster, number: int, *, kill_master: bool = False) -> None:
    """Emptied, safe, switched off; every object reads right without it."""
    succeed("node", "drain", str(number), "--master", cluster.machines.master_file)
    if kill_master:
        wait_until(lambda: cluster.machines.survey()["repaired_pieces"] > 0, HEAL_WAIT_S, "the middle of the drain")
        cluster.kill_master()
    cluster.put("copies", f"during-drain-{number}", CHUNK_BYTES)
    wait_until(lambda: cluster.states()[number - 1] == "gone", HEAL_WAIT_S, "the end of the drain")
    cluster.kill(number)
    cluster.read_all()
    assert not cluster.machines.nodes()[number - 1]["damaged_count"]
    wait_until(lambda: cluster.is_whole_without(number), HEAL_WAIT_S, "a walk without the node")


def test_a_life_of_losses(cluster: Cluster) -> None:
    """Lost for good, made again; back, and its pieces are surplus that goes; another one drained and switched off."""
    pieces = cluster.pieces()
    lose_for_good(cluster, 5)
    assert cluster.pieces() > pieces
    cluster.machines.start_datanode(5)
    wait_until(lambda: cluster.states()[4] == "up", UP_WAIT_S, "its return")
    wait_until(lambda: cluster.pieces() == pieces, HEAL_WAIT_S, "the surplus to go")
    assert not cluster.machines.chunks(5)
    cluster.read_all()
    cluster.put("fragments", "after-return", 3 * CHUNK_BYTES)
    drain_and_switch_off(cluster, 2)


@pytest.mark.long
@pytest.mark.parametrize("cluster", [SLOW_REPAIR], indirect=True)
def test_the_master_dies_in_the_middle_of_a_repair(cluster: Cluster) -> None:
    """Its successor begins anew and finishes."""
    lose_for_good(cluster, 1, kill_master=True)


@pytest.mark.long
@pytest.mark.parametrize("cluster", [SLOW_REPAIR], indirect=True)
def test_the_master_dies_in_the_middle_of_a_drain(cluster: Cluster) -> None:
    """The same."""
    drain_and_switch_off(cluster, 3, kill_master=True)


@pytest.mark.long
def test_rot_is_found_by_a_scrub_and_healed(cluster: Cluster) -> None:
    """Flipped bits in two pieces that nobody read: an ordered scrub finds them, and they are made whole again."""
    pieces = cluster.pieces()
    rotten = random.Random(7).sample(cluster.machines.chunks(4), 2)
    for of in rotten:
        damage_chunk(cluster.machines.data(4), of, 100)
    succeed("scrub", "--master", cluster.machines.master_file)

    def is_healed() -> bool:
        survey = cluster.machines.survey()
        return bool(survey["repaired_pieces"] >= 2 and not survey["damaged_pieces"] and cluster.is_whole_without(0))

    wait_until(is_healed, HEAL_WAIT_S, "healing")
    assert cluster.pieces() == pieces
    cluster.read_all()
