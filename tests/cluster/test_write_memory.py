"""Memory of writes, replicated and erasure-coded: bounded whatever the bodies, the nodes and the clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme

from cluster.chunk_writes import BUDGET_BYTES_MIN
from storage.chunks.store import ChunkReceipt
from storage.metadata.commands import REDUNDANCY_SETTING
from tests.cluster.world import QUICK, SETTINGS, BlocksBody, World, open_world

MIB = 1 << 20
STRIPES_IN_THE_SHARE = 5
"""of 4+2, in half of the smallest budget"""

both = pytest.mark.parametrize("redundancy", ["replica:2", "ec:4+2"])


@asynccontextmanager
async def stopped_clients(world: World, count: int, blocks: int, *, wait_for: int | None = None) -> AsyncIterator[None]:
    """So many writers of a body of nine frames that stopped after so many of them; at least wait_for (all of them,
    unless said) have come so far."""
    reached = asyncio.Semaphore(0)

    async def stop(index: int) -> None:
        if index == blocks:
            reached.release()
            await asyncio.Event().wait()

    async def put() -> None:
        body = BlocksBody([bytes(65_536)] * 9, before_block=stop)
        await world.objects.put(world.bucket, b"slow", body, world.request())

    clients = [asyncio.create_task(put()) for _ in range(count)]
    try:
        for _ in range(count if wait_for is None else wait_for):
            await reached.acquire()
        yield
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        assert world.cluster.operations.budget.held_bytes == 0


@both
async def test_a_large_body_holds_little_however_slow_the_nodes(tmp_path: Path, redundancy: str) -> None:
    """256 MiB through slow nodes: within the budget, parity included, and within what one body may hold."""
    block = os.urandom(MIB)
    settings = replace(SETTINGS, redundancy=redundancy, chunk_bytes=8 * MIB, budget_bytes=32 * MIB)
    async with open_world(tmp_path, node_count=6, settings=settings) as world:
        for node in world.nodes.values():
            node.slow_by_steps = 2
            node.inner = _Forgetful()  # type: ignore[assignment]
        body = BlocksBody((block for _ in range(256)), 256 * MIB)
        await world.objects.put(world.bucket, b"key", body, world.request())
        budget = world.cluster.operations.budget
        assert budget.held_bytes == 0
        assert budget.held_bytes_peak <= (5 if redundancy == "replica:2" else 6) * MIB


@both
async def test_many_bodies_share_the_smallest_budget(tmp_path: Path, redundancy: str) -> None:
    """Forty at once: all of them end, and the budget is never exceeded."""
    settings = replace(SETTINGS, redundancy=redundancy, budget_bytes=BUDGET_BYTES_MIN)
    async with open_world(tmp_path, node_count=6, settings=settings) as world:
        for node in world.nodes.values():
            node.slow_by_steps = 1
        data = [os.urandom(600_000 + index) for index in range(40)]
        async with asyncio.timeout(60):
            await asyncio.gather(*(world.put(b"key-%d" % index, data[index]) for index in range(40)))
        for index in range(40):
            assert await world.get(b"key-%d" % index) == data[index]
        budget = world.cluster.operations.budget
        assert budget.held_bytes == 0
        assert budget.held_bytes_peak <= BUDGET_BYTES_MIN


@both
async def test_stopped_clients_do_not_starve_the_others(tmp_path: Path, redundancy: str) -> None:
    """In the middle of a chunk they hold loans, in the middle of a stripe they are given up: another body passes."""
    settings = replace(SETTINGS, redundancy=redundancy, budget_bytes=BUDGET_BYTES_MIN, chunk_bytes=MIB)
    deadlines = QUICK._replace(stripe_s=0.2)
    async with open_world(tmp_path, node_count=6, settings=settings, deadlines=deadlines) as world:
        async with stopped_clients(world, count=24, blocks=5):
            data = os.urandom(3 * MIB)
            async with asyncio.timeout(60):
                await world.put(b"key", data)
            assert await world.get(b"key") == data


async def test_stripes_leave_others_their_share(tmp_path: Path) -> None:
    """However long a stripe is waited for: those in the making hold half of the memory, and the rest goes on."""
    settings = replace(SETTINGS, redundancy="ec:4+2", budget_bytes=BUDGET_BYTES_MIN)
    async with (
        open_world(tmp_path, node_count=6, settings=settings) as world,
        stopped_clients(world, count=20, blocks=1, wait_for=STRIPES_IN_THE_SHARE),
    ):
        await world.cluster.directory.put_setting(world.bucket, REDUNDANCY_SETTING, b"replica:2")
        await world.cluster.directory.refresh()
        bucket = await world.cluster.directory.bucket("bucket")
        data = os.urandom(3 * MIB)
        async with asyncio.timeout(60):
            await world.put(b"key", data, bucket=bucket)
            assert await world.get(b"key") == data


class _Forgetful:
    """A store that counts and hashes what it is given, and keeps nothing."""

    def __init__(self) -> None:
        self.chunks: dict[object, bytes] = {}

    async def put(self, chunk_id: object, length: int, body: AsyncIterator[bytes]) -> ChunkReceipt:
        taken = crc = 0
        async for piece in body:
            taken += len(piece)
            crc = crc64nvme(piece, crc)
        assert taken == length
        return ChunkReceipt(length, crc.to_bytes(8, "big"))
