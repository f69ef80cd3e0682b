"""A gateway's follower of the map, over real sockets: told of every change, through masters that go and come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from cluster.registry.app import MasterApp
from cluster.registry.client import MasterClient
from cluster.registry.follower import MapFollower
from storage.base.address import Address, parse_address
from storage.base.errors import Unavailable
from storage.model import ClusterMap, NodeState
from tests.cluster.nodes import make_report
from tests.cluster.registry.served_master import INTERNAL_KEY, Master, SometimesAway
from tests.storage.base.serving import serving


class Follower(MapFollower):
    """A gateway's follower that notes the maps it was told of."""

    def __init__(self, addresses: Sequence[Address], metadata: SometimesAway) -> None:
        self.maps: asyncio.Queue[ClusterMap] = asyncio.Queue()
        clients = [MasterClient(address, INTERNAL_KEY) for address in addresses]
        super().__init__(clients, metadata.cluster_map, self.maps.put)

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
