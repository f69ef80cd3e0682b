"""A database that is lost, made again out of the datanodes' files: row by row what its owner had acknowledged."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress

import msgspec
import pytest

from storage.base.errors import Corrupt, Unavailable
from storage.datanode.journal_wire import JournalListing, segment_name
from storage.journal import custodian, keeper, segment
from storage.journal.directory import DirectorySource
from storage.journal.recovery import CannotRecover, Recovered, recover_database
from storage.journal.snapshots import SnapshotTaker
from storage.journal.status import read_status
from storage.journal.stock import Source, Stock, list_sources, take_stock
from storage.journal.writer import Phase
from storage.metadata.commands import DeleteTarget, DeleteVersions, PutRootUser
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.position import read_position
from storage.model import AccessKey, NodeState, User
from tests.linear.racer import race_in_this_process
from tests.storage.journal.world import REFUSED, DatanodeTwin, OwnerTwin, World, dump_rows
from tests.storage.metadata.builders import Worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(segment, "APPEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(segment, "CREATE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(keeper, "TICK_S", 0.02)
    monkeypatch.setattr(keeper, "STARTING_TICK_S", 0.02)
    monkeypatch.setattr(custodian, "TICK_S", 0.02)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test whose segment must stay where it is, however busy the disk."""
    monkeypatch.setattr(segment, "APPEND_TIMEOUT_S", 30.0)
    monkeypatch.setattr(segment, "CREATE_TIMEOUT_S", 30.0)


async def open_world(world: World) -> OwnerTwin:
    """An owner whose journal is open, with its first snapshot."""
    owner = await world.start_owner()
    await owner.register(*world.nodes)
    await owner.wait_for(Phase.OPEN)
    await wait_for_snapshot(owner)
    return owner


async def wait_for_snapshot(owner: OwnerTwin) -> None:
    def is_covered() -> bool:
        status = read_status(owner.directory)
        return status is not None and status.is_covered

    await owner.wait_until(is_covered, "a snapshot")


async def load(owner: OwnerTwin, seed: int = 1) -> Worker:
    """A bit of everything."""
    await race_in_this_process(owner.metadata, "bucket", f"recovery-{seed}", 6, 15)
    found = await owner.metadata.find_bucket("bucket")
    assert found is not None
    worker = await Worker.start(owner.metadata, found)
    upload = await worker.create_upload(b"aborted")
    await worker.put_part(upload, 1)
    await worker.abort(upload)
    left_open = await worker.create_upload(b"left open")
    await worker.put_part(left_open, 1)
    await worker.put(b"large", blob=worker.chunked(30 << 20))
    await worker.apply(DeleteVersions(found.bucket_id, tuple(DeleteTarget(b"%d" % n) for n in range(100))))
    return worker


async def stock_of(world: World, *nodes: DatanodeTwin) -> Stock:
    sources: list[Source] = [DirectorySource(node.files) for node in nodes or world.nodes]
    listings, failures = await list_sources(sources)
    assert not failures
    return await take_stock(listings, world.keys)


async def recover(world: World, *nodes: DatanodeTwin, name: str = "recovered", accept_loss: bool = False) -> Recovered:
    """Into a directory of this name."""
    directory = world.root / name
    directory.mkdir(exist_ok=True)
    stock = await stock_of(world, *nodes)
    recovered = await recover_database(stock, directory / DATABASE_NAME, accept_loss=accept_loss)
    assert recovered.problems == []
    return recovered


@pytest.mark.usefixtures("patient")
async def test_everything_acknowledged_is_there_again(world: World) -> None:
    """Row by row, from every single datanode of the ensemble alone as well."""
    owner = await open_world(world)
    await load(owner)
    assert owner.journal.segment is not None
    both = [world.nodes[node.number - 1] for node in owner.journal.segment.nodes]
    await world.stop_owner(owner)
    expected = dump_rows(owner.directory)
    for nodes in ([], *[[node] for node in both]):
        recovered = await recover(world, *nodes)
        assert recovered.lost == ""
        assert recovered.replayed > 20
        assert dump_rows(world.root / "recovered") == expected


