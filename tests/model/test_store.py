"""The whole store against the model, on both engines: with datanodes that fail as told, and over real processes. Seeds
are printed."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from cluster.maintenance.sweep import SweepSettings
from cluster.maintenance.sweeper import Sweeper
from cluster.nodes import NodePool
from storage.base.clock import ManualClock, SystemClock
from storage.base.ids import chunk_id_from_bytes
from storage.metadata.commands import CloseSession, FenceSessions
from storage.metadata.postgresql.open import check_postgres_metadata
from storage.metadata.sqlite.check import check_integrity
from storage.model import Versioning
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.processes import open_processes, short_directory
from tests.cluster.world import INTERNAL_KEY, QUICK, World, open_world
from tests.model.store_model import Walk
from tests.postgres_server import shared_databases

AT_ONCE = SweepSettings(
    lease_ttl_ms=60_000, read_margin_ms=0, orphan_age_ms=0, unknown_age_ms=0, passes_apart_ms=0, quarantine_ms=0
)
"""ages of nothing: the walk stands still while the sweeper runs"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
async def dsn(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Of an empty PostgreSQL database, which must be whole at the end; empty for SQLite."""
    if request.param == "sqlite":
        yield ""
        return
    databases = shared_databases()
    taken = await databases.take()
    try:
        yield taken
    finally:
        await databases.give_back(taken)


async def require_integrity(dsn: str, database: Path) -> None:
    """The database keeps its own rules."""
    if dsn:
        assert await check_postgres_metadata(dsn) == []
        return
    with closing(sqlite3.connect(database)) as connection:
        assert check_integrity(connection) == []


async def list_rows(world: World) -> dict[bytes, set[int]]:
    """Chunk id → the nodes that its row names, of all referenced blobs, by what the datanodes hold."""
    rows: dict[bytes, set[int]] = {}
    for store in world.stores.values():
        for entry in await store.inventory(None, 10_000):
            chunk_id = chunk_id_from_bytes(entry.chunk_id)
            found = await world.metadata.read_chunks(chunk_id.blob_id, chunk_id.chunk_index, 1)
            if found and found[0].index == chunk_id.chunk_index:
                rows[entry.chunk_id] = set(found[0].nodes)
    return rows


async def require_nothing_unreferenced(world: World, *, strays_allowed: bool) -> None:
    """Whatever a datanode holds has a row, and whatever a row names is there. strays: copies that their row misses."""
    rows = await list_rows(world)
    held: dict[bytes, set[int]] = {}
    for number, store in world.stores.items():
        for entry in await store.inventory(None, 10_000):
            held.setdefault(entry.chunk_id, set()).add(number)
    assert set(held) == set(rows)
    for chunk_id, nodes in rows.items():
        assert nodes <= held[chunk_id]
        assert strays_allowed or nodes == held[chunk_id]


async def sweep(world: World, clock: ManualClock | SystemClock, rounds: int = 6) -> None:
    """Close the session, so that all it left is an orphan, and run the sweeper until nothing more can happen: what
    was released goes first, and only then are strays of it orphans."""
    session = world.objects._writer._services.session
    await world.objects._writer._services.cleanup.close()
    await world.metadata.apply(CloseSession(session.session_id))
    await session.renew()
    pool = NodePool(INTERNAL_KEY, clock, lambda node: world.stores[node.number])
    pool.close = _keep_open  # type: ignore[method-assign]
    sweeper = Sweeper(world.metadata, pool, lambda: world.map.cluster_map, clock, AT_ONCE, pause_s=0)
    for _ in range(rounds):
        if isinstance(clock, ManualClock):
            clock.advance(1)
        else:
            await asyncio.sleep(0.01)
        await session.renew()
        await sweeper.run_once(whole_pass=True)


async def _keep_open() -> None:
    return None


class Saboteur:
    """Breaks one datanode at a time (or three of four: then operations may fail), in ways drawn at random."""

    def __init__(self, nodes: Sequence[FaultyDatanode], rng: random.Random) -> None:
        self._nodes = nodes
        self._random = rng
        self._victims: list[FaultyDatanode] = []

    def act(self, walk: Walk) -> None:
        """Now and then break or repair."""
        if self._random.random() < 0.8:
            return
        if self._victims:
            self.repair(walk)
            return
        self._victims = self._random.sample(self._nodes, 3 if self._random.random() < 0.3 else 1)
        walk.broken = len(self._victims) > 1
        for node in self._victims:
            self._break(node)

    def repair(self, walk: Walk) -> None:
        """Everything works again."""
        for node in self._victims:
            node.down = node.full = node.put_stores_other_bytes = False
            node.get_corrupts = node.get_ends_early = node.delete_fails = False
            node.put_dies_after_bytes = None
        self._victims = []
        walk.broken = False

    def _break(self, node: FaultyDatanode) -> None:
        match self._random.randrange(7):
            case 0:
                node.down = True
            case 1:
                node.full = True
            case 2:
                node.put_dies_after_bytes = self._random.randrange(300_000)
            case 3:
                node.put_stores_other_bytes = True
            case 4:
                node.get_corrupts = True
            case 5:
                node.delete_fails = True
            case 6:
                node.get_ends_early = True


@pytest.mark.parametrize("versioning", [Versioning.UNVERSIONED, Versioning.ENABLED])
@pytest.mark.parametrize("seed", range(4))
async def test_a_walk_with_faults(tmp_path: Path, dsn: str, seed: int, versioning: Versioning) -> None:
    """With one of four datanodes broken everything succeeds; with three, what fails changed nothing. No read lies."""
    print(f"seed {seed} {versioning.value!r}")
    clock = ManualClock()
    async with open_world(tmp_path, node_count=4, clock=clock, deadlines=QUICK, dsn=dsn) as world:
        for node in world.nodes.values():
            node.inner._clock = clock
        bucket = await world.make_bucket("walked", versioning)
        await world.cluster.directory.refresh()
        walk = Walk(world, await world.cluster.directory.bucket("walked"), seed)
        saboteur = Saboteur(list(world.nodes.values()), random.Random(seed))
        for number in range(250):
            saboteur.act(walk)
            clock.advance(0.1)
            await walk.step()
            if number % 50 == 49:
                await world.metadata.apply(FenceSessions(-1))
                await world.objects._writer._services.session.renew()
        saboteur.repair(walk)
        print(walk.done)
        await walk.compare_everything()
        await sweep(world, clock)
        await walk.compare_everything()
        await require_nothing_unreferenced(world, strays_allowed=True)
        assert world.cluster.operations.budget.held_bytes == 0
        await walk.delete_everything()
        await sweep(world, clock, rounds=4)
        assert world.copies == 0
        assert await world.metadata.list_released_blobs(2**62, 10) == []
        assert bucket.name == "walked"
    await require_integrity(dsn, tmp_path / "metadata" / "metadata.db")


async def test_walks_side_by_side(tmp_path: Path, dsn: str) -> None:
    """Several clients in one bucket each: what they share (session, budget, nodes) keeps them apart."""
    async with open_world(tmp_path, deadlines=QUICK, dsn=dsn) as world:
        walks = []
        for number in range(6):
            bucket = await world.make_bucket(f"walk-{number}")
            walks.append(Walk(world, bucket, 100 + number))

        async def run(walk: Walk) -> None:
            for _ in range(60):
                await walk.step()

        await asyncio.gather(*(run(walk) for walk in walks))
        for walk in walks:
            await walk.compare_everything()
        await require_nothing_unreferenced_after_release(world)
    await require_integrity(dsn, tmp_path / "metadata" / "metadata.db")


async def require_nothing_unreferenced_after_release(world: World) -> None:
    """Before any sweep: what is not referenced is recorded as released."""
    await world.objects._writer._services.cleanup.close()
    await require_nothing_unreferenced(world, strays_allowed=False)


@pytest.mark.parametrize("seed", [11, 12])
async def test_a_walk_over_real_processes(dsn: str, seed: int) -> None:
    """Metadata owner and datanodes are processes, the disks are real; at the end nothing unreferenced is left."""
    print(f"seed {seed}")
    with short_directory() as directory:
        async with open_processes(directory, dsn=dsn) as (world, _):
            walk = Walk(world, world.bucket, seed)
            for _ in range(200):
                await walk.step()
            print(walk.done)
            await walk.compare_everything()
            await sweep(world, SystemClock())
            await walk.compare_everything()
            await require_nothing_unreferenced(world, strays_allowed=False)
            await walk.delete_everything()
            await sweep(world, SystemClock(), rounds=4)
            for store in world.stores.values():
                assert await store.inventory(None, 10) == []
        await require_integrity(dsn, directory / "metadata" / "metadata.db")
