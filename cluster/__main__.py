"""`python -m cluster --config FILE`: the master. It keeps the registry of datanodes and runs the maintenance jobs.

Of several masters one is active, as long as it keeps a lease in the records (leadership.py); the others stand by: they
answer who is active, and nothing else.

SIGTERM and SIGINT drain: waiting polls are answered, the jobs stop between two steps, the lease is released, and it
exits 0. It holds nothing that is not recorded, so a kill -9 costs only the time until it is started again or another
one takes over: gateways keep their last map.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import uvloop

from cluster.deadlines import Deadlines
from cluster.maintenance.lifecycle_worker import LifecycleWorker
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.rebalancer import Rebalancer
from cluster.maintenance.rewriter import Rewriter
from cluster.maintenance.survey_jobs import SurveyJobs, build_survey
from cluster.maintenance.sweeper import Sweeper
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from cluster.registry.app import MasterApp
from cluster.registry.config import (
    ConfigError,
    MasterConfig,
    load_config,
    load_internal_key,
    make_survey_settings,
    make_sweep_settings,
    make_timing,
)
from cluster.registry.leadership import Leadership
from cluster.registry.maintenance import MaintenanceRoutes
from cluster.registry.registry import Registry
from storage.base.address import Address
from storage.base.arguments import Option, parse_options
from storage.base.background import BackgroundLoop
from storage.base.clock import Clock, SystemClock
from storage.base.core_dumps import forbid_core_dumps
from storage.base.errors import FrostbyteError
from storage.base.internal_server import CannotListen, serve
from storage.base.log import configure_logging
from storage.base.open_files import raise_open_files_limit
from storage.datanode.client import make_connect
from storage.metadata.interface import Metadata
from storage.metadata.open import open_metadata

_log = logging.getLogger("cluster.master")


async def run_master(config: MasterConfig, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. ConfigError, CannotListen, Unavailable (no metadata) before it serves."""
    internal_key = load_internal_key(Path(config.internal_key_file))
    clock = SystemClock()
    async with AsyncExitStack() as opened:
        metadata = await open_metadata(config.metadata)
        opened.push_async_callback(metadata.close)
        registry = Registry(config.cluster_id, metadata, clock, make_timing(config.timing))
        nodes = NodePool(internal_key, clock, make_connect(internal_key, config.tls_ca or None))
        opened.push_async_callback(nodes.close)
        survey = build_survey_jobs(config, registry, metadata, nodes, clock)
        jobs = build_jobs(config, registry, metadata, nodes, clock, survey)
        leadership = lead_with(config, registry, metadata, clock, jobs)
        opened.push_async_callback(leadership.stop)
        app = MasterApp(registry, leadership, internal_key, MaintenanceRoutes(registry, jobs, nodes, survey.surveyor))
        releasing = asyncio.create_task(_release_polls(registry, stop))
        opened.callback(releasing.cancel)
        beginning: list[asyncio.Task[None]] = []

        def begin(bound: Address) -> None:
            beginning.append(asyncio.create_task(_begin(leadership, bound, config.advertise)))

        await serve(app, config.listen_address, config.tls, on_started=begin, stop=stop)
        for task in beginning:
            await task
    _log.info("master stopped")


def lead_with(
    config: MasterConfig, registry: Registry, metadata: Metadata, clock: Clock, jobs: Sequence[BackgroundLoop]
) -> Leadership:
    """What being the active master is: the registry loaded, and the jobs running."""

    async def begin(term: int) -> None:
        await registry.load(term)
        for job in jobs:
            job.start()

    async def stand_by() -> None:
        await asyncio.gather(*(job.stop() for job in jobs))
        if not leadership.answers:
            registry.suspend()

    leadership = Leadership(
        metadata,
        clock,
        begin,
        stand_by,
        ttl_s=config.timing.master_lease_s,
        is_alone=len(config.addresses) == 1,
    )
    return leadership


def build_survey_jobs(
    config: MasterConfig, registry: Registry, metadata: Metadata, nodes: NodePool, clock: Clock
) -> SurveyJobs:
    """What looks after every chunk's pieces."""
    settings = make_survey_settings(config.maintenance)
    return build_survey(metadata, nodes, registry, clock, settings, config.maintenance.repair_bytes_per_s)


def build_jobs(
    config: MasterConfig,
    registry: Registry,
    metadata: Metadata,
    nodes: NodePool,
    clock: Clock,
    survey: SurveyJobs | None = None,
) -> list[BackgroundLoop]:
    """Everything that the master does by itself; status shows them in this order. survey: made here unless given."""
    survey = survey or build_survey_jobs(config, registry, metadata, nodes, clock)
    sweeper = Sweeper(
        metadata,
        nodes,
        lambda: registry.cluster_map,
        clock,
        make_sweep_settings(config.maintenance),
        current_term=lambda: registry.term,
    )
    lifecycle = LifecycleWorker(metadata, clock, config.maintenance.lifecycle_day_s)
    rebalancer = Rebalancer(
        metadata,
        nodes,
        PieceCopier(nodes, Throttle(config.maintenance.rebalance_bytes_per_s, clock), Deadlines()),
        survey.claims,
        lambda: registry.cluster_map,
        lambda: registry.term,
        clock,
    )
    rewriter = Rewriter(
        metadata,
        nodes,
        survey.claims,
        Throttle(config.maintenance.rewrite_bytes_per_s, clock),
        config.placed,
        lambda: registry.cluster_map,
        lambda: registry.term,
        clock,
    )
    settings = config.maintenance
    return [
        BackgroundLoop("registry tick", config.timing.tick_interval_s, registry.tick),
        _make_loop("sweep", settings.sweep_interval_s, sweeper),
        *survey.loops,
        BackgroundLoop("lifecycle", lifecycle.interval_s, lifecycle.run, counts=lambda: lifecycle.totals),
        _make_loop("rebalance", settings.rebalance_interval_s, rebalancer),
        _make_loop("rewrite", settings.rewrite_interval_s, rewriter),
    ]


class _Job(Protocol):
    """What an operator can order."""

    @property
    def counts(self) -> Mapping[str, int]: ...

    def order(self) -> None: ...

    async def run(self) -> None: ...


def _make_loop(name: str, interval_s: float, job: _Job) -> BackgroundLoop:
    return BackgroundLoop(name, interval_s, job.run, counts=lambda: job.counts, on_order=job.order)


async def _begin(leadership: Leadership, bound: Address, advertised: str) -> None:
    """Once the address is served, so that an earlier process of this master is surely gone from there."""
    await leadership.start(advertised or str(bound))
    _log.info("master ready on %s", bound)


async def _release_polls(registry: Registry, stop: asyncio.Event) -> None:
    """A drain must not wait for polls that wait for a change."""
    await stop.wait()
    registry.suspend()


async def _run_until_signal(config: MasterConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run_master(config, stop)


def main() -> int:
    """Exit status 0 after a drain; 1, with one line in the log, when it cannot start."""
    options = (Option("--config", Path, "the master's config.json"),)
    arguments = parse_options("python -m cluster", __doc__, options)
    configure_logging("master")
    raise_open_files_limit()
    forbid_core_dumps()
    try:
        uvloop.run(_run_until_signal(load_config(arguments.config)))
    except (ConfigError, CannotListen, FrostbyteError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
