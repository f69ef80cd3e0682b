"""Operations: the third door, for health and readiness: of this worker, and of the cluster as this worker sees it."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from cluster.byte_budget import ByteBudget
from cluster.nodes import NodePool
from cluster.object_health import ObjectExamination, examine_object
from cluster.placement import is_full
from cluster.placer import Placer
from cluster.read_counts import ReadCounts
from cluster.redundancy import Redundancy, evaluate_cluster
from cluster.repair_hints import RepairHint, RepairHints
from cluster.session import WriteSession
from cluster.survival import SurviveMin
from cluster.write_counts import WriteCounts
from storage.base.errors import ChunkError, Corrupt, FrostbyteError, NotEnoughNodes, Unavailable
from storage.base.ids import BLOB_ID_BYTES
from storage.metadata.interface import Metadata
from storage.model import Bucket, ClusterMap, NodeState


class MapSource(Protocol):
    """Who knows the cluster map: the master's client."""

    @property
    def cluster_map(self) -> ClusterMap:
        """The newest one known here."""
        ...

    async def start(self) -> None:
        """Have a map. Unavailable."""
        ...

    async def close(self) -> None: ...


READY_DEADLINE_S = 2.0
PROBED_NODES_MAX = 16
"""of a large cluster; a write needs a few that answer"""
PROBED_COLUMNS = 16
RENEWALS_MISSED_MAX = 2.5
"""more, and the metadata has not taken a command for two renewals: a commit would hardly succeed"""


class NodeHealth(NamedTuple):
    """One datanode, for people."""

    number: int
    node_id: str
    address: str
    failure_domain: str
    state: NodeState
    is_full: bool
    capacity_bytes: int
    free_bytes: int
    chunk_count: int
    last_heard_ms: int


class Health(NamedTuple):
    """What `frostbyte status` and the console show. warnings: sentences, empty when all is well."""

    epoch: int
    nodes: tuple[NodeHealth, ...]
    redundancy: str
    writable: bool
    failure_domains: int
    hints: int
    """replicas that reads found missing or damaged and that were not looked at since"""
    warnings: tuple[str, ...]


class Operations:
    """Reads what is at hand; only `ready` asks datanodes, whether they answer."""

    def __init__(
        self,
        metadata: Metadata,
        session: WriteSession,
        placer: Placer,
        maps: MapSource,
        hints: RepairHints,
        budget: ByteBudget,
        redundancy: Redundancy,
        survive_min: SurviveMin,
        nodes: NodePool,
        reads: ReadCounts,
        writes: WriteCounts,
    ) -> None:
        self.budget = budget
        self.reads = reads
        self.writes = writes
        self._nodes = nodes
        self._metadata = metadata
        self._session = session
        self._placer = placer
        self._maps = maps
        self._hints = hints
        self._redundancy = redundancy
        self._survive_min = survive_min

    async def ready(self) -> bool:
        """Whether a write would succeed now: the metadata answers and takes commands, and enough of the nodes that can
        take a chunk by the map answer as well (the map of a moment ago may name nodes that have not started yet)."""
        session = self._session
        if not session.is_open or session.renewed_age_s > RENEWALS_MISSED_MAX * session.renew_interval_s:
            return False
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                await self._metadata.configuration_sequence()
                return self._some_column_survives_enough() and await self._enough_nodes_answer()
        except (FrostbyteError, TimeoutError):
            return False

    def _some_column_survives_enough(self) -> bool:
        """False where every write would be refused for what it promises. NotEnoughNodes."""
        width = self._redundancy.width
        columns = (self._placer.choose(bytes(BLOB_ID_BYTES), index, width).column for index in range(PROBED_COLUMNS))
        return any(
            self._survive_min.is_met(self._redundancy, [node.report.failure_domain for node in column])
            for column in columns
        )

    async def _enough_nodes_answer(self) -> bool:
        """True as soon as enough did, however long the others take. NotEnoughNodes."""
        width = self._redundancy.width
        probes = [
            asyncio.ensure_future(self._answers(node.number))
            for node in self._placer.eligible(width)[: max(width, PROBED_NODES_MAX)]
        ]
        answered = 0
        try:
            for probe in asyncio.as_completed(probes):
                answered += await probe
                if answered >= width:
                    return True
            return False
        finally:
            for probe in probes:
                probe.cancel()

    async def _answers(self, number: int) -> bool:
        """Whether a node takes a chunk now: the map may not have heard yet that it is full."""
        try:
            space = await self._nodes.store(number).space()
        except (ChunkError, Corrupt, Unavailable):
            return False
        return space.free_bytes > space.reserve_bytes

    async def health(self) -> Health:
        """The cluster as this worker knows it."""
        nodes = tuple(
            NodeHealth(
                node.number,
                node.report.node_id,
                node.report.address,
                node.report.failure_domain,
                node.state,
                is_full(node),
                node.report.capacity_bytes,
                node.report.free_bytes,
                node.report.chunk_count,
                node.last_heard_ms,
            )
            for node in self._maps.cluster_map.nodes
        )
        domains = {node.failure_domain for node in nodes if node.state is not NodeState.GONE}
        writable = await self.ready()
        return Health(
            self._maps.cluster_map.epoch,
            nodes,
            str(self._redundancy),
            writable,
            len(domains),
            len(self._hints),
            tuple(self._warnings(nodes, writable)),
        )

    async def examine_object(
        self, bucket: Bucket, object_key: bytes, version_id: str | None = None, *, verify: bool = False
    ) -> ObjectExamination:
        """See cluster.object_health.examine_object."""
        cluster_map = self._maps.cluster_map
        return await examine_object(
            self._metadata, self._nodes, cluster_map, bucket, object_key, version_id, verify=verify
        )

    def repair_hints(self) -> list[RepairHint]:
        """Replicas that reads of this worker could not use, the oldest first."""
        return self._hints.listed()

    def _warnings(self, nodes: tuple[NodeHealth, ...], writable: bool) -> list[str]:
        found: list[str] = []
        if not writable:
            found.append("Writes would fail now.")
        for node in nodes:
            if node.state not in (NodeState.UP, NodeState.GONE):
                found.append(f"Node {node.number} ({node.address}) is {node.state.value}.")
            elif node.is_full and node.state is NodeState.UP:
                found.append(f"Node {node.number} ({node.address}) is full: only its reserve is left.")
        try:
            losses = evaluate_cluster(self._redundancy, self._maps.cluster_map.nodes)
        except NotEnoughNodes as error:
            found.append(f"Too few nodes for {self._redundancy}: {error}.")
        else:
            if self._redundancy.width > 1 and losses.disks < self._redundancy.losses:
                found.append(
                    f"The copies of a chunk share a disk: {self._redundancy} survives the loss of"
                    f" {max(losses.nodes, 0)} datanode processes, but of {max(losses.disks, 0)} disks."
                )
            elif self._redundancy.width == 1:
                found.append("There is one copy of every chunk: a lost disk is lost data.")
        if len(self._hints):
            found.append(f"{len(self._hints)} replicas were found missing or damaged by reads.")
        return found
