"""Builds the cluster side of a gateway worker: one context manager in, three doors out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cluster.blob_write import WriteServices, WriteSettings
from cluster.byte_budget import CAPACITY_BYTES_DEFAULT, ByteBudget
from cluster.chunk_read import ChunkReader
from cluster.chunk_writes import ChunkWrites
from cluster.cleanup import Cleanup
from cluster.copied_body import NewHasher
from cluster.deadlines import Deadlines
from cluster.directory import Directory
from cluster.fetching import ReadServices
from cluster.hedging import Hedging
from cluster.held_puts import HeldPuts
from cluster.maintenance.hint_repairs import HINT_REPAIR_BYTES_PER_S, REPAIR_INTERVAL_S, HintRepairs
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.repairer import Repairer
from cluster.maintenance.throttle import Throttle
from cluster.near_pieces import NearPieces
from cluster.near_puts import NearPuts
from cluster.near_small_puts import NearSmallPuts
from cluster.nodes import Connect, NodePool
from cluster.objectstore import ObjectStore
from cluster.operations import MapSource, Operations
from cluster.placer import Placer
from cluster.read_counts import ReadCounts
from cluster.read_run import ReadRuns
from cluster.reader import Reader
from cluster.redundancy import Redundancy, parse_redundancy
from cluster.repair_hints import RepairHints
from cluster.session import LEASE_TTL_S, ReadTracker, WriteSession
from cluster.stall_guard import StallGuard
from cluster.survival import SurviveMin, require_promise
from cluster.write_counts import WriteCounts
from cluster.writer import Writer
from storage.base.background import BackgroundLoop
from storage.base.clock import Clock
from storage.crypto.envelope import Cipher
from storage.crypto.keyring import Keyring
from storage.metadata.interface import Metadata
from storage.model import ClusterMap

FollowMap = Callable[[Callable[[ClusterMap], Awaitable[None]]], MapSource]
"""(what is to be called with every new map) → the source"""


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a gateway worker is told of the cluster. Sizes are bytes."""

    cluster_id: bytes
    internal_key: bytes
    redundancy: str = "replica:2"
    copies_before_ack_min: int | None = None
    """None: all of them, so that an answered write survives what the redundancy promises"""
    survive_min: SurviveMin | None = None
    """what an answered write must survive instead, whatever its redundancy"""
    chunk_bytes: int = 8 << 20
    inline_bytes_max: int = 16 << 10
    budget_bytes: int = CAPACITY_BYTES_DEFAULT
    cipher: Cipher = Cipher.AES_256_GCM
    datanode_directories: tuple[Path, ...] = ()
    """of datanodes on this machine, which reads and large writes go to past the datanodes"""
    local_writes: bool = True
    """whether writes do"""
    lease_ttl_s: float = LEASE_TTL_S
    repair_interval_s: float = REPAIR_INTERVAL_S
    deadlines: Deadlines = field(default_factory=Deadlines)

    def __repr__(self) -> str:
        return f"ClusterSettings({self.cluster_id.hex()}, {self.redundancy})"


class Outside(NamedTuple):
    """What the composition root brings: everything that reaches out of the process."""

    metadata: Metadata
    keyring: Keyring
    follow_map: FollowMap
    """makes what keeps the cluster map current: cluster.registry.client.MasterClient"""
    connect: Connect
    """a client for a node of the map"""
    new_hasher: NewHasher
    clock: Clock


class Cluster(NamedTuple):
    """The three doors."""

    objects: ObjectStore
    directory: Directory
    operations: Operations


