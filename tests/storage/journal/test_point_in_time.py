"""An earlier moment of the records: what they say of then, and what of now must not be lost with it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from storage.base.errors import ObjectLocked
from storage.base.ids import stored_chunk_id
from storage.journal import custodian, keeper
from storage.journal.directory import DirectorySource
from storage.journal.lost_chunks import find_lost
from storage.journal.point_in_time import take_over
from storage.journal.recovery import CannotRecover, recover_database
from storage.journal.status import read_status
from storage.journal.stock import Source, list_sources, take_stock
from storage.journal.writer import Phase
from storage.metadata.commands import (
    OBJECT_LOCK_SETTING,
    ChangeObject,
    ChunkLayout,
    CreateBucket,
    DeleteTarget,
    DeleteVersions,
    ForgetBlobs,
    PutBucketSetting,
    Relayout,
    Retention,
    SetReplicas,
)
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import DATABASE_NAME, connect_reader
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.position import read_position
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.model import LockMode, SessionState, Versioning
from tests.storage.journal.world import OwnerTwin, World
from tests.storage.metadata.builders import OWNER, Worker

FAR_MS = 4_000_000_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "TICK_S", 0.02)
    monkeypatch.setattr(keeper, "STARTING_TICK_S", 0.02)
    monkeypatch.setattr(custodian, "TICK_S", 0.02)


async def open_world(world: World) -> OwnerTwin:
    owner = await world.start_owner()
    await owner.register(*world.nodes)
    await owner.wait_for(Phase.OPEN)

    def is_covered() -> bool:
        status = read_status(owner.directory)
        return status is not None and status.is_covered

    await owner.wait_until(is_covered, "a snapshot")
    return owner


async def moment() -> int:
    """Between what was written before and what comes after."""
    await asyncio.sleep(0.01)
    now_ms = time.time_ns() // 1_000_000
    await asyncio.sleep(0.01)
    return now_ms


async def restore(world: World, until_ms: int, name: str = "then") -> SqliteMetadata:
    """As `frostbyte recover --at` does."""
    sources: list[Source] = [DirectorySource(node.files) for node in world.nodes]
    stock = await take_stock((await list_sources(sources))[0], world.keys)
    directory = world.root / name
    directory.mkdir()
    now = directory / "now.db"
    await recover_database(stock, now)
    await recover_database(stock, directory / DATABASE_NAME, until_ms=until_ms)
    take_over(directory / DATABASE_NAME, now)
    with closing(connect_reader(directory / DATABASE_NAME)) as connection:
        assert check_integrity(connection) == []
        assert read_position(connection.execute).history == 0
    return await open_owned_metadata(directory)


async def test_what_was_written_later_is_not_there(world: World) -> None:
    """What was deleted later is; write sessions are over, and bucket ids are not used again."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"kept", "old")
    await worker.put(b"deleted later")
    then_ms = await moment()
    await worker.put(b"kept", "new")
    await worker.put(b"later")
    await worker.delete(b"deleted later")
    later = await worker.in_bucket("later")
    await world.stop_owner(owner)
    metadata = await restore(world, then_ms)
    page = await metadata.list_heads(worker.bucket.bucket_id)
    assert {entry.object_key: entry.etag for entry in page.entries} == {b"kept": "old", b"deleted later": "e"}
    assert await metadata.find_bucket("later") is None
    made = await metadata.apply(CreateBucket("another", OWNER, "us-east-1", "bk-1"))
    assert made.bucket_id > later.bucket.bucket_id
    sessions = await metadata.list_sessions()
    assert worker.session_id in {session.session_id for session in sessions}
    assert {session.state for session in sessions} == {SessionState.FENCED}
    assert [node.report.node_id for node in (await metadata.cluster_map()).nodes] == [
        node.report.node_id for node in world.nodes
    ]
    await metadata.close()


