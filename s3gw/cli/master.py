"""The active master as the command line talks to it: found by the configuration file that one was started with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cluster.registry.app import JOBS, NODES
from cluster.registry.client import ActiveMaster, MasterClient
from cluster.registry.config import MasterConfig, load_config, load_internal_key
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
    """what it did since this master began, by name"""


ACTIVE, STANDBY, SILENT = "active", "standby", "silent"


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
        return msgspec.json.decode(await self._client.call("GET", JOBS), type=list[Job])

    async def fetch_roles(self) -> dict[str, str]:
        """Every master of the configuration by its address: `active`, `standby` or `silent`."""
        return {
            str(address): SILENT if role is None else ACTIVE if role.is_active else STANDBY
            for address, role in await self._client.fetch_roles()
        }

    async def order(self, node: Node, action: str) -> None:
        """`drain` or `resume`. Unavailable with the master's reason when it refuses."""
        await self._client.call("POST", f"{NODES}/{node.report.node_id}/{action}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

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