async def test_a_recovered_database_goes_on_in_its_journal(world: World) -> None:
    """Again and again, each time on what is left, and whatever was written in between is there."""
    owner = await open_world(world)
    await load(owner)
    for turn in range(2):
        await world.stop_owner(owner)
        recovered = await recover(world, name=f"turn-{turn}")
        assert dump_rows(world.root / f"turn-{turn}") == dump_rows(owner.directory)
        history = recovered.history
        owner = await world.start_owner(f"turn-{turn}")
        await owner.wait_for(Phase.OPEN)
        assert owner.journal.history == history
        await wait_for_snapshot(owner)
        await load(owner, turn + 2)
    await world.stop_owner(owner)
    await recover(world, name="last")
    assert dump_rows(world.root / "last") == dump_rows(owner.directory)


@pytest.mark.parametrize("seed", range(4))
async def test_datanodes_that_fail_at_random_lose_nothing(world: World, seed: int) -> None:
    """Answers are lost, requests refused and datanodes restarted while a load runs; what was acknowledged is there, and
    what was not is there or not: the database of the owner and a recovery from any two datanodes agree."""
    chance = random.Random(seed)
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)

    def fate(method: str, path: str) -> str:
        return chance.choice(["", "", "", "", "", "", "lost", REFUSED]) if method == "PUT" else ""

    for node in world.nodes:
        node.fate = fate
    acknowledged: set[bytes] = set()

    async def write(number: int) -> None:
        try:
            await worker.put(b"%d" % number)
            acknowledged.add(b"%d" % number)
        except Unavailable:
            await asyncio.sleep(0.02)

    for start in range(0, 60, 6):
        await asyncio.gather(*(write(number) for number in range(start, start + 6)))
        if chance.random() < 0.3:
            node = chance.choice(world.nodes)
            await node.stop()
            await node.start()
    for node in world.nodes:
        node.fate = lambda method, path: ""
    while b"last" not in acknowledged:  # what was given up before is void from here on, and not only possible
        await owner.wait_for(Phase.OPEN)
        with suppress(Unavailable):
            await worker.put(b"last")
            acknowledged.add(b"last")
    await wait_for_snapshot(owner)
    page = await owner.metadata.list_heads(worker.bucket.bucket_id)
    assert acknowledged <= {entry.object_key for entry in page.entries}
    await world.stop_owner(owner)
    expected = dump_rows(owner.directory)
    for missing in world.nodes:
        await recover(world, *[node for node in world.nodes if node is not missing])
        assert dump_rows(world.root / "recovered") == expected


