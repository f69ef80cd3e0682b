"""Datanode to datanode: a copy with a ticket, and everything that must not become one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from storage.base.address import Address
from storage.base.clock import ManualClock
from storage.base.errors import ChunkConflict, ChunkNotFound, Corrupt, NodeFull, NodeUnreachable
from storage.base.internal_auth import access_token, make_pull_ticket
from storage.chunks.footer import digest_of
from storage.chunks.memory import MemoryChunkStore
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.peers import Peers
from storage.datanode.wire import PullRequest
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id, cut, read, some_bytes
from tests.tls import make_internal_tls

SOURCE_KEY, TARGET_KEY = b"s" * 32, b"t" * 32
CLOCK = ManualClock()
DATA = some_bytes(3_000_000)


class Pair(NamedTuple):
    """Two datanodes; the source holds chunk 1, over TLS."""

    source: MemoryChunkStore
    source_address: Address
    target: MemoryChunkStore
    client: DatanodeClient

    def request(
        self, data: bytes = DATA, *, ticket: str | None = None, source: str | None = None, number: int = 1
    ) -> PullRequest:
        """For chunk 1, valid unless changed."""
        receipt = digest_of(data)
        made = make_pull_ticket(SOURCE_KEY, chunk_id(number), CLOCK.now_ms() + 1000)
        return PullRequest(source or str(self.source_address), ticket or made, receipt.length, receipt.digest)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Both in this event loop, over real sockets."""
    tls = make_internal_tls(tmp_path)
    source, target = MemoryChunkStore(), MemoryChunkStore()
    await source.put(chunk_id(1), len(DATA), cut(DATA, 65_552))
    peers = Peers(tls_ca=tls.ca)
    source_app = DatanodeApp(source, SOURCE_KEY, CLOCK, Peers())
    target_app = DatanodeApp(target, TARGET_KEY, CLOCK, peers)
    async with serving(source_app, "https://127.0.0.1:0", tls.files) as source_address:
        async with serving(target_app, f"unix:{tmp_path / 't'}") as target_address:
            client = DatanodeClient(target_address, access_token(TARGET_KEY))
            yield Pair(source, source_address, target, client)
            await client.close()
            await peers.close()


async def test_a_pull_copies_the_chunk(pair: Pair) -> None:
    """With the target's own receipt; again is answered alike."""
    for _ in range(2):
        assert await pair.client.pull(chunk_id(1), pair.request()) == digest_of(DATA)
    assert await read(pair.target, chunk_id(1)) == DATA


async def test_a_pull_of_what_is_not_there(pair: Pair) -> None:
    """The source says so."""
    pair.source.chunks.clear()
    pair.source._footers.clear()
    with pytest.raises(ChunkNotFound):
        await pair.client.pull(chunk_id(1), pair.request())


@pytest.mark.parametrize(
    "expected", [DATA[:-1], DATA[:-1] + bytes([DATA[-1] ^ 1]), b"x"], ids=["shorter", "changed", "tiny"]
)
async def test_other_bytes_are_not_kept(pair: Pair, expected: bytes) -> None:
    """Of another length, or of the same length and another digest."""
    with pytest.raises(Corrupt):
        await pair.client.pull(chunk_id(1), pair.request(expected))
    assert not pair.target.chunks


async def test_a_damaged_source_is_not_copied(pair: Pair) -> None:
    """The length fits, the bytes do not: nothing is kept."""
    pair.source.chunks[chunk_id(1)] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(Corrupt):
        await pair.client.pull(chunk_id(1), pair.request())
    assert not pair.target.chunks


async def test_a_bad_ticket_opens_nothing(pair: Pair) -> None:
    """Made with another key, for another chunk, or too old."""
    later_ms = CLOCK.now_ms() + 1000
    for ticket in (
        make_pull_ticket(TARGET_KEY, chunk_id(1), later_ms),
        make_pull_ticket(SOURCE_KEY, chunk_id(2), later_ms),
        make_pull_ticket(SOURCE_KEY, chunk_id(1), CLOCK.now_ms()),
        "nonsense",
    ):
        with pytest.raises(NodeUnreachable, match="401"):
            await pair.client.pull(chunk_id(1), pair.request(ticket=ticket))
    assert not pair.target.chunks


@pytest.mark.parametrize(
    "source", ["http://10.0.0.1:9", "file:/etc/passwd", "unix:/nonexistent/s", "https://127.0.0.1:1"]
)
async def test_a_source_that_cannot_be_reached(pair: Pair, source: str) -> None:
    """One that may not be asked at all is no different from one that does not answer."""
    with pytest.raises(NodeUnreachable):
        await pair.client.pull(chunk_id(1), pair.request(source=source))


async def test_the_target_answers_for_itself(pair: Pair) -> None:
    """Full, or holding other bytes under the id."""
    await pair.target.put(chunk_id(1), 3, cut(b"abc", 3))
    with pytest.raises(ChunkConflict):
        await pair.client.pull(chunk_id(1), pair.request())
    await pair.target.delete_many([chunk_id(1)])
    pair.target.capacity_bytes = 10
    with pytest.raises(NodeFull):
        await pair.client.pull(chunk_id(1), pair.request())


async def test_many_pulls_in_one_call(pair: Pair) -> None:
    """One outcome for each: what is wrong with one chunk, its source or its ticket is no matter of the others."""
    small = {number: some_bytes(10_000 + number) for number in range(2, 42)}
    for number, data in small.items():
        await pair.source.put(chunk_id(number), len(data), cut(data, 4_096))
    await pair.source.delete_many([chunk_id(5)])
    pair.source.chunks[chunk_id(6)] = bytes(len(small[6]))
    await pair.target.put(chunk_id(7), 3, cut(b"abc", 3))
    pulls = [(chunk_id(number), pair.request(data, number=number)) for number, data in small.items()]
    pulls[8 - 2] = (chunk_id(8), pair.request(small[8], ticket="nonsense"))
    pulls[9 - 2] = (chunk_id(9), pair.request(small[9], source="https://127.0.0.1:1", number=9))
    outcomes = dict(zip(small, await pair.client.pull_many(pulls), strict=True))
    failed = {number: type(it) for number, it in outcomes.items() if isinstance(it, Exception)}
    assert failed == {5: ChunkNotFound, 6: Corrupt, 7: ChunkConflict, 8: NodeUnreachable, 9: NodeUnreachable}
    for number, data in small.items():
        if number not in failed:
            assert outcomes[number] == digest_of(data)
            assert await read(pair.target, chunk_id(number)) == data
    assert set(pair.target.chunks) == {chunk_id(number) for number in (set(small) - {5, 6, 8, 9})}


async def test_many_pulls_into_a_full_store(pair: Pair) -> None:
    """Each is refused by name."""
    pair.target.capacity_bytes = 10
    outcomes = await pair.client.pull_many([(chunk_id(1), pair.request())] * 2)
    assert [type(it) for it in outcomes] == [NodeFull, NodeFull]
