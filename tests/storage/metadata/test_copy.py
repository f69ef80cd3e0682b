"""A store moved from one engine to another and back: everything is there, whatever interrupts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from storage.base.errors import Corrupt, FrostbyteError, Unavailable
from storage.metadata import copy as copying
from storage.metadata.commands import (
    ChangeObject,
    ChunkLayout,
    CreateBucket,
    CreateUser,
    PutBucketSetting,
    RegisterNode,
    Relayout,
    SetNodeClosed,
)
from storage.metadata.copy import TABLES, Row, Table, copy_metadata
from storage.metadata.interface import Metadata
from storage.metadata.postgresql.open import open_postgres_metadata
from storage.metadata.postgresql.rows import PostgresTarget, open_postgres_source, open_postgres_target
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.rows import COPYING_NAME, open_sqlite_source, open_sqlite_target
from storage.model import (
    AccessKey,
    Attributes,
    Checksum,
    ChecksumAlgorithm,
    Grant,
    LockMode,
    NodeReport,
    NodeState,
    ObjectLock,
    User,
    Versioning,
)
from tests.storage.metadata.builders import OWNER, Worker
from tests.storage.metadata.engines import check_database
from tests.storage.metadata.postgresql.engine import PostgresEngine


@pytest.fixture
async def postgres() -> AsyncIterator[PostgresEngine]:
    """An empty database, whole at the end unless the test says that it is not."""
    running = PostgresEngine()
    await running.start()
    try:
        yield running
        assert running.is_spoiled or await running.check() == []
    finally:
        await running.stop()


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A directory with an SQLite store that has some of everything."""
    directory = tmp_path / "filled"
    metadata = await open_owned_metadata(directory)
    await fill(metadata)
    await metadata.close()
    return directory