async def test_a_group_that_was_not_committed_is_applied_by_the_next_owner(world: World) -> None:
    """It was in the journal when its owner died: the next one, and a recovery, have it."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"committed")
    before = [(path.name, path.read_bytes()) for path in owner.directory.glob("metadata.db*")]
    await worker.put(b"in the journal")
    await world.stop_owner(owner)
    expected = dump_rows(owner.directory)
    older = world.root / "older"
    older.mkdir()
    for name, content in before:
        (older / name).write_bytes(content)
    await recover(world)
    assert dump_rows(world.root / "recovered") == expected
    again = await world.start_owner("older")
    await again.wait_for(Phase.OPEN)
    heads = await again.metadata.list_heads(worker.bucket.bucket_id)
    assert {entry.object_key for entry in heads.entries} == {b"committed", b"in the journal"}


async def test_damage_in_one_replica_is_made_good_by_the_other(world: World) -> None:
    """Each replica of each file is damaged somewhere, never both at the same place."""
    owner = await open_world(world)
    await load(owner)
    await world.stop_owner(owner)
    expected = dump_rows(owner.directory)
    chance = random.Random(5)
    for path in sorted({path.name for node in world.nodes for path in node.files.glob("s*-*")}):
        holders = [node for node in world.nodes if (node.files / path).exists()]
        size = (holders[0].files / path).stat().st_size
        half = size // 2
        for at, node in enumerate(holders):
            content = bytearray((node.files / path).read_bytes())
            if path.startswith("segment"):
                content[at * half + chance.randrange(half)] ^= 1
            elif at == 0:
                content[chance.randrange(size)] ^= 1
            (node.files / path).write_bytes(content)
    await recover(world)
    assert dump_rows(world.root / "recovered") == expected


async def test_a_gap_is_refused_unless_the_loss_is_accepted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole segment is gone from every datanode, and later ones are there."""
    monkeypatch.setattr(segment, "SEGMENT_BYTES_MAX", 20_000)
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    for number in range(20):
        await worker.put(b"%02d" % number, size=5_000)
    await world.stop_owner(owner)
    stock = await stock_of(world)
    names = sorted(segment_name(segment_id) for segment_id in stock.segments)
    assert len(names) >= 4
    for node in world.nodes:
        (node.files / names[2]).unlink(missing_ok=True)
    with pytest.raises(CannotRecover, match=r"lacks records .* with --accept-loss"):
        await recover(world)
    recovered = await recover(world, accept_loss=True)
    assert "lacks records" in recovered.lost
    partial = await open_owned_metadata(world.root / "recovered")
    keys = [entry.object_key for entry in (await partial.list_heads(worker.bucket.bucket_id)).entries]
    assert keys == [b"%02d" % number for number in range(len(keys))]
    assert 0 < len(keys) < 20
    await partial.close()


async def test_what_was_written_to_a_stopped_server_is_recovered(world: World) -> None:
    """It waits in the database for the next start."""
    owner = await open_world(world)
    await load(owner)
    await world.stop_owner(owner)
    offline = await open_owned_metadata(owner.directory)
    await offline.apply(PutRootUser(User("ab" * 32, "root", "root", is_root=True), AccessKey("AK", "ab" * 32, b"s")))
    await offline.close()
    owner = await world.start_owner()
    await owner.wait_for(Phase.OPEN)
    await world.stop_owner(owner)
    await recover(world)
    assert dump_rows(world.root / "recovered") == dump_rows(owner.directory)


async def test_an_older_snapshot_serves_when_the_newest_is_damaged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more to replay."""
    monkeypatch.setattr(custodian, "SNAPSHOT_AFTER_BYTES", 30_000)
    owner = await open_world(world)
    worker = await load(owner)
    for number in range(40):
        await worker.put(b"more %d" % number, size=5_000)
        if number % 10 == 9:
            await asyncio.sleep(0.2)
    await owner.wait_until(lambda: len(_manifests(world)) >= 3, "three snapshots")
    await world.stop_owner(owner)
    newest = _manifests(world)[-1]
    for node in world.nodes:
        for path in node.files.glob(f"{newest}-*"):
            path.write_bytes(path.read_bytes()[:-1])
    recovered = await recover(world)
    assert dump_rows(world.root / "recovered") == dump_rows(owner.directory)
    assert recovered.replayed > 0


def _manifests(world: World) -> list[str]:
    names = {path.name for node in world.nodes for path in node.files.glob("snapshot-*")}
    return sorted(name for name in names if name.count("-") == 1)


async def test_an_attempt_that_failed_leaves_no_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datanode takes no pieces; others do, and what was left is removed."""
    owner = await world.start_owner()
    refusing = world.nodes[0]
    refusing.fate = lambda method, path: REFUSED if method == "PUT" and path.endswith("-000000") else ""
    monkeypatch.setattr(custodian, "RETRY_FIRST_S", 0.05)
    await owner.register(*world.nodes)
    await owner.wait_for(Phase.OPEN)
    await wait_for_snapshot(owner)
    refusing.fate = lambda method, path: ""

    def leftovers() -> list[str]:
        return [
            path.name
            for node in world.nodes
            for path in node.files.glob("snapshot-*-*")
            if not (node.files / path.name.rsplit("-", 1)[0]).exists()
        ]

    await owner.wait_until(lambda: not leftovers(), "removing what was left")
    assert not (owner.directory / "snapshot.tmp").exists()


