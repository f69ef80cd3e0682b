"""One simulated cluster: its places, what runs in them, and how it is brought up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from cluster.assembly import ClusterSettings
from cluster.deadlines import Deadlines
from cluster.registry.app import NODES
from cluster.registry.client import ActiveMaster, MasterClient
from storage.base.address import parse_address
from storage.base.errors import Unavailable
from storage.metadata.commands import CreateUser
from storage.model import Bucket, ClusterMap, NodeState, User, Versioning
from tests.sim.clients import OWNER
from tests.sim.clocks import SimClock
from tests.sim.gateways import SimGateway
from tests.sim.loop import Process, VirtualLoop, run_now
from tests.sim.masters import MAINTENANCE, SimMaster
from tests.sim.nodes import SimDatanode
from tests.sim.profiles import Profile
from tests.sim.surroundings import Surroundings

CLUSTER_ID = bytes.fromhex("c" * 32)
INTERNAL_KEY = b"i" * 32
DEADLINES = Deadlines(
    begin_s=2.0,
    stall_s=3.0,
    durable_s=5.0,
    pull_s=8.0,
    first_byte_s=2.0,
    read_stall_s=3.0,
    clean_up_s=3.0,
    metadata_s=4.0,
)
UP_WITHIN_S = 60.0


class Place(Protocol):
    """Where a process runs, and is started again."""

    process: Process
    clock: SimClock

    def start(self) -> None: ...


class SimCluster:
    """Made of a profile; nothing runs before `bring_up`."""

    def __init__(self, loop: VirtualLoop, seed: int, profile: Profile, *, show: bool = False) -> None:
        settings = ClusterSettings(
            CLUSTER_ID,
            INTERNAL_KEY,
            redundancy=profile.redundancy,
            chunk_bytes=profile.chunk_bytes,
            inline_bytes_max=512,
            lease_ttl_s=MAINTENANCE.lease_ttl_s,
            repair_interval_s=4.0,
            deadlines=DEADLINES,
        )
        self.world = Surroundings(loop, seed, settings, journaled=profile.journaled, show=show)
        self.operator = Process(loop, "operator")
        parties = tuple(f"m{number}" for number in range(1, profile.masters + 1))
        self.masters = [SimMaster(self.world, party, parties) for party in parties]
        self.gateways = [
            SimGateway(self.world, f"g{number}", self.masters) for number in range(1, profile.gateways + 1)
        ]
        self.nodes: list[SimDatanode] = []
        self.owner = User(OWNER, "owner", "Owner")
        self.buckets: list[Bucket] = []
        self.on_node: Callable[[SimDatanode], None] = lambda node: None
        """told of each datanode that is added later"""
        self._zones = profile.zones
        for _ in range(profile.nodes):
            self.add_node()

    def add_node(self) -> SimDatanode:
        """A place for one more datanode, not started."""
        number = len(self.nodes) + 1
        zone = number % self._zones if self._zones > 1 else 0
        node = SimDatanode(
            self.world.loop,
            self.world.network,
            self.world.generator(f"node {number}"),
            INTERNAL_KEY,
            CLUSTER_ID.hex(),
            f"d{number}",
            f"zone-{zone}/host-{number}/disk",
            tuple(f"unix:/{master.party}" for master in self.masters),
        )
        self.world.fleet[node.party] = node
        self.nodes.append(node)
        self.on_node(node)
        return node

    def places(self) -> Iterator[Place]:
        """Of every process but clients'."""
        yield self.world.records
        yield from self.masters
        yield from self.gateways
        yield from self.nodes

    async def bring_up(self) -> None:
        """Everything runs, all nodes are up, and there are buckets."""
        await self.world.records.create(CreateUser(self.owner))
        for place in self.places():
            if place is not self.world.records:
                place.start()
        await self.wait_until_up()
        directory = self.gateways[0].require().directory
        for name, versioning in (("plain", Versioning.UNVERSIONED), ("kept", Versioning.ENABLED)):
            self.buckets.append(
                await self.gateways[0].process.start(
                    directory.create_bucket(name, self.owner, "us-east-1", {}, versioning)
                )
            )

    async def wait_until_up(self) -> None:
        """All nodes that run are up, and all gateways serve. TimeoutError."""
        async with asyncio.timeout(UP_WITHIN_S):
            while not self._is_up():
                await asyncio.sleep(0.5)

    def current_map(self) -> ClusterMap:
        """As the active master has it; as recorded where there is none."""
        for master in self.masters:
            if master.is_active and master.registry is not None:
                return master.registry.cluster_map
        return run_now(self.world.records.reads.cluster_map())

    def _is_up(self) -> bool:
        found = self.current_map()
        settled = (NodeState.UP, NodeState.DRAINING, NodeState.GONE)
        up = {node.report.node_id for node in found.nodes if node.state in settled}
        return all(node.node_id in up for node in self.nodes if node.process.is_alive) and all(
            gateway.cluster is not None for gateway in self.gateways
        )

    async def order(self, verb: str, node_id: str) -> bool:
        """drain, resume or remove a node, as an operator; whether the master did it."""
        clients = [MasterClient(parse_address(f"unix:/{master.party}"), INTERNAL_KEY) for master in self.masters]
        try:
            await ActiveMaster(clients).call("POST", f"{NODES}/{node_id}/{verb}")
        except Unavailable:
            return False
        return True
