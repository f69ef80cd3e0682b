"""The master's application over a real socket and real metadata: who may ask what, and what is recorded when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.registry.app import MasterApp
from cluster.registry.client import MasterClient
from cluster.registry.follower import MapFollower
from cluster.registry.leadership import LEASE_TTL_S, Leadership
from cluster.registry.registry import Registry, ReportRefused
from cluster.registry.state import Timing
from storage.base.address import Address, parse_address
from storage.base.clock import ManualClock
from storage.base.errors import Unavailable
from storage.base.internal_auth import (
    MASTER_NODE_ID,
    NODE_HEADER,
    ROLE_DATANODE,
    ROLE_MASTER,
    access_token,
    derive_node_key,
    report_token,
)
from storage.base.internal_client import Answer, InternalClient
from storage.datanode import wire
from storage.metadata.commands import Command
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import ClusterMap, NodeReport, NodeState
from tests.cluster.nodes import CLUSTER_ID, make_report
from tests.storage.base.serving import serving

INTERNAL_KEY = bytes(range(32))
MASTER_TOKEN = access_token(derive_node_key(INTERNAL_KEY, ROLE_MASTER, MASTER_NODE_ID))


class SometimesAway:
    """Real metadata that a test can take away."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata
        self.is_away = False
        self.loses_answers = False
        """what is asked is done, and nobody hears of it"""

    async def apply(self, command: Command) -> Any:
        """As Metadata.apply."""
        if self.is_away:
            raise Unavailable("the metadata is away")
        answer = await self._metadata.apply(command)
        if self.loses_answers:
            raise Unavailable("the answer was lost", outcome="unknown")
        return answer

    async def cluster_map(self) -> ClusterMap:
        """As Metadata.cluster_map."""
        if self.is_away:
            raise Unavailable("the metadata is away")
        recorded: ClusterMap = await self._metadata.cluster_map()
        return recorded


class Master:
    """A registry behind its application on a socket, with a clock that moves when told."""

    def __init__(
        self,
        metadata: SometimesAway,
        clock: ManualClock,
        registry: Registry,
        leadership: Leadership,
        address: Address,
    ) -> None:
        self.metadata = metadata
        self.clock = clock
        self.registry = registry
        self.leadership = leadership
        self.address = address

    async def send(self, method: str, target: str, token: str, body: bytes | None = None, node_id: str = "") -> Answer:
        """One request on a connection of its own."""
        client = InternalClient(self.address, token, headers={NODE_HEADER: node_id} if node_id else {})
        try:
            return await client.call(method, target, body)
        finally:
            await client.close()

    async def report(self, report: NodeReport, token: str = "") -> Answer:
        """A heartbeat as the datanode sends it."""
        return await self.send("POST", "/v1/heartbeat", token or token_of(report), wire.encode(report), report.node_id)

    async def silence(self, seconds: float) -> None:
        """Let time pass, with ticks as often as they come."""
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            await self.registry.tick()

    async def begin_again(self) -> None:
        """With what was recorded, under the same term."""
        assert self.leadership.lease is not None
        await self.registry.load(self.leadership.lease.term)

    async def recorded(self) -> dict[int, NodeState]:
        """The states in the metadata, by number."""
        return {node.number: node.state for node in (await self.metadata.cluster_map()).nodes}


def token_of(report: NodeReport) -> str:
    """What this node presents to masters."""
    return report_token(derive_node_key(INTERNAL_KEY, ROLE_DATANODE, report.node_id))


def reason_of(answer: Answer) -> tuple[str, str]:
    """The name and the message of a failed answer."""
    return msgspec.msgpack.decode(answer.body, type=tuple[str, str])


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    """A master that has just begun, over empty metadata."""
    owned = await open_owned_metadata(tmp_path / "metadata")
    metadata, clock = SometimesAway(owned), ManualClock()
    registry, leadership = await lead(metadata, clock)
    app = MasterApp(registry, leadership, INTERNAL_KEY)
    async with serving(app, f"unix:{tmp_path}/m.sock") as address:
        yield Master(metadata, clock, registry, leadership, address)
        registry.suspend()
    await owned.close()


async def lead(metadata: SometimesAway, clock: ManualClock) -> tuple[Registry, Leadership]:
    """The registry of a master that has just become the active one, and is the only one."""
    registry = Registry(CLUSTER_ID, metadata, clock, Timing())  # type: ignore[arg-type]

    async def stand_by() -> None:
        registry.suspend()

    leadership = Leadership(metadata, clock, registry.load, stand_by)  # type: ignore[arg-type]
    clock.advance(LEASE_TTL_S)
    await leadership.renew()
    assert leadership.is_active
    return registry, leadership


class Follower(MapFollower):
    """A gateway's follower that notes the maps it was told of."""

    def __init__(
        self, addresses: Sequence[Address], metadata: SometimesAway, internal_key: bytes = INTERNAL_KEY
    ) -> None:
        self.maps: asyncio.Queue[ClusterMap] = asyncio.Queue()
        self.clients = [MasterClient(address, internal_key) for address in addresses]
        super().__init__(self.clients, metadata.cluster_map, self.maps.put)

    async def next_map(self) -> ClusterMap:
        """The next one that it is told of."""
        async with asyncio.timeout(60):
            return await self.maps.get()


