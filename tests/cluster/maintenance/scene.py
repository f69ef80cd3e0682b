"""What the active master works on: real metadata (SQLite), datanodes in memory, and a map that changes when told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cluster.maintenance.pieces import named_pieces, receipt_of, stored_id_of
from cluster.nodes import NodePool
from cluster.redundancy import parse_redundancy
from storage.base.clock import ManualClock
from storage.base.ids import stored_chunk_id
from storage.chunks.footer import digest_of
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import RegisterNode, SetNodeClosed, SetNodeState
from storage.metadata.interface import ChunkPlace, Metadata
from storage.metadata.sqlite.open import open_owned_metadata
from storage.model import Blob, Chunk, ClusterMap, Node, NodeState
from tests.cluster.faulty import FaultyDatanode
from tests.storage.chunks.fragments import split_chunk
from tests.storage.metadata.builders import Worker

INTERNAL_KEY = b"i" * 32
CHUNK_LENGTH = 200_000
"""of plaintext: four frames"""


class Scene:
    """Node numbers are 1 to the count. Every node is in the map as the metadata has it."""

    def __init__(
        self, metadata: Metadata, clock: ManualClock, nodes: dict[int, FaultyDatanode], worker: Worker
    ) -> None:
        self.metadata = metadata
        self.clock = clock
        self.nodes = nodes
        self.worker = worker
        self.states = dict.fromkeys(nodes, NodeState.UP)
        self.closed: set[int] = set()
        self.epoch = 1
        self.pool = NodePool(INTERNAL_KEY, clock, lambda node: nodes[node.number])

    @property
    def cluster_map(self) -> ClusterMap:
        """As a master publishes it."""
        return ClusterMap(self.epoch, tuple(self._node(number) for number in self.nodes))

    def _node(self, number: int) -> Node:
        node = self.nodes[number].node(self.states[number])
        return msgspec.structs.replace(node, is_closed=number in self.closed)

    async def change(self, number: int, state: NodeState) -> None:
        """A node's state, recorded and published."""
        await self.metadata.apply(SetNodeState(self.nodes[number].node().report.node_id, state))
        self.states[number] = state
        self.epoch += 1
        await self.pool.adopt(self.cluster_map)

    async def put(
        self, object_key: bytes, redundancy: str, nodes: Sequence[int], chunk_count: int = 1, length: int = CHUNK_LENGTH
    ) -> list[ChunkPlace]:
        """An object of one blob, its pieces on these nodes (rotated by one for each further chunk)."""
        blob_id, rows = self.worker.blob_id(), []
        for index in range(chunk_count):
            holders = tuple(nodes[(at + index) % len(nodes)] for at in range(len(nodes)))
            pieces = make_pieces(redundancy, length)
            digests = [digest_of(piece).digest for piece in pieces]
            is_erasure = parse_redundancy(redundancy).is_erasure
            for position, number in enumerate(holders):
                piece = pieces[position if is_erasure else 0]
                await self.nodes[number].inner.put_many([(stored_chunk_id(blob_id, index), piece)])
            digest = b"".join(digests) if is_erasure else digests[0]
            rows.append(Chunk(index, index * length, length, bytes(48), digest, holders))
        blob = Blob(blob_id, length * chunk_count, "bk-1", 1, redundancy, tuple(rows))
        await self.worker.put(object_key, blob=blob)
        return await self.places(blob_id, chunk_count)

    async def places(self, blob_id: bytes, chunk_count: int = 1) -> list[ChunkPlace]:
        """The rows as they are now."""
        found = await self.metadata.find_chunk_places([(blob_id, index) for index in range(chunk_count)])
        return sorted(found, key=lambda place: place.chunk_index)

    async def place(self, blob_id: bytes, chunk_index: int = 0) -> ChunkPlace:
        """One row as it is now."""
        (place,) = await self.metadata.find_chunk_places([(blob_id, chunk_index)])
        return place

    def damage(self, number: int, place: ChunkPlace) -> None:
        """One bit of a node's piece, on its medium."""
        chunks = self.nodes[number].chunks
        piece = chunks[stored_id_of(place)]
        chunks[stored_id_of(place)] = piece[:-1] + bytes([piece[-1] ^ 1])

    async def lose(self, number: int, place: ChunkPlace) -> None:
        """A node's piece."""
        await self.nodes[number].inner.delete_many([stored_id_of(place)])

    def holders(self, place: ChunkPlace) -> set[int]:
        """The nodes that hold anything under the chunk's id."""
        return {number for number, node in self.nodes.items() if stored_id_of(place) in node.chunks}

    async def require_whole(self, blob_id: bytes, chunk_count: int = 1) -> list[ChunkPlace]:
        """Every piece of every chunk is named, on a node of its own, and is there with the right bytes."""
        places = await self.places(blob_id, chunk_count)
        assert len(places) == chunk_count
        for place in places:
            named = list(named_pieces(place))
            assert len(named) == len({number for _, number in named}) == parse_redundancy(place.redundancy).width
            for position, number in named:
                found = digest_of(self.nodes[number].chunks[stored_id_of(place)])
                assert found == receipt_of(place, position), f"node {number} of {place}"
        return places


def make_pieces(redundancy: str, length: int) -> list[bytes]:
    """The one sealed chunk, or its fragments, of random bytes."""
    parsed, sealed = parse_redundancy(redundancy), os.urandom(sealed_length(length))
    return split_chunk(sealed, parsed.needed, parsed.width) if parsed.is_erasure else [sealed]


@asynccontextmanager
async def open_scene(directory: Path, node_count: int, domains: Sequence[str] = ()) -> AsyncIterator[Scene]:
    """domains: the failure domain of each node; one of its own for each unless given."""
    clock = ManualClock()
    peers: dict[str, FaultyDatanode] = {}
    nodes = {
        number: FaultyDatanode(number, peers, domains[number - 1] if domains else "")
        for number in range(1, node_count + 1)
    }
    metadata = await open_owned_metadata(directory / "metadata", clock=clock)
    try:
        for number, node in nodes.items():
            node.inner._clock = clock
            registered: Node = await metadata.apply(RegisterNode(node.node().report, NodeState.UP))
            assert registered.number == number
        scene = Scene(metadata, clock, nodes, await Worker.start(metadata))
        await scene.pool.adopt(scene.cluster_map)
        yield scene
    finally:
        await metadata.close()


class SceneRegistry:
    """What the survey sees of the registry: the scene's map, and orders that are recorded as the master does."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.term = 0
        self.unheard: frozenset[int] = frozenset()
        self.awaited: frozenset[int] = frozenset()
        self.orders: list[tuple[str, int]] = []

    @property
    def cluster_map(self) -> ClusterMap:
        """The scene's."""
        return self.scene.cluster_map

    async def close(self, node_id: str) -> None:
        """As Registry.close."""
        await self.scene.metadata.apply(SetNodeClosed(node_id, True))
        self.scene.closed.add(int(node_id, 16))
        self.scene.epoch += 1
        self.orders.append(("close", int(node_id, 16)))

    async def retire(self, node_id: str) -> None:
        """As Registry.retire."""
        await self.scene.change(int(node_id, 16), NodeState.GONE)
        self.orders.append(("retire", int(node_id, 16)))
