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

    def request(self, data: bytes = DATA, *, ticket: str | None = None, source: str | None = None) -> PullRequest:
        """For chunk 1, valid unless changed."""
        receipt = digest_of(data)
        made = make_pull_ticket(SOURCE_KEY, chunk_id(1), CLOCK.now_ms() + 1000)
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