@pytest.fixture
async def follower(master: Master) -> AsyncIterator[Follower]:
    """Not started yet."""
    following = Follower([master.address], master.metadata)
    yield following
    await following.close()


async def order(master: Master, node_id: str, action: str) -> int:
    """An operator's; the status of the answer."""
    return (await master.send("POST", f"/v1/nodes/{node_id}/{action}", MASTER_TOKEN)).status


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


async def test_nodes_for_people(master: Master) -> None:
    """Every field by its name."""
    await master.report(make_report(1))
    listed = json.loads((await master.send("GET", "/v1/nodes", MASTER_TOKEN)).body)
    (node,) = listed["nodes"]
    assert listed["epoch"] == master.registry.cluster_map.epoch
    assert (node["number"], node["state"], node["address"]) == (1, "joining", make_report(1).address)
    assert set(NodeReport.__struct_fields__) < set(node)


async def test_a_follower_is_told_of_every_change(master: Master, follower: Follower) -> None:
    """A map within start, the next one when there is one, and no other in between."""
    await follower.start()
    first = await follower.next_map()
    assert first == follower.cluster_map == master.registry.cluster_map
    following = asyncio.create_task(follower.next_map())
    await asyncio.wait({following}, timeout=0.05)
    assert not following.done()
    await master.report(make_report(1))
    second = await following
    assert second == master.registry.cluster_map
    assert second.epoch > first.epoch


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


async def test_a_follower_outlives_its_master(master: Master, tmp_path: Path) -> None:
    """The last map stays while the master is away; when it is back the first poll does not wait, since a master that
    was started again may be at the same epoch with other nodes."""
    path = f"unix:{tmp_path}/again.sock"
    app = MasterApp(master.registry, master.leadership, INTERNAL_KEY)
    async with serving(app, path) as address:
        follower = Follower([address], master.metadata)
        await follower.start()
        before = await follower.next_map()
        master.registry.suspend()
    async with asyncio.timeout(60):
        while not follower.status.failures_in_a_row:
            await asyncio.sleep(0)
    assert follower.cluster_map == before
    await master.begin_again()
    await master.report(make_report(1))
    async with serving(app, path):
        assert await follower.next_map() == master.registry.cluster_map
        master.registry.suspend()
        await follower.close()


async def test_a_follower_turns_to_the_next_master(master: Master, tmp_path: Path) -> None:
    """When the first one does not answer."""
    follower = Follower([parse_address(f"unix:{tmp_path}/nobody.sock"), master.address], master.metadata)
    await follower.start()
    await follower.next_map()
    await master.report(make_report(1))
    assert await follower.next_map() == master.registry.cluster_map
    await follower.close()


async def test_a_map_that_could_not_be_adopted_comes_again(master: Master) -> None:
    """A defect in a listener does not leave it with an old map for good."""
    failures, adopted = [ValueError("once")], asyncio.Queue[ClusterMap]()

    async def adopt(cluster_map: ClusterMap) -> None:
        if cluster_map.nodes and failures:
            raise failures.pop()
        await adopted.put(cluster_map)

    follower = MapFollower([MasterClient(master.address, INTERNAL_KEY)], master.metadata.cluster_map, adopt)
    await follower.start()
    await adopted.get()
    await master.report(make_report(1))
    async with asyncio.timeout(60):
        assert await adopted.get() == master.registry.cluster_map
    assert not failures
    await follower.close()


async def test_a_follower_begins_without_a_master(master: Master, tmp_path: Path) -> None:
    """With the recorded map, and unavailable when the metadata is away as well; and it needs a master's address."""
    for _ in range(2):
        await master.report(make_report(1))
    nowhere = [parse_address(f"unix:{tmp_path}/nobody.sock")]
    follower = Follower(nowhere, master.metadata)
    await follower.start()
    assert [node.state for node in (await follower.next_map()).nodes] == [NodeState.UP]
    await follower.close()
    master.metadata.is_away = True
    with pytest.raises(Unavailable):
        await Follower(nowhere, master.metadata).start()
    with pytest.raises(ValueError, match="one master"):
        Follower([], master.metadata)


async def test_orders_and_questions_through_the_client(master: Master, follower: Follower) -> None:
    """A refusal comes with the master's reason."""
    (client,) = follower.clients
    assert json.loads(await client.call("GET", "/v1/nodes"))["nodes"] == []
    with pytest.raises(Unavailable, match=r"409.*there is no node"):
        await client.call("POST", f"/v1/nodes/{'f' * 32}/drain")


async def test_a_wrong_internal_key_is_unavailable(master: Master) -> None:
    """The reason is in the message."""
    client = MasterClient(master.address, bytes(32))
    with pytest.raises(Unavailable, match="401"):
        await client.fetch_map()
    await client.close()


async def test_concurrent_first_reports_register_once(master: Master) -> None:
    """Whatever races, a node has one number, and is up with the second report."""
    answers = await asyncio.gather(*(master.report(make_report(1)) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert await master.recorded() == {1: NodeState.UP}
