"""A real owner process, killed with commands in flight again and again, and its records recovered elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from storage.base.errors import Refused, Unavailable
from storage.journal.config import OwnerConfig
from storage.journal.directory import DirectorySource
from storage.journal.recovery import recover_database
from storage.journal.status import read_status
from storage.journal.stock import Source, list_sources, take_stock
from storage.metadata.commands import RegisterNode
from storage.metadata.interface import Metadata
from storage.metadata.settings import MetadataSettings
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_metadata, open_owned_metadata
from storage.model import NodeState
from tests.storage.journal.world import CLUSTER_ID, WAIT_S, World, dump_rows, running_world
from tests.storage.metadata.builders import Worker

WRITERS = 6
KEYS = 40


class Ledger:
    """What each key may hold: ETags, and None for nothing. Each key has one writer."""

    def __init__(self) -> None:
        self.possible: dict[bytes, set[str | None]] = {}
        self.acknowledged = 0

    def begin(self, key: bytes, becomes: str | None) -> None:
        self.possible.setdefault(key, {None}).add(becomes)

    def end(self, key: bytes, becomes: str | None) -> None:
        self.possible[key] = {becomes}
        self.acknowledged += 1


class Process:
    """`python -m storage.metadata` with a journal."""

    def __init__(self, world: World, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self._config = directory / "config.json"
        directory.mkdir(exist_ok=True)
        settings = MetadataSettings(path=str(directory), socket=str(self.socket), journal="replicated")
        config = OwnerConfig(
            CLUSTER_ID,
            str(world.root / "keyring"),
            str(world.root / "master.key"),
            str(world.root / "internal.key"),
            settings,
        )
        self._config.write_bytes(msgspec.json.encode(config))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> Metadata:
        arguments = ("--data", str(self.directory), "--socket", str(self.socket), "--config", str(self._config))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "storage.metadata", *arguments, stderr=asyncio.subprocess.DEVNULL
        )
        return await open_metadata(self.directory, self.socket, WAIT_S)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Process]:
    process = Process(world, world.root / "metadata")
    try:
        yield process
    finally:
        await process.kill()


async def until(condition: object, what: str) -> None:
    """Poll a coroutine function until it holds."""
    try:
        async with asyncio.timeout(2 * WAIT_S):
            while not await condition():  # type: ignore[operator]
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen") from None


async def begin(world: World, metadata: Metadata, directory: Path) -> None:
    """Until writes are taken, and a recovery would reach everything."""

    async def registers() -> bool:
        try:
            for node in world.nodes:
                await metadata.apply(RegisterNode(node.report, NodeState.UP))
        except Unavailable:
            return False
        return True

    async def is_covered() -> bool:
        status = read_status(directory)
        return status is not None and status.is_covered and status.phase == "open"

    await until(registers, "registering")
    await until(is_covered, "a snapshot")


async def write(worker: Worker, number: int, ledger: Ledger, chance: random.Random) -> None:
    """One writer, until the owner is gone."""
    for turn in itertools.count():
        key = b"%d-%d" % (number, chance.randrange(KEYS // WRITERS))
        becomes = None if chance.random() < 0.3 else f"{number}-{turn}-{chance.random()}"
        ledger.begin(key, becomes)
        try:
            await (worker.delete(key) if becomes is None else worker.put(key, becomes))
        except (Unavailable, Refused):
            return
        ledger.end(key, becomes)


async def read_all(metadata: Metadata, bucket_id: int) -> dict[bytes, str]:
    return {entry.object_key: entry.etag for entry in (await metadata.list_heads(bucket_id)).entries}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 6))])
async def test_an_owner_that_is_killed_loses_nothing(tmp_path: Path, seed: int) -> None:
    """Three times, at a random moment: a recovery elsewhere has every acknowledged write and no other, but for what had
    an unknown outcome; it is what the owner's database is, or that and the one group that was under way."""
    chance, ledger = random.Random(seed), Ledger()
    async with running_world(tmp_path) as world, running(world) as process:
        metadata = await process.start()
        await begin(world, metadata, process.directory)
        bucket = (await Worker.start(metadata)).bucket
        for turn in range(3):
            workers = [await Worker.start(metadata, bucket) for _ in range(WRITERS)]
            before = ledger.acknowledged
            writing = [
                asyncio.create_task(write(worker, number, ledger, chance)) for number, worker in enumerate(workers)
            ]
            await asyncio.sleep(chance.uniform(0.1, 0.6))
            await process.kill()
            await asyncio.gather(*writing)
            await metadata.close()
            assert ledger.acknowledged > before, "nothing was under way"
            await check_recovery(world, process.directory, f"recovered-{turn}", bucket.bucket_id, ledger)
            metadata = await process.start()
            await begin(world, metadata, process.directory)
            found = await read_all(metadata, bucket.bucket_id)
            for key, possible in ledger.possible.items():
                assert found.get(key) in possible
                ledger.possible[key] = {found.get(key)}
        await metadata.close()


async def check_recovery(world: World, lost: Path, name: str, bucket_id: int, ledger: Ledger) -> None:
    directory = world.root / name
    directory.mkdir()
    sources: list[Source] = [DirectorySource(node.files) for node in world.nodes]
    stock = await take_stock((await list_sources(sources))[0], world.keys)
    recovered = await recover_database(stock, directory / DATABASE_NAME)
    assert (recovered.lost, recovered.problems) == ("", [])
    theirs, ours = dump_rows(lost), dump_rows(directory)
    [(_, last)] = [row for row in theirs["meta"] if row[0] == "journal_sequence"]
    assert recovered.sequence in (last, last + 1)
    if recovered.sequence == last:
        assert ours == theirs
    reading = await open_owned_metadata(directory)
    found = await read_all(reading, bucket_id)
    await reading.close()
    assert {key for key in found if key not in ledger.possible} == set()
    for key, possible in ledger.possible.items():
        assert found.get(key) in possible, key
