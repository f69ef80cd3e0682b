"""A node that is being emptied takes nothing new, and goes on with everything else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import NodeFull
from storage.base.internal_auth import access_token
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import Buffer
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.intake import Intake
from storage.datanode.peers import Peers
from storage.datanode.wire import FragmentSource, PullRequest, RebuildRequest
from storage.model import NodeState
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id, cut, read, some_bytes
from tests.storage.datanode.nodes import NODE_KEY

PULL = PullRequest("unix:/nonexistent", "ticket", 5, bytes(8))
REBUILD = RebuildRequest(1, 2, 0, 1000, bytes(8), (FragmentSource(1, "unix:/nonexistent", "ticket"),))

WRITES: dict[str, Callable[[DatanodeClient], Awaitable[object]]] = {
    "small put": lambda client: client.put(chunk_id(2), 3, cut(b"abc", 3)),
    "large put": lambda client: client.put(chunk_id(2), 1_000_000, cut(some_bytes(1_000_000), 65_536)),
    "pull": lambda client: client.pull(chunk_id(2), PULL),
    "rebuild": lambda client: client.rebuild(chunk_id(2), REBUILD),
}


class Subject:
    """A node that holds one chunk."""

    def __init__(self) -> None:
        self.store = MemoryChunkStore()
        self.intake = Intake()
        self.client: DatanodeClient


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    """Served."""
    subject = Subject()
    await subject.store.put_many([(chunk_id(1), b"held")])
    app = DatanodeApp(subject.store, NODE_KEY, ManualClock(), Peers(), intake=subject.intake)
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        subject.client = DatanodeClient(address, access_token(NODE_KEY))
        yield subject
        await subject.client.close()


@pytest.mark.parametrize("state", [NodeState.DRAINING, NodeState.GONE])
@pytest.mark.parametrize("write", WRITES)
async def test_nothing_new_is_taken(subject: Subject, state: NodeState, write: str) -> None:
    """Until the state is another one."""
    subject.intake.hear(state)
    with pytest.raises(NodeFull, match=state.value):
        await WRITES[write](subject.client)
    [outcome] = await subject.client.put_many([(chunk_id(2), b"new")])
    assert isinstance(outcome, NodeFull)
    assert list(subject.store.chunks) == [chunk_id(1)]
    subject.intake.hear(NodeState.SUSPECT)
    await subject.client.put_many([(chunk_id(2), b"new")])
    assert await read(subject.client, chunk_id(2)) == b"new"


async def test_a_large_body_is_not_asked_for(subject: Subject) -> None:
    """It is there for another node."""
    subject.intake.hear(NodeState.DRAINING)
    asked: list[bool] = []

    async def body() -> AsyncIterator[Buffer]:
        asked.append(True)
        yield some_bytes(1_000_000)

    with pytest.raises(NodeFull):
        await subject.client.put(chunk_id(2), 1_000_000, body())
    assert not asked


async def test_everything_else_goes_on(subject: Subject) -> None:
    """Reading, looking, setting aside, deleting."""
    subject.intake.hear(NodeState.DRAINING)
    client = subject.client
    assert await read(client, chunk_id(1)) == b"held"
    assert (await client.verify(chunk_id(1))).length == 4
    assert len(await client.inventory(None, 10)) == 1
    assert await client.quarantine_many([chunk_id(1)]) == [True]
    assert await client.delete_many([chunk_id(1)]) == [False]
    assert await client.list_damaged(None, 10) == []


def test_a_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often the master says it."""
    caplog.set_level(logging.INFO)
    intake = Intake()
    for state in (NodeState.JOINING, NodeState.UP, *[NodeState.DRAINING] * 5, NodeState.GONE, *[NodeState.UP] * 3):
        intake.hear(state)
    assert [record.getMessage() for record in caplog.records] == [
        "the node is draining: it takes no new chunks",
        "the node is up: it takes chunks",
    ]
    intake.require()
