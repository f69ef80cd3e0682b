"""The journal between the writer and real datanode files: what it takes, where it goes, what an outage does."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from storage.base.errors import Unavailable
from storage.datanode.journal_wire import JournalListing
from storage.journal import keeper, segment
from storage.journal.directory import DirectorySource
from storage.journal.replay import read_history
from storage.journal.stock import Source, take_stock
from storage.journal.writer import Phase
from storage.metadata.commands import ExtendLeases, FenceSessions, OpenSession, RegisterNode
from storage.metadata.journal import decode_group
from storage.metadata.sqlite.position import list_pending, read_position
from storage.model import NodeState
from tests.storage.journal.world import LOST, REFUSED, STALLED, WAIT_S, DatanodeTwin, OwnerTwin, World, running_world
from tests.storage.metadata.builders import Worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(segment, "APPEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(segment, "CREATE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(keeper, "TICK_S", 0.02)
    monkeypatch.setattr(keeper, "STARTING_TICK_S", 0.02)
    monkeypatch.setattr(keeper, "MOVE_AFTER_S", 0.1)


async def open_world(world: World) -> OwnerTwin:
    """An owner whose journal is open."""
    owner = await world.start_owner()
    await owner.register(*world.nodes)
    await owner.wait_for(Phase.OPEN)
    return owner


async def read_journal(world: World, *nodes: DatanodeTwin) -> list[tuple[int, list[str]]]:
    """(sequence, names of the commands) of all that these datanodes together hold."""
    sources: list[Source] = [DirectorySource(node.files) for node in nodes or world.nodes]
    listings: dict[Source, JournalListing] = {source: await source.list() for source in sources}
    stock = await take_stock(listings, world.keys)
    assert stock.problems == []
    history = next(iter(stock.segments.values())).header.history
    first = min(it.header.first_sequence for it in stock.segments.values())
    found = []
    async for record in read_history(stock, history, first - 1):
        group = decode_group(record.payload)
        found.append((record.sequence, [type(command).__name__ for command, _ in group.entries]))
    return found


def ensemble(world: World, owner: OwnerTwin) -> list[DatanodeTwin]:
    assert owner.journal.segment is not None
    return [world.nodes[node.number - 1] for node in owner.journal.segment.nodes]


async def test_what_is_answered_is_on_every_datanode_of_the_ensemble(world: World) -> None:
    """The same bytes on both, and nothing on the others; leases are extended before anything else."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    for number in range(5):
        await worker.put(b"%d" % number)
    both = ensemble(world, owner)
    assert len(both) == 2
    for node in both:
        names = [name for _, commands in await read_journal(world, node) for name in commands]
        assert names == ["ExtendLeases", "OpenSession", "CreateBucket", *["CommitVersion"] * 5]
    others = [node for node in world.nodes if node not in both]
    assert not any(list(node.files.glob("segment-*")) for node in others)


async def test_before_an_ensemble_can_be_had_only_the_registry_is_written(world: World) -> None:
    """A journal that must be replicated is not silently local."""
    owner = await world.start_owner()
    await owner.wait_for(Phase.CLOSED)
    with pytest.raises(Unavailable, match="the journal of the metadata needs 2") as refused:
        await owner.metadata.apply(OpenSession(b"12345678", ""))
    assert refused.value.details == {}
    await owner.register(world.nodes[0])
    await asyncio.sleep(0.1)
    assert owner.journal.phase is Phase.CLOSED
    await owner.register(world.nodes[1])
    await owner.wait_for(Phase.OPEN)
    await owner.metadata.apply(OpenSession(b"12345678", ""))


async def test_datanodes_that_join_while_the_owner_starts_are_seen_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before it looks again at what is closed for good: they were started at the same time."""
    monkeypatch.setattr(keeper, "TICK_S", 3600)
    owner = await world.start_owner()
    await owner.wait_for(Phase.CLOSED)
    for node in world.nodes[:2]:
        await owner.register(node)
    await owner.wait_for(Phase.OPEN)


@pytest.mark.parametrize("fate", [LOST, STALLED, REFUSED])
async def test_a_datanode_that_fails_is_left_within_the_group(world: World, fate: str) -> None:
    """The clients only wait; everything acknowledged is on two datanodes, once."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"before")
    failing = ensemble(world, owner)[1]
    failing.fate = lambda method, path: fate if method == "PUT" else ""
    await asyncio.gather(*(worker.put(b"%d" % number) for number in range(10)))
    both = ensemble(world, owner)
    assert failing not in both
    assert len(both) == 2
    page = await owner.metadata.list_heads(worker.bucket.bucket_id)
    assert len(page.entries) == 11
    found = await read_journal(world)
    sequences = [sequence for sequence, _ in found]
    assert sequences == list(range(sequences[0], sequences[0] + len(found)))
    assert sum(names.count("CommitVersion") for _, names in found) == 11
    good = [node for node in world.nodes if node is not failing]
    assert await read_journal(world, *good) == found