async def test_old_segments_and_snapshots_go_after_the_retention(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is enough for a recovery."""
    monkeypatch.setattr(custodian, "SNAPSHOT_AFTER_BYTES", 30_000)
    monkeypatch.setattr(segment, "SEGMENT_BYTES_MAX", 20_000)
    owner = await world.start_owner(journal_retention_s=0.0)
    await owner.register(*world.nodes)
    await owner.wait_for(Phase.OPEN)
    await wait_for_snapshot(owner)
    worker = await load(owner)
    for number in range(60):
        await worker.put(b"more %d" % number, size=5_000)
        if number % 10 == 9:
            await asyncio.sleep(0.2)
    await owner.wait_until(lambda: len(_manifests(world)) == 1, "one snapshot being left")
    stock = await stock_of(world)
    assert len(stock.segments) <= 6
    await world.stop_owner(owner)
    await recover(world)
    assert dump_rows(world.root / "recovered") == dump_rows(owner.directory)


async def test_what_a_dead_node_held_is_put_on_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the next one may be lost as well."""
    monkeypatch.setattr(custodian, "UNDER_COPIED_AFTER_S", 0.1)
    monkeypatch.setattr(custodian, "LOOK_S", 0.2)
    owner = await open_world(world)
    await load(owner)
    assert owner.journal.segment is not None
    dead = world.nodes[owner.journal.segment.nodes[0].number - 1]
    await dead.stop()
    await owner.set_state(dead, NodeState.DEAD)
    others = [node for node in world.nodes if node is not dead]

    def is_on_others() -> bool:
        status = read_status(owner.directory)
        return status is not None and set(status.holders) == {node.report.node_id for node in others}

    await owner.wait_until(is_on_others, "a snapshot on the others")
    await load(owner, 2)
    await world.stop_owner(owner)
    expected = dump_rows(owner.directory)
    for node in others:
        await recover(world, node)
        assert dump_rows(world.root / "recovered") == expected


async def test_nothing_comes_of_nothing(world: World) -> None:
    """Clear lines for datanodes without a journal, and for another cluster's keys."""
    with pytest.raises(CannotRecover, match="no snapshot"):
        await recover(world)
    owner = await open_world(world)
    await world.stop_owner(owner)
    (world.root / "other").mkdir()
    stranger = World(world.root / "other")
    sources: list[Source] = [DirectorySource(node.files) for node in world.nodes]
    listings: dict[Source, JournalListing] = {source: await source.list() for source in sources}
    stock = await take_stock(listings, stranger.keys)
    assert stock.problems
    with pytest.raises(CannotRecover, match="no snapshot"):
        await recover_database(stock, world.root / "x.db")


async def test_a_copy_is_not_taken_without_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the metadata keeps its reserve."""
    owner = await open_world(world)
    taker = SnapshotTaker(owner.directory / DATABASE_NAME, world.keys, world.clock)
    real = os.statvfs

    class Full:
        f_bavail, f_frsize = 1, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Full() if str(path) == str(owner.directory) else real(path))
    with pytest.raises(Unavailable, match="no room"):
        await taker.take(owner.journal.history, [], b"")
    assert not (owner.directory / "snapshot.tmp").exists()
    position = read_position(owner.owner.writing.execute)
    assert position.history == owner.journal.history


async def test_the_pieces_must_be_the_file(world: World) -> None:
    """A manifest that says otherwise is not believed."""
    owner = await open_world(world)
    await world.stop_owner(owner)
    stock = await stock_of(world)
    [(snapshot_id, snapshot)] = stock.snapshots.items()
    other = msgspec.structs.replace(snapshot.manifest, sha256=bytes(32))
    stock.snapshots[snapshot_id] = snapshot._replace(manifest=other)
    with pytest.raises((CannotRecover, Corrupt)):
        await recover_database(stock, world.root / "x.db")
