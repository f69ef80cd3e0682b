"""Who waits for whom: writes that are not yet committed against those who change what they went by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import asyncpg
import pytest

from storage.base.errors import (
    BucketNotEmpty,
    FrostbyteError,
    SessionFenced,
    SourceChanged,
    StalePlacement,
    Unavailable,
)
from storage.metadata.commands import (
    AbortUpload,
    ChunkLayout,
    CloseSession,
    Command,
    CommitVersion,
    CreateBucket,
    DeleteBucket,
    DeleteTarget,
    DeleteVersions,
    FenceSessions,
    PutPart,
    RegisterNode,
    Relayout,
    SetNodeClosed,
    SetReplicas,
    SetVersioning,
)
from storage.metadata.postgresql import nodes
from storage.metadata.postgresql.database import ATTEMPTS_MAX
from storage.metadata.postgresql.engine import HANDLERS, PostgresMetadata
from storage.metadata.postgresql.open import connect_postgres
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.schema import MIGRATIONS
from storage.model import NodeReport, NodeState, Versioning
from tests.linear.checker import find_violation
from tests.linear.racer import race_in_this_process
from tests.storage.metadata.builders import OWNER, PART_BYTES, Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
RACES = {True: 3, False: 40}
LOOK_AT_HEAD = "AND h.object_key = p_object_key FOR UPDATE;"


class HeldTransaction:
    """A transaction in which commands are applied, and which is not over until it is told to be."""

    def __init__(self, engine: PostgresEngine) -> None:
        self.engine = engine

    async def begin(self) -> None:
        self.connection = await connect_postgres(self.engine.dsn)
        await self.connection.execute("BEGIN")

    def now_ms(self) -> int:
        return self.engine.clock.now_ms()

    async def write(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        return list(await self.connection.fetch(statement, *arguments))

    async def apply(self, command: Command) -> Any:
        """As far as before the commit."""
        return await HANDLERS[type(command)](self, command)  # type: ignore[arg-type]

    async def until_waiting(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start the call; return when it waits for a lock. Fails when it ends instead."""
        task = asyncio.create_task(call)
        while not await self.connection.fetchval(WAITING):
            assert not task.done(), "it waited for nobody"
        return task

    async def commit(self) -> None:
        await self.connection.execute("COMMIT")


@pytest.fixture
async def held(postgres: PostgresEngine) -> AsyncIterator[HeldTransaction]:
    """Begun."""
    transaction = HeldTransaction(postgres)
    await transaction.begin()
    yield transaction
    await transaction.connection.close()


def a_commit(worker: Worker, object_key: bytes, etag: str = "held") -> CommitVersion:
    """Of an inline object."""
    blob = worker.inline(10)
    return CommitVersion(worker.session_id, worker.bucket.bucket_id, object_key, worker.version(10, etag), (blob,))


@pytest.mark.parametrize("ends_by", [FenceSessions(0), CloseSession])
async def test_ending_a_session_waits_for_the_commits_it_let_in(
    postgres: PostgresEngine, worker: Worker, held: HeldTransaction, ends_by: Any
) -> None:
    """What was let in commits; what comes later, and what was waiting in line, is refused."""
    postgres.clock.advance(1)
    await held.apply(a_commit(worker, b"held"))
    command = ends_by(worker.session_id) if ends_by is CloseSession else ends_by
    ending = await held.until_waiting(worker.apply(command))
    late = asyncio.create_task(worker.put(b"late"))
    await held.commit()
    assert await ending in ([worker.session_id], None)
    with pytest.raises(SessionFenced):
        await late
    page = await worker.metadata.list_heads(worker.bucket.bucket_id)
    assert [entry.object_key for entry in page.entries] == [b"held"]


async def test_a_bucket_is_not_deleted_under_a_commit(worker: Worker, held: HeldTransaction) -> None:
    """It waits, and then finds the object."""
    await held.apply(a_commit(worker, b"held"))
    deleting = await held.until_waiting(worker.apply(DeleteBucket(worker.bucket.bucket_id)))
    await held.commit()
    with pytest.raises(BucketNotEmpty):
        await deleting
    assert await worker.etag(b"held") == "held"


async def test_versioning_waits_for_the_commits_of_the_old_state(worker: Worker, held: HeldTransaction) -> None:
    """A commit that went by the old state is over before any that goes by the new one begins."""
    await held.apply(a_commit(worker, b"held"))
    changing = await held.until_waiting(worker.apply(SetVersioning(worker.bucket.bucket_id, Versioning.ENABLED)))
    await held.commit()
    await changing
    assert (await worker.put(b"held")).version_id not in (None, "null")
    assert await worker.etag(b"held", "null") == "held"


