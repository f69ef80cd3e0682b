"""A real datanode process that scrubs real files: damage done to them is found, told, and remembered over a kill -9."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.base.clock import SystemClock
from storage.base.errors import ChunkNotFound, Corrupt, NodeFull
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks.footer import FOOTER_BYTES
from storage.datanode import wire
from storage.datanode.client import DatanodeClient
from storage.datanode.scrubber import SCRUB_FILE, ScrubFile
from storage.datanode.wire import ScrubOrder, ScrubStatus
from storage.model import NodeReport, NodeState
from tests.storage.base.serving import serving
from tests.storage.chunks.chunk_files import damage_chunk, find_chunk, write_over
from tests.storage.chunks.conformance import chunk_id, put, read, some_bytes
from tests.storage.datanode.nodes import running_node
from tests.storage.datanode.test_heartbeat import Master

GOOD = [chunk_id(n) for n in range(20, 25)]
LENGTHS = (1, 5000, 3_000_000)
SETTLE_TIMEOUT_S = 60.0


def flip(root: Path, of: ChunkId) -> None:
    """One bit in the middle."""
    damage_chunk(root, of, find_chunk(root, of).length // 2)


def resize(root: Path, of: ChunkId, length: int) -> None:
    """Another length of what is stored: of its file, or by its slot."""
    found = find_chunk(root, of)
    if found.slot_at is None:
        os.truncate(found.path, length)
    else:
        with found.path.open("r+b") as file:
            file.seek(found.slot_at + 12)
            file.write((length - FOOTER_BYTES).to_bytes(4, "big", signed=True))


def truncate(root: Path, of: ChunkId) -> None:
    """The last byte is gone."""
    resize(root, of, find_chunk(root, of).length + FOOTER_BYTES - 1)


def append(root: Path, of: ChunkId) -> None:
    """One byte too many."""
    resize(root, of, find_chunk(root, of).length + FOOTER_BYTES + 1)


def empty(root: Path, of: ChunkId) -> None:
    """Nothing but the name is left, or nothing but zeros."""
    if find_chunk(root, of).slot_at is None:
        resize(root, of, 0)
    else:
        write_over(root, of, bytes(find_chunk(root, of).length))


def behead(root: Path, of: ChunkId) -> None:
    """The footer is gone: what is left are the sealed bytes; or the digest of the slot is."""
    found = find_chunk(root, of)
    if found.slot_at is None:
        resize(root, of, found.length)
    else:
        with found.path.open("r+b") as file:
            file.seek(found.slot_at + 16)
            file.write(bytes(8))


HARMS: list[Callable[[Path, ChunkId], None]] = [flip, truncate, append, empty, behead]


async def scrub(client: DatanodeClient) -> ScrubStatus:
    """A whole pass, as ordered."""
    ordered = await client.order_scrub(ScrubOrder(1 << 39, begin=True))
    assert ordered.is_running
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while (status := await client.scrub_status()).is_running:
            await asyncio.sleep(0.01)
    assert status.pass_started_ms == ordered.pass_started_ms
    return status


async def wait_until_kept(data: Path, status: ScrubStatus) -> None:
    """Until the end of a pass is on the disk, which it is a moment after it was told."""
    file = ScrubFile(DiskFiles(), data / SCRUB_FILE)
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while (kept := file.load()).is_running or kept.started_ms != status.pass_started_ms:
            await asyncio.sleep(0.01)


async def test_every_damage_is_found_and_nothing_else(tmp_path: Path) -> None:
    """Of small and large chunks. It is told until it is acknowledged, also by the process after this one."""
    harmed = {chunk_id(n): (LENGTHS[n % 3], harm) for n, harm in enumerate(HARMS * 3)}
    with running_node(tmp_path) as node:
        client = node.client()
        for of, (length, _) in harmed.items():
            await put(client, of, some_bytes(length))
        await client.put_many([(of, some_bytes(100)) for of in GOOD])
        for of, (_, harm) in harmed.items():
            harm(node.data, of)
        status = await scrub(client)
        assert (status.damaged, status.checked_chunks) == (len(harmed), len(harmed) + len(GOOD))
        listed = await client.list_damaged(None, 100)
        assert [chunk_id_from_bytes(damaged.chunk_id) for damaged in listed] == sorted(harmed)
        for of in harmed:
            with pytest.raises(ChunkNotFound):
                await read(client, of)
        assert [await read(client, of) for of in GOOD] == [some_bytes(100)] * len(GOOD)
        node.kill()
        await client.close()
    with running_node(tmp_path) as node:
        client = node.client()
        assert await client.list_damaged(None, 100) == listed
        assert await client.purge_quarantine(1 << 50) == 0
        assert await client.forget_damaged(sorted(harmed)[1:]) == [True] * (len(harmed) - 1)
        assert await client.list_damaged(None, 100) == listed[:1]
        assert await client.purge_quarantine(1 << 50) == len(harmed) - 1
        assert (await scrub(client)).damaged == 0
        await client.close()


async def test_verified_times_survive_a_restart(tmp_path: Path) -> None:
    """And a pass that was over is not begun again by it."""
    with running_node(tmp_path) as node:
        client = node.client()
        await client.put_many([(of, some_bytes(100)) for of in GOOD])
        await client.verify(GOOD[0])
        status = await scrub(client)
        before = await client.inventory(None, 10)
        assert all(entry.verified_ms >= status.pass_started_ms for entry in before)
        await wait_until_kept(node.data, status)
        node.kill()
        await client.close()
    with running_node(tmp_path) as node:
        client = node.client()
        assert await client.inventory(None, 10) == before
        assert [state and state.verified_ms for state in await client.inspect_many(GOOD)] == [
            entry.verified_ms for entry in before
        ]
        assert (await client.scrub_status()).pass_started_ms in (0, status.pass_started_ms)
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while (found := await client.scrub_status()).pass_started_ms == 0:
                await asyncio.sleep(0.01)
        assert (found.pass_started_ms, found.is_running) == (status.pass_started_ms, False)
        await client.close()


async def test_a_pass_begins_by_itself(tmp_path: Path) -> None:
    """Every interval; damage that was done after one is found by the next."""
    with running_node(tmp_path, scrub_interval_s=1, scrub_bytes_per_s=1 << 40) as node:
        client = node.client()
        await client.put_many([(of, some_bytes(100)) for of in GOOD])
        flip(node.data, GOOD[2])
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while not (listed := await client.list_damaged(None, 10)):
                await asyncio.sleep(0.05)
        assert [chunk_id_from_bytes(damaged.chunk_id) for damaged in listed] == [GOOD[2]]
        assert len(await client.inventory(None, 10)) == len(GOOD) - 1
        await client.close()


async def test_what_a_reader_finds_is_set_aside_soon(tmp_path: Path) -> None:
    """Long before a pass comes to it."""
    with running_node(tmp_path) as node:
        client = node.client()
        await client.put_many([(of, some_bytes(100)) for of in GOOD])
        truncate(node.data, GOOD[3])
        with pytest.raises(Corrupt):
            await read(client, GOOD[3])
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while not (listed := await client.list_damaged(None, 10)):
                await asyncio.sleep(0.01)
        assert [chunk_id_from_bytes(damaged.chunk_id) for damaged in listed] == [GOOD[3]]
        await client.close()


async def hear(master: Master, matches: Callable[[NodeReport], bool]) -> NodeReport:
    """The first report that matches."""
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while True:
            _, report = await master.hear()
            if matches(report):
                return report


async def test_the_report_and_the_masters_word(tmp_path: Path) -> None:
    """What is held is told with every heartbeat; while the master says draining, nothing new is taken."""
    master = Master()
    async with serving(master, f"unix:{tmp_path / 'master'}") as address:
        with running_node(tmp_path, masters=[str(address)]) as node:
            client = node.client()
            await client.put_many([(of, some_bytes(100)) for of in GOOD])
            report = await hear(master, lambda report: report.unverified_count == len(GOOD))  # the last to be counted
            assert (report.chunk_count, report.stored_bytes) == (len(GOOD), 100 * len(GOOD))
            assert (report.oldest_verified_ms, report.damaged_count) == (0, 0)
            assert abs(report.clock_ms - SystemClock().now_ms()) < 60_000
            flip(node.data, GOOD[0])
            status = await scrub(client)
            report = await hear(master, lambda report: report.damaged_count == 1 and report.unverified_count == 0)
            assert (report.chunk_count, report.stored_bytes) == (len(GOOD) - 1, 100 * (len(GOOD) - 1))
            assert report.oldest_verified_ms >= status.pass_started_ms
            await client.forget_damaged(GOOD)
            await hear(master, lambda report: report.damaged_count == 0)
            master.answer = wire.encode(wire.HeartbeatAnswer(7, 0.01, NodeState.DRAINING))
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while not isinstance((await client.put_many([(chunk_id(1), b"x")]))[0], NodeFull):
                    await client.delete_many([chunk_id(1)])
                    await master.hear()
            assert await read(client, GOOD[1]) == some_bytes(100)
            assert await client.delete_many(GOOD[1:2]) == [True]
            master.answer = wire.encode(wire.HeartbeatAnswer(8, 0.01, NodeState.UP))
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                while isinstance((await client.put_many([(chunk_id(1), b"x")]))[0], NodeFull):
                    await master.hear()
            await client.close()
