"""The survey and the jobs that follow it, over metadata and nodes of a scene, run when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.deadlines import Deadlines
from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.damage import DamageReports
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.piece_look import PieceLook
from cluster.maintenance.repair_job import RepairJob
from cluster.maintenance.repair_queue import RepairQueue
from cluster.maintenance.repairer import Repairer
from cluster.maintenance.surplus_remover import SurplusRemover
from cluster.maintenance.survey import SurveySettings
from cluster.maintenance.survey_status import SurveyStatus
from cluster.maintenance.surveyor import Surveyor
from cluster.maintenance.throttle import Throttle
from storage.metadata.commands import RenewSession
from storage.metadata.interface import ChunkPlace
from tests.cluster.maintenance.scene import Scene, SceneRegistry

SETTINGS = SurveySettings(interval_s=600, surplus_age_s=60, read_margin_s=15, pause_s=0)


class Master:
    """The jobs of the active master, run when told."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.registry = SceneRegistry(scene)
        self.claims = BlobClaims()
        self.queue = RepairQueue()
        metadata, pool, clock = scene.metadata, scene.pool, scene.clock
        throttle = Throttle(1 << 40, clock)
        self.repairer = Repairer(
            metadata,
            pool,
            PieceCopier(pool, throttle, Deadlines()),
            lambda: scene.cluster_map,
            NodeSlots(),
            lambda: self.registry.term,
        )
        self.repairs = RepairJob(self.repairer, self.queue, self.claims, clock)
        look = PieceLook(pool, lambda: scene.cluster_map)
        remover = SurplusRemover(metadata, pool, look, self.claims, throttle)
        self.surveyor = Surveyor(metadata, pool, self.registry, self.queue, self.repairs, remover, clock, SETTINGS)
        self.damage = DamageReports(metadata, pool, self.queue, lambda: scene.cluster_map, clock)

    @property
    def status(self) -> SurveyStatus:
        """What it tells."""
        return self.surveyor.status

    async def walk(self) -> SurveyStatus:
        """One whole walk."""
        self.surveyor.order_walk()
        await self.surveyor.run()
        return self.status

    async def settle(self, seconds: float = 600, step_s: float = 5) -> SurveyStatus:
        """Run all jobs while time passes and the worker lives."""
        for _ in range(round(seconds / step_s)):
            self.scene.clock.advance(step_s)
            await self.scene.worker.apply(RenewSession(self.scene.worker.session_id, 0))
            await self.surveyor.run()
            await self.damage.run()
            await self.repairs.run()
        return self.status


async def fill(scene: Scene, nodes: Sequence[int] = (1, 2, 3, 4, 5, 6), count: int = 6) -> list[list[ChunkPlace]]:
    """Objects on these nodes, each kind in turn."""
    places = []
    for number in range(count):
        turned = [nodes[(at + number) % len(nodes)] for at in range(len(nodes))]
        width, redundancy = [(2, "replica:2"), (5, "ec:3+2"), (3, "replica:3")][number % 3]
        places.append(await scene.put(b"key-%d" % number, redundancy, turned[:width], chunk_count=1 + number % 2))
    return places


async def require_whole(scene: Scene, placed: list[list[ChunkPlace]]) -> set[int]:
    """Everything at full redundancy; the nodes that it is on."""
    named: set[int] = set()
    for places in placed:
        for place in await scene.require_whole(places[0].blob_id, len(places)):
            named |= set(place.nodes)
    return named
