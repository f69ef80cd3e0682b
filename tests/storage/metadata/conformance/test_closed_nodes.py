"""Nodes that are closed for commits: whatever was applied before is seen after, and nothing names them later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from storage.base.errors import NotActiveMaster, Refused, StalePlacement, Unavailable
from storage.metadata.commands import (
    AcquireMasterLease,
    ChunkLayout,
    PutPart,
    RegisterNode,
    Relayout,
    ReleaseBlobs,
    SetNodeClosed,
    SetNodeState,
    SetReplicas,
)
from storage.metadata.interface import Metadata
from storage.model import NodeReport, NodeState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine


def report(node_id: str) -> NodeReport:
    """What a small datanode says."""
    return NodeReport(node_id, "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1)


async def register(metadata: Metadata, count: int = 3) -> None:
    """n1, n2, … with the numbers 1, 2, …"""
    for number in range(1, count + 1):
        node = await metadata.apply(RegisterNode(report(f"n{number}"), NodeState.UP))
        assert node.number == number


async def close(metadata: Metadata, node_id: str) -> None:
    """However often it has to be asked for beside writes that are slow to end."""
    while True:
        try:
            await metadata.apply(SetNodeClosed(node_id, True))
        except Unavailable:
            continue
        return


async def closed(metadata: Metadata) -> list[bool]:
    """Of every node by number."""
    return [node.is_closed for node in (await metadata.cluster_map()).nodes]


async def refused(call: Awaitable[object], number: int) -> None:
    """As StalePlacement, which names the node."""
    with pytest.raises(StalePlacement) as refusal:
        await call
    assert refusal.value.details == {"node": str(number)}


async def test_a_closed_node_is_named_by_no_write(worker: Worker) -> None:
    """A commit, a part, a layout and a replica; what names others, or is on no node, goes on."""
    await register(worker.metadata)
    blob, upload = worker.chunked(20, 10, (1, 2)), await worker.create_upload(b"m")
    await worker.put(b"k", "before", blob=blob)
    await close(worker.metadata, "n2")
    await refused(worker.put(b"k", "later", blob=worker.chunked(20, 10, (1, 2))), 2)
    await refused(worker.put_part(upload, 1), 2)
    layouts = (ChunkLayout(0, b"", (1, 3)), ChunkLayout(1, b"", (3, 2)))
    await refused(worker.apply(Relayout(blob.blob_id, 0, "replica:2", layouts)), 2)
    await refused(worker.apply(SetReplicas(blob.blob_id, 0, (1,), (1, 2))), 2)
    assert await worker.etag(b"k") == "before"
    assert await worker.released() == set()
    assert (await worker.metadata.list_parts(upload.bucket_id, b"m", upload.upload_id)).parts == ()

    await worker.put(b"inline")
    await worker.put(b"elsewhere", blob=worker.chunked(20, 10, (1, 3)))
    part = worker.chunked(5, 10, (3, 0))
    await worker.apply(PutPart(worker.session_id, upload.bucket_id, b"m", upload.upload_id, 1, 5, "p", part))
    assert await worker.apply(Relayout(part.blob_id, 0, "replica:1", (ChunkLayout(0, b"", (1,)),))) is True


async def test_what_a_closed_node_has_already_stays_and_moves_away(worker: Worker) -> None:
    """Copies elsewhere are recorded beside it, and it is left out; copies, completions and deletes need no node."""
    await register(worker.metadata)
    blob, upload = worker.chunked(5, 10, (1, 2)), await worker.create_upload(b"m")
    part = await worker.put_part(upload, 1)
    await worker.put(b"k", blob=blob)
    await close(worker.metadata, "n2")
    assert await worker.apply(SetReplicas(blob.blob_id, 0, (1, 2), (2, 3))) is True
    assert await worker.apply(SetReplicas(blob.blob_id, 0, (2, 3), (3, 1))) is True
    await refused(worker.apply(SetReplicas(blob.blob_id, 0, (3, 1), (3, 2))), 2)
    await worker.complete(upload, [part])
    extents = (await worker.metadata.read_version(worker.bucket.bucket_id, b"m")).extents
    await worker.share(extents, b"copy")
    failed = worker.chunked(5, 10, (1, 2))
    await worker.apply(ReleaseBlobs(worker.session_id, (failed,)))
    await worker.delete(b"k")
    assert await worker.released() == {blob.blob_id, failed.blob_id}


async def test_closing_raises_the_epoch_once(metadata: Metadata) -> None:
    """And so does opening; a report of the node changes nothing of it."""
    await register(metadata)
    epochs = [(await metadata.cluster_map()).epoch]
    for is_closed in (True, False, True):
        await metadata.apply(SetNodeClosed("n1", is_closed))
        epochs.append((await metadata.cluster_map()).epoch)
        await metadata.apply(SetNodeClosed("n1", is_closed))
        assert (await metadata.apply(RegisterNode(report("n1"), NodeState.UP))).is_closed is is_closed
        assert (await metadata.cluster_map()).epoch == epochs[-1]
        assert await closed(metadata) == [is_closed, False, False]
    assert epochs == sorted(set(epochs))
    with pytest.raises(Refused):
        await metadata.apply(SetNodeClosed("nobody", True))


@pytest.mark.parametrize(
    ("before", "after", "is_closed"),
    [
        (NodeState.DRAINING, NodeState.SUSPECT, False),
        (NodeState.DRAINING, NodeState.UP, False),
        (NodeState.DRAINING, NodeState.GONE, True),
        (NodeState.DRAINING, NodeState.DRAINING, True),
        (NodeState.UP, NodeState.DRAINING, True),
        (NodeState.SUSPECT, NodeState.DEAD, True),
    ],
)
async def test_a_drain_that_is_taken_back_opens_the_node(
    worker: Worker, before: NodeState, after: NodeState, is_closed: bool
) -> None:
    """Every other change of state leaves it closed."""
    await register(worker.metadata)
    await worker.apply(SetNodeState("n2", before))
    await worker.apply(SetNodeClosed("n2", True))
    await worker.apply(SetNodeState("n2", after))
    assert await closed(worker.metadata) == [False, is_closed, False]
    putting = worker.put(b"k", blob=worker.chunked(20, 10, (1, 2)))
    await (refused(putting, 2) if is_closed else putting)


async def test_only_the_newest_term_closes_a_node(metadata: Metadata) -> None:
    """As all of the registry."""
    await register(metadata)
    lease = await metadata.apply(AcquireMasterLease("m", "unix:/m", 3_000))
    for term in (0, lease.term - 1, lease.term + 1):
        with pytest.raises(NotActiveMaster):
            await metadata.apply(SetNodeClosed("n1", True, term))
    assert await closed(metadata) == [False] * 3
    await metadata.apply(SetNodeClosed("n1", True, lease.term))
    assert await closed(metadata) == [True, False, False]


async def write_until_refused(worker: Worker, prefix: str) -> set[bytes]:
    """Objects on the node of number 1. → the blobs of those that were applied"""
    written: set[bytes] = set()
    for at in range(10_000):
        blob = worker.chunked(20, 10, (1,))
        try:
            await worker.put(f"{prefix}{at}".encode(), blob=blob)
        except StalePlacement:
            return written
        written.add(blob.blob_id)
    raise AssertionError("the node was never closed")


async def test_whatever_was_applied_before_is_seen_after(engine: Engine) -> None:
    """Writes of several workers race the closing: a look that begins after it finds all of them that were applied, and
    none of them is applied later."""
    metadata = await engine.connect()
    await register(metadata, 1)
    first = await Worker.start(metadata)
    workers = [first, *[await Worker.start(await engine.connect(), first.bucket) for _ in range(3)]]
    written: set[bytes] = set()
    for turn in range(5):
        writing = [
            asyncio.create_task(write_until_refused(worker, f"{turn}/{number}/"))
            for number, worker in enumerate(workers * 2)
        ]
        for number in range(5):
            await first.put(b"inline", f"{turn}-{number}")
        await close(metadata, "n1")
        seen = {place.blob_id for place in await metadata.list_chunk_places(None, 100_000)}
        written.update(*await asyncio.gather(*writing))
        assert seen == written
        await metadata.apply(SetNodeClosed("n1", False))