async def test_writers_of_a_new_key_wait_for_the_first(worker: Worker, held: HeldTransaction) -> None:
    """There is no head row to lock yet; the second finds the first one's version all the same."""
    await held.apply(a_commit(worker, b"k"))
    putting = await held.until_waiting(worker.put(b"k", "second"))
    await held.commit()
    await putting
    assert (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).version.sequence == 2


async def test_a_writer_that_waited_for_a_delete_makes_the_key_anew(worker: Worker, held: HeldTransaction) -> None:
    """The head it waited for is gone when its turn comes."""
    await worker.put(b"k", "old")
    await held.apply(DeleteVersions(worker.bucket.bucket_id, (DeleteTarget(b"k"),)))
    putting = await held.until_waiting(worker.put(b"k", "new"))
    await held.commit()
    await putting
    assert await worker.etag(b"k") == "new"


async def test_a_copy_and_the_delete_of_its_source_see_each_other(worker: Worker, held: HeldTransaction) -> None:
    """Delete first: the copy is refused. Copy first: the blob stays."""
    blob = worker.chunked(20)
    await worker.put(b"source", blob=blob)
    extents = (await worker.metadata.read_version(worker.bucket.bucket_id, b"source")).extents
    version = worker.version(20, "copy")
    await held.apply(
        CommitVersion(worker.session_id, worker.bucket.bucket_id, b"copy", version, shared=extents),
    )
    deleting = await held.until_waiting(worker.delete(b"source"))
    await held.commit()
    await deleting
    assert await worker.released() == set()
    await held.connection.execute("BEGIN")
    await held.apply(DeleteVersions(worker.bucket.bucket_id, (DeleteTarget(b"copy"),)))
    copying = await held.until_waiting(worker.share(extents, b"again"))
    await held.commit()
    with pytest.raises(SourceChanged):
        await copying
    assert await worker.released() == {blob.blob_id}


async def test_an_abort_waits_for_the_part_that_is_being_recorded(worker: Worker, held: HeldTransaction) -> None:
    """And releases it with the others."""
    upload = await worker.create_upload(b"m")
    blob = worker.chunked(PART_BYTES)
    part = PutPart(worker.session_id, upload.bucket_id, b"m", upload.upload_id, 1, PART_BYTES, "p", blob)
    await held.apply(part)
    aborting = await held.until_waiting(worker.apply(AbortUpload(upload.bucket_id, b"m", upload.upload_id)))
    await held.commit()
    await aborting
    assert await worker.released() == {blob.blob_id}


