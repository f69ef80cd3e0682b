"""An active master over real metadata, with three nodes that are up and one job, served for tests of its routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from cluster.maintenance.survey_status import SurveyStatus
from cluster.nodes import NodePool
from cluster.registry.app import MasterApp
from cluster.registry.client import ActiveMaster, MasterClient
from cluster.registry.leadership import LEASE_TTL_S, Leadership
from cluster.registry.maintenance import MaintenanceRoutes
from cluster.registry.registry import Registry
from cluster.registry.state import Holdings, Timing
from storage.base.background import BackgroundLoop
from storage.base.clock import ManualClock
from storage.datanode.wire import ScrubOrder, ScrubStatus
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import Node, NodeState
from tests.cluster.nodes import CLUSTER_ID, make_report
from tests.storage.base.serving import serving

INTERNAL_KEY = bytes(range(32))
NODE_IDS = [make_report(number).node_id for number in (1, 2, 3)]


class Scrubbing:
    """What is asked of a datanode here."""

    def __init__(self) -> None:
        self.orders: list[ScrubOrder] = []
        self.status = ScrubStatus(1_000, 0, True, 5, 5_000, 10, 10_000, 0, 1 << 20)
        self.failure: Exception | None = None
        self.hangs = False

    async def scrub_status(self) -> ScrubStatus:
        if self.failure is not None:
            raise self.failure
        if self.hangs:
            await asyncio.Event().wait()
        return self.status

    async def order_scrub(self, order: ScrubOrder) -> ScrubStatus:
        self.orders.append(order)
        return await self.scrub_status()

    async def close(self) -> None: ...


class Survey:
    """One that has walked, or has not."""

    def __init__(self) -> None:
        self.status = SurveyStatus()
        self.found: dict[int, Holdings] = {}

    def holdings(self, number: int) -> Holdings | None:
        return self.found.get(number)


class Scene:
    """An active master over real metadata, three nodes that are up, one job."""

    def __init__(self, registry: Registry, leadership: Leadership, clock: ManualClock) -> None:
        self.registry = registry
        self.leadership = leadership
        self.clock = clock
        self.survey = Survey()
        self.stores = {number: Scrubbing() for number in (1, 2, 3)}
        self.ordered = 0
        self.job = BackgroundLoop(
            "tidy-up", 3600, self.work, counts=lambda: {"done": 3, "total": 9}, on_order=self._note_order
        )
        nodes = NodePool(INTERNAL_KEY, clock, self._connect)  # type: ignore[arg-type]
        self.jobs = [self.job]
        routes = MaintenanceRoutes(registry, self.jobs, nodes, self.survey)
        self.app = MasterApp(registry, leadership, INTERNAL_KEY, routes)
        self.master: ActiveMaster

    async def work(self) -> None: ...

    def _note_order(self) -> None:
        self.ordered += 1

    def _connect(self, node: Node) -> Scrubbing:
        return self.stores[node.number]

    async def call(self, method: str, target: str, body: Any = None) -> Any:
        """An answer as JSON. body: bytes, or what becomes JSON."""
        given = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        return json.loads(await self.master.call(method, target, given, timeout_s=60))

    def state(self, number: int) -> NodeState:
        """Of a node as published last."""
        return next(node.state for node in self.registry.cluster_map.nodes if node.number == number)


@asynccontextmanager
async def open_scene(directory: Path) -> AsyncIterator[Scene]:
    """Serving at directory/m.sock."""
    metadata, clock = await open_owned_metadata(directory / "metadata"), ManualClock()
    registry = Registry(CLUSTER_ID, metadata, clock, Timing())

    async def stand_by() -> None:
        registry.suspend()

    leadership = Leadership(metadata, clock, registry.load, stand_by)
    clock.advance(LEASE_TTL_S)
    await leadership.renew()
    for number in (1, 2, 3, 1, 2, 3):
        await registry.heartbeat(make_report(number))
    made = Scene(registry, leadership, clock)
    async with serving(made.app, f"unix:{directory}/m.sock") as address:
        made.master = ActiveMaster([MasterClient(address, INTERNAL_KEY)])
        yield made
        await made.master.close()
        registry.suspend()
    await made.job.stop()
    await metadata.close()
