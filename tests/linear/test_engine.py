"""Gateways racing on a few keys of one PostgreSQL: many seeded runs, each checked; and the check finds a planted bug.

A gateway is a process here, with a write session and a pool of its own. In every third run the database ends a few of
the connections in the middle of what they do, so that some outcomes are not known.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from storage.metadata.commands import SetVersioning
from storage.model import Versioning
from tests.linear.checker import Operation, find_violation
from tests.linear.races import Races, Seeds, overlap, require_linearizable, running_races
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine

GATEWAYS = 2
TASKS = 4
OPERATIONS = 8
QUICK_RUNS = 50
RUNS = 900
RUNS_UNTIL_FOUND_MAX = 1000
OVERLAPS_EACH_MIN = 5
PLAIN, VERSIONED = "plain", "versioned"

_END_A_BUSY_CONNECTION = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'frostbyte' AND state = 'active'"
    " AND datname = current_database() ORDER BY random() LIMIT 1"
)
_PUT_ON_TOP = (
    "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'frostbyte'::regnamespace"
    " AND p.proname LIKE 'put\\_on\\_top%'"
)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[PostgresEngine]:
    """With a bucket that was never versioned and one that is; what the races leave must be whole."""
    running = PostgresEngine(tmp_path)
    await running.start()
    try:
        worker = await Worker.start(await running.connect(), None)
        await worker.in_bucket(PLAIN)
        versioned = await worker.in_bucket(VERSIONED)
        await worker.apply(SetVersioning(versioned.bucket.bucket_id, Versioning.ENABLED))
        yield running
        assert running.is_spoiled or await running.check() == []
    finally:
        await running.stop()


async def end_connections(admin: asyncpg.Connection[asyncpg.Record], count: int, over: asyncio.Event) -> None:
    """As often as one is found in the middle of something, until it is over or has been enough. (A call that was
    cancelled would leave the connection busy for the next run.)"""
    while count and not over.is_set():
        count -= await admin.fetchval(_END_A_BUSY_CONNECTION) or 0


async def run_once(races: Races, admin: asyncpg.Connection[asyncpg.Record], seed: str) -> list[Operation]:
    """Bucket, number of keys and trouble follow from the seed."""
    choices = random.Random(seed)
    bucket, key_count = choices.choice((PLAIN, VERSIONED)), choices.choice((1, 2, 3))
    racing = asyncio.create_task(races.run(bucket, seed, tasks=TASKS, operations=OPERATIONS, key_count=key_count))
    if choices.random() < 0.33:
        over = asyncio.Event()
        trouble = asyncio.create_task(end_connections(admin, choices.choice((1, 2, 3)), over))
        await asyncio.wait({racing})
        over.set()
        await trouble
    return await racing


@pytest.mark.parametrize("runs", [QUICK_RUNS, pytest.param(RUNS, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
async def test_racing_gateways_see_one_order_per_key(engine: PostgresEngine, runs: int) -> None:
    """Reads, puts, conditional puts and deletes, deletes, completions and copies."""
    told: Counter[str] = Counter()
    overlaps = 0
    admin = await asyncpg.connect(engine.dsn)
    async with running_races(engine.client_arguments(), GATEWAYS, PLAIN, VERSIONED) as races:
        for seed in Seeds(runs).all:
            history = await run_once(races, admin, seed)
            require_linearizable(history, seed)
            told.update(it.outcome if it.end_ns is not None else "unknown" for it in history)
            overlaps += overlap(history)
    await admin.close()
    print(f"{told.total()} operations: {dict(told)}; {overlaps} pairs of writes at the same time")
    assert {"ok", "PreconditionFailed", "NoSuchKey"} <= set(told)
    assert told["unknown"]
    assert overlaps >= OVERLAPS_EACH_MIN * runs


async def remove_the_head_lock(dsn: str) -> None:
    """In this database alone: writers look at a head without locking it."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "frostbyte"})
    for (source,) in await connection.fetch(_PUT_ON_TOP):
        assert source.count("FOR UPDATE") == 1
        await connection.execute(source.replace("FOR UPDATE", ""))
    await connection.close()


async def test_a_removed_head_lock_is_found(engine: PostgresEngine) -> None:
    """Two conditional writes that both saw the same version both win then."""
    engine.is_spoiled = True
    await remove_the_head_lock(engine.dsn)
    async with running_races(engine.client_arguments(), GATEWAYS, PLAIN) as races:
        for number, seed in enumerate(Seeds(RUNS_UNTIL_FOUND_MAX).all, 1):
            history = await races.run(PLAIN, seed, tasks=TASKS, operations=OPERATIONS, key_count=1)
            if find_violation(history):
                print(f"found by run {number}")
                return
    raise AssertionError(f"{RUNS_UNTIL_FOUND_MAX} runs saw nothing")
