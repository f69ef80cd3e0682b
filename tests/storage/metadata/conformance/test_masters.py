"""The lease of the active master: one holder, terms that only rise, and the registry's writes fenced by them."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import NotActiveMaster
from storage.metadata.commands import (
    AcquireMasterLease,
    ChunkLayout,
    Command,
    FenceSessions,
    ForgetBlobs,
    ForgetSessions,
    MasterLease,
    RegisterNode,
    Relayout,
    ReleaseMasterLease,
    SetNodeState,
    SetReplicas,
)
from storage.metadata.interface import Metadata
from storage.model import NodeReport, NodeState
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine

TTL_MS = 3_000


def report(node_id: str) -> NodeReport:
    """What a small datanode says."""
    return NodeReport(node_id, "c" * 32, "unix:/x", "z/h/1", 10, 5, 1, 1)


async def acquire(metadata: Metadata, name: str, *, address: str = "", is_successor: bool = False) -> MasterLease:
    """As a master of this name, at an address of its own."""
    lease = await metadata.apply(AcquireMasterLease(name, address or f"unix:/{name}", TTL_MS, is_successor))
    assert isinstance(lease, MasterLease)
    return lease


async def test_one_holds_the_lease_until_it_runs_out(engine: Engine, metadata: Metadata) -> None:
    """Renewing keeps the term; others are told whose it is; the next holder's term is the epoch that it raised."""
    first = await acquire(metadata, "one")
    assert first == MasterLease("one", "unix:/one", first.term, engine.clock.now_ms() + TTL_MS)
    engine.clock.advance(2)
    assert await acquire(metadata, "two") == first
    renewed = await acquire(metadata, "one")
    assert (renewed.term, renewed.expires_ms) == (first.term, engine.clock.now_ms() + TTL_MS)
    engine.clock.advance(2.9)
    assert await acquire(metadata, "two") == renewed
    engine.clock.advance(0.1)
    second = await acquire(metadata, "two")
    assert (second.master_id, second.term > first.term) == ("two", True)
    assert second.term == (await metadata.cluster_map()).epoch
    assert await acquire(metadata, "one") == second


async def test_a_lease_that_nobody_took_over_goes_on(engine: Engine, metadata: Metadata) -> None:
    """Under its term, however late."""
    first = await acquire(metadata, "one")
    engine.clock.advance(3_600)
    assert (await acquire(metadata, "one")).term == first.term


async def test_a_released_lease_is_anybodys(metadata: Metadata) -> None:
    """At once; releasing what another one holds changes nothing."""
    first = await acquire(metadata, "one")
    await metadata.apply(ReleaseMasterLease("two"))
    assert (await acquire(metadata, "two")).master_id == "one"
    await metadata.apply(ReleaseMasterLease("one"))
    assert (await acquire(metadata, "two")).term > first.term


async def test_a_successor_at_the_same_address_does_not_wait(metadata: Metadata) -> None:
    """Whoever serves an address proves that nobody else does; at another address that proves nothing."""
    first = await acquire(metadata, "one")
    assert await acquire(metadata, "two", is_successor=True) == first
    assert await acquire(metadata, "two", address="unix:/one") == first
    again = await acquire(metadata, "again", address="unix:/one", is_successor=True)
    assert (again.master_id, again.term > first.term) == ("again", True)


async def test_a_clock_that_was_set_back_holds_no_lease_for_ever(engine: Engine, metadata: Metadata) -> None:
    """By less than a lease it is held a little longer; by more it is over, or goes on by a clock that never goes
    back."""
    first = await acquire(metadata, "one")
    engine.clock.set_wall(-2)
    assert (await acquire(metadata, "two")).term == first.term
    engine.clock.set_wall(-3_600)
    engine.clock.set_wall(3_602)
    engine.clock.advance(4)
    assert (await acquire(metadata, "two")).term > first.term


