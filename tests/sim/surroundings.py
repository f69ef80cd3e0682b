"""What all processes of one simulated cluster share, and what each of them reaches the others through."""

from __future__ import annotations

import random

from cluster.assembly import ClusterSettings
from tests.sim.clocks import SimClock
from tests.sim.loop import Process, VirtualLoop
from tests.sim.metadata import PARTY, MetadataLink, Records, SimRecords
from tests.sim.network import Network
from tests.sim.nodes import SimDatanode
from tests.sim.owners import OwnedRecords
from tests.sim.trace import Trace
from tests.storage.crash_files import CrashFiles


class Surroundings:
    """One per run. Every part draws from a generator of its own, so that a change in one disturbs no other."""

    def __init__(
        self, loop: VirtualLoop, seed: int, settings: ClusterSettings, *, journaled: bool, show: bool = False
    ) -> None:
        """journaled: the records have an owner as in production, with its journal on the datanodes."""
        self.loop = loop
        self.seed = seed
        self.settings = settings
        self.trace = Trace(loop.time, show=show)
        self.network = Network(loop, self.generator("network"), self.trace)
        self.fleet: dict[str, SimDatanode] = {}
        """by party"""
        self.key_files = CrashFiles()
        self.records: Records = self._owned() if journaled else SimRecords(loop, self.network, SimClock(loop))
        self.links: list[MetadataLink] = []

    def generator(self, purpose: str) -> random.Random:
        """Decided by the seed and the purpose."""
        return random.Random(f"{self.seed} {purpose}")

    def link(self, process: Process) -> MetadataLink:
        """The records, for a process."""
        link = MetadataLink(
            self.records,
            self.network,
            process,
            self.generator(f"records of {process.name} {len(self.links)}"),
            lambda text: self.trace.note(process.name, text),
        )
        self.links.append(link)
        return link

    def _owned(self) -> OwnedRecords:
        owned = OwnedRecords(
            self.loop,
            self.network,
            SimClock(self.loop),
            self.key_files,
            self.settings.cluster_id,
            self.settings.internal_key,
            lambda text: self.trace.note(PARTY, text),
        )
        owned.addresses = lambda: [f"unix:/{party}" for party in self.fleet]
        return owned
