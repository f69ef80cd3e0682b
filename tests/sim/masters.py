"""Masters: places where the project's own composition of one runs, every start a new incarnation."""

from __future__ import annotations

import asyncio

from cluster.__main__ import run_master
from cluster.registry.app import MasterApp
from cluster.registry.config import MaintenanceSettings, MasterConfig, TimingSettings
from cluster.registry.leadership import Leadership
from cluster.registry.registry import Registry
from storage.metadata.settings import MetadataSettings
from tests.sim.clocks import SimClock
from tests.sim.loop import Process
from tests.sim.surroundings import Surroundings

TIMING = TimingSettings(
    heartbeat_interval_s=3.0, suspect_after_s=8.0, dead_after_s=24.0, tick_interval_s=1.5, master_lease_s=9.0
)
MAINTENANCE = MaintenanceSettings(
    lease_ttl_s=12.0,
    sweep_interval_s=6.0,
    orphan_age_s=15.0,
    quarantine_s=60.0,
    lifecycle_day_s=600.0,
    survey_interval_s=40.0,
    surplus_age_s=10.0,
    rebalance_interval_s=20.0,
    rewrite_interval_s=5.0,
)


class SimMaster:
    """One master's place."""

    def __init__(self, world: Surroundings, party: str, parties: tuple[str, ...]) -> None:
        self.party = party
        self.world = world
        self.clock = SimClock(world.loop)
        self.process = Process(world.loop, party, self)
        self.process.kill()
        self._stop = asyncio.Event()
        addresses = tuple(f"unix:/{other}" for other in parties)
        self._config = MasterConfig(
            listen=f"unix:/{party}",
            cluster_id=world.settings.cluster_id.hex(),
            internal_key_file="internal.key",
            metadata=MetadataSettings(),
            masters=addresses if len(addresses) > 1 else (),
            redundancy=world.settings.redundancy,
            timing=TIMING,
            maintenance=MAINTENANCE,
        )

    def start(self) -> None:
        """A new process."""
        world = self.world
        self._stop = asyncio.Event()
        self.process = world.network.parties[self.party] = Process(world.loop, self.party, self)
        self.process.start(run_master(self._config, self._stop))

    @property
    def app(self) -> MasterApp | None:
        """Of the present incarnation, once it serves."""
        return self.world.network.apps.get(self.party)

    @property
    def registry(self) -> Registry | None:
        """Of the present incarnation."""
        return None if self.app is None else self.app._registry

    @property
    def is_active(self) -> bool:
        """Whether it relies on being the one."""
        leadership: Leadership | None = None if self.app is None else self.app._leadership
        return leadership is not None and leadership.is_active
