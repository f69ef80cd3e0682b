"""What the custodian tells of the journal, and when; what it takes and deletes is in test_recovery.py."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import Unavailable
from storage.journal import custodian, keeper, segment
from storage.journal.status import JournalStatus, read_status
from storage.journal.writer import Phase
from storage.model import NodeState
from tests.storage.journal.world import WAIT_S, OwnerTwin, World
from tests.storage.metadata.builders import Worker


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custodian that looks by itself no more than once in a test."""
    monkeypatch.setattr(custodian, "TICK_S", 3600)
    monkeypatch.setattr(keeper, "TICK_S", 0.02)
    monkeypatch.setattr(keeper, "STARTING_TICK_S", 0.02)
    monkeypatch.setattr(segment, "APPEND_TIMEOUT_S", 0.5)


def told(owner: OwnerTwin) -> JournalStatus:
    """As people read it."""
    return read_status(owner.directory) or JournalStatus()


async def test_a_phase_and_a_snapshot_are_told_at_once(world: World) -> None:
    """Closed, open with its datanodes, covered by a snapshot, and closed again."""
    owner = await world.start_owner()
    await owner.wait_until(lambda: told(owner).phase == Phase.CLOSED, "telling that it is closed")
    await owner.register(*world.nodes)
    await owner.wait_until(lambda: told(owner).phase == Phase.OPEN and told(owner).is_covered, "telling of a snapshot")
    assert (len(told(owner).nodes), told(owner).domains, told(owner).reason) == (2, 2, "")
    for node in world.nodes:
        await node.stop()
    with pytest.raises(Unavailable, match="cannot be had"):
        await Worker.start(owner.metadata)
    await owner.wait_until(lambda: told(owner).phase == Phase.CLOSED, "telling that it is closed again")
    assert (told(owner).nodes, "cannot be had" in told(owner).reason) == ((), True)


async def test_other_datanodes_are_told_at_once(world: World) -> None:
    """With the first record that goes there."""
    owner = await world.start_owner()
    await owner.register(*world.nodes)
    await owner.wait_until(lambda: told(owner).is_covered, "telling of a snapshot")
    before = told(owner).nodes
    left = next(node for node in world.nodes if node.report.node_id in before)
    await owner.set_state(left, NodeState.DRAINING)

    def is_elsewhere() -> bool:
        return len(told(owner).nodes) == 2 and left.report.node_id not in told(owner).nodes

    worker = await Worker.start(owner.metadata)
    async with asyncio.timeout(WAIT_S):
        while not is_elsewhere():
            await worker.put(b"key")
