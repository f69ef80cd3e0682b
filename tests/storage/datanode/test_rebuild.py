"""A fragment out of others, over real sockets: every fragment of every shape, and all that must not become one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage.base.address import Address
from storage.base.clock import ManualClock
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, Corrupt, NodeFull, NodeUnreachable
from storage.base.ids import ChunkId
from storage.base.internal_auth import access_token, make_pull_ticket
from storage.chunks.erasure import CHUNK_HEADER_BYTES, FRAGMENT_HEADER_BYTES, SEALED_FRAME_BYTES
from storage.chunks.footer import digest_of
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import ChunkReceipt
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.peers import Peers
from storage.datanode.rebuild import STRIPES_AT_ONCE
from storage.datanode.wire import FragmentSource, RebuildRequest
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id, cut, read, some_bytes
from tests.storage.chunks.fragments import split_chunk
from tests.storage.datanode.nodes import NODE_KEY
from tests.tls import make_internal_tls

CLOCK = ManualClock()
OF = chunk_id(1)


class SourceStore(MemoryChunkStore):
    """Dies after so many answers, when told."""

    answers_left: int | None = None

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        if self.answers_left == 0:
            raise ChunkError("the medium does not read")
        if self.answers_left is not None:
            self.answers_left -= 1
        return await super().stat(chunk_id)


class Cluster:
    """One datanode for each fragment, and an empty one that is told to rebuild."""

    def __init__(self, sealed: bytes, needed: int, width: int) -> None:
        self.needed = needed
        self.width = width
        self.sealed_length = len(sealed)
        self.fragments = split_chunk(sealed, needed, width)
        self.stores = [SourceStore() for _ in range(width)]
        self.addresses: list[str] = []
        self.target = MemoryChunkStore()
        self.client: DatanodeClient

    def request(self, number: int, sources: list[int]) -> RebuildRequest:
        """For a fragment out of these others."""
        ticket = make_pull_ticket(NODE_KEY, OF, CLOCK.now_ms() + 1000)
        given = tuple(FragmentSource(source, self.addresses[source], ticket) for source in sources)
        digest = digest_of(self.fragments[number]).digest
        return RebuildRequest(self.needed, self.width, number, self.sealed_length, digest, given)

    async def rebuild(self, number: int, sources: list[int]) -> bytes:
        """What the empty node makes and holds."""
        receipt = await self.client.rebuild(OF, self.request(number, sources))
        made = await read(self.target, OF)
        assert receipt == digest_of(made)
        return made

    async def store(self, number: int, fragment: bytes) -> None:
        """Let a node hold something else, as its own good chunk."""
        await self.stores[number].delete_many([OF])
        await self.stores[number].put(OF, len(fragment), cut(fragment, 65_552))


@asynccontextmanager
async def open_cluster(directory: Path, sealed: bytes, needed: int, width: int) -> AsyncIterator[Cluster]:
    """The first node over TLS, the others by Unix sockets."""
    cluster = Cluster(sealed, needed, width)
    tls = make_internal_tls(directory)
    peers = Peers(tls_ca=tls.ca)
    async with AsyncExitStack() as stack:
        for number, fragment in enumerate(cluster.fragments):
            await cluster.store(number, fragment)
            app = DatanodeApp(cluster.stores[number], NODE_KEY, CLOCK, Peers())
            where, files = (
                ("https://127.0.0.1:0", tls.files) if not number else (f"unix:{directory / str(number)}", None)
            )
            cluster.addresses.append(str(await stack.enter_async_context(serving(app, where, files))))
        app = DatanodeApp(cluster.target, NODE_KEY, CLOCK, peers)
        address: Address = await stack.enter_async_context(serving(app, f"unix:{directory / 'target'}"))
        cluster.client = DatanodeClient(address, access_token(NODE_KEY))
        yield cluster
        await cluster.client.close()
        await peers.close()


def sealed_chunk(frames: int, last_bytes: int = SEALED_FRAME_BYTES) -> bytes:
    """Random bytes in the shape of a sealed chunk."""
    return some_bytes(CHUNK_HEADER_BYTES + (frames - 1) * SEALED_FRAME_BYTES + last_bytes)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """2 + 2 with more stripes than are read at once, the last of them short."""
    async with open_cluster(tmp_path, sealed_chunk(2 * STRIPES_AT_ONCE + 3, 1000), 2, 4) as cluster:
        yield cluster


async def test_every_fragment_out_of_every_choice(cluster: Cluster) -> None:
    """Frames and parity alike; again is answered alike."""
    for number in range(4):
        others = [source for source in range(4) if source != number]
        for sources in itertools.permutations(others, 2):
            assert await cluster.rebuild(number, list(sources)) == cluster.fragments[number]
        assert await cluster.rebuild(number, others) == cluster.fragments[number]
        await cluster.target.delete_many([OF])


@pytest.mark.parametrize(
    ("frames", "last_bytes", "needed", "width"),
    [
        (1, 1, 4, 6),
        (1, SEALED_FRAME_BYTES, 1, 2),
        (5, 17, 4, 6),
        (6, SEALED_FRAME_BYTES, 3, 5),
        (4 * STRIPES_AT_ONCE, SEALED_FRAME_BYTES, 4, 5),
        (4 * STRIPES_AT_ONCE + 1, 100, 4, 6),
    ],
)
async def test_every_shape(tmp_path: Path, frames: int, last_bytes: int, needed: int, width: int) -> None:
    """Short stripes, fragments without any cell, stripes that just fill a run."""
    async with open_cluster(tmp_path, sealed_chunk(frames, last_bytes), needed, width) as cluster:
        for number in range(width):
            others = [source for source in range(width) if source != number]
            assert await cluster.rebuild(number, others[-needed:]) == cluster.fragments[number]
            await cluster.target.delete_many([OF])


def flipped(fragment: bytes, position: int) -> bytes:
    """One bit of it."""
    return fragment[:position] + bytes([fragment[position] ^ 1]) + fragment[position + 1 :]


async def test_a_source_that_does_not_hold_it(cluster: Cluster) -> None:
    """ChunkNotFound, unless there is another source."""
    await cluster.stores[1].delete_many([OF])
    with pytest.raises(ChunkNotFound):
        await cluster.rebuild(0, [1, 2])
    assert not cluster.target.chunks
    assert await cluster.rebuild(0, [1, 2, 3]) == cluster.fragments[0]


async def test_a_source_that_is_away(cluster: Cluster) -> None:
    """NodeUnreachable, unless there is another source."""
    cluster.addresses[1] = "unix:/nonexistent/s"
    with pytest.raises(NodeUnreachable):
        await cluster.rebuild(0, [2, 1])
    assert await cluster.rebuild(0, [2, 1, 3]) == cluster.fragments[0]


async def test_a_source_that_fails_midway(cluster: Cluster) -> None:
    """What came of it is thrown away, and another one takes its place from the beginning."""
    cluster.stores[1].answers_left = 1
    with pytest.raises(NodeUnreachable, match="answered 500"):
        await cluster.rebuild(0, [2, 1])
    assert not cluster.target.chunks
    cluster.stores[1].answers_left = 1
    assert await cluster.rebuild(0, [2, 1, 3]) == cluster.fragments[0]
    assert cluster.stores[1].answers_left == 0


@pytest.mark.parametrize(
    "position", [0, CHUNK_HEADER_BYTES, CHUNK_HEADER_BYTES + 6, FRAGMENT_HEADER_BYTES, 1_000_000, -1]
)
async def test_rot_at_a_source_is_told_with_its_name(cluster: Cluster, position: int) -> None:
    """In the header or in any cell, though the source itself did not notice; nothing of it is kept."""
    cluster.stores[1].chunks[OF] = flipped(cluster.fragments[1], position % len(cluster.fragments[1]))
    with pytest.raises(Corrupt, match="fragment 1 at "):
        await cluster.rebuild(0, [2, 1])
    assert not cluster.target.chunks
    assert await cluster.rebuild(0, [2, 1, 3]) == cluster.fragments[0]


async def test_the_header_that_most_sources_have_counts(tmp_path: Path) -> None:
    """Also when the first source is the one that differs, and is sure of its bytes."""
    async with open_cluster(tmp_path, sealed_chunk(7), 3, 5) as cluster:
        await cluster.store(1, flipped(cluster.fragments[1], 30))
        with pytest.raises(Corrupt, match=r"fragment 1 at .*header"):
            await cluster.rebuild(0, [1, 2, 3])
        assert await cluster.rebuild(0, [1, 2, 3, 4]) == cluster.fragments[0]


@pytest.mark.parametrize("other", ["short", "no fragment", "another number", "another chunk"])
async def test_a_source_that_holds_something_else(cluster: Cluster, other: str) -> None:
    """No fragment, another fragment of the chunk, a fragment of another chunk: all are left out."""
    held = {
        "short": b"x",
        "no fragment": some_bytes(len(cluster.fragments[1])),
        "another number": cluster.fragments[3],
        "another chunk": split_chunk(sealed_chunk(2 * STRIPES_AT_ONCE + 3, 1001), 2, 4)[1],
    }
    await cluster.store(1, held[other])
    with pytest.raises(Corrupt, match="fragment 1 at "):
        await cluster.rebuild(0, [1, 2])
    assert await cluster.rebuild(0, [1, 2, 3]) == cluster.fragments[0]


async def test_another_digest_than_asked_for_is_not_kept(cluster: Cluster) -> None:
    """All sources are right, and the caller wants something else."""
    with pytest.raises(Corrupt, match="digest asked for"):
        await cluster.client.rebuild(OF, msgspec.structs.replace(cluster.request(0, [1, 2]), digest=bytes(8)))
    assert not cluster.target.chunks


async def test_the_target_answers_for_itself(cluster: Cluster) -> None:
    """Full, or holding other bytes under the id."""
    await cluster.target.put(OF, 3, cut(b"abc", 3))
    with pytest.raises(ChunkConflict):
        await cluster.rebuild(0, [1, 2])
    await cluster.target.delete_many([OF])
    cluster.target.capacity_bytes = 10
    with pytest.raises(NodeFull):
        await cluster.rebuild(0, [1, 2])


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 1},
        {"number": 4},
        {"needed": 3},
        {"needed": 4},
        {"width": 2},
        {"width": 31},
        {"sources": ()},
        {"sealed_length": 64},
        {"digest": b""},
    ],
)
async def test_impossible_requests_are_refused(cluster: Cluster, changes: Mapping[str, Any]) -> None:
    """400, before any source is asked."""
    with pytest.raises(NodeUnreachable, match="400"):
        await cluster.client.rebuild(OF, msgspec.structs.replace(cluster.request(0, [1, 2]), **changes))
