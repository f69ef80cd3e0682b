"""The registry behind its application, over real metadata: what is recorded of reports, silence and orders, when."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from cluster.registry.registry import ReportRefused
from cluster.registry.state import Timing
from storage.base.errors import Unavailable
from storage.datanode import wire
from storage.model import NodeState
from tests.cluster.nodes import make_report
from tests.cluster.registry.served_master import MASTER_TOKEN, Master, lead


async def order(master: Master, node_id: str, action: str) -> int:
    """An operator's; the status of the answer."""
    return (await master.send("POST", f"/v1/nodes/{node_id}/{action}", MASTER_TOKEN)).status


async def test_reports_register_and_renew(master: Master) -> None:
    """Joining is asked to report again soon, up in the usual interval; the metadata numbers the node once."""
    first = await master.report(make_report(5))
    assert wire.parse_heartbeat_answer(first.body).heartbeat_interval_s == 0.05
    assert await master.recorded() == {1: NodeState.JOINING}
    second = await master.report(make_report(5))
    assert wire.parse_heartbeat_answer(second.body) == wire.HeartbeatAnswer(master.registry.cluster_map.epoch, 1.0)
    assert await master.recorded() == {1: NodeState.UP}
    await master.report(make_report(6))
    assert await master.recorded() == {1: NodeState.UP, 2: NodeState.JOINING}


