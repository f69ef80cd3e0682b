"""Gateway workers: the production composition, over the simulated surroundings; every start is a new incarnation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cluster.assembly import Cluster, Outside, open_cluster
from cluster.operations import MapSource
from cluster.registry.client import MasterClient
from cluster.registry.follower import MapFollower
from s3gw.protocol.checksums import new_hasher
from storage.base.address import parse_address
from storage.base.errors import FrostbyteError, Unavailable
from storage.crypto.keyring import Keyring
from storage.datanode.client import make_connect
from storage.model import ClusterMap
from tests.cluster.world import FixedMasterKey
from tests.sim.clocks import SimClock
from tests.sim.loop import Process
from tests.sim.masters import SimMaster
from tests.sim.surroundings import Surroundings

START_AGAIN_S = 2.0
KEYRING = Path("/keyring")


class SimGateway:
    """One worker's place."""

    def __init__(self, world: Surroundings, party: str, masters: Sequence[SimMaster]) -> None:
        self.party = party
        self.clock = SimClock(world.loop)
        self.process = Process(world.loop, party, self)
        self.process.kill()
        self.cluster: Cluster | None = None
        """of the present incarnation, once it serves"""
        self.incarnations = 0
        self._world = world
        self._masters = masters
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    def start(self) -> None:
        """A new process."""
        self.cluster = None
        self.incarnations += 1
        self._stopping, self._stopped = asyncio.Event(), asyncio.Event()
        self.process = self._world.network.parties[self.party] = Process(self._world.loop, self.party, self)
        self.process.start(self._run(self.process, self._stopping, self._stopped))

    async def stop(self) -> None:
        """In order, as SIGTERM does."""
        self._stopping.set()
        await self._stopped.wait()
        self.process.kill()

    def require(self) -> Cluster:
        """The doors. Unavailable while it starts."""
        if self.cluster is None:
            raise Unavailable("this worker is starting")
        return self.cluster

    async def _run(self, process: Process, stopping: asyncio.Event, stopped: asyncio.Event) -> None:
        world = self._world
        keyring = Keyring(world.key_files, KEYRING, world.settings.cluster_id, FixedMasterKey(), self.clock)
        keyring.open()
        metadata = world.link(process)

        def follow(on_map: Callable[[ClusterMap], Awaitable[None]]) -> MapSource:
            internal_key = world.settings.internal_key
            clients = [MasterClient(parse_address(f"unix:/{master.party}"), internal_key) for master in self._masters]
            return MapFollower(clients, metadata.cluster_map, on_map)

        connect = make_connect(world.settings.internal_key, None)
        outside = Outside(metadata, keyring, follow, connect, new_hasher, self.clock)
        while not stopping.is_set():
            try:
                async with open_cluster(world.settings, outside) as cluster:
                    self.cluster = cluster
                    world.trace.note(self.party, "serves")
                    await stopping.wait()
                    self.cluster = None
            except FrostbyteError as error:
                world.trace.note(self.party, f"does not start: {error}")
                await asyncio.sleep(START_AGAIN_S)
        stopped.set()