async def begin_commit_to_a_node(worker: Worker, held: HeldTransaction) -> CommitVersion:
    """One node, and a commit that names it, let in and not over. → another one"""
    report = NodeReport("n1", "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1)
    assert (await worker.apply(RegisterNode(report, NodeState.DRAINING))).number == 1
    commits = []
    for object_key in (b"held", b"late"):
        blob, version = worker.chunked(20, 10, (1,)), worker.version(20, "e")
        commits.append(CommitVersion(worker.session_id, worker.bucket.bucket_id, object_key, version, (blob,)))
    await held.apply(commits[0])
    return commits[1]


async def test_closing_a_node_waits_for_the_commits_it_let_in(
    worker: Worker, held: HeldTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was let in is seen by whoever looks afterwards; what was waiting in line is refused. What names no node, and
    the registry, wait for nobody."""
    monkeypatch.setattr(nodes, "CLOSING_WAIT_MS", 60_000)
    late = await begin_commit_to_a_node(worker, held)
    closing = await held.until_waiting(worker.apply(SetNodeClosed("n1", True)))
    waiting = asyncio.create_task(worker.apply(late))
    await worker.put(b"inline")
    await worker.apply(RegisterNode(NodeReport("n2", "c" * 32, "unix:/y", "z/h/1", 10, 5, 1, 1), NodeState.UP))
    await held.commit()
    await closing
    with pytest.raises(StalePlacement):
        await waiting
    assert {place.nodes for place in await worker.metadata.list_chunk_places(None, 10)} == {(1,)}
    assert {entry.object_key for entry in (await worker.metadata.list_heads(worker.bucket.bucket_id)).entries} == {
        b"held",
        b"inline",
    }


async def test_closing_a_node_gives_up_soon(
    worker: Worker, held: HeldTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that does not end must not keep all others waiting. Nothing was changed."""
    monkeypatch.setattr(nodes, "CLOSING_WAIT_MS", 1)
    late = await begin_commit_to_a_node(worker, held)
    with pytest.raises(Unavailable) as refused:
        await worker.apply(SetNodeClosed("n1", True))
    assert refused.value.details == {}
    await worker.apply(late)
    await held.commit()
    await worker.apply(SetNodeClosed("n1", True))


async def test_a_new_layout_waits_for_the_change_of_replicas_before_it(worker: Worker, held: HeldTransaction) -> None:
    """Which is in the layout that is set aside; a change that comes later finds another generation, and so does one
    that was waiting."""
    blob = worker.chunked(20, 10)
    await worker.put(b"k", blob=blob)
    await held.apply(SetReplicas(blob.blob_id, 0, (1, 2), (1, 9)))
    chunks = tuple(ChunkLayout(index, b"d", (1, 2)) for index in range(2))
    laying_out = await held.until_waiting(worker.apply(Relayout(blob.blob_id, 0, "replica:2", chunks)))
    await held.commit()
    assert await laying_out is True
    (old,) = await worker.metadata.list_released_blobs(2**62, 10)
    assert [chunk.nodes for chunk in old.chunks] == [(1, 9), (1, 2)]
    await held.connection.execute("BEGIN")
    await held.apply(Relayout(blob.blob_id, 1, "replica:2", chunks))
    changing = await held.until_waiting(worker.apply(SetReplicas(blob.blob_id, 0, (1, 2), (1, 9), 1)))
    await held.commit()
    assert await changing is False


async def test_a_delete_waits_for_the_new_layout(worker: Worker, held: HeldTransaction) -> None:
    """And releases that one; a layout that waited for a delete is of nothing."""
    blob, other = worker.chunked(20, 10), worker.chunked(20, 10)
    await worker.put(b"k", blob=blob)
    await worker.put(b"other", blob=other)
    chunks = tuple(ChunkLayout(index, b"d", (1, 2)) for index in range(2))
    await held.apply(Relayout(blob.blob_id, 0, "replica:2", chunks))
    deleting = await held.until_waiting(worker.delete(b"k"))
    await held.commit()
    await deleting
    released = await worker.metadata.list_released_blobs(2**62, 10)
    assert [(found.blob_id, found.generation) for found in released] == [(blob.blob_id, 0), (blob.blob_id, 1)]
    await held.connection.execute("BEGIN")
    await held.apply(DeleteVersions(worker.bucket.bucket_id, (DeleteTarget(b"other"),)))
    laying_out = await held.until_waiting(worker.apply(Relayout(other.blob_id, 0, "replica:2", chunks)))
    await held.commit()
    assert await laying_out is False


async def test_reads_wait_for_nobody(worker: Worker, held: HeldTransaction) -> None:
    """While a commit holds all its locks, readers see the state before it."""
    await worker.put(b"k", "before")
    await held.apply(a_commit(worker, b"k"))
    assert await worker.etag(b"k") == "before"
    assert len((await worker.metadata.list_heads(worker.bucket.bucket_id)).entries) == 1
    await held.commit()
    assert await worker.etag(b"k") == "held"


async def test_a_deadlock_is_tried_again(metadata: PostgresMetadata) -> None:
    """Two transactions that take two locks in opposite order both get through."""
    both_hold_one = asyncio.Barrier(2)
    attempts = [0, 0]

    def crosswise(number: int) -> Any:
        async def work(connection: Connection) -> int:
            attempts[number] += 1
            await connection.execute("SELECT pg_advisory_xact_lock($1)", number)
            if attempts[number] == 1:
                await both_hold_one.wait()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", 1 - number)
            return number

        return work

    database = metadata._database
    assert await asyncio.gather(*[database.transact(crosswise(number)) for number in (0, 1)]) == [0, 1]
    assert sum(attempts) == 3


async def test_a_transaction_that_never_gets_through_is_given_up(metadata: PostgresMetadata) -> None:
    """After a bounded number of attempts."""
    attempts = 0

    async def always_late(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$")

    with pytest.raises(FrostbyteError):
        await metadata._database.transact(always_late)
    assert attempts == ATTEMPTS_MAX


@pytest.mark.parametrize("is_locked", [True, False])
async def test_the_check_of_histories_finds_a_missing_lock(postgres: PostgresEngine, is_locked: bool) -> None:
    """The planted bug: writers of a key that do not wait for each other lose updates. Both times there is a moment
    between the look at the head and its update, which harms nobody who holds the lock."""
    postgres.is_spoiled = True
    metadata = await postgres.open(connections_max=8)
    (function,) = [text for text in MIGRATIONS[1] if text.startswith("CREATE FUNCTION put_on_top_2")]
    assert LOOK_AT_HEAD in function
    looks = LOOK_AT_HEAD if is_locked else LOOK_AT_HEAD.replace(" FOR UPDATE", "")
    slowed = function.replace(LOOK_AT_HEAD, f"{looks} PERFORM pg_sleep(0.004);")
    admin = await connect_postgres(postgres.dsn)
    await admin.execute(slowed.replace("CREATE", "CREATE OR REPLACE", 1))
    await admin.close()
    found = False
    for number in range(RACES[is_locked]):
        await metadata.apply(CreateBucket(f"race-{number}", OWNER, "us-east-1", "bk-1"))
        history = await race_in_this_process(metadata, f"race-{number}", f"planted.{number}", 8, 20)
        found = bool(find_violation(history))
        if found:
            break
    assert found is not is_locked
