"""`frostbyte repair|scrub|sweep|rebalance`: what a cluster does by itself, now, and how far it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from cluster.registry.config import MasterConfig
from cluster.registry.maintenance import NodeScrub, ScrubRequest
from s3gw.cli.formats import name_nodes
from s3gw.cli.master import Job, Master, choose_node, find_master, open_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, require_one_reader, run
from s3gw.cli.progress import Look, look_at_job, look_at_repair, look_at_scrubs
from s3gw.cli.screen import show
from s3gw.cli.watch import follow_to_the_end, watch
from s3gw.config import ConfigError

WatchOption = Annotated[bool, typer.Option("--watch", help="Show how far it is until it is done.")]

SURVEY_JOB = "survey"


def repair(
    watched: WatchOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Look all data through now, and make what is missing."""
    require_one_reader(watched, as_json)
    found = find_master(data, config, master)
    if watched:
        watch(lambda: _follow_repair(*found), "the repair goes on")
    else:
        _tell_order(
            run(_order(*found, SURVEY_JOB)), "all data is being looked through; what is missing is made", as_json
        )


def sweep(
    watched: WatchOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Delete now what is released, and look through every node for what nothing references."""
    _run_job("sweep", find_master(data, config, master), watched, as_json)


def rebalance(
    watched: WatchOption = False,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Move pieces now until the nodes are filled evenly."""
    _run_job("rebalance", find_master(data, config, master), watched, as_json)


def scrub(
    watched: WatchOption = False,
    node: Annotated[str, typer.Option("--node", help="Number or id of one node. [all]")] = "",
    pace: Annotated[
        int, typer.Option("--pace", min=0, max=1 << 40, help="Bytes a second for each node until it is started again.")
    ] = 0,
    begin: Annotated[bool, typer.Option(help="Begin a new pass; else only the pace changes.")] = True,
    as_json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
    master: MasterOption = None,
) -> None:
    """Read every piece from its disk now and compare it with what was stored; what is damaged is set aside."""
    require_one_reader(watched, as_json)
    found = find_master(data, config, master)
    if watched:
        watch(lambda: _follow_scrub(*found, node, pace, begin), "the scrub goes on")
        return
    told = run(_order_scrub(*found, node, pace, begin))
    if as_json:
        print(json.dumps(msgspec.to_builtins(told), indent=2))
        return
    answered = [it.number for it in told if it.status is not None]
    if answered:
        show(f"{'scrub begins on' if begin else 'pace is set on'} {name_nodes(answered)}")
    for it in told:
        if it.status is None:
            show(f"! node {it.number} does not answer: {it.error}", style="yellow")


def _run_job(name: str, found: tuple[MasterConfig, Path | None], watched: bool, as_json: bool) -> None:
    require_one_reader(watched, as_json)
    if watched:
        watch(lambda: _follow_job(*found, name), f"the {name} goes on")
    else:
        _tell_order(run(_order(*found, name)), f"{name} runs", as_json)


def _tell_order(ordered: dict[str, object], sentence: str, as_json: bool) -> None:
    print(json.dumps(ordered, indent=2) if as_json else sentence)


async def _order(config: MasterConfig, home: Path | None, name: str) -> dict[str, object]:
    async with open_master(config, home) as master:
        ordered = await master.order_job(name)
        return {"name": ordered.name, "runs": ordered.runs}


async def _follow_job(config: MasterConfig, home: Path | None, name: str) -> Look:
    async with open_master(config, home) as master:
        order = _Order(master, name)
        await order.give()

        async def look() -> Look:
            return look_at_job(await order.renew(), order.runs, order.before)

        return await follow_to_the_end(look)


async def _follow_repair(config: MasterConfig, home: Path | None) -> Look:
    async with open_master(config, home) as master:
        order = _Order(master, SURVEY_JOB)
        before = await master.fetch_survey()
        await order.give()

        async def look() -> Look:
            job, survey = await order.renew(), await master.fetch_survey()
            return look_at_repair(survey, job.runs >= order.runs and not survey.is_walking, before)

        return await follow_to_the_end(look)


async def _follow_scrub(config: MasterConfig, home: Path | None, node: str, pace: int, begin: bool) -> Look:
    async with open_master(config, home) as master:
        told = await _send_scrub(master, node, pace, begin)
        numbers = [it.number for it in told]

        async def look() -> Look:
            return look_at_scrubs(await master.fetch_scrubs(), numbers)

        return await follow_to_the_end(look)


async def _order_scrub(config: MasterConfig, home: Path | None, node: str, pace: int, begin: bool) -> list[NodeScrub]:
    async with open_master(config, home) as master:
        return await _send_scrub(master, node, pace, begin)


async def _send_scrub(master: Master, node: str, pace: int, begin: bool) -> list[NodeScrub]:
    node_id = choose_node((await master.fetch_map()).nodes, node).report.node_id if node else ""
    return await master.order_scrub(ScrubRequest(pace, begin, node_id))


class _Order:
    """An order to a job of the master, given again when another master takes over: it begins to count anew."""

    def __init__(self, master: Master, name: str) -> None:
        self.runs = 0
        """how many there have been when it is fulfilled"""
        self.before: dict[str, int] = {}
        """what the job had counted when it was given"""
        self._master = master
        self._name = name
        self._seen = 0

    async def give(self) -> None:
        """To whoever is the active master."""
        job = await self._find()
        self.runs = (await self._master.order_job(self._name)).runs
        self._seen, self.before = job.runs, job.counts

    async def renew(self) -> Job:
        """How the job is."""
        job = await self._find()
        if job.runs < self._seen:
            await self.give()
        self._seen = job.runs
        return job

    async def _find(self) -> Job:
        jobs = await self._master.fetch_jobs()
        for job in jobs:
            if job.name == self._name:
                return job
        raise ConfigError(f"this master has no job {self._name}; it has {', '.join(job.name for job in jobs)}")
