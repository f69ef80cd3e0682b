"""How often an operation goes to the database and back, counted on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storage.metadata.commands import (
    ChangeObject,
    ChunkLayout,
    DeleteTarget,
    DeleteVersions,
    FenceSessions,
    ForgetBlobs,
    Relayout,
    RenewSession,
    SetReplicas,
)
from storage.metadata.postgresql.deletes import TARGETS_PER_TRANSACTION
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.model import ByteRange
from tests.postgres_server import shared_databases
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine
from tests.storage.metadata.postgresql.proxy import PostgresProxy

Operation = Callable[[], Awaitable[object]]


@pytest.fixture
async def proxy(postgres: PostgresEngine, tmp_path: Path) -> AsyncIterator[PostgresProxy]:
    """Between the engine and its server."""
    running = PostgresProxy(tmp_path, shared_databases().server.directory)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def metadata(postgres: PostgresEngine, proxy: PostgresProxy) -> PostgresMetadata:
    """Through the proxy, over a single connection."""
    database = postgres.dsn.partition("?")[0].rpartition("/")[2]
    dsn = shared_databases().server.dsn(database, proxy.directory)
    return await postgres.open(connections_max=1, dsn=dsn)


async def count(proxy: PostgresProxy, operation: Operation) -> int:
    """Of the third time: statements are prepared then, and the types of their parameters known."""
    await operation()
    await operation()
    before = proxy.round_trips
    await operation()
    return proxy.round_trips - before


async def test_an_object_write_is_one_round_trip(worker: Worker, proxy: PostgresProxy) -> None:
    """Inline or chunked, new or replaced; a part; a part again; a delete of one or of a batch; a change of tags."""
    numbers = iter(range(1000))
    upload = await worker.create_upload(b"m")
    targets = tuple(DeleteTarget(b"%d" % number) for number in range(TARGETS_PER_TRANSACTION))
    operations: dict[str, Operation] = {
        "new": lambda: worker.put(b"new%d" % next(numbers)),
        "replaced": lambda: worker.put(b"replaced"),
        "chunked": lambda: worker.put(b"chunked", blob=worker.chunked(100, 10)),
        "part": lambda: worker.put_part(upload, next(numbers) + 1),
        "same part": lambda: worker.put_part(upload, 1),
        "delete": lambda: worker.delete(b"replaced"),
        "delete many": lambda: worker.apply(DeleteVersions(worker.bucket.bucket_id, targets)),
        "change": lambda: worker.apply(ChangeObject(worker.bucket.bucket_id, b"chunked", tags={"a": "b"})),
        "renew": lambda: worker.apply(RenewSession(worker.session_id, 0)),
    }
    counted = {name: await count(proxy, operation) for name, operation in operations.items()}
    assert counted == dict.fromkeys(operations, 1)


async def test_upkeep_is_one_round_trip(worker: Worker, proxy: PostgresProxy) -> None:
    """A change of replicas, a new layout, what is forgotten, a fence, and each page of what looks after chunks."""
    metadata, blob = worker.metadata, worker.chunked(100, 10)
    await worker.put(b"k", blob=blob)
    generations = iter(range(10))

    async def lay_out() -> None:
        chunks = tuple(ChunkLayout(index, b"", (1, 2)) for index in range(10))
        assert await worker.apply(Relayout(blob.blob_id, next(generations), "replica:2", chunks))

    operations: dict[str, Operation] = {
        "replicas": lambda: worker.apply(SetReplicas(blob.blob_id, 0, (1, 2), (2, 1))),
        "layout": lay_out,
        "released": lambda: metadata.list_released_blobs(2**62, 10),
        "forget": lambda: worker.apply(ForgetBlobs((blob.blob_id,) * 2, (0, 1))),
        "fence": lambda: worker.apply(FenceSessions(60_000)),
        "places": lambda: metadata.list_chunk_places((blob.blob_id, 3), 5),
        "some places": lambda: metadata.find_chunk_places([(blob.blob_id, 3), (blob.blob_id, 4)]),
        "users": lambda: metadata.find_blob_users([blob.blob_id], 10),
        "blobs": lambda: metadata.list_bucket_blobs(worker.bucket.bucket_id, 0, 10),
    }
    counted = {name: await count(proxy, operation) for name, operation in operations.items()}
    assert counted == dict.fromkeys(operations, 1)


async def test_completing_and_copying_are_one_round_trip(worker: Worker, proxy: PostgresProxy) -> None:
    """However many parts there are."""
    uploads = [await worker.create_upload(b"k") for _ in range(3)]
    parts = {upload.upload_id: [await worker.put_part(upload, number) for number in (1, 2)] for upload in uploads}
    numbers = iter(uploads)

    async def complete() -> None:
        upload = next(numbers)
        await worker.complete(upload, parts[upload.upload_id])

    assert await count(proxy, complete) == 1
    extents = (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).extents
    assert await count(proxy, lambda: worker.share(extents, b"copy")) == 1


async def test_a_read_is_one_round_trip(worker: Worker, proxy: PostgresProxy) -> None:
    """GET, ranged GET, HEAD, by version, a page of a listing with and without a delimiter, configuration."""
    metadata, bucket_id = worker.metadata, worker.bucket.bucket_id
    for object_key in (b"a/1", b"a/2", b"b/1", b"c"):
        await worker.put(object_key, blob=worker.chunked(100, 10))
    upload = await worker.create_upload(b"m")
    await worker.put_part(upload, 1)
    operations: dict[str, Operation] = {
        "get": lambda: metadata.read_version(bucket_id, b"c"),
        "range": lambda: metadata.read_version(bucket_id, b"c", byte_range=ByteRange(55, 77)),
        "head": lambda: metadata.read_version(bucket_id, b"c", "null", with_body=False),
        "list": lambda: metadata.list_heads(bucket_id, limit=2),
        "roll up": lambda: metadata.list_heads(bucket_id, delimiter=b"/"),
        "versions": lambda: metadata.list_versions(bucket_id, after=(b"c", "null"), limit=2),
        "roll versions up": lambda: metadata.list_versions(bucket_id, delimiter=b"/"),
        "uploads": lambda: metadata.list_uploads(bucket_id, delimiter=b"/"),
        "parts": lambda: metadata.list_parts(bucket_id, b"m", upload.upload_id),
        "bucket": lambda: metadata.find_bucket("bucket"),
        "sequence": lambda: metadata.configuration_sequence(),
        "key": lambda: metadata.find_access_key("nobody"),
        "map": lambda: metadata.cluster_map(),
    }
    counted = {name: await count(proxy, operation) for name, operation in operations.items()}
    assert counted == dict.fromkeys(operations, 1)


async def test_requests_at_once_share_the_reading_of_the_sequence(
    metadata: PostgresMetadata, proxy: PostgresProxy
) -> None:
    """One that was first, and one for all who came while it was under way."""

    async def ask() -> None:
        assert len(set(await asyncio.gather(*[metadata.configuration_sequence() for _ in range(100)]))) == 1

    assert await count(proxy, ask) == 2
