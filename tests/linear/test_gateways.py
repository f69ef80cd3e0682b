"""The same races over S3, through two running gateways on one PostgreSQL, as on two hosts."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator

import asyncpg
import pytest

from tests.linear.races import Seeds, overlap, require_linearizable
from tests.linear.s3_racer import race_through
from tests.probe.gateways import Gateway, Hosts, running_hosts

RACERS_EACH = 3
OPERATIONS = 6
QUICK_RUNS = 10
RUNS = 100
PLAIN, VERSIONED = "plain", "versioned"
END_A_BUSY_CONNECTION = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'frostbyte' AND state = 'active'"
    " ORDER BY random() LIMIT 1"
)

pytestmark = pytest.mark.xdist_group("racing gateways")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Gateway, Gateway]]:
    """Two gateways with a bucket that was never versioned and one that is."""
    with running_hosts(tmp_path_factory.mktemp("hosts")) as running:
        client = running[1].client()
        for name in (PLAIN, VERSIONED):
            client.create_bucket(Bucket=name)
        client.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
        yield running


async def end_connections(dsn: str, over: threading.Event, count: int) -> None:
    """So many that are found in the middle of something, unless the race is over before."""
    admin = await asyncpg.connect(dsn)
    while count and not over.is_set():
        count -= await admin.fetchval(END_A_BUSY_CONNECTION) or 0
    await admin.close()


@pytest.mark.parametrize("runs", [QUICK_RUNS, pytest.param(RUNS, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_racing_gateways_see_one_order_per_key(hosts: tuple[Hosts, Gateway, Gateway], runs: int) -> None:
    """Every third run loses database connections in the middle, so that some outcomes are not known to its clients."""
    running, *gateways = hosts
    clients = [gateway.client() for gateway in gateways]
    told: Counter[str] = Counter()
    overlaps = 0
    for seed in Seeds(runs).all:
        choices = random.Random(seed)
        bucket, keys = (
            choices.choice((PLAIN, VERSIONED)),
            [f"{seed}/{name}" for name in "abc"[: choices.choice((2, 3))]],
        )
        over = threading.Event()
        count = choices.choice((1, 2)) if choices.random() < 0.33 else 0
        trouble = threading.Thread(target=asyncio.run, args=(end_connections(running.dsn, over, count),))
        trouble.start()
        history, problems = race_through(
            clients,
            bucket,
            keys,
            seed,
            racers_each=RACERS_EACH,
            operations=OPERATIONS,
            is_versioned=bucket == VERSIONED,
        )
        over.set()
        trouble.join()
        assert problems == [], f"seed {seed}"
        require_linearizable(history, seed)
        told.update(it.outcome if it.end_ns is not None else "unknown" for it in history)
        overlaps += overlap(history)
    print(f"{told.total()} operations: {dict(told)}; {overlaps} pairs of writes at the same time")
    assert {"ok", "PreconditionFailed", "NoSuchKey"} <= set(told)
    assert overlaps >= runs
