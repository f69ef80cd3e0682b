"""How the parts of one gateway worker are put together."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.assembly import ClusterSettings, Outside, open_cluster
from cluster.operations import MapSource
from cluster.registry.client import MasterClient
from cluster.registry.config import load_internal_key
from cluster.registry.follower import MapFollower
from s3gw.acceptor import Board
from s3gw.app import create_app
from s3gw.call import Services, Settings
from s3gw.http_limits import HttpLimits
from s3gw.protocol.checksums import new_hasher
from s3gw.readiness import Readiness
from s3gw.server import serve_gateway
from s3gw.worker_config import WorkerConfig
from storage.base.address import parse_address
from storage.base.blocks import BLOCKS
from storage.base.clock import SystemClock
from storage.base.files import DiskFiles
from storage.base.freed_memory import FreedMemory
from storage.base.internal_server import TlsFiles
from storage.crypto.envelope import parse_cipher
from storage.crypto.keyring import Keyring
from storage.crypto.master_key import open_master_keys
from storage.datanode.client import make_connect
from storage.metadata.open import open_metadata
from storage.model import ClusterMap

BLOCKS_KEPT_MAX = 32
"""of a MiB; more than a few parallel uploads have under way at once"""
MEMORY_KEPT_S = 5.0


async def run_worker(config: WorkerConfig, listener: socket.socket, board: Board | None = None) -> None:
    """Serve on the socket until SIGTERM. Unavailable, ValueError or OSError before it serves."""
    clock = SystemClock()
    keyring = _open_keyring(config, clock)
    internal_key = load_internal_key(Path(config.internal_key_file))
    metadata = await open_metadata(config.metadata)
    try:
        outside = Outside(
            metadata=metadata,
            keyring=keyring,
            follow_map=_follow_map(config, internal_key, metadata.cluster_map),
            connect=make_connect(internal_key, config.internal_ca or None),
            new_hasher=new_hasher,
            clock=clock,
        )
        async with open_cluster(_cluster_settings(config, internal_key), outside) as cluster:
            settings = Settings(
                config.region,
                tuple(map(str.lower, config.domains)),
                config.trusted_proxies,
                config.bucket_defaults,
            )
            readiness = Readiness(cluster.operations, board)
            services = Services(cluster.objects, cluster.directory, cluster.operations, settings, clock)
            app = create_app(services, readiness.all_ready)
            # What start-up made lives as long as the process: the collector need never look at it again.
            gc.collect()
            gc.freeze()
            tls = TlsFiles(config.tls_cert, config.tls_key) if config.tls_cert else None
            limits = HttpLimits(drain_s=round(config.drain_timeout_s))
            with _memory_kept():
                await serve_gateway(app, listener, tls=tls, limits=limits, board=board, before=readiness.wait)
            await readiness.close()
            app.metrics.tell()
    finally:
        await metadata.close()


@contextmanager
def _memory_kept() -> Iterator[None]:
    """For bodies, while there are some."""
    freed = FreedMemory()

    async def shed() -> None:
        while True:
            await asyncio.sleep(MEMORY_KEPT_S)
            BLOCKS.shed()
            freed.shed()

    BLOCKS.keep(BLOCKS_KEPT_MAX)
    freed.keep()
    shedding = asyncio.get_running_loop().create_task(shed())
    try:
        yield
    finally:
        shedding.cancel()
        BLOCKS.keep(0)


def _open_keyring(config: WorkerConfig, clock: SystemClock) -> Keyring:
    files = DiskFiles()
    master_keys = open_master_keys(files, Path(config.master_key_file), os.environ, make=False)
    keyring = Keyring(files, Path(config.keyring), bytes.fromhex(config.cluster_id), master_keys, clock)
    keyring.open(make=False)
    return keyring


def _cluster_settings(config: WorkerConfig, internal_key: bytes) -> ClusterSettings:
    return ClusterSettings(
        cluster_id=bytes.fromhex(config.cluster_id),
        internal_key=internal_key,
        redundancy=config.redundancy,
        survive_min=config.survived,
        chunk_bytes=config.chunk_size_bytes,
        inline_bytes_max=config.inline_size_bytes_max,
        budget_bytes=config.memory_budget_bytes,
        cipher=parse_cipher(config.cipher, os.environ),
        datanode_directories=tuple(map(Path, config.datanode_directories)),
        local_writes=config.local_writes,
        lease_ttl_s=config.lease_ttl_s,
    )


def _follow_map(
    config: WorkerConfig, internal_key: bytes, fetch_recorded: Callable[[], Awaitable[ClusterMap]]
) -> Callable[[Callable[[ClusterMap], Awaitable[None]]], MapSource]:
    def follow(adopt: Callable[[ClusterMap], Awaitable[None]]) -> MapSource:
        masters = [
            MasterClient(parse_address(text), internal_key, tls_ca=config.internal_ca or None)
            for text in config.masters
        ]
        return MapFollower(masters, fetch_recorded, adopt)

    return follow
