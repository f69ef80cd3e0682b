"""One of several masters leads: over real metadata, by clocks that move when told, and behind real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cluster.registry.app import MasterApp
from cluster.registry.client import ActiveMaster, MasterClient
from cluster.registry.follower import MapFollower
from cluster.registry.leadership import LEASE_TTL_S, RELIED_ON_SHARE, Leadership
from cluster.registry.registry import Registry
from cluster.registry.state import Timing
from storage.base.address import Address, parse_address
from storage.base.clock import ManualClock
from storage.base.errors import NotActiveMaster, Unavailable
from storage.base.internal_auth import NODE_HEADER, ROLE_DATANODE, derive_node_key
from storage.base.internal_client import InternalClient
from storage.datanode import wire
from storage.datanode.heartbeat import STANDBY_INTERVAL_S, MasterLink
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import ClusterMap, NodeReport, NodeState
from tests.cluster.nodes import CLUSTER_ID, make_report
from tests.cluster.registry.served_master import INTERNAL_KEY, SometimesAway, token_of
from tests.storage.base.serving import serving

RELIED_ON_S = RELIED_ON_SHARE * LEASE_TTL_S


class Contender:
    """One of several masters over the same records; it renews when a test says so."""

    def __init__(self, metadata: SometimesAway, clock: ManualClock, address: Address) -> None:
        self.metadata = metadata
        self.address = address
        self.terms: list[int] = []
        """0 for each time that it went to stand by"""
        self.registry = Registry(CLUSTER_ID, metadata, clock, Timing())  # type: ignore[arg-type]
        self.leadership = Leadership(
            metadata,  # type: ignore[arg-type]
            clock,
            self._begin,
            self._stand_by,
            is_alone=False,
        )
        self.leadership._address = str(address)
        self.app = MasterApp(self.registry, self.leadership, INTERNAL_KEY)

    async def _begin(self, term: int) -> None:
        await self.registry.load(term)
        self.terms.append(term)

    async def _stand_by(self) -> None:
        self.registry.suspend()
        self.terms.append(0)


class Contest:
    """Two of them, each served, and the clock of everything."""

    def __init__(self, clock: ManualClock, one: Contender, other: Contender) -> None:
        self.clock = clock
        self.one = one
        self.other = other
        self.clients = [MasterClient(master.address, INTERNAL_KEY) for master in (one, other)]

    async def report(self, master: Contender, report: NodeReport) -> tuple[int, str]:
        """A heartbeat to one of them: status, and where it points to."""
        client = InternalClient(master.address, token_of(report), headers={NODE_HEADER: report.node_id})
        try:
            answer = await client.call("POST", wire.HEARTBEAT, wire.encode(report))
        finally:
            await client.close()
        return answer.status, answer.headers.get(wire.ACTIVE_MASTER_HEADER, "")

    async def take_over(self) -> None:
        """The first is silent for a lease; the second asks."""
        self.clock.advance(LEASE_TTL_S)
        await self.other.leadership.renew()


@pytest.fixture
async def contest(tmp_path: Path) -> AsyncIterator[Contest]:
    """The first one leads, and both answer."""
    clock = ManualClock()
    owned = await open_owned_metadata(tmp_path / "metadata", clock=clock)
    addresses = [parse_address(f"unix:{tmp_path}/{name}.sock") for name in ("one", "other")]
    one, other = (Contender(SometimesAway(owned), clock, address) for address in addresses)
    async with AsyncExitStack() as running:
        running.push_async_callback(owned.close)
        for master in (one, other):
            await running.enter_async_context(serving(master.app, str(master.address)))
            await master.leadership.renew()
        contest = Contest(clock, one, other)
        for client in contest.clients:
            running.push_async_callback(client.close)
        yield contest
        for master in (one, other):
            master.registry.suspend()


async def test_the_first_to_ask_leads(contest: Contest) -> None:
    """The other stands by, and says whose it is to everybody who asks: a datanode, a gateway, an operator."""
    assert contest.one.leadership.is_active
    assert not contest.other.leadership.answers
    assert await contest.report(contest.one, make_report(1)) == (200, "")
    assert await contest.report(contest.other, make_report(1)) == (503, str(contest.one.address))
    _, standby = contest.clients
    for method, target in [
        ("GET", "/v1/map"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/jobs"),
        ("POST", f"/v1/nodes/{'a' * 32}/drain"),
    ]:
        with pytest.raises(Unavailable, match="the active master is") as refused:
            await standby.call(method, target)
        assert refused.value.details["active"] == str(contest.one.address)
    roles = [await client.fetch_role() for client in contest.clients]
    assert [role.is_active for role in roles] == [True, False]
    assert {role.active for role in roles} == {str(contest.one.address)}


async def test_standing_by_is_told_to_nobody_else(contest: Contest) -> None:
    """Where the active master is, only holders of a token learn."""
    for path in ("/v1/map", "/v1/lease"):
        client = InternalClient(contest.other.address, "0" * 64)
        answer = await client.call("GET", path)
        await client.close()
        assert (answer.status, wire.ACTIVE_MASTER_HEADER in answer.headers) == (401, False)


async def test_a_silent_master_is_succeeded(contest: Contest) -> None:
    """Under a higher term, with the nodes as they were recorded; it stands by itself before that can be."""
    for _ in range(2):
        await contest.report(contest.one, make_report(1))
    contest.clock.advance(RELIED_ON_S)
    assert not contest.one.leadership.answers
    await contest.other.leadership.renew()
    assert not contest.other.leadership.is_active
    contest.clock.advance(LEASE_TTL_S - RELIED_ON_S)
    await contest.other.leadership.renew()
    assert contest.other.leadership.is_active
    (old,), (new,) = contest.one.terms, contest.other.terms
    assert new > old
    assert [node.state for node in contest.other.registry.cluster_map.nodes] == [NodeState.UP]
    await contest.one.leadership.renew()
    assert contest.one.terms == [old, 0]
    assert await contest.report(contest.one, make_report(1)) == (503, str(contest.other.address))


async def test_a_master_that_wakes_up_writes_nothing(contest: Contest) -> None:
    """Its registry believes in its old term, and every write of it is refused: a node, a state, an order."""
    for _ in range(2):
        await contest.report(contest.one, make_report(1))
    await contest.take_over()
    before = await contest.other.metadata.cluster_map()
    asleep = contest.one.registry
    with pytest.raises(NotActiveMaster):
        await asleep.heartbeat(make_report(2))
    with pytest.raises(NotActiveMaster):
        await asleep.drain(make_report(1).node_id)
    contest.clock.advance(60)
    await asleep.tick()  # notes that it was stopped itself
    contest.clock.advance(1)
    await asleep.tick()
    contest.clock.advance(1.4)
    await asleep.tick()
    contest.clock.advance(1.4)
    with pytest.raises(NotActiveMaster):
        await asleep.tick()
    assert await contest.other.metadata.cluster_map() == before


async def test_without_records_nobody_leads(contest: Contest) -> None:
    """The active master stands by when its lease may be over; when the records answer again it goes on under its term,
    with what was recorded."""
    await contest.report(contest.one, make_report(1))
    contest.one.metadata.is_away = contest.other.metadata.is_away = True
    contest.clock.advance(1)
    for master in (contest.one, contest.other):
        with pytest.raises(Unavailable):
            await master.leadership.renew()
    assert contest.one.leadership.is_active
    contest.clock.advance(RELIED_ON_S - 1)
    with pytest.raises(Unavailable):
        await contest.one.leadership.renew()
    (term, stood_by) = contest.one.terms
    assert stood_by == 0
    with pytest.raises(NotActiveMaster, match="knows of no other"):
        contest.one.leadership.require()
    contest.one.metadata.is_away = False
    await contest.one.leadership.renew()
    assert contest.one.terms == [term, 0, term]
    assert len(contest.one.registry.cluster_map.nodes) == 1


async def test_the_only_master_answers_without_records(contest: Contest) -> None:
    """Nobody can have taken over; it does nothing else meanwhile, and a successor at its address waits for nothing."""
    await contest.take_over()
    contest.clock.advance(LEASE_TTL_S)
    alone = Contender(contest.one.metadata, contest.clock, contest.one.address)
    alone.leadership._is_alone = True
    await alone.leadership.renew()
    alone.metadata.is_away = True
    contest.clock.advance(60)
    with pytest.raises(Unavailable):
        await alone.leadership.renew()
    assert alone.terms[-1] == 0
    assert alone.leadership.answers
    assert not alone.leadership.is_active
    alone.metadata.is_away = False
    await alone.leadership.renew()
    again = Contender(contest.one.metadata, contest.clock, contest.one.address)
    await again.leadership.renew()
    assert again.leadership.is_active
    await alone.leadership.renew()
    assert not alone.leadership.answers


async def test_a_stop_hands_over_at_once(contest: Contest) -> None:
    """The lease is released; who only stood by has nothing to release."""
    await contest.other.leadership.stop()
    assert contest.one.leadership.is_active
    await contest.one.leadership.stop()
    await contest.other.leadership.renew()
    assert contest.other.leadership.is_active
    assert contest.one.terms[-1] == 0


async def test_a_registry_that_cannot_be_loaded_is_not_led_with(contest: Contest) -> None:
    """The lease is held, and loading is tried again with the next renewal."""
    contest.clock.advance(LEASE_TTL_S)
    failures = [Unavailable("once")]

    async def begin(term: int) -> None:
        if failures:
            raise failures.pop()
        await contest.other._begin(term)

    contest.other.leadership._on_active = begin
    with pytest.raises(Unavailable, match="once"):
        await contest.other.leadership.renew()
    assert not contest.other.leadership.answers
    await contest.other.leadership.renew()
    assert contest.other.leadership.is_active


async def test_a_lease_that_ran_out_on_the_way_is_not_relied_on(contest: Contest) -> None:
    """The answer came, but this process had been stopped while it waited for it."""
    contest.clock.advance(LEASE_TTL_S)
    apply = contest.other.metadata.apply

    async def late(command: object) -> object:
        answer = await apply(command)  # type: ignore[arg-type]
        contest.clock.advance(10)
        return answer

    contest.other.metadata.apply = late  # type: ignore[method-assign]
    await contest.other.leadership.renew()
    assert (contest.other.terms, contest.other.leadership.is_active) == ([], False)


async def test_polls_end_with_the_lease(contest: Contest) -> None:
    """Whoever waits for a change is sent away as soon as this one stands by, and then pointed to the other."""
    first = await contest.clients[0].fetch_map()
    polling = asyncio.create_task(contest.clients[0].fetch_map())
    await asyncio.wait({polling}, timeout=0.05)
    assert not polling.done()
    await contest.take_over()
    await contest.one.leadership.renew()
    with pytest.raises(Unavailable) as refused:
        await polling
    assert refused.value.details["error"] == NotActiveMaster.__name__
    with pytest.raises(Unavailable) as refused:
        await contest.clients[0].fetch_map()
    assert refused.value.details["active"] == str(contest.other.address)
    second = await contest.clients[1].fetch_map()
    assert second.epoch > first.epoch


async def test_a_follower_goes_where_it_is_pointed_to(contest: Contest, tmp_path: Path) -> None:
    """First to the active one of three, whichever it begins with; after a takeover to the next."""
    nobody = MasterClient(parse_address(f"unix:{tmp_path}/nobody.sock"), INTERNAL_KEY)
    masters = [MasterClient(contest.other.address, INTERNAL_KEY), nobody, *contest.clients[:1]]
    maps: asyncio.Queue[ClusterMap] = asyncio.Queue()
    follower = MapFollower(masters, contest.one.metadata.cluster_map, maps.put)
    await follower.start()
    async with asyncio.timeout(60):
        await maps.get()
        await contest.report(contest.one, make_report(1))
        assert len((await maps.get()).nodes) == 1
        await contest.take_over()
        await contest.one.leadership.renew()
        await contest.report(contest.other, make_report(2))
        while len((await maps.get()).nodes) < 2:
            pass
    contest.other.registry.suspend()
    await follower.close()


async def test_a_datanode_tells_those_that_stand_by_as_often(contest: Contest) -> None:
    """Which is no failure, so that the next active master hears of it within a second."""
    report = make_report(1)
    node_key = derive_node_key(INTERNAL_KEY, ROLE_DATANODE, report.node_id)

    async def make() -> NodeReport:
        return report

    link = MasterLink(contest.other.address, report.node_id, node_key, make, None)
    await link.send_report()
    assert (link.epoch, link.loop.interval_s) == (0, STANDBY_INTERVAL_S)
    await contest.take_over()
    await link.send_report()
    assert link.epoch == contest.other.registry.cluster_map.epoch
    await link.close()


async def test_a_command_finds_the_active_master(contest: Contest, tmp_path: Path) -> None:
    """Among masters that stand by or do not answer; a refusal of the active one is the last word; it waits for a
    takeover that is under way."""
    nobody = MasterClient(parse_address(f"unix:{tmp_path}/nobody.sock"), INTERNAL_KEY)
    masters = ActiveMaster([nobody, *reversed(contest.clients)])
    assert json.loads(await masters.call("GET", "/v1/nodes"))["nodes"] == []
    with pytest.raises(Unavailable, match=r"409.*there is no node"):
        await masters.call("POST", f"/v1/nodes/{'f' * 32}/drain")
    contest.clock.advance(LEASE_TTL_S)
    asking = asyncio.create_task(masters.fetch_map())
    await asyncio.wait({asking}, timeout=0.05)
    assert not asking.done()
    await contest.other.leadership.renew()
    assert (await asking).epoch == contest.other.terms[0]
    roles = {str(address): role and role.is_active for address, role in await masters.fetch_roles()}
    assert roles == {str(nobody.address): None, str(contest.one.address): False, str(contest.other.address): True}
    await masters.close()


async def test_roles_are_whole_messages(contest: Contest) -> None:
    """By name, for scripts as well."""
    shown = json.loads(await contest.clients[1].call("GET", "/v1/lease"))
    assert shown == {"is_active": False, "active": str(contest.one.address), "term": contest.one.terms[0], "error": ""}
