"""The active master's answers about its jobs, and about what all nodes do at its word. Bodies are JSON, for programs of
the command line, scripts and people.

    GET  /v1/jobs                         every background job: how its last run went, and how far it is
    POST /v1/jobs/{name}/run              run it now → JobOrdered; never beside a run that is under way
    GET  /v1/survey                       SurveyStatus: the health of the data
    GET  /v1/scrub                        [NodeScrub, …] of every node that is not gone
    POST /v1/scrub                        ScrubRequest: to one node or to all → [NodeScrub, …] of those it was sent to
    POST /v1/nodes/{id}/remove[?force=1]  let go of a drained or dead node; 409 says what has to happen first

Who may ask, and whether this master is the active one, is app.py's to decide.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Protocol

import msgspec

from cluster.maintenance.survey_status import SurveyStatus
from cluster.nodes import Datanode, NodePool
from cluster.registry.registry import Registry
from cluster.registry.state import Holdings
from storage.base.background import BackgroundLoop
from storage.base.errors import ChunkError, Corrupt, Unavailable
from storage.datanode.exchange import BadRequest, Exchange
from storage.datanode.wire import ScrubOrder, ScrubStatus
from storage.model import Node, NodeState

JOBS = "/v1/jobs"
SURVEY = "/v1/survey"
SCRUB = "/v1/scrub"

REQUEST_BYTES_MAX = 1_024
NODE_DEADLINE_S = 3.0
"""for one datanode to say how far its scrub is"""
NODES_AT_ONCE = 32

_RUN = re.compile(r"/v1/jobs/([a-z-]{1,32})/run\Z")
_REMOVE = re.compile(r"/v1/nodes/([0-9a-f]{32})/remove\Z")


class JobOrdered(msgspec.Struct, frozen=True):
    """The order is fulfilled once the job's `runs` are at least so many."""

    name: str
    runs: int


class ScrubRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ScrubOrder, and whom it is for: a node's id, or nothing for all."""

    pace_bytes_per_s: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
    begin: bool = False
    node_id: str = ""


class NodeScrub(msgspec.Struct, frozen=True):
    """How far the scrub of one node is; status is None, and error one line, where it did not answer."""

    number: int
    node_id: str
    state: str
    status: ScrubStatus | None
    error: str = ""


class Survey(Protocol):
    """What is asked of cluster.maintenance.surveyor."""

    @property
    def status(self) -> SurveyStatus:
        """As of now."""
        ...

    def holdings(self, number: int) -> Holdings | None:
        """What the last whole walk found on a node; None before there was one."""
        ...


class MaintenanceRoutes:
    """jobs: in the order in which they are listed. survey: None while nobody looks."""

    def __init__(
        self, registry: Registry, jobs: Sequence[BackgroundLoop], nodes: NodePool, survey: Survey | None = None
    ) -> None:
        self._registry = registry
        self._jobs = jobs
        self._nodes = nodes
        self._survey = survey

    async def answer(self, exchange: Exchange) -> bool:
        """False: the request is none of these. BadRequest; ReportRefused, Unavailable, NotActiveMaster of an order."""
        handler = self._find(exchange)
        if handler is None:
            return False
        await exchange.answer_bytes(200, (msgspec.json.encode(await handler(exchange)),))
        return True

    def _find(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[object]] | None:
        if exchange.method == "POST" and _RUN.match(exchange.path):
            return self._order_run
        if exchange.method == "POST" and _REMOVE.match(exchange.path):
            return self._remove
        handlers: dict[tuple[str, str], Callable[[Exchange], Awaitable[object]]] = {
            ("GET", JOBS): self._list_jobs,
            ("GET", SURVEY): self._show_survey,
            ("GET", SCRUB): self._show_scrubs,
            ("POST", SCRUB): self._order_scrub,
        }
        return handlers.get((exchange.method, exchange.path))

    async def _list_jobs(self, _: Exchange) -> object:
        return [job.status._asdict() for job in self._jobs]

    async def _show_survey(self, _: Exchange) -> object:
        return SurveyStatus() if self._survey is None else self._survey.status

    async def _show_scrubs(self, _: Exchange) -> object:
        return await self._ask(self._present(), lambda store: store.scrub_status())

    async def _order_scrub(self, exchange: Exchange) -> object:
        try:
            request = msgspec.json.decode(await exchange.read_body(REQUEST_BYTES_MAX), type=ScrubRequest)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadRequest(400, f"not an order to scrub: {str(error).splitlines()[0]}") from None
        told = [node for node in self._present() if request.node_id in ("", node.report.node_id)]
        if request.node_id and not told:
            raise BadRequest(404, f"there is no node {request.node_id[:64]}")
        order = ScrubOrder(request.pace_bytes_per_s, request.begin)
        return await self._ask(told, lambda store: store.order_scrub(order))

    async def _order_run(self, exchange: Exchange) -> JobOrdered:
        name = exchange.path.split("/")[3]
        for job in self._jobs:
            if job.name == name:
                return JobOrdered(name, job.order())
        raise BadRequest(404, f"there is no job {name}; there are {', '.join(job.name for job in self._jobs)}")

    async def _remove(self, exchange: Exchange) -> object:
        node_id = exchange.path.split("/")[3]
        if exchange.query not in (b"", b"force=0", b"force=1"):
            raise BadRequest(400, "force is 0 or 1, and there is nothing else to say")
        number = next((node.number for node in self._present() if node.report.node_id == node_id), None)
        holdings = None if number is None or self._survey is None else self._survey.holdings(number)
        await self._registry.remove(node_id, holdings, force=exchange.query == b"force=1")
        return {"node_id": node_id, "state": NodeState.GONE}

    def _present(self) -> list[Node]:
        return [node for node in self._registry.cluster_map.nodes if node.state is not NodeState.GONE]

    async def _ask(
        self, nodes: Sequence[Node], question: Callable[[Datanode], Awaitable[ScrubStatus]]
    ) -> list[NodeScrub]:
        """All at once, as many as may be; who does not answer is named with the reason."""
        await self._nodes.adopt(self._registry.cluster_map)
        free = asyncio.Semaphore(NODES_AT_ONCE)

        async def ask(node: Node) -> NodeScrub:
            named = (node.number, node.report.node_id, node.state.value)
            if node.state is NodeState.DEAD:
                return NodeScrub(*named, None, "it is dead")
            try:
                async with free, asyncio.timeout(NODE_DEADLINE_S):
                    return NodeScrub(*named, await question(self._nodes.store(node.number)))
            except (ChunkError, Corrupt, Unavailable) as error:
                return NodeScrub(*named, None, str(error))
            except TimeoutError:
                return NodeScrub(*named, None, f"it did not answer in {NODE_DEADLINE_S:g} s")

        return list(await asyncio.gather(*map(ask, nodes)))