async def fill(metadata: Metadata) -> None:
    """Versions, markers, null versions, uploads, copies, layouts, users, nodes."""
    worker = await Worker.start(metadata)
    user = User(OWNER, "alice", "Alice", "", False, 7)
    await worker.apply(CreateUser(user, AccessKey("AK1", OWNER, b"\x00sealed", True, 7)))
    await worker.apply(PutBucketSetting(worker.bucket.bucket_id, "cors", b"<x/>"))
    await worker.apply(RegisterNode(NodeReport("n1", "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1), NodeState.UP))
    for node_id in ("n2", "n3"):
        report = NodeReport(node_id, "c" * 32, "unix:/y", "z/h/1", 10, 5, 1, 1)
        await worker.apply(RegisterNode(report, NodeState.DRAINING))
    attributes = Attributes(
        "text/plain", storage_class="GLACIER", checksum=Checksum(ChecksumAlgorithm.CRC32, "AAAAAA==")
    )
    for number in range(7):
        await worker.put(b"inline/\xff%d" % number, size=number, attributes=attributes)
        await worker.put(b"chunked/%d" % number, blob=worker.chunked(30, 10))
    versioned = await worker.in_bucket("versioned", Versioning.ENABLED)
    for number in range(3):
        await versioned.put(b"k%d" % (number % 2))
        await versioned.delete(b"k%d" % number)
    await versioned.put(b"locked", attributes=Attributes(lock=ObjectLock(LockMode.COMPLIANCE, 2**42, True)))
    await worker.apply(
        ChangeObject(worker.bucket.bucket_id, b"chunked/3", tags={"\xe4": ""}, acl=(Grant("g", "READ"),))
    )
    source = (await metadata.read_version(worker.bucket.bucket_id, b"chunked/1")).extents
    await worker.share(source, b"copy")
    await worker.delete(b"chunked/2")
    upload = await worker.create_upload(b"m")
    parts = [await worker.put_part(upload, number) for number in (1, 2)]
    await worker.complete(upload, parts)
    await worker.put_part(await worker.create_upload(b"open"), 1)
    (blob,) = (await metadata.read_version(worker.bucket.bucket_id, b"chunked/4")).blobs
    chunks = tuple(ChunkLayout(chunk.index, b"digest", (1, 0, 2)) for chunk in blob.chunks)
    assert await worker.apply(Relayout(blob.blob_id, 0, "ec:2+1", chunks)) is True
    await worker.apply(SetNodeClosed("n3", True))


async def see(metadata: Metadata) -> list[object]:
    """What a client could see of a store."""
    seen: list[object] = [await metadata.list_users(), await metadata.list_buckets(None), await metadata.cluster_map()]
    for bucket in await metadata.list_buckets(None):
        page = await metadata.list_heads(bucket.bucket_id)
        reads = [await metadata.read_version(bucket.bucket_id, entry.object_key) for entry in page.entries]
        seen += [
            page,
            reads,
            await metadata.list_versions(bucket.bucket_id),
            await metadata.list_uploads(bucket.bucket_id),
        ]
    return [*seen, await metadata.list_released_blobs(2**62, 100), await metadata.configuration_sequence()]


async def see_and_close(metadata: Metadata) -> list[object]:
    """And let go of it."""
    seen = await see(metadata)
    await metadata.close()
    return seen


async def copy_to_postgres(directory: Path, postgres: PostgresEngine, *, anew: bool = False) -> dict[str, int]:
    """All of it, in one go."""
    source, target = await open_sqlite_source(directory), await open_postgres_target(postgres.dsn)
    try:
        return await copy_metadata(source, target, anew=anew)
    finally:
        await source.close()
        await target.close()


async def test_there_and_back_again(filled: Path, tmp_path: Path, postgres: PostgresEngine) -> None:
    """The store looks the same in every engine, is whole, and the last copy equals the first store row by row."""
    progress: list[tuple[str, int]] = []
    source, target = await open_sqlite_source(filled), await open_postgres_target(postgres.dsn)
    counted = await copy_metadata(source, target, on_progress=lambda name, count: progress.append((name, count)))
    await source.close()
    await target.close()
    assert {name for name, _ in progress} == {name for name, count in counted.items() if count}
    assert set(counted) == {table.name for table in TABLES}

    back, again = tmp_path / "back", await open_postgres_source(postgres.dsn)
    filling = await open_sqlite_target(back)
    assert await copy_metadata(again, filling) == counted
    await again.close()
    assert check_database(back) == []
    first, last = await open_sqlite_source(filled), await open_sqlite_source(back)
    assert await first.read_counters() == await last.read_counters()
    await first.close()
    await last.close()

    seen = await see_and_close(await open_owned_metadata(filled))
    assert await see_and_close(await open_postgres_metadata(postgres.dsn)) == seen
    assert await see_and_close(await open_owned_metadata(back)) == seen


async def test_no_number_is_used_twice_after_a_copy(filled: Path, postgres: PostgresEngine) -> None:
    """Buckets, nodes, versions and uploads go on from where they were."""
    await copy_to_postgres(filled, postgres)
    metadata = await open_postgres_metadata(postgres.dsn)
    buckets = await metadata.list_buckets(None)
    made = await metadata.apply(CreateBucket("new", OWNER, "r", "bk"))
    assert made.bucket_id == max(bucket.bucket_id for bucket in buckets) + 1
    worker = await Worker.start(metadata, made)
    await worker.put(b"k")
    await worker.put_part(await worker.create_upload(b"m"), 1)
    report = NodeReport("n4", "c" * 32, "unix:/z", "z/h/1", 10, 5, 1, 1)
    assert (await metadata.apply(RegisterNode(report, NodeState.UP))).number == 4
    await metadata.close()


class InterruptedTarget(PostgresTarget):
    """Goes away after some batches."""

    batches_left = 0

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        if not self.batches_left:
            raise Unavailable("interrupted")
        self.batches_left -= 1
        await super().append(table, rows)


async def test_an_interrupted_copy_goes_on_where_it_stopped(
    filled: Path, postgres: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small batches, cut after every fifth; until the end nobody can open it."""
    monkeypatch.setattr(copying, "BATCH_ROWS", 3)
    runs = 0
    while True:
        source, opened = await open_sqlite_source(filled), await open_postgres_target(postgres.dsn)
        target = InterruptedTarget(opened._connection)
        target.batches_left = 12
        runs += 1
        try:
            await copy_metadata(source, target)
            break
        except Unavailable:
            with pytest.raises(FrostbyteError, match="not finished"):
                await open_postgres_metadata(postgres.dsn)
        finally:
            await source.close()
            await target.close()
    assert runs > 3
    assert await see_and_close(await open_postgres_metadata(postgres.dsn)) == await see_and_close(
        await open_owned_metadata(filled)
    )


async def test_a_source_that_changed_meanwhile_is_found(filled: Path, postgres: PostgresEngine) -> None:
    """The comparison fails, the target stays unfinished, and a new beginning works."""
    source, opened = await open_sqlite_source(filled), await open_postgres_target(postgres.dsn)
    target = InterruptedTarget(opened._connection)
    target.batches_left = 9
    with pytest.raises(Unavailable):
        await copy_metadata(source, target)
    await source.close()
    await target.close()
    changing = await open_owned_metadata(filled)
    (bucket, _) = await changing.list_buckets(None)
    await (await Worker.start(changing, bucket)).put(b"chunked/1", "changed")
    await changing.close()
    with pytest.raises(Corrupt, match="begin it anew"):
        await copy_to_postgres(filled, postgres)
    with pytest.raises(FrostbyteError, match="not finished"):
        await open_postgres_metadata(postgres.dsn)
    await copy_to_postgres(filled, postgres, anew=True)


async def test_a_copy_never_mixes_with_a_store(filled: Path, tmp_path: Path, postgres: PostgresEngine) -> None:
    """Neither in a database nor in a directory."""
    await fill(await postgres.open(connections_max=2))
    with pytest.raises(FrostbyteError, match="already"):
        await copy_to_postgres(filled, postgres)
    with pytest.raises(FrostbyteError, match="already"):
        await open_sqlite_target(filled)
    with pytest.raises(FrostbyteError, match="there is no"):
        await open_sqlite_source(tmp_path)


async def test_an_unfinished_sqlite_copy_lies_aside(tmp_path: Path, postgres: PostgresEngine) -> None:
    """It goes on from there, or is dropped; the directory has no store before the end."""
    await fill(await postgres.open(connections_max=2))
    directory = tmp_path / "target"
    target = await open_sqlite_target(directory)
    source = await open_postgres_source(postgres.dsn)
    for table in TABLES[:8]:
        await target.clear(table)
        await target.append(table, await source.read(table, None, 2))
    await target.close()
    assert [path.name for path in directory.iterdir()] == [COPYING_NAME]
    target = await open_sqlite_target(directory)
    await copy_metadata(source, target)
    assert [path.name for path in directory.iterdir() if path.name == COPYING_NAME] == []
    assert check_database(directory) == []
    other = tmp_path / "anew"
    await (await open_sqlite_target(other)).close()
    target = await open_sqlite_target(other, anew=True)
    await copy_metadata(source, target)
    await source.close()


async def test_nobody_writes_while_a_store_is_copied(filled: Path, postgres: PostgresEngine) -> None:
    """SQLite: its lock is held. PostgreSQL: writers wait, here in vain, and readers do not."""
    source = await open_sqlite_source(filled)
    with pytest.raises(Unavailable):
        await open_owned_metadata(filled)
    await source.close()
    metadata = await postgres.open(connections_max=2)
    worker = await Worker.start(metadata)
    reading = await open_postgres_source(postgres.dsn)
    assert await metadata.find_bucket("bucket") == worker.bucket
    held = (
        "SELECT count(DISTINCT relation) FROM pg_locks WHERE mode = 'ShareLock' AND locktype = 'relation' AND granted"
    )
    assert await reading._connection.fetchval(held) == len({table.name for table in TABLES}) + 1
    await reading.close()
    await worker.put(b"k")
