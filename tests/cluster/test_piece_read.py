"""Reads side by side: which end, which are given up, and what was received of those that were not needed any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.deadlines import Deadlines
from cluster.fetching import Attempt, ReadServices
from cluster.hedging import SAMPLES_MIN, STALLED_AFTER, Hedging
from cluster.near_pieces import NearPieces
from cluster.nodes import NodePool
from cluster.piece_read import PieceRead, Race
from cluster.read_counts import ReadCounts
from cluster.repair_hints import RepairHints
from storage.base.clock import ManualClock
from storage.base.errors import ChunkNotFound, Corrupt, NodeUnreachable
from storage.base.ids import ChunkId
from storage.crypto.envelope import Buffer
from storage.model import ClusterMap
from tests.cluster.faulty import FaultyDatanode

CHUNK = ChunkId(b"b" * 16, 3)
DATA = bytes(range(200))


class Trickling(FaultyDatanode):
    """Sends a byte whenever it is let."""

    def __init__(self, number: int) -> None:
        super().__init__(number, {})
        self.let = asyncio.Semaphore(0)

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        for at in range(offset, offset + (length or 0)):
            await self.let.acquire()
            yield DATA[at : at + 1]


async def attempt_over(*nodes: FaultyDatanode, deadlines: Deadlines = Deadlines()) -> Attempt:  # noqa: B008
    """Over these nodes, each of which has the chunk."""
    by_number = {node.number: node for node in nodes}
    pool = NodePool(b"k" * 32, ManualClock(), lambda node: by_number[node.number])
    await pool.adopt(ClusterMap(1, tuple(node.node() for node in nodes)))
    for node in nodes:
        await node.inner.put_many([(CHUNK, DATA)])
    counts = ReadCounts()
    return Attempt(ReadServices(pool, RepairHints(), Hedging(), counts, deadlines, NearPieces(b"c" * 16, counts)))


async def all_done(race: Race) -> dict[int, Any]:
    """Node → its error, or None."""
    found: dict[int, Any] = {}
    while race.running:
        found.update((read.node, error) for read, error in await race.next_done())
        for read in race.overdue:
            read.wait_longer()
    return found


async def test_each_ends_for_itself() -> None:
    """With what the node or the taker says of it, or well."""
    nodes = [FaultyDatanode(number, {}) for number in range(1, 6)]
    attempt = await attempt_over(*nodes)
    nodes[1].down = True
    nodes[2].get_ends_early = True
    await nodes[3].inner.delete_many([CHUNK])

    def refuse(block: Buffer) -> None:
        raise Corrupt("no")

    got = bytearray()
    with Race(attempt) as race:
        for node in nodes[:4]:
            race.ask(node.number, CHUNK, 10, 20, got.extend)
        race.ask(5, CHUNK, 0, 5, refuse)
        ended = await all_done(race)
    assert {number: type(error) for number, error in ended.items()} == {
        1: type(None),
        2: NodeUnreachable,
        3: Corrupt,
        4: ChunkNotFound,
        5: Corrupt,
    }
    assert DATA[10:30] in got
    assert attempt.stored_bytes == 20 + 10 + 5


async def test_a_defect_is_not_taken_for_a_bad_piece() -> None:
    """It is raised."""
    attempt = await attempt_over(FaultyDatanode(1, {}))

    def trip(block: Buffer) -> None:
        raise ZeroDivisionError

    with Race(attempt) as race:
        race.ask(1, CHUNK, 0, 5, trip)
        with pytest.raises(ZeroDivisionError):
            await race.next_done()


@pytest.mark.parametrize("sent", [0, 3])
async def test_a_node_that_stops_sending_is_given_up(sent: int) -> None:
    """Before its first byte or after some; the read is ended."""
    node = Trickling(1)
    attempt = await attempt_over(node, deadlines=Deadlines(first_byte_s=0.2, read_stall_s=0.2))
    for _ in range(sent):
        node.let.release()
    got = bytearray()
    with Race(attempt) as race:
        race.ask(1, CHUNK, 0, 100, got.extend)
        ended = await all_done(race)
    assert isinstance(ended[1], NodeUnreachable)
    assert (got, attempt.stored_bytes) == (DATA[:sent], sent)
    node.let.release()
    await asyncio.sleep(0)
    assert len(got) == sent


async def test_progress_is_enough() -> None:
    """A deadline counts from the last byte, not from the first."""
    node = Trickling(1)
    attempt = await attempt_over(node, deadlines=Deadlines(first_byte_s=5, read_stall_s=60))
    got = bytearray()
    with Race(attempt) as race:
        read = race.ask(1, CHUNK, 0, 4, got.extend)
        deadlines = [read.deadline_s]
        for count in range(1, 4):
            node.let.release()
            while len(got) < count:
                await asyncio.sleep(0.001)
            deadlines.append(read.deadline_s)
        assert deadlines[1] - deadlines[0] >= 55
        assert deadlines == sorted(set(deadlines))
        node.let.release()
        assert await all_done(race) == {1: None}
    assert got == DATA[:4]


async def late_read(attempt: Attempt, node: int) -> PieceRead:
    """One that is overdue, and marked."""
    with Race(attempt) as race:
        race.ask(node, CHUNK, 0, 5, bytearray().extend)
        while not race.overdue:
            assert await race.next_done() == []
        (read,) = race.overdue
        read.is_late = True
        assert race.overdue == []
        return read


async def test_who_loses_again_and_again_is_asked_last() -> None:
    """A node that was late without having begun; what it had not sent does not count."""
    node = FaultyDatanode(1, {})
    attempt = await attempt_over(node)
    node.get_stalls = True
    for turn in range(STALLED_AFTER):
        assert not attempt.services.nodes.is_doubtful(1), turn
        await late_read(attempt, 1)
    assert attempt.services.nodes.is_doubtful(1)
    assert attempt.stored_bytes == 0
    await asyncio.sleep(0)
    assert node.waiting == 0


async def test_overdue_again_and_again() -> None:
    """Less and less often, for whoever has nobody else to ask; and not once it has begun."""
    node = Trickling(1)
    attempt = await attempt_over(node)
    for _ in range(SAMPLES_MIN):
        attempt.services.hedging.note_first_byte(1, 0.0)
    with Race(attempt) as race:
        race.ask(1, CHUNK, 0, 2, bytearray().extend)
        pauses: list[float] = []
        for _ in range(3):
            while not race.overdue:
                await race.next_done()
            (read,) = race.overdue
            read.wait_longer()
            pauses.append(read.next_look_s)
        assert pauses == sorted(pauses)
        node.let.release()
        while not read.has_begun:
            await asyncio.sleep(0)
        assert read.next_look_s == read.deadline_s
        node.let.release()
        assert await race.next_done() == [(read, None)]


async def test_hedges_are_of_sound_nodes_and_paid_for() -> None:
    """Unless the late one is known to be stalled: then nothing need be saved."""
    attempt = await attempt_over(*(FaultyDatanode(number, {}) for number in (1, 2, 3)))
    nodes, hedging = attempt.services.nodes, attempt.services.hedging
    race = Race(attempt)
    assert race.may_hedge(1, [2, 3])
    nodes.note_failure(3)
    assert not race.may_hedge(1, [2, 3])
    while hedging.take(1):
        pass
    assert not race.may_hedge(1, [2])
    nodes.note_failure(1)
    assert race.may_hedge(1, [2])
