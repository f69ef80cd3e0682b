"""A primary and a synchronous standby: the primary dies, the standby is promoted, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from storage.base.errors import NoSuchKey, Unavailable
from storage.metadata.commands import FenceSessions
from storage.metadata.postgresql import open as opening
from storage.metadata.postgresql.check import check_integrity
from storage.metadata.postgresql.open import connect_postgres, migrate_postgres_metadata, open_postgres_metadata
from tests.postgres_pair import PostgresPair, running_pair
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.load import Load, list_all, try_until_it_answers

WRITERS = 8
WRITES_BEFORE_THE_KILL = 200


@pytest.fixture
async def pair() -> AsyncIterator[PostgresPair]:
    """Every commit on the primary waits for the standby."""
    with running_pair() as running:
        await running.make_synchronous()
        yield running


async def test_a_failover_loses_nothing_acknowledged(pair: PostgresPair) -> None:
    """Writers find the promoted standby by themselves, with their sessions as they were."""
    metadata = await open_postgres_metadata(pair.dsn, connections_max=WRITERS)
    assert not any("standby" in problem for problem in metadata.loss_window)
    worker = await Worker.start(metadata)
    load = Load(worker)
    writers = [asyncio.create_task(load.write(number)) for number in range(WRITERS)]
    while len(load.acknowledged) < WRITES_BEFORE_THE_KILL:
        await asyncio.sleep(0.01)
    pair.kill_primary()
    while not load.unknown:
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):  # a standby answers nobody
        await worker.put(b"too early")
    await asyncio.to_thread(pair.standby.promote)
    await try_until_it_answers(worker, b"after")
    for writer in writers:
        writer.cancel()
    await asyncio.wait(writers)
    found = await list_all(worker)
    assert load.acknowledged <= found
    assert found <= load.acknowledged | load.unknown | {*load.in_flight.values(), b"after", b"too early"}
    assert await metadata.apply(FenceSessions(0)) == []
    await worker.put(b"not fenced")
    await metadata.close()
    checking = await connect_postgres(pair.dsn)
    assert await check_integrity(checking) == []
    await checking.close()


async def test_a_write_waits_for_the_standby_and_is_not_seen_before(
    pair: PostgresPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the standby a write ends with its outcome unknown, after its deadline; reads go on."""
    await migrate_postgres_metadata(pair.dsn)  # which may take longer
    monkeypatch.setattr(opening, "COMMAND_DEADLINE_S", 0.5)
    metadata = await open_postgres_metadata(pair.dsn)
    worker = await Worker.start(metadata)
    await worker.put(b"before")
    pair.standby.end()
    writing = asyncio.create_task(worker.put(b"k", "e1"))
    admin = await asyncpg.connect(pair.primary.dsn())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while not await admin.fetchval(waiting):
        await asyncio.sleep(0.01)
    with pytest.raises(NoSuchKey):
        await worker.etag(b"k")
    assert await worker.etag(b"before") == "e"
    with pytest.raises(Unavailable) as lost:
        await writing
    assert lost.value.details == {"outcome": "unknown"}
    await asyncio.to_thread(pair.standby.start)
    await try_until_it_answers(worker, b"after")
    await admin.close()
    await metadata.close()
