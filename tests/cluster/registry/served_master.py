"""A registry over real metadata that can be away, behind the master's application on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from cluster.registry.app import MasterApp
from cluster.registry.leadership import LEASE_TTL_S, Leadership
from cluster.registry.registry import Registry
from cluster.registry.state import Timing
from storage.base.address import Address
from storage.base.clock import ManualClock
from storage.base.errors import Unavailable
from storage.base.internal_auth import (
    MASTER_NODE_ID,
    NODE_HEADER,
    ROLE_DATANODE,
    ROLE_MASTER,
    access_token,
    derive_node_key,
    report_token,
)
from storage.base.internal_client import Answer, InternalClient
from storage.datanode import wire
from storage.metadata.commands import Command
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import ClusterMap, NodeReport, NodeState
from tests.cluster.nodes import CLUSTER_ID
from tests.storage.base.serving import serving

INTERNAL_KEY = bytes(range(32))
MASTER_TOKEN = access_token(derive_node_key(INTERNAL_KEY, ROLE_MASTER, MASTER_NODE_ID))


class SometimesAway:
    """Real metadata that a test can take away."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata
        self.is_away = False
        self.loses_answers = False
        """what is asked is done, and nobody hears of it"""

    async def apply(self, command: Command) -> Any:
        """As Metadata.apply."""
        if self.is_away:
            raise Unavailable("the metadata is away")
        answer = await self._metadata.apply(command)
        if self.loses_answers:
            raise Unavailable("the answer was lost", outcome="unknown")
        return answer

    async def cluster_map(self) -> ClusterMap:
        """As Metadata.cluster_map."""
        if self.is_away:
            raise Unavailable("the metadata is away")
        recorded: ClusterMap = await self._metadata.cluster_map()
        return recorded


class Master:
    """A registry behind its application on a socket, with a clock that moves when told."""

    def __init__(
        self,
        metadata: SometimesAway,
        clock: ManualClock,
        registry: Registry,
        leadership: Leadership,
        address: Address,
    ) -> None:
        self.metadata = metadata
        self.clock = clock
        self.registry = registry
        self.leadership = leadership
        self.address = address

    async def send(self, method: str, target: str, token: str, body: bytes | None = None, node_id: str = "") -> Answer:
        """One request on a connection of its own."""
        client = InternalClient(self.address, token, headers={NODE_HEADER: node_id} if node_id else {})
        try:
            return await client.call(method, target, body)
        finally:
            await client.close()

    async def report(self, report: NodeReport, token: str = "") -> Answer:
        """A heartbeat as the datanode sends it."""
        return await self.send("POST", "/v1/heartbeat", token or token_of(report), wire.encode(report), report.node_id)

    async def silence(self, seconds: float) -> None:
        """Let time pass, with ticks as often as they come."""
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            await self.registry.tick()

    async def begin_again(self) -> None:
        """With what was recorded, under the same term."""
        assert self.leadership.lease is not None
        await self.registry.load(self.leadership.lease.term)

    async def recorded(self) -> dict[int, NodeState]:
        """The states in the metadata, by number."""
        return {node.number: node.state for node in (await self.metadata.cluster_map()).nodes}


def token_of(report: NodeReport) -> str:
    """What this node presents to masters."""
    return report_token(derive_node_key(INTERNAL_KEY, ROLE_DATANODE, report.node_id))


def reason_of(answer: Answer) -> tuple[str, str]:
    """The name and the message of a failed answer."""
    return msgspec.msgpack.decode(answer.body, type=tuple[str, str])


async def lead(metadata: SometimesAway, clock: ManualClock) -> tuple[Registry, Leadership]:
    """The registry of a master that has just become the active one, and is the only one."""
    registry = Registry(CLUSTER_ID, metadata, clock, Timing())  # type: ignore[arg-type]

    async def stand_by() -> None:
        registry.suspend()

    leadership = Leadership(metadata, clock, registry.load, stand_by)  # type: ignore[arg-type]
    clock.advance(LEASE_TTL_S)
    await leadership.renew()
    assert leadership.is_active
    return registry, leadership


@asynccontextmanager
async def open_master(directory: Path) -> AsyncIterator[Master]:
    """A master that has just begun, over empty metadata; serving at directory/m.sock."""
    owned = await open_owned_metadata(directory / "metadata")
    metadata, clock = SometimesAway(owned), ManualClock()
    registry, leadership = await lead(metadata, clock)
    app = MasterApp(registry, leadership, INTERNAL_KEY)
    async with serving(app, f"unix:{directory}/m.sock") as address:
        yield Master(metadata, clock, registry, leadership, address)
        registry.suspend()
    await owned.close()
