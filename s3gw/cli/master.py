"""The active master as the command line talks to it: found by the configuration file that one was started with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from cluster.maintenance.survey_status import SurveyStatus
from cluster.registry.app import NODES
from cluster.registry.client import PROMPT_S, ActiveMaster, MasterClient
from cluster.registry.config import MasterConfig, load_config, load_internal_key
from cluster.registry.maintenance import JOBS, SCRUB, SURVEY, JobOrdered, NodeScrub, ScrubRequest
from s3gw.cli.home import MASTER_FILE, lock_home, read_cluster_id
from s3gw.cli.options import find_home
from s3gw.config import ConfigError
from storage.base.errors import Unavailable
from storage.model import ClusterMap, Node


class Job(msgspec.Struct, frozen=True):
    """How a background job of the master goes; times are milliseconds since the epoch."""

    name: str
    runs: int
    failures_in_a_row: int
    last_run_ms: int
    last_error: str
    counts: dict[str, int] = {}
    """what it did since this master began, by name; `done` and `total`: how far the work under way is"""
    started_ms: int = 0
    """of the run under way; 0 between runs"""


ACTIVE, STANDBY, SILENT = "active", "standby", "silent"
NODES_ANSWER_S = 20.0
"""for an answer that the master asks every node for"""
_Answer = TypeVar("_Answer")


class Master:
    """The active master, on one event loop. Every call may raise Unavailable, and ConfigError when no server runs at
    all."""

    def __init__(self, config: MasterConfig, home: Path | None) -> None:
        self.config = config
        internal_key = load_internal_key(Path(config.internal_key_file))
        self._home = home
        self._client = ActiveMaster(
            [MasterClient(address, internal_key, tls_ca=config.tls_ca or None) for address in config.addresses]
        )

    async def fetch_map(self) -> ClusterMap:
        """Every node as the master sees it now."""
        try:
            return await self._client.fetch_map()
        except Unavailable as error:
            raise self._explain(error) from None

    async def fetch_jobs(self) -> list[Job]:
        """In the order in which the master lists them."""
        return await self._ask("GET", JOBS, list[Job])

    async def fetch_survey(self) -> SurveyStatus:
        """The health of the data."""
        return await self._ask("GET", SURVEY, SurveyStatus)

    async def fetch_scrubs(self) -> list[NodeScrub]:
        """How far each node's scrub is."""
        return await self._ask("GET", SCRUB, list[NodeScrub], timeout_s=NODES_ANSWER_S)

    async def order_job(self, name: str) -> JobOrdered:
        """Run a background job now."""
        return await self._ask("POST", f"{JOBS}/{name}/run", JobOrdered)

    async def order_scrub(self, request: ScrubRequest) -> list[NodeScrub]:
        """Of one node or of all; what each says to that."""
        body = msgspec.json.encode(request)
        return await self._ask("POST", SCRUB, list[NodeScrub], body, timeout_s=NODES_ANSWER_S)

    async def fetch_roles(self) -> dict[str, str]:
        """Every master of the configuration by its address: `active`, `standby` or `silent`."""
        return {
            str(address): SILENT if role is None else ACTIVE if role.is_active else STANDBY
            for address, role in await self._client.fetch_roles()
        }

    async def order(self, node: Node, action: str) -> None:
        """`drain`, `resume` or `remove`. Unavailable with the master's reason when it refuses."""
        await self._client.call("POST", f"{NODES}/{node.report.node_id}/{action}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self, method: str, target: str, kind: type[_Answer], body: bytes | None = None, timeout_s: float = PROMPT_S
    ) -> _Answer:
        answer = await self._client.call(method, target, body, timeout_s=timeout_s)
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the master answered strangely: {error}") from None

    def _explain(self, error: Unavailable) -> Exception:
        """Whether it is down or does not answer."""
        if self._home is not None and not _is_held(self._home):
            return ConfigError(f"no server runs on {self._home}")
        return Unavailable(f"the master does not answer at {self.config.listen}: {error}")


@asynccontextmanager
async def open_master(config: MasterConfig, home: Path | None) -> AsyncIterator[Master]:
    """home: the data directory of a `frostbyte up`, None for a master that runs alone."""
    master = Master(config, home)
    try:
        yield master
    finally:
        await master.close()


def find_master(data: Path | None, config: Path | None, master: Path | None) -> tuple[MasterConfig, Path | None]:
    """The master's configuration, and the data directory unless the master runs alone. ConfigError."""
    if master is not None:
        return load_config(master), None
    home = find_home(data, config)
    read_cluster_id(home)
    file = home / "run" / MASTER_FILE
    if not file.exists():
        raise ConfigError(f"no server has run on {home} yet")
    return load_config(file), home


def choose_node(nodes: tuple[Node, ...], text: str) -> Node:
    """By its number, or by its id or the beginning of it. ConfigError unless it is exactly one."""
    found = [node for node in nodes if str(node.number) == text]
    found = found or [node for node in nodes if text and node.report.node_id.startswith(text)]
    if len(found) != 1:
        raise ConfigError(f"{'no node' if not found else 'more than one node'} is {text!r}")
    return found[0]


def _is_held(home: Path) -> bool:
    """Whether a `frostbyte up` has the directory."""
    try:
        lock_home(home).close()
    except ConfigError:
        return True
    return False