async def test_locks_are_the_later_of_both(world: World) -> None:
    """Set since: kept. Prolonged since: the longer. Lifted since: as it was then."""
    owner = await open_world(world)
    plain = await Worker.start(owner.metadata)
    worker = await plain.in_bucket("locked", Versioning.ENABLED)
    bucket_id = worker.bucket.bucket_id
    await worker.apply(PutBucketSetting(bucket_id, OBJECT_LOCK_SETTING, b"{}"))
    versions = {}
    for key in (b"set", b"prolonged", b"lifted", b"held", b"released", b"stronger", b"free"):
        versions[key] = (await worker.put(key)).version_id

    async def lock(key: bytes, mode: LockMode, until_ms: int) -> None:
        retention = Retention(mode, until_ms)
        await worker.apply(ChangeObject(bucket_id, key, retention=retention, bypass_governance=True))

    await lock(b"prolonged", LockMode.COMPLIANCE, FAR_MS)
    await lock(b"lifted", LockMode.GOVERNANCE, FAR_MS)
    await lock(b"stronger", LockMode.GOVERNANCE, FAR_MS + 5)
    await worker.apply(ChangeObject(bucket_id, b"released", legal_hold=True))
    then_ms = await moment()
    await lock(b"set", LockMode.COMPLIANCE, FAR_MS)
    await lock(b"prolonged", LockMode.COMPLIANCE, FAR_MS + 9)
    await lock(b"lifted", LockMode.NONE, 0)
    await lock(b"stronger", LockMode.COMPLIANCE, FAR_MS)
    await worker.apply(ChangeObject(bucket_id, b"held", legal_hold=True))
    await worker.apply(ChangeObject(bucket_id, b"released", legal_hold=False))
    await worker.delete(b"free", versions[b"free"])
    await world.stop_owner(owner)
    metadata = await restore(world, then_ms)
    found = {}
    for key in versions:
        found[key] = (await metadata.read_version(bucket_id, key)).version.attributes.lock
    assert {key: (lock.mode, lock.retain_until_ms, lock.legal_hold) for key, lock in found.items()} == {
        b"set": (LockMode.COMPLIANCE, FAR_MS, False),
        b"prolonged": (LockMode.COMPLIANCE, FAR_MS + 9, False),
        b"lifted": (LockMode.GOVERNANCE, FAR_MS, False),
        b"stronger": (LockMode.COMPLIANCE, FAR_MS + 5, False),
        b"held": (LockMode.NONE, 0, True),
        b"released": (LockMode.NONE, 0, True),
        b"free": (LockMode.NONE, 0, False),
    }
    target = DeleteTarget(b"set", versions[b"set"])
    [refused] = await metadata.apply(DeleteVersions(bucket_id, (target,), bypass_governance=True))
    assert refused.refusal == ObjectLocked.__name__
    await metadata.close()


async def test_chunks_are_where_they_are_now(world: World) -> None:
    """Moved by repair and laid out anew since; what was swept since is lost, and told by name."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    moved, relaid, swept = (worker.chunked(9 << 20) for _ in range(3))
    for key, blob in ((b"moved", moved), (b"relaid", relaid), (b"swept", swept)):
        await worker.put(key, blob=blob)
    then_ms = await moment()
    assert await worker.apply(SetReplicas(moved.blob_id, 0, (1, 2), (2, 3)))
    layout = tuple(ChunkLayout(index, bytes(8), (3, 1)) for index in range(len(relaid.chunks)))
    assert await worker.apply(Relayout(relaid.blob_id, 0, "replica:2", layout))
    await worker.apply(ForgetBlobs((relaid.blob_id,), (0,)))
    await worker.delete(b"swept")
    await worker.apply(ForgetBlobs((swept.blob_id,), (0,)))
    await world.stop_owner(owner)
    metadata = await restore(world, then_ms)
    assert [chunk.nodes for chunk in await metadata.read_chunks(moved.blob_id, 0)] == [(2, 3), (1, 2)]
    read = await metadata.read_version(worker.bucket.bucket_id, b"relaid")
    assert [blob.generation for blob in read.blobs] == [1]
    assert [chunk.nodes for chunk in read.blobs[0].chunks] == [(3, 1)] * 2
    await metadata.close()
    for blob, generation in ((moved, 0), (relaid, 1)):
        for chunk in blob.chunks:
            chunk_id = stored_chunk_id(blob.blob_id, chunk.index, generation)
            group = world.nodes[0].directory / "chunks" / str(chunk_id)[:29]
            group.mkdir(parents=True, exist_ok=True)
            (group / str(chunk_id)).write_bytes(b"x")
    with closing(connect_reader(world.root / "then" / DATABASE_NAME)) as connection:
        lost = find_lost(connection, [node.directory for node in world.nodes])
    assert lost.chunks == 2
    assert [(user.bucket_name, user.object_key) for user in lost.users] == [("bucket", b"swept")]


async def test_a_moment_that_is_too_early_is_refused(world: World) -> None:
    """Before the first snapshot there is nothing to begin with."""
    too_early_ms = await moment()
    owner = await open_world(world)
    await world.stop_owner(owner)
    with pytest.raises(CannotRecover, match="no snapshot of the records of that time or before"):
        await restore(world, too_early_ms)


async def test_nothing_is_taken_over_when_it_fails(world: World) -> None:
    """One transaction."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"k")
    then_ms = await moment()
    await world.stop_owner(owner)
    metadata = await restore(world, then_ms)
    await metadata.close()
    earlier = world.root / "then" / DATABASE_NAME
    before = earlier.read_bytes()
    empty = world.root / "empty.db"
    sqlite3.connect(empty).close()
    with pytest.raises(sqlite3.Error):
        take_over(earlier, empty)
    assert earlier.read_bytes() == before