@asynccontextmanager
async def open_cluster(settings: ClusterSettings, outside: Outside) -> AsyncIterator[Cluster]:
    """Everything started on entry (Unavailable when metadata or map cannot be had), and stopped in order on exit:
    clean-ups end first, then the write session closes. The metadata is the caller's to close. ValueError: settings."""
    redundancy = parse_redundancy(settings.redundancy)
    survive_min = _choose_survive_min(settings, redundancy)
    metadata, keyring, clock = outside.metadata, outside.keyring, outside.clock
    budget = ByteBudget(settings.budget_bytes)
    counts = ReadCounts()
    near = NearPieces(settings.cluster_id, counts, settings.datanode_directories)
    write_counts = WriteCounts()
    near_puts = NearPuts(near, clock, write_counts, is_on=settings.local_writes)
    near_small_puts = NearSmallPuts(near, clock, write_counts, is_on=settings.local_writes)
    nodes = NodePool(settings.internal_key, clock, outside.connect, near_puts, near_small_puts)
    placer = Placer(nodes)
    writes = ChunkWrites(budget, nodes, settings.deadlines)

    async def adopt(cluster_map: ClusterMap) -> None:
        placer.adopt(cluster_map)
        near.adopt(cluster_map)
        await nodes.adopt(cluster_map)

    maps = outside.follow_map(adopt)
    reads = ReadTracker(clock)
    session = WriteSession(metadata, reads, clock, settings.lease_ttl_s)
    cleanup = Cleanup(nodes, metadata, settings.deadlines)
    hints = RepairHints()
    write_settings = _choose_write_settings(settings, redundancy, survive_min)
    stalls = StallGuard(settings.deadlines.stall_s)
    writing = WriteServices(
        write_settings, keyring, session, metadata, placer, writes, cleanup, hints, nodes, budget, stalls
    )
    writer = Writer(writing)
    held = HeldPuts(writing, writer)
    reading = ReadServices(nodes, hints, Hedging(), counts, settings.deadlines, near)
    chunks = ChunkReader(settings.cluster_id, settings.cipher, keyring, metadata, reading)
    reader = Reader(settings.cluster_id, keyring, metadata, ReadRuns(metadata, chunks, budget, clock), reads)
    async with AsyncExitStack() as running:
        running.push_async_callback(nodes.close)
        running.push_async_callback(near.close)
        running.push_async_callback(near_puts.close)
        running.push_async_callback(near_small_puts.close)
        running.push_async_callback(maps.close)
        await maps.start()
        await session.start()
        running.push_async_callback(session.stop)
        running.push_async_callback(cleanup.close)
        copier = PieceCopier(nodes, Throttle(HINT_REPAIR_BYTES_PER_S, clock), settings.deadlines)
        repairer = Repairer(metadata, nodes, copier, lambda: maps.cluster_map, NodeSlots())
        repairs = BackgroundLoop("repair", settings.repair_interval_s, HintRepairs(repairer, hints).run, clock=clock)
        repairs.start()
        running.push_async_callback(repairs.stop)
        yield Cluster(
            ObjectStore(settings.cluster_id, keyring, metadata, writer, held, reader, outside.new_hasher, clock),
            Directory(metadata, keyring, clock),
            Operations(
                metadata, session, placer, maps, hints, budget, redundancy, survive_min, nodes, counts, write_counts
            ),
        )


def _choose_write_settings(settings: ClusterSettings, redundancy: Redundancy, survive_min: SurviveMin) -> WriteSettings:
    return WriteSettings(
        settings.cluster_id,
        redundancy,
        survive_min,
        settings.chunk_bytes,
        settings.inline_bytes_max,
        settings.cipher,
        settings.deadlines,
    )


def _choose_survive_min(settings: ClusterSettings, redundancy: Redundancy) -> SurviveMin:
    """ValueError when what is written by default could not do that."""
    if settings.survive_min is not None:
        require_promise(settings.survive_min, redundancy)
        return settings.survive_min
    minimum = settings.copies_before_ack_min
    if minimum is None:
        minimum = redundancy.pieces_before_ack_min
    if not redundancy.needed <= minimum <= redundancy.width:
        raise ValueError(f"{redundancy.needed} to {redundancy.width} pieces before the answer, not {minimum}")
    return SurviveMin(missing_max=redundancy.width - minimum)