async def test_a_stale_term_changes_no_node(engine: Engine, metadata: Metadata) -> None:
    """Neither a new node nor a state, nor the epoch; the newest term does. Before any lease the term is 0."""
    await metadata.apply(RegisterNode(report("n1"), NodeState.UP))
    first = await acquire(metadata, "one")
    engine.clock.advance(4)
    second = await acquire(metadata, "two")
    before = await metadata.cluster_map()
    for term in (0, first.term, second.term + 1):
        with pytest.raises(NotActiveMaster):
            await metadata.apply(RegisterNode(report("n2"), NodeState.UP, term))
        with pytest.raises(NotActiveMaster):
            await metadata.apply(SetNodeState("n1", NodeState.DEAD, term))
    assert await metadata.cluster_map() == before
    await metadata.apply(SetNodeState("n1", NodeState.DRAINING, second.term))
    await metadata.apply(RegisterNode(report("n2"), NodeState.UP, second.term))
    states = [node.state for node in (await metadata.cluster_map()).nodes]
    assert states == [NodeState.DRAINING, NodeState.UP]


async def test_a_stale_term_does_no_upkeep(engine: Engine, worker: Worker) -> None:
    """Nor does one that never was; the newest does, and so does who has none."""
    first = await acquire(worker.metadata, "one")
    engine.clock.advance(4)
    second = await acquire(worker.metadata, "two")
    blobs = [worker.chunked(5) for _ in range(3)]
    for number, blob in enumerate(blobs):
        await worker.put(b"%d" % number, blob=blob)
    await worker.delete(b"0")
    other = await Worker.start(worker.metadata, worker.bucket)
    engine.clock.advance(60)

    def upkeep(term: int) -> list[Command]:
        return [
            FenceSessions(10_000, term),
            ForgetSessions((other.session_id,), term),
            SetReplicas(blobs[1].blob_id, 0, (1, 2), (1, 3), term=term),
            Relayout(blobs[2].blob_id, 0, "replica:1", (ChunkLayout(0, b"d", (3,)),), term),
            ForgetBlobs((blobs[0].blob_id,), (0,), term),
        ]

    for term in (first.term, second.term + 1):
        for command in upkeep(term):
            with pytest.raises(NotActiveMaster):
                await worker.apply(command)
    assert len(await worker.metadata.list_sessions()) == 2
    assert await worker.released() == {blobs[0].blob_id}
    for blob in blobs[1:]:
        assert await worker.metadata.read_chunks(blob.blob_id, 0) == list(blob.chunks)
    fenced, _, is_set, is_laid_out, _ = [await worker.apply(command) for command in upkeep(second.term)]
    assert (sorted(fenced), is_set, is_laid_out) == (sorted([worker.session_id, other.session_id]), True, True)
    assert [session.session_id for session in await worker.metadata.list_sessions()] == [worker.session_id]
    assert await worker.released() == {blobs[2].blob_id}
    await worker.apply(ForgetBlobs((blobs[2].blob_id,)))
    await worker.apply(ForgetSessions((worker.session_id,)))
    assert await worker.metadata.list_sessions() == []


async def test_a_race_for_the_lease_has_one_winner(engine: Engine) -> None:
    """Of eight masters with connections of their own all learn the same, round after round, and terms only rise."""
    masters = [await engine.connect() for _ in range(4)]
    last = 0
    for turn in range(5):
        leases = await asyncio.gather(
            *[acquire(masters[number % len(masters)], f"m{turn}-{number}") for number in range(8)]
        )
        (winner,) = set(leases)
        assert winner.term > last
        last = winner.term
        await masters[0].apply(ReleaseMasterLease(winner.master_id))


async def test_a_takeover_comes_before_a_write_or_after(engine: Engine) -> None:
    """Writes of the old term race the takeover: those that were let in are in the map that the new master reads."""
    old, new = await engine.connect(), await engine.connect()
    for turn in range(5):
        first = await acquire(old, f"old-{turn}")
        await old.apply(ReleaseMasterLease(f"old-{turn}"))
        writes = [old.apply(RegisterNode(report(f"n{turn}-{number}"), NodeState.UP, first.term)) for number in range(6)]

        async def take_over(name: str = f"new-{turn}") -> int:
            await acquire(new, name)
            return len((await new.cluster_map()).nodes)

        outcomes = await asyncio.gather(*writes, take_over(), return_exceptions=True)
        seen = outcomes.pop()
        assert all(not isinstance(it, Exception) or isinstance(it, NotActiveMaster) for it in outcomes), outcomes
        assert len((await new.cluster_map()).nodes) == seen
        await new.apply(ReleaseMasterLease(f"new-{turn}"))