async def test_without_enough_datanodes_writes_are_refused_and_reads_go_on(world: World) -> None:
    """A write that was under way has an unknown outcome, later ones none; the registry goes on, and so do the writes
    when the datanodes are back, with nobody fenced."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"before")
    await world.nodes[1].stop()
    await world.nodes[2].stop()
    with pytest.raises(Unavailable) as unknown:
        await worker.put(b"under way")
    assert unknown.value.details == {"outcome": "unknown"}
    await owner.wait_for(Phase.CLOSED)
    with pytest.raises(Unavailable) as refused:
        await worker.put(b"later")
    assert refused.value.details == {}
    assert await worker.etag(b"before") == "e"
    await owner.set_state(world.nodes[2], NodeState.DEAD)
    assert (await owner.metadata.cluster_map()).nodes[2].state is NodeState.DEAD
    await world.nodes[1].start()
    await owner.wait_for(Phase.OPEN)
    assert await owner.metadata.apply(FenceSessions(60_000)) == []
    await worker.put(b"after")
    keys = {entry.object_key for entry in (await owner.metadata.list_heads(worker.bucket.bucket_id)).entries}
    assert keys == {b"before", b"after"}
    names = [name for _, commands in await read_journal(world) for name in commands]
    assert names[-4:] == ["SetNodeState", "ExtendLeases", "FenceSessions", "CommitVersion"] or "SetNodeState" in names
    assert names.count("CommitVersion") == 2, "the write under way is void"


async def test_the_journal_moves_away_from_a_node_that_is_drained(world: World) -> None:
    """And not while there is no other."""
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    leaving = ensemble(world, owner)[0]
    await owner.set_state(leaving, NodeState.DRAINING)
    async with asyncio.timeout(WAIT_S):
        for number in itertools.count():
            await worker.put(b"%d" % number)
            if leaving not in ensemble(world, owner):
                break
            await asyncio.sleep(0.01)
    present = owner.journal.incarnation
    other = ensemble(world, owner)[0]
    await owner.set_state(other, NodeState.DRAINING)
    await asyncio.sleep(0.3)
    await worker.put(b"still")
    assert other in ensemble(world, owner)
    assert owner.journal.incarnation == present


async def test_a_segment_that_is_full_is_followed_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same datanodes."""
    monkeypatch.setattr(segment, "SEGMENT_BYTES_MAX", 20_000)
    owner = await open_world(world)
    worker = await Worker.start(owner.metadata)
    for number in range(12):
        await worker.put(b"%d" % number, size=5_000)
    found = await read_journal(world)
    assert sum(names.count("CommitVersion") for _, names in found) == 12
    for node in ensemble(world, owner):
        sizes = [len(path.read_bytes().rstrip(b"\0")) for path in node.files.glob("segment-*")]
        assert len(sizes) >= 3
        assert max(sizes) < 30_000


async def test_auto_is_local_on_one_disk_and_replicates_on_two(tmp_path: Path) -> None:
    """At run time, as datanodes come and go; what was written locally is in the first snapshot."""
    async with running_world(tmp_path, ("a", "a", "b")) as world:
        owner = await world.start_owner(journal="auto")
        assert owner.journal.phase is Phase.LOCAL
        assert owner.journal.reason == "no datanode is up"
        worker = await Worker.start(owner.metadata)
        await owner.register(*world.nodes[:2])
        await owner.wait_until(lambda: "share one disk" in owner.journal.reason, "seeing one disk")
        await worker.put(b"local")
        await owner.register(world.nodes[2])
        await owner.wait_for(Phase.OPEN)
        await worker.put(b"replicated")
        disks = {node.report.failure_domain for node in ensemble(world, owner)}
        assert len(disks) == 2
        await owner.set_state(world.nodes[2], NodeState.DEAD)
        await owner.wait_for(Phase.LOCAL)
        await worker.put(b"local again")
        position = read_position(owner.owner.writing.execute)
        assert position.history
        assert len(list_pending(owner.owner.writing.execute)) >= 1
        await owner.set_state(world.nodes[2], NodeState.UP)
        await owner.wait_for(Phase.OPEN)
        names = [name for _, commands in await read_journal(world) for name in commands]
        assert names.count("CommitVersion") == 2, "what was local meanwhile is in the journal now"
        assert list_pending(owner.owner.writing.execute) == []


async def test_set_to_be_local_it_is_local(world: World) -> None:
    """Whatever datanodes there are."""
    owner = await world.start_owner(journal="local")
    await owner.register(*world.nodes)
    worker = await Worker.start(owner.metadata)
    await worker.put(b"k")
    await asyncio.sleep(0.1)
    assert owner.journal.phase is Phase.LOCAL
    assert not any(list(node.files.glob("segment-*")) for node in world.nodes)


async def test_a_new_owner_shuts_out_the_old_one(world: World) -> None:
    """The old one ends with its first write after that; what it could not replicate it does not answer for."""
    first = await open_world(world)
    worker = await Worker.start(first.metadata)
    await worker.put(b"first")
    (world.root / "other").mkdir()
    for path in first.directory.glob("metadata.db*"):
        (world.root / "other" / path.name).write_bytes(path.read_bytes())
    second = await world.start_owner("other")
    await second.wait_for(Phase.OPEN)
    with pytest.raises(Unavailable) as shut_out:
        await worker.put(b"too late")
    assert shut_out.value.details == {"outcome": "unknown"}
    assert first.journal.phase is Phase.OVER
    assert "took over" in await asyncio.wait_for(first.owner.committer.failed, 60)
    with pytest.raises(Unavailable):
        await first.metadata.apply(RegisterNode(world.nodes[0].report, NodeState.UP))
    heir = Worker(second.metadata, worker.session_id, worker.bucket)
    heir._counter = worker._counter
    await heir.put(b"second")
    assert await heir.etag(b"first") == "e"


async def test_leases_are_extended_before_anything_can_fence(world: World) -> None:
    """Whenever writes begin again."""
    owner = await open_world(world)
    await owner.metadata.apply(OpenSession(b"12345678", ""))
    found = await read_journal(world)
    assert found[0][1][0] == ExtendLeases.__name__
