"""Reading sealed chunks without keys: from any pieces comes the chunk, or an error before its end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.deadlines import Deadlines
from cluster.maintenance.pieces import stored_id_of
from cluster.maintenance.sealed_read import SealedReader, SourceFailed
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from storage.base.clock import SystemClock
from storage.base.errors import ChunkNotFound, Corrupt, NodeUnreachable
from storage.chunks.footer import digest_of
from storage.crypto.envelope import FRAME_BYTES, HEADER_BYTES, SEALED_FRAME_BYTES, sealed_length
from storage.metadata.interface import ChunkPlace
from storage.model import ClusterMap
from tests.cluster.faulty import FaultyDatanode
from tests.cluster.world import QUICK
from tests.storage.chunks.fragments import split_chunk


class Shelf:
    """One chunk in pieces, a node for each."""

    def __init__(self, redundancy: str, length: int, needed: int, width: int) -> None:
        self.sealed = random.Random(length).randbytes(sealed_length(length))
        pieces = split_chunk(self.sealed, needed, width) if redundancy.startswith("ec") else [self.sealed] * width
        digests = [digest_of(piece).digest for piece in pieces]
        digest = b"".join(digests) if redundancy.startswith("ec") else digests[0]
        self.place = ChunkPlace(b"b" * 16, 5, length, digest, tuple(range(1, width + 1)), redundancy, 3, False)
        self.peers: dict[str, FaultyDatanode] = {}
        self.nodes = {number: FaultyDatanode(number, self.peers) for number in range(1, width + 1)}
        self.pieces = pieces

    async def open(self, deadlines: Deadlines = QUICK) -> SealedReader:
        """Over nodes that hold the pieces."""
        for node, piece in zip(self.nodes.values(), self.pieces, strict=True):
            await node.inner.put_many([(stored_id_of(self.place), piece)])
        pool = NodePool(bytes(32), SystemClock(), lambda node: self.nodes[node.number])
        await pool.adopt(ClusterMap(1, tuple(node.node() for node in self.nodes.values())))
        return SealedReader(pool, Throttle(1 << 40, SystemClock()), deadlines)

    async def read(self, reader: SealedReader, sources: Mapping[int, int]) -> list[bytes]:
        """Everything that is handed out."""
        return [bytes(piece) async for piece in reader.read(self.place, sources)]

    @property
    def expected(self) -> list[bytes]:
        """The header, then each frame."""
        frames = range(HEADER_BYTES, len(self.sealed), SEALED_FRAME_BYTES)
        return [self.sealed[:HEADER_BYTES], *(self.sealed[at : at + SEALED_FRAME_BYTES] for at in frames)]


@settings(max_examples=60, deadline=None)
@given(
    needed=st.integers(1, 6),
    parity=st.integers(1, 3),
    length=st.one_of(st.integers(1, 3 << 20), st.integers(1, 48).map(lambda count: count * FRAME_BYTES)),
    data=st.data(),
)
def test_any_fragments_give_the_chunk(needed: int, parity: int, length: int, data: st.DataObject) -> None:
    """Frame by frame, in order."""
    width = needed + parity
    kept = data.draw(st.permutations(range(width)))[:needed]
    shelf = Shelf(f"ec:{needed}+{parity}", length, needed, width)

    async def run() -> None:
        reader = await shelf.open()
        assert await shelf.read(reader, {position: position + 1 for position in kept}) == shelf.expected

    asyncio.run(run())


@pytest.mark.parametrize("length", [1, FRAME_BYTES, FRAME_BYTES + 1, 16 * FRAME_BYTES, (2 << 20) + 77])
async def test_a_replica_gives_the_chunk(length: int) -> None:
    """Whichever."""
    shelf = Shelf("replica:2", length, 1, 2)
    reader = await shelf.open()
    assert await shelf.read(reader, {0: 1}) == await shelf.read(reader, {0: 2}) == shelf.expected


@pytest.mark.parametrize("redundancy", ["replica:2", "ec:2+1"])
@pytest.mark.parametrize("at", [70, 200_000, -1])
async def test_rot_is_told_with_its_node_before_the_chunk_is_whole(redundancy: str, at: int) -> None:
    """Wherever in the piece it is."""
    needed, width = (1, 2) if redundancy == "replica:2" else (2, 3)
    shelf = Shelf(redundancy, (2 << 20) + 77, needed, width)
    reader = await shelf.open()
    bad = shelf.nodes[2]
    piece = bytearray(bad.chunks[stored_id_of(shelf.place)])
    piece[at] ^= 1
    bad.chunks[stored_id_of(shelf.place)] = bytes(piece)
    sources = {0: 2} if redundancy == "replica:2" else {0: 1, 1: 2}
    handed = 0
    with pytest.raises(SourceFailed) as caught:
        async for _ in reader.read(shelf.place, sources):
            handed += 1
    assert (caught.value.node, type(caught.value.reason)) == (2, Corrupt)
    assert handed < len(shelf.expected)


@pytest.mark.parametrize(
    ("how", "reason"),
    [("down", NodeUnreachable), ("get_stalls", NodeUnreachable), ("get_ends_early", Corrupt), ("", ChunkNotFound)],
)
async def test_a_node_that_does_not_give_its_piece_is_named(how: str, reason: type[Exception]) -> None:
    """Of several that are asked at once too."""
    shelf = Shelf("ec:2+1", 1 << 20, 2, 3)
    reader = await shelf.open()
    if how:
        setattr(shelf.nodes[3], how, True)
    else:
        shelf.nodes[3].chunks.clear()
        await shelf.nodes[3].inner.delete_many([stored_id_of(shelf.place)])
    with pytest.raises(SourceFailed) as caught:
        await shelf.read(reader, {0: 1, 2: 3})
    assert (caught.value.node, type(caught.value.reason)) == (3, reason)


async def test_a_fragment_in_another_ones_place_is_found_out() -> None:
    """By its header, before anything is made of it."""
    shelf = Shelf("ec:2+1", 1 << 20, 2, 3)
    reader = await shelf.open()
    chunk_id = stored_id_of(shelf.place)
    await shelf.nodes[2].inner.delete_many([chunk_id])
    await shelf.nodes[2].inner.put_many([(chunk_id, shelf.pieces[0])])
    with pytest.raises(SourceFailed, match="node 2"):
        await shelf.read(reader, {0: 1, 1: 2})
