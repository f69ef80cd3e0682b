"""What a caller learns when connections, backends or the whole server go away in the middle of things."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from storage.base.errors import NoSuchKey, Unavailable
from storage.metadata.commands import FenceSessions
from storage.metadata.postgresql.check import check_integrity
from storage.metadata.postgresql.database import SESSION_SETTINGS
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.metadata.postgresql.open import connect_postgres, open_postgres_metadata
from storage.metadata.postgresql.pool import WAITING_MAX
from storage.model import SessionState
from tests.postgres_server import PostgresServer, shared_databases
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine
from tests.storage.metadata.postgresql.load import Load, list_all, try_until_it_answers
from tests.storage.metadata.postgresql.proxy import PostgresProxy

WRITERS = 8
WRITES_BEFORE_THE_KILL = 200
CONNECTED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'frostbyte'"
)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One for these tests alone, with fsync on."""
    assert shared_databases().server  # skips where there is none, or one that is not ours
    own = PostgresServer(fsync=True)
    yield own
    own.stop()


@pytest.fixture
async def dsn(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """An empty database on it."""
    return await server.create_database(f"test_{abs(hash(request.node.name))}")


async def kill_busy_backend(server: PostgresServer) -> None:
    """-9, in the middle of a statement; the server then ends all its backends and recovers."""
    connection = await asyncpg.connect(server.dsn())
    busy = "SELECT pid FROM pg_stat_activity WHERE application_name = 'frostbyte' AND state = 'active' LIMIT 1"
    pid = None
    while pid is None:
        pid = await connection.fetchval(busy)
    os.kill(pid, signal.SIGKILL)
    connection.terminate()


@pytest.mark.parametrize("victim", ["backend", "server"])
async def test_a_kill_under_load_loses_nothing_acknowledged(server: PostgresServer, dsn: str, victim: str) -> None:
    """Of a backend, or of the whole server without a checkpoint: everything acknowledged is there afterwards, nothing
    that was refused is, the store is whole, and the workers go on by themselves."""
    metadata = await open_postgres_metadata(dsn, connections_max=WRITERS)
    worker = await Worker.start(metadata)
    load = Load(worker)
    writers = [asyncio.create_task(load.write(number)) for number in range(WRITERS)]
    while len(load.acknowledged) < WRITES_BEFORE_THE_KILL:
        await asyncio.sleep(0.01)
    if victim == "backend":
        await kill_busy_backend(server)
    else:
        server.end(signal.SIGQUIT)
        server.start()
    while not load.unknown:
        await asyncio.sleep(0.01)
    await try_until_it_answers(worker, b"after")
    for writer in writers:
        writer.cancel()
    await asyncio.wait(writers)
    found = await list_all(worker)
    assert load.acknowledged <= found
    assert found <= load.acknowledged | load.unknown | {*load.in_flight.values(), b"after"}
    await metadata.close()
    checking = await connect_postgres(dsn)
    assert await check_integrity(checking) == []
    await checking.close()


async def test_a_server_that_is_away_is_unavailable_and_comes_back_by_itself(server: PostgresServer, dsn: str) -> None:
    """Reads and writes alike. Once the loss was noticed, what is refused was not even sent: no unknown outcome."""
    metadata = await open_postgres_metadata(dsn)
    worker = await Worker.start(metadata)
    await worker.put(b"before")
    server.end()
    with pytest.raises(Unavailable):
        await worker.put(b"k")
    with pytest.raises(Unavailable) as refused:
        await worker.put(b"k")
    assert "outcome" not in refused.value.details
    with pytest.raises(Unavailable):
        await metadata.read_version(worker.bucket.bucket_id, b"before")
    with pytest.raises(Unavailable):
        await open_postgres_metadata(dsn)
    server.start()
    assert await worker.etag(b"before") == "e"
    await worker.put(b"k")
    await metadata.close()


async def test_a_server_that_was_away_has_fenced_nobody(server: PostgresServer, dsn: str) -> None:
    """No worker could renew meanwhile: the first to ask after the start finds all leases new."""
    before = await open_postgres_metadata(dsn)
    session_id = (await Worker.start(before)).session_id
    await before.close()
    server.end()
    server.start()
    metadata = await open_postgres_metadata(dsn)
    assert await metadata.apply(FenceSessions(0)) == []
    opened = await metadata.list_sessions()
    while not await metadata.apply(FenceSessions(0)):  # a lease of no length is over in the next millisecond
        assert await metadata.list_sessions() == opened
    states = {session.session_id: session.state for session in await metadata.list_sessions()}
    assert states == {session_id: SessionState.FENCED}
    await metadata.close()


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown(postgres: PostgresEngine, tmp_path: Path) -> None:
    """Here it was committed; the worker goes on over another connection."""
    proxy = PostgresProxy(tmp_path, shared_databases().server.directory)
    await proxy.start()
    database = postgres.dsn.partition("?")[0].rpartition("/")[2]
    through = await postgres.open(connections_max=1, dsn=shared_databases().server.dsn(database, tmp_path))
    worker = await Worker.start(through)
    await worker.put(b"warm")
    proxy.loses_answers = True
    with pytest.raises(Unavailable) as refused:
        await worker.put(b"k", "e1")
    assert refused.value.details == {"outcome": "unknown"}
    proxy.loses_answers = False
    assert await worker.etag(b"k") == "e1"
    await proxy.stop()


async def test_a_read_is_tried_again_when_its_connection_breaks(postgres: PostgresEngine, tmp_path: Path) -> None:
    """The caller notices nothing."""
    proxy = PostgresProxy(tmp_path, shared_databases().server.directory)
    await proxy.start()
    database = postgres.dsn.partition("?")[0].rpartition("/")[2]
    through = await postgres.open(connections_max=1, dsn=shared_databases().server.dsn(database, tmp_path))
    before = await through.configuration_sequence()
    proxy.loses_answers = True
    reading = asyncio.create_task(through.configuration_sequence())
    await proxy.lost.wait()
    proxy.loses_answers = False
    assert await reading == before
    await proxy.stop()


async def test_a_lock_that_is_held_too_long_is_unavailable(
    postgres: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the write was not applied."""
    monkeypatch.setitem(SESSION_SETTINGS, "lock_timeout", "50")
    metadata = await postgres.open(connections_max=2)
    worker = await Worker.start(metadata)
    await worker.put(b"k", "e1")
    holder = await connect_postgres(postgres.dsn)
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM heads FOR UPDATE")
        with pytest.raises(Unavailable) as refused:
            await worker.put(b"k", "e2")
        assert "outcome" not in refused.value.details
        assert await worker.etag(b"k") == "e1"
    await worker.put(b"k", "e3")
    await holder.close()


async def test_a_slow_database_makes_clients_wait_and_then_refuses_them(postgres: PostgresEngine) -> None:
    """Here a key that somebody holds: the process has its few connections and its line, whoever is beyond it is told at
    once that nothing happened, and all who waited are served when it goes on."""
    connections_max, crowd = 4, WAITING_MAX + 100
    metadata = await postgres.open(connections_max=connections_max)
    worker = await Worker.start(metadata)
    await worker.put(b"k", size=0)
    holding = await connect_postgres(postgres.dsn)
    watching = await connect_postgres(postgres.dsn)
    async with holding.transaction():
        await holding.execute("SELECT 1 FROM heads FOR UPDATE")
        writes = [asyncio.create_task(worker.put(b"k", size=0)) for _ in range(crowd)]
        while await watching.fetchval(WAITING) < connections_max:
            pass
        assert await watching.fetchval(CONNECTED) == connections_max + 2
        refused = [write.exception() for write in writes if write.done()]
        assert len(refused) == crowd - WAITING_MAX - connections_max
        assert all(isinstance(error, Unavailable) and error.details == {} for error in refused)
        waiting = [write for write in writes if not write.done()]
    assert len(await asyncio.gather(*waiting)) == crowd - len(refused)
    await holding.close()
    await watching.close()


async def test_a_cancelled_call_leaves_no_busy_connection_behind(postgres: PostgresEngine) -> None:
    """The only connection is closed with the call, and the next call gets a new one."""
    metadata = await postgres.open(connections_max=1)
    worker = await Worker.start(metadata)
    await worker.put(b"k", "e1")
    holder = await connect_postgres(postgres.dsn)
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM heads FOR UPDATE")
        writing = asyncio.create_task(worker.put(b"k", "e2"))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while not await holder.fetchval(waiting):
            await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await worker.etag(b"k") == "e1"
    with pytest.raises(NoSuchKey):
        await worker.etag(b"other")
    await holder.close()


async def test_a_closed_engine_answers_unavailable(metadata: PostgresMetadata) -> None:
    """Not with an error of the library's."""
    await metadata.close()
    with pytest.raises(Unavailable):
        await metadata.configuration_sequence()