async def test_concurrent_first_reports_register_once(master: Master) -> None:
    """Whatever races, a node has one number, and is up with the second report."""
    answers = await asyncio.gather(*(master.report(make_report(1)) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert await master.recorded() == {1: NodeState.UP}


async def test_usual_reports_write_nothing(master: Master) -> None:
    """A lease is renewed in memory: with the metadata away heartbeats still succeed."""
    for _ in range(2):
        await master.report(make_report(1))
    master.metadata.is_away = True
    assert (await master.report(make_report(1, free_bytes=77 << 30))).status == 200
    assert master.registry.cluster_map.nodes[0].report.free_bytes == 77 << 30
    assert (await master.report(make_report(2))).status == 503
    master.metadata.is_away = False
    assert (await master.report(make_report(2))).status == 200


async def test_silence_is_recorded(master: Master) -> None:
    """Suspect, dead and up again are in the metadata as well as in the map."""
    for _ in range(2):
        await master.report(make_report(1))
    for seconds, becomes in [(3.0, NodeState.SUSPECT), (12.0, NodeState.DEAD)]:
        await master.silence(seconds)
        assert master.registry.cluster_map.nodes[0].state is becomes
        assert await master.recorded() == {1: becomes}
    await master.report(make_report(1))
    assert await master.recorded() == {1: NodeState.UP}


async def test_a_node_moves_to_another_address_once_it_was_silent(master: Master) -> None:
    """With the same directory on another machine; while it is heard of at the old one, somebody copied it."""
    for _ in range(2):
        await master.report(make_report(1))
    moved = msgspec.structs.replace(make_report(1), address="http://127.0.0.1:9999")
    assert (await master.report(moved)).status == 409
    await master.silence(4)
    assert (await master.report(moved)).status == 200
    assert master.registry.cluster_map.nodes[0].report.address == moved.address
    assert await master.recorded() == {1: NodeState.UP}
    assert (await master.report(make_report(1))).status == 409


async def test_without_metadata_states_wait(master: Master) -> None:
    """A tick that cannot record fails, changes nothing, and the next one makes up for it."""
    for _ in range(2):
        await master.report(make_report(1))
    master.metadata.is_away = True
    with pytest.raises(Unavailable):
        await master.silence(4)
    assert master.registry.cluster_map.nodes[0].state is NodeState.UP
    master.metadata.is_away = False
    await master.silence(3)
    assert await master.recorded() == {1: NodeState.SUSPECT}


async def test_a_new_master_begins_with_what_was_recorded(master: Master) -> None:
    """The same nodes under the same numbers, and time for all to report."""
    for _ in range(2):
        await master.report(make_report(1))
    before = master.registry.cluster_map.epoch
    again, _ = await lead(master.metadata, master.clock)
    assert [(node.number, node.state) for node in again.cluster_map.nodes] == [(1, NodeState.UP)]
    assert again.cluster_map.epoch == before + 1
    await again.tick()
    assert again.cluster_map.nodes[0].state is NodeState.UP


async def test_a_new_master_awaits_the_recorded_nodes(master: Master) -> None:
    """Wherever they are by now, until they report or are silent for long enough to be suspect."""
    for number in (1, 2, 1, 2):
        await master.report(make_report(number))
    assert master.registry.awaited == frozenset()
    again, _ = await lead(master.metadata, master.clock)
    assert again.awaited == again.unheard == {1, 2}
    await again.heartbeat(msgspec.structs.replace(make_report(1), address="http://127.0.0.1:9999"))
    assert again.awaited == {2}
    master.clock.advance(Timing().suspect_after_s)
    assert again.awaited == frozenset()
    assert 2 in again.unheard


async def test_drain_resume_and_retire(master: Master) -> None:
    """Orders over HTTP, answered with the nodes; the last step is the maintenance's."""
    for _ in range(2):
        await master.report(make_report(1))
    node_id = make_report(1).node_id
    answer = await master.send("POST", f"/v1/nodes/{node_id}/drain", MASTER_TOKEN)
    assert json.loads(answer.body)["nodes"][0]["state"] == "draining"
    heard = wire.parse_heartbeat_answer((await master.report(make_report(1))).body)
    assert heard.state is NodeState.DRAINING
    assert await master.recorded() == {1: NodeState.DRAINING}
    await master.send("POST", f"/v1/nodes/{node_id}/resume", MASTER_TOKEN)
    await master.report(make_report(1))
    assert await master.recorded() == {1: NodeState.UP}
    with pytest.raises(ReportRefused, match="only a drained node"):
        await master.registry.retire(node_id)
    await master.registry.drain(node_id)
    with pytest.raises(ReportRefused, match="opened again"):
        await master.registry.retire(node_id)
    await master.registry.close(node_id)
    await master.registry.retire(node_id)
    assert await master.recorded() == {1: NodeState.GONE}
    refused = await master.report(make_report(1))
    assert (refused.status, refused.headers[wire.ERROR_HEADER]) == (409, wire.NODE_RETIRED)
    assert (await master.send("POST", f"/v1/nodes/{'f' * 32}/drain", MASTER_TOKEN)).status == 409


@pytest.mark.parametrize("then", ["again", "tick", "taken back", "report"])
async def test_an_order_whose_answer_was_lost(master: Master, then: str) -> None:
    """It was recorded, and the operator was told that it failed: whatever comes next, what is recorded is what this
    master holds, and what it answers is so."""
    report = make_report(5)
    for _ in range(2):
        await master.report(report)
    master.metadata.loses_answers = True
    assert await order(master, report.node_id, "drain") == 503
    assert await master.recorded() == {1: NodeState.DRAINING}
    master.metadata.loses_answers = False
    if then == "again":
        assert await order(master, report.node_id, "drain") == 200
    elif then == "taken back":
        assert await order(master, report.node_id, "resume") == 200
    else:
        if then == "report":
            await master.report(report)
        await master.registry.tick()
    (held,) = master.registry.cluster_map.nodes
    assert held.state is (NodeState.DRAINING if then == "again" else NodeState.UP)
    assert await master.recorded() == {1: held.state}


async def test_a_lost_answer_of_a_closing_and_of_a_retirement(master: Master) -> None:
    """Whether a node is closed is known as well; and what was retired twice is gone."""
    report = make_report(5)
    for _ in range(2):
        await master.report(report)
    await master.registry.drain(report.node_id)
    for step in (master.registry.close, master.registry.retire):
        master.metadata.loses_answers = True
        with pytest.raises(Unavailable):
            await step(report.node_id)
        master.metadata.loses_answers = False
        await master.registry.tick()
        (recorded,) = (await master.metadata.cluster_map()).nodes
        (held,) = master.registry.cluster_map.nodes
        assert (recorded.state, recorded.is_closed) == (held.state, held.is_closed)
        await step(report.node_id)
    assert await master.recorded() == {1: NodeState.GONE}
    await master.registry.remove(report.node_id, None)
