"""The background jobs of the master process, put together: the sweep, over clients of its own for the datanodes."""

from __future__ import annotations

from collections.abc import Callable

from cluster.maintenance.sweep import SweepSettings
from cluster.maintenance.sweeper import Sweeper
from cluster.nodes import Datanode, NodePool
from cluster.registry.config import MaintenanceSettings
from storage.base.address import parse_address
from storage.base.background import BackgroundLoop
from storage.base.clock import Clock
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.datanode.client import DatanodeClient
from storage.metadata.interface import Metadata
from storage.model import ClusterMap, Node

UNKNOWN_AGE_S_MIN = 24 * 3600.0
"""chunks of a session that the metadata does not know are kept for a day at least: it may be a restored older copy"""
PASSES_APART_S_MAX = 10.0


class Maintenance:
    """Started and stopped with the master. `sweeper` can be run by hand as well."""

    def __init__(
        self,
        metadata: Metadata,
        internal_key: bytes,
        current_map: Callable[[], ClusterMap],
        settings: MaintenanceSettings,
        clock: Clock,
        tls_ca: str | None = None,
    ) -> None:
        def connect(node: Node) -> Datanode:
            token = access_token(derive_node_key(internal_key, ROLE_DATANODE, node.report.node_id))
            return DatanodeClient(parse_address(node.report.address), token, tls_ca=tls_ca)

        self._nodes = NodePool(internal_key, clock, connect)
        self.sweeper = Sweeper(metadata, self._nodes, current_map, clock, make_sweep_settings(settings))
        self.loops = [BackgroundLoop("sweep", settings.sweep_interval_s, self.sweeper.run, clock=clock)]

    def start(self) -> None:
        """Begin on the running event loop."""
        for loop in self.loops:
            loop.start()

    async def close(self) -> None:
        """Stop between two steps, and let the datanodes go."""
        for loop in self.loops:
            await loop.stop()
        await self._nodes.close()


def make_sweep_settings(settings: MaintenanceSettings) -> SweepSettings:
    """Of the master's configuration. Half a lease between a release and the oldest read, as a renewal may take a third
    of one on its way."""
    return SweepSettings(
        lease_ttl_ms=round(settings.lease_ttl_s * 1000),
        read_margin_ms=round(settings.lease_ttl_s * 500),
        orphan_age_ms=round(settings.orphan_age_s * 1000),
        unknown_age_ms=round(max(settings.orphan_age_s, UNKNOWN_AGE_S_MIN) * 1000),
        passes_apart_ms=round(min(settings.orphan_age_s, PASSES_APART_S_MAX) * 1000),
        quarantine_ms=round(settings.quarantine_s * 1000),
    )
