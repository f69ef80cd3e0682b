"""Builds the survey and everything that acts on it, for the active master: what walks, what repairs, what follows up
damage and what sets surplus aside, over one queue."""

from __future__ import annotations

from typing import NamedTuple

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
from cluster.maintenance.surveyor import Nodes, Surveyor
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from storage.base.background import BackgroundLoop
from storage.base.clock import Clock
from storage.metadata.interface import Metadata

TICK_S = 1.0
"""how often each of them looks whether there is something to do"""


class SurveyJobs(NamedTuple):
    """claims: to be shared with every other job that moves or deletes pieces."""

    surveyor: Surveyor
    claims: BlobClaims
    loops: tuple[BackgroundLoop, ...]


def build_survey(
    metadata: Metadata,
    nodes: NodePool,
    registry: Nodes,
    clock: Clock,
    settings: SurveySettings,
    repair_bytes_per_s: int,
) -> SurveyJobs:
    """The loops are not started."""
    queue, claims, throttle = RepairQueue(), BlobClaims(), Throttle(repair_bytes_per_s, clock)
    repairer = Repairer(
        metadata,
        nodes,
        PieceCopier(nodes, throttle, Deadlines()),
        lambda: registry.cluster_map,
        NodeSlots(),
        lambda: registry.term,
    )
    repairs = RepairJob(repairer, queue, claims, clock)
    remover = SurplusRemover(metadata, nodes, PieceLook(nodes, lambda: registry.cluster_map), claims, throttle)
    surveyor = Surveyor(metadata, nodes, registry, queue, repairs, remover, clock, settings)
    damage = DamageReports(metadata, nodes, queue, lambda: registry.cluster_map, clock)
    loops = (
        BackgroundLoop(
            "survey",
            TICK_S,
            surveyor.run,
            clock=clock,
            counts=lambda: surveyor.counts,
            on_order=surveyor.order_walk,
        ),
        BackgroundLoop("repair", TICK_S, repairs.run, clock=clock, counts=lambda: repairs.counts),
        BackgroundLoop("damage", TICK_S, damage.run, clock=clock),
    )
    return SurveyJobs(surveyor, claims, loops)
