"""The master's application over a real socket: who may ask what, and what is answered to what is wrong."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from cluster.registry.registry import ReportRefused
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.datanode import wire
from storage.model import ClusterMap, NodeReport
from tests.cluster.nodes import make_report
from tests.cluster.registry.served_master import INTERNAL_KEY, MASTER_TOKEN, Master, reason_of, token_of


async def test_nobody_reports_for_another(master: Master) -> None:
    """No token, a stranger's token, the gateways' token, another's report."""
    report, other = make_report(1), make_report(2)
    for token in ("0" * 64, token_of(other), MASTER_TOKEN):
        assert (await master.report(report, token)).status == 401
    body = wire.encode(report)
    assert (await master.send("POST", "/v1/heartbeat", token_of(report), body)).status == 401
    assert (await master.send("POST", "/v1/heartbeat", token_of(report), body, "../../etc")).status == 401
    forged = await master.send("POST", "/v1/heartbeat", token_of(other), body, other.node_id)
    assert (forged.status, reason_of(forged)[0]) == (400, "BadRequest")
    assert master.registry.cluster_map.nodes == ()


async def test_gateway_requests_need_the_masters_token(master: Master) -> None:
    """A datanode's report token opens nothing but its report."""
    report = make_report(1)
    for method, target in [
        ("GET", "/v1/map"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/jobs"),
        ("POST", f"/v1/nodes/{report.node_id}/drain"),
        ("GET", "/v1/nothing"),
    ]:
        for token in ("", token_of(report), access_token(derive_node_key(INTERNAL_KEY, ROLE_DATANODE, "x"))):
            assert (await master.send(method, target, token)).status == 401
    assert (await master.send("GET", "/v1/health", "")).body == b"ok"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"nonsense", wire.encode(["a"] * 8), wire.encode({"node_id": 1})])
async def test_bodies_that_are_no_report(master: Master, body: bytes) -> None:
    """400 with a reason."""
    report = make_report(1)
    answer = await master.send("POST", "/v1/heartbeat", token_of(report), body, report.node_id)
    assert (answer.status, reason_of(answer)[0]) == (400, "BadRequest")


async def test_bounds_of_requests(master: Master) -> None:
    """Too large a report, queries that are no numbers, targets that do not exist."""
    report = make_report(1)
    answer = await master.send("POST", "/v1/heartbeat", token_of(report), bytes(20_000), report.node_id)
    assert answer.status == 413
    for target in ("/v1/map?epoch=x", "/v1/map?wait_s=-1", "/v1/map?wait_s=nan", "/v1/map?epoch=" + "9" * 40):
        assert (await master.send("GET", target, MASTER_TOKEN)).status == 400
    for method, target in [("GET", "/"), ("POST", "/v1/nodes/xyz/drain"), ("GET", f"/v1/nodes/{'a' * 32}/drain")]:
        assert (await master.send(method, target, MASTER_TOKEN)).status == 404


async def test_a_refused_report_says_why(master: Master) -> None:
    """409, and the reason in one line for the datanode's log."""
    stranger = msgspec.structs.replace(make_report(1), cluster_id="ee" * 16)
    answer = await master.report(stranger)
    assert answer.status == 409
    assert reason_of(answer) == (ReportRefused.__name__, f"node {stranger.node_id} belongs to another cluster")


async def test_nodes_for_people(master: Master) -> None:
    """Every field by its name."""
    await master.report(make_report(1))
    listed = json.loads((await master.send("GET", "/v1/nodes", MASTER_TOKEN)).body)
    (node,) = listed["nodes"]
    assert listed["epoch"] == master.registry.cluster_map.epoch
    assert (node["number"], node["state"], node["address"]) == (1, "joining", make_report(1).address)
    assert set(NodeReport.__struct_fields__) < set(node)


async def test_polls_end_when_the_master_drains(master: Master) -> None:
    """Nobody keeps a master from stopping."""
    epoch = master.registry.cluster_map.epoch
    polling = asyncio.create_task(master.send("GET", f"/v1/map?epoch={epoch}&wait_s=15", MASTER_TOKEN))
    await asyncio.wait({polling}, timeout=0.05)
    assert not polling.done()
    master.registry.suspend()
    async with asyncio.timeout(60):
        assert (await polling).status == 200


async def test_a_poll_ends_by_itself(master: Master) -> None:
    """With the same map, after the wait that was asked for."""
    epoch = master.registry.cluster_map.epoch
    answer = await master.send("GET", f"/v1/map?epoch={epoch}&wait_s=0.01", MASTER_TOKEN)
    assert msgspec.msgpack.decode(answer.body, type=ClusterMap) == master.registry.cluster_map
