"""The owner as a process: drained by SIGTERM, killed under load, traced for its syncs, refused where it must be."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.errors import NoSuchKey, Unavailable
from storage.metadata.commands import OpenSession
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_metadata
from tests.storage.metadata.builders import PART_BYTES, Worker
from tests.storage.metadata.engines import check_database
from tests.storage.metadata.owner_process import OwnerProcess

SIGNAL_BYTE = re.compile(r", 1\) ")
"""the event loop wakes itself with one byte; no answer is that short"""


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[OwnerProcess]:
    """Running, and gone after the test."""
    process = OwnerProcess(tmp_path)
    await process.start()
    yield process
    if process.is_running:
        await process.kill()


async def test_sigterm_drains_and_exits_zero(owner: OwnerProcess) -> None:
    """The log is left short, the socket is gone, and another start finds everything."""
    metadata = await owner.connect()
    worker = await Worker.start(metadata)
    puts = [asyncio.create_task(worker.put(b"%d" % number)) for number in range(200)]
    await puts[0]
    status, _ = await owner.stop()
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert status == 0
    assert not owner.socket_path.exists()
    acknowledged = {b"%d" % n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)}
    page = await metadata.list_heads(worker.bucket.bucket_id)
    assert {entry.object_key for entry in page.entries} >= acknowledged
    await metadata.close()
    assert check_database(owner.directory) == []


async def test_a_second_owner_is_refused_with_one_line(owner: OwnerProcess) -> None:
    """And does not take the first one's socket."""
    metadata = await owner.connect()
    second = OwnerProcess(owner.directory)
    await second.start()
    status, logged = await second.wait()
    assert status == 1
    assert len(logged.splitlines()) == 1
    assert "another process owns the metadata" in logged
    await metadata.apply(OpenSession(b"12345678", "still here"))
    await metadata.close()


async def test_a_newer_database_is_refused_with_one_line(tmp_path: Path) -> None:
    """Exit status 1, no traceback."""
    process = OwnerProcess(tmp_path)
    await process.start()
    await (await process.connect()).close()
    await process.stop()
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    with connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema_version'")
    connection.close()
    await process.start()
    status, logged = await process.wait()
    assert status == 1
    assert len(logged.splitlines()) == 1
    assert "schema version 99" in logged


async def load(worker: Worker, name: int, acknowledged: dict[bytes, str], unknown: set[bytes]) -> None:
    """Puts and multipart uploads of keys of this task's own until the owner is gone."""
    for number in range(10_000):
        object_key = b"%d-%d" % (name, number)
        try:
            if number % 7 == 3:
                upload = await worker.create_upload(object_key)
                parts = [await worker.put_part(upload, part, PART_BYTES) for part in (1, 2)]
                await worker.complete(upload, parts, f"etag-{number}")
            else:
                await worker.put(object_key, f"etag-{number}")
        except Unavailable as lost:
            if lost.details.get("outcome") == "unknown":
                unknown.add(object_key)
            return
        acknowledged[object_key] = f"etag-{number}"


async def test_what_was_acknowledged_survives_kill_9(owner: OwnerProcess) -> None:
    """Three times in a row, under load; what was not answered is whole or absent; workers find the new owner."""
    metadata = await owner.connect()
    worker = await Worker.start(metadata)
    acknowledged: dict[bytes, str] = {}
    unknown: set[bytes] = set()
    for round_number in range(3):
        before = len(acknowledged)
        tasks = [
            asyncio.create_task(load(worker, 100 * round_number + task, acknowledged, unknown)) for task in range(16)
        ]
        while len(acknowledged) < before + 300:
            await asyncio.sleep(0)
        await owner.kill()
        await asyncio.gather(*tasks)
        await owner.start()
        await (await owner.connect()).close()  # a start may take longer than a call waits for one
        await worker.put(b"after", f"round-{round_number}")
        for object_key, etag in acknowledged.items():
            assert await worker.etag(object_key) == etag
    assert unknown
    for object_key in unknown:
        try:
            assert (await worker.etag(object_key)).startswith("etag-")
        except NoSuchKey:
            continue
    assert check_database(owner.directory) == []
    await metadata.close()


async def test_a_worker_waits_for_its_owner_to_start(tmp_path: Path) -> None:
    """The supervisor starts all at once."""
    process = OwnerProcess(tmp_path)
    connecting = asyncio.create_task(process.connect())
    await process.start()
    metadata = await connecting
    await metadata.apply(OpenSession(b"12345678", "x"))
    await metadata.close()
    await process.stop()


async def test_without_an_owner_opening_fails_past_its_deadline(tmp_path: Path) -> None:
    """Unavailable, with the path."""
    process = OwnerProcess(tmp_path)
    await process.start()
    await (await process.connect()).close()
    await process.stop()
    with pytest.raises(Unavailable, match="no metadata owner"):
        await open_metadata(process.directory, process.socket_path, deadline_s=0.05)


async def test_the_log_is_synced_before_every_answer(tmp_path: Path) -> None:
    """strace of a real owner: no answer leaves while a written log page is not synced, and each answer has a sync."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    calls = "trace=pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg"
    process = OwnerProcess(tmp_path, (strace, "-f", "-y", "-s", "0", "-e", calls, "-o", str(trace)))
    await process.start()
    metadata = await process.connect()
    worker = await Worker.start(metadata)
    count = 20
    for number in range(count):
        await worker.put(b"%d" % number)
    await metadata.close()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), 15)
    await process.wait()
    assert count_synced_answers(trace.read_text().splitlines()) >= count + 2


def count_synced_answers(lines: list[str]) -> int:
    """Follow the trace; AssertionError where an answer goes out before the log is synced."""
    log_is_dirty, syncs, answers, syncs_at_answer = False, 0, 0, 0
    syncing: set[str] = set()
    for line in lines:
        thread, call = line.split(maxsplit=1)
        if re.match(r"pwrite64\(\d+<[^>]*metadata\.db-wal>", call):
            log_is_dirty = True
        elif re.match(r"f(data)?sync\(\d+<[^>]*metadata\.db-wal>", call):
            syncing.add(thread)
        elif re.match(r"(write|writev|sendto|sendmsg)\(\d+<(socket|UNIX)", call) and not SIGNAL_BYTE.search(call):
            assert not log_is_dirty, line
            assert syncs > syncs_at_answer, line
            syncs_at_answer = syncs
            answers += 1
        if thread in syncing and "sync" in call and call.endswith("= 0"):
            syncing.discard(thread)
            log_is_dirty = False
            syncs += 1
    return answers
