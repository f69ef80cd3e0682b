"""Datanodes under an epoch, and the replicas of chunks on them."""

from __future__ import annotations

import msgspec
import pytest

from storage.base.errors import Refused
from storage.metadata.commands import RegisterNode, SetNodeState, SetReplicas
from storage.metadata.interface import Metadata
from storage.model import Node, NodeReport, NodeState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine


def report(node_id: str, address: str = "unix:/x", free_bytes: int = 5) -> NodeReport:
    """What a small datanode says."""
    return NodeReport(node_id, "c" * 32, address, "z/h/1", 10, free_bytes, 1, 1)


async def test_nodes_get_numbers_at_first_sight_and_keep_them(engine: Engine, metadata: Metadata) -> None:
    """The map holds all of them, by number."""
    first = await metadata.apply(RegisterNode(report("n1"), NodeState.JOINING))
    second = await metadata.apply(RegisterNode(report("n2"), NodeState.UP))
    engine.clock.advance(1)
    again = await metadata.apply(RegisterNode(report("n1", free_bytes=3), NodeState.UP))
    assert (first.number, second.number, again.number) == (1, 2, 1)
    assert again == Node(1, report("n1", free_bytes=3), NodeState.UP, engine.clock.now_ms())
    assert (await metadata.cluster_map()).nodes == (again, second)


async def test_the_epoch_rises_with_membership_state_and_address(metadata: Metadata) -> None:
    """And not with a report that only says how full the node is."""
    epochs = [(await metadata.cluster_map()).epoch]
    for command in (
        RegisterNode(report("n1"), NodeState.UP),
        RegisterNode(report("n1", "unix:/y"), NodeState.UP),
        SetNodeState("n1", NodeState.DRAINING),
        RegisterNode(report("n1", "unix:/y"), NodeState.UP),
    ):
        await metadata.apply(command)
        epochs.append((await metadata.cluster_map()).epoch)
    assert epochs == sorted(set(epochs))
    await metadata.apply(RegisterNode(report("n1", "unix:/y", 1), NodeState.UP))
    await metadata.apply(SetNodeState("n1", NodeState.UP))
    assert (await metadata.cluster_map()).epoch == epochs[-1]


async def test_the_state_of_an_unknown_node_cannot_be_set(metadata: Metadata) -> None:
    """It was never registered."""
    with pytest.raises(Refused):
        await metadata.apply(SetNodeState("nobody", NodeState.DEAD))


async def test_replicas_change_only_from_what_was_expected(worker: Worker) -> None:
    """False when the row differs or is gone; the order of nodes is kept."""
    blob = worker.chunked(20, 10, (3, 1))
    await worker.put(b"k", blob=blob)
    assert await worker.apply(SetReplicas(blob.blob_id, 1, (3, 1), (1, 70_000))) is True
    assert await worker.apply(SetReplicas(blob.blob_id, 1, (3, 1), (2,))) is False
    assert await worker.apply(SetReplicas(blob.blob_id, 2, (), (2,))) is False
    assert await worker.apply(SetReplicas(b"?" * 16, 0, (), (2,))) is False
    chunks = await worker.metadata.read_chunks(blob.blob_id, 0)
    assert chunks == [blob.chunks[0], msgspec.structs.replace(blob.chunks[1], nodes=(1, 70_000))]
