"""Concurrent histories: clients in several processes race on a few keys, and what they saw must be linearizable."""

from __future__ import annotations

import asyncio

from storage.metadata.commands import SetVersioning
from storage.model import Versioning
from tests.linear.checker import Operation
from tests.linear.races import new_seed, overlap, require_linearizable, running_races
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine

PROCESSES = 3
TASKS = 4
OPERATIONS = 25


async def race(engine: Engine, worker: Worker) -> list[Operation]:
    """All processes at once; what they saw has one order for each key."""
    seed = new_seed()
    async with running_races(engine.client_arguments(), PROCESSES, worker.bucket.name) as races:
        history = await races.run(worker.bucket.name, seed, tasks=TASKS, operations=OPERATIONS)
    assert overlap(history) > OPERATIONS
    require_linearizable(history, seed)
    return history


async def test_racing_clients_see_one_order_per_key(engine: Engine, worker: Worker) -> None:
    """Reads, puts, conditional puts, deletes, completions and copies."""
    history = await race(engine, worker)
    assert {operation.outcome for operation in history} >= {"ok", "PreconditionFailed", "NoSuchKey"}


async def test_racing_clients_see_one_order_per_key_with_versions(engine: Engine, worker: Worker) -> None:
    """The same where nothing is replaced and deletes leave markers."""
    await worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.ENABLED))
    await race(engine, worker)


async def test_version_ids_are_in_the_order_of_real_time(engine: Engine, worker: Worker) -> None:
    """A commit that began after another was answered has the greater id, in whichever worker."""
    await worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.ENABLED))
    workers = [await Worker.start(await engine.connect(), worker.bucket) for _ in range(4)]
    spans: list[tuple[float, float, str]] = []
    loop = asyncio.get_running_loop()

    async def put_many(one: Worker) -> None:
        for _ in range(20):
            start = loop.time()
            committed = await one.put(b"k")
            assert committed.version_id is not None
            spans.append((start, loop.time(), committed.version_id))

    await asyncio.gather(*[put_many(one) for one in workers])
    assert len({version_id for _, _, version_id in spans}) == 80
    for _, end, version_id in spans:
        assert all(other_id > version_id for start, _, other_id in spans if start > end)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert read.version.version_id == max(version_id for _, _, version_id in spans)
