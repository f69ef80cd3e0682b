"""Datanodes: what is on their disks, which stays, and processes over it, which run the project's own composition."""

from __future__ import annotations

import random
from pathlib import Path

from storage.base.internal_auth import ROLE_DATANODE, derive_node_key
from storage.datanode import __main__ as datanode_main
from storage.datanode.config import DatanodeConfig
from storage.datanode.identity import Identity
from tests.sim.clocks import SimClock
from tests.sim.disks import SimDisk
from tests.sim.loop import Process, VirtualLoop
from tests.sim.network import Network
from tests.storage.crash_files import CrashFiles

SCRUB_INTERVAL_S = 90.0
DIRECTORY = Path("/data")


class SimDatanode:
    """One place for a datanode. The id is on its disk."""

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network,
        generator: random.Random,
        internal_key: bytes,
        cluster_id: str,
        party: str,
        failure_domain: str,
        masters: tuple[str, ...],
    ) -> None:
        self.clock = SimClock(loop)
        self.party = party
        self.failure_domain = failure_domain
        self.node_id = ""
        self.process = Process(loop, party, self)
        self.process.kill()
        self._loop = loop
        self._network = network
        self._random = generator
        self._internal_key = internal_key
        self._cluster_id = cluster_id
        self._masters = masters
        self._format()

    def start(self) -> None:
        """A new process over the disk."""
        self.disk.write_back()
        self.process = self._network.parties[self.party] = Process(self._loop, self.party, self)
        node_key = derive_node_key(self._internal_key, ROLE_DATANODE, self.node_id)
        config = DatanodeConfig(
            listen=f"unix:/{self.party}",
            cluster_id=self._cluster_id,
            masters=self._masters,
            node_key=node_key.hex(),
            reserve_bytes=self.disk.reserve_bytes,
            scrub_interval_s=SCRUB_INTERVAL_S,
        )
        identity = Identity(self.node_id, self._cluster_id)
        self.process.start(datanode_main.run(config, DIRECTORY, self.disk, identity))

    def cut_power(self) -> int:
        """Kill it, and undo what was not synced. How many changes were undone."""
        self.process.kill()
        self.files = self.files.survivors(seed=self._random.getrandbits(32))
        return self.disk.cut_power()

    def lose_disk(self, *, same_id: bool) -> None:
        """Kill it. Everything on its disk is gone; the next start has an empty one."""
        self.process.kill()
        node_id = self.node_id
        self._format()
        if same_id:
            self.node_id = node_id

    def _format(self) -> None:
        self.node_id = f"{self._random.getrandbits(128):032x}"
        self.disk = SimDisk(self.clock, self._random)
        self.files = CrashFiles()
        self.files.make_directory(DIRECTORY)
        self.files.fsync_directory(DIRECTORY.parent)
