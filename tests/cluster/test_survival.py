"""What an acknowledged write must survive: against the definition, in clusters of uneven domains whose nodes fail."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.byte_budget import ByteBudget
from cluster.chunk_sealer import ChunkSealer
from cluster.chunk_write import ChunkOrder
from cluster.chunk_writes import BUDGET_BYTES_MIN, ChunkWrites
from cluster.domains import LEVELS, parse_levels
from cluster.nodes import NodePool
from cluster.placer import Placer
from cluster.redundancy import Redundancy, parse_redundancy
from cluster.survival import SurviveMin, make_survive_min, require_promise
from storage.base.clock import SystemClock
from storage.base.errors import NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.crypto.envelope import Sealer, sealed_length
from storage.model import ClusterMap
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import QUICK, SETTINGS, open_world

CHUNK = ChunkId(b"b" * 16, 0)
DATA = random.Random(1).randbytes(2 << 20)
DOMAINS = st.tuples(st.sampled_from("xy"), st.sampled_from("abc"), st.sampled_from("12")).map("/".join)
LEVEL = st.sampled_from(("node", *LEVELS))
FAULT = st.sampled_from(("", "", "", "full", "down", "put_dies_after_bytes", "put_stores_other_bytes"))


def outlives(held: list[str], needed: int, level: str, losses: int) -> bool:
    """By the definition: whichever so many domains go, enough pieces stay."""
    if level == "node":
        names = [str(place) for place in range(len(held))]
    else:
        names = [parse_levels(domain)[LEVELS.index(level)] for domain in held]
    lost_sets = combinations(sorted(set(names)), min(losses, len(set(names))))
    return losses <= len(set(names)) and all(
        sum(name not in lost for name in names) >= needed for lost in map(set, lost_sets)
    )


@given(held=st.lists(DOMAINS, max_size=7), needed=st.integers(1, 4), level=LEVEL, losses=st.integers(0, 4))
def test_it_is_met_when_every_such_loss_leaves_enough(held: list[str], needed: int, level: str, losses: int) -> None:
    """Also with fewer pieces than are needed at all."""
    redundancy = Redundancy(needed, needed + 3, is_erasure=True)
    assert make_survive_min(level, losses).is_met(redundancy, held) == outlives(held, needed, level, losses)


@given(parity=st.integers(1, 8), missing_max=st.integers(0, 9), held=st.integers(0, 12))
def test_by_default_all_pieces_but_those_that_may_be_missing(parity: int, missing_max: int, held: int) -> None:
    """Of any redundancy: never fewer than bring the chunk back."""
    redundancy = Redundancy(4, 4 + parity, is_erasure=True)
    is_met = SurviveMin(missing_max=missing_max).is_met(redundancy, ["z/h/d"] * held)
    assert is_met == (held >= max(4, 4 + parity - missing_max))


@settings(max_examples=60, deadline=None)
@given(
    domains=st.lists(DOMAINS, min_size=3, max_size=8),
    redundancy=st.sampled_from(["replica:1", "replica:2", "replica:3", "ec:1+1", "ec:2+1", "ec:2+2", "ec:3+2"]),
    level=LEVEL,
    losses=st.integers(0, 2),
    faults=st.lists(FAULT, min_size=8, max_size=8),
)
def test_what_is_acknowledged_survives_what_was_asked(
    domains: list[str], redundancy: str, level: str, losses: int, faults: list[str]
) -> None:
    """Whatever nodes refuse, die or lie: the holders meet the minimum, and hold the pieces; or the write fails."""

    async def run() -> None:
        peers: dict[str, FaultyDatanode] = {}
        nodes = {number: FaultyDatanode(number, peers, domain) for number, domain in enumerate(domains, 1)}
        for node, fault in zip(nodes.values(), faults, strict=False):
            if fault:
                setattr(node, fault, 500_000 if fault == "put_dies_after_bytes" else True)
        await write_one(nodes, parse_redundancy(redundancy), make_survive_min(level, losses))

    asyncio.run(run())


async def write_one(nodes: dict[int, FaultyDatanode], redundancy: Redundancy, survive_min: SurviveMin) -> None:
    """One chunk, and the check of whatever came of it."""
    cluster_map = ClusterMap(1, tuple(node.node() for node in nodes.values()))
    pool = NodePool(bytes(32), SystemClock(), lambda node: nodes[node.number])
    await pool.adopt(cluster_map)
    placer = Placer(pool)
    placer.adopt(cluster_map)
    budget = ByteBudget(BUDGET_BYTES_MIN)
    writes = ChunkWrites(budget, pool, QUICK)
    try:
        choice = placer.choose(CHUNK.blob_id, 0, redundancy.width)
    except NotEnoughNodes:
        assert len(nodes) < redundancy.width
        return
    write = writes.begin(ChunkOrder(CHUNK, sealed_length(len(DATA)), redundancy, choice, survive_min))
    try:
        write.start()
        sealer = ChunkSealer(Sealer(bytes(16), CHUNK, bytes(32)), len(DATA), write.log)
        for at in range(0, len(DATA), 1 << 18):
            await sealer.take(memoryview(DATA)[at : at + (1 << 18)])
        await write.finish()
    except (NotEnoughNodes, Unavailable):
        faulty = [node for node in nodes.values() if node.full or node.down or node.put_stores_other_bytes]
        faulty += [node for node in nodes.values() if node.put_dies_after_bytes]
        planned = [node.report.failure_domain for node in choice.column]
        assert faulty or not outlives(planned, redundancy.needed, survive_min.level, survive_min.losses or 0)
    else:
        holders = [number for number in write.nodes if number]
        assert all(CHUNK in nodes[number].chunks for number in holders)
        held = [nodes[number].failure_domain for number in holders]
        assert outlives(held, redundancy.needed, survive_min.level, survive_min.losses or 0)
    finally:
        await write.abort()
        write.discard()
    assert budget.held_bytes == 0


@pytest.mark.parametrize("size", [100_000, 700_000])
async def test_a_write_that_promises_less_is_refused_before_the_commit(tmp_path: Path, size: int) -> None:
    """Before a byte is sent where the nodes that there are cannot do it."""
    asked = replace(SETTINGS, redundancy="ec:2+1", survive_min=make_survive_min("host", 1))
    async with open_world(tmp_path, node_count=4, settings=asked, failure_domain="z/one-host/1") as world:
        with pytest.raises(NotEnoughNodes, match="1 host"):
            await world.put(b"key", bytes(size))
        assert not any(node.puts for node in world.nodes.values())
        assert not await world.cluster.operations.ready()
        await world.put(b"small", b"in the metadata")
        for node in world.nodes.values():
            node.failure_domain = f"z/host-{node.number}/1"
        await world.map.change(node.node() for node in world.nodes.values())
        assert await world.cluster.operations.ready()
        await world.put(b"key", bytes(size))
        assert await world.get(b"key") == bytes(size)


async def test_settings_that_no_write_could_meet_are_refused(tmp_path: Path) -> None:
    """At the start, in one line."""
    for settings_ in (
        replace(SETTINGS, survive_min=make_survive_min("disk", 2)),
        replace(SETTINGS, copies_before_ack_min=3),
        replace(SETTINGS, copies_before_ack_min=0),
        replace(SETTINGS, redundancy="ec:4+2", copies_before_ack_min=3),
    ):
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
            async with open_world(tmp_path, settings=settings_):
                pass


@pytest.mark.parametrize(("level", "losses"), [("rack", 1), ("", 1), ("host", -1)])
def test_what_is_no_minimum_is_refused(level: str, losses: int) -> None:
    """In one line."""
    with pytest.raises(ValueError, match="survive_min"):
        make_survive_min(level, losses)


def test_it_says_what_it_asks_for() -> None:
    """In the message of a refusal."""
    assert str(make_survive_min("host", 1)) == "the loss of 1 host"
    assert str(make_survive_min("disk", 2)) == "the loss of 2 disks"
    assert str(SurviveMin()) == "all of its pieces"
    with pytest.raises(ValueError, match="replica:2 survives 1"):
        require_promise(make_survive_min("host", 2), parse_redundancy("replica:2"))
