"""Concurrent histories: clients in several processes race on a few keys, and what they saw must be linearizable."""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from storage.metadata.commands import SetVersioning
from storage.model import Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine
from tests.storage.metadata.history_client import KEYS
from tests.storage.metadata.linearizability import Operation, find_linearization

PROCESSES = 3
TASKS = 4
OPERATIONS = 25


def new_seed() -> str:
    """From FROSTBYTE_SEED to run a history's choices again, else fresh; printed either way."""
    seed = os.environ.get("FROSTBYTE_SEED") or os.urandom(4).hex()
    print(f"FROSTBYTE_SEED={seed}")
    return seed


async def start_process(engine: Engine, bucket: str, seed: str) -> asyncio.subprocess.Process:
    """A client process that is connected and waits for its start."""
    arguments = [*engine.client_arguments(), bucket, seed, str(TASKS), str(OPERATIONS)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.storage.metadata.history_client", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def race(engine: Engine, worker: Worker) -> list[Operation]:
    """All processes at once; their histories did overlap."""
    seed = new_seed()
    processes = [await start_process(engine, worker.bucket.name, f"{seed}.{number}") for number in range(PROCESSES)]
    outputs = await asyncio.gather(*[process.communicate(b"") for process in processes])
    assert [process.returncode for process in processes] == [0] * PROCESSES
    histories = [msgspec.json.decode(output, type=list[Operation]) for output, _ in outputs]
    begun_last = max(min(operation.start_ns for operation in history) for history in histories)
    ended_first = min(max(operation.end_ns or 0 for operation in history) for history in histories)
    assert begun_last < ended_first
    return [operation for history in histories for operation in history]


def require_linearizable(history: list[Operation]) -> None:
    """Key by key; on failure the key's history is in the message."""
    for object_key in KEYS:
        of_key = [operation for operation in history if operation.object_key == object_key]
        assert find_linearization(of_key) is not None, sorted(of_key, key=lambda operation: operation.start_ns)


async def test_racing_clients_see_one_order_per_key(engine: Engine, worker: Worker) -> None:
    """Reads, puts, conditional puts, deletes, completions and copies."""
    history = await race(engine, worker)
    assert {operation.outcome for operation in history} >= {"ok", "PreconditionFailed", "NoSuchKey"}
    require_linearizable(history)


async def test_racing_clients_see_one_order_per_key_with_versions(engine: Engine, worker: Worker) -> None:
    """The same where nothing is replaced and deletes leave markers."""
    await worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.ENABLED))
    require_linearizable(await race(engine, worker))


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
