"""Looks at everything at once, as nobody in the cluster can: rows, disks, the map. It never changes anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster.domains import LEVELS, parse_levels
from cluster.redundancy import Redundancy, parse_redundancy
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.store import DIGEST_BYTES
from storage.metadata.interface import ChunkPlace
from storage.model import Node, NodeState
from tests.sim.clusters import SimCluster
from tests.sim.http import short
from tests.sim.loop import run_now
from tests.sim.nodes import SimDatanode

PAGE_ROWS = 1_000
RECENT_S = 120.0
"""a row may name a piece on a disk that was lost so recently: nobody can know yet"""


class Piece(NamedTuple):
    """Of a chunk, as a row names it. node None: nobody has this number (any more)."""

    number: int
    node: SimDatanode | None
    is_good: bool
    is_durable: bool


class Oracle:
    """One per run."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._records = cluster.world.records
        self.lost_s: dict[str, float] = {}
        """by party: when its disk was lost last"""

    def places(self) -> list[ChunkPlace]:
        """Every chunk that has a row, released or not."""
        found: list[ChunkPlace] = []
        while True:
            after = (found[-1].blob_id, found[-1].chunk_index) if found else None
            page = run_now(self._records.reads.list_chunk_places(after, PAGE_ROWS))
            found += page
            if len(page) < PAGE_ROWS:
                return found

    def find_places(self, chunks: Iterable[tuple[bytes, int]]) -> list[ChunkPlace]:
        """Those of these that have a row and are not released."""
        return [
            place for place in run_now(self._records.reads.find_chunk_places(list(chunks))) if not place.is_released
        ]

    def pieces(self, place: ChunkPlace, by_number: dict[int, SimDatanode]) -> list[Piece]:
        """Of one chunk, in the order of the row."""
        chunk_id = stored_id(place)
        is_erasure = parse_redundancy(place.redundancy).is_erasure
        found = []
        for at, number in enumerate(place.nodes):
            digest = place.digest[at * DIGEST_BYTES :][:DIGEST_BYTES] if is_erasure else place.digest
            node = by_number.get(number)
            is_good = node is not None and node.disk.is_good(chunk_id, digest)
            is_durable = node is not None and node.disk.is_durable(chunk_id, digest)
            found.append(Piece(number, node, is_good, is_durable))
        return found

    def by_number(self) -> dict[int, SimDatanode]:
        """Datanodes by the number that rows name them with."""
        by_id = {node.node_id: node for node in self._cluster.nodes}
        return {
            known.number: by_id[known.report.node_id]
            for known in self._cluster.current_map().nodes
            if known.report.node_id in by_id
        }

    def is_excused(self, piece: Piece, place: ChunkPlace) -> bool:
        """Whether a piece is gone by a fault that nobody can know of yet."""
        if piece.node is None:
            return True  # its disk was lost, and it came back as another node
        lost_s = self.lost_s.get(piece.node.party)
        if lost_s is not None and self._cluster.world.loop.time() - lost_s < RECENT_S:
            return True
        return self.is_rotten(piece, place)

    def is_rotten(self, piece: Piece, place: ChunkPlace) -> bool:
        """Whether its bytes have changed since they were stored."""
        return piece.node is not None and stored_id(place) in piece.node.disk.rotten

    def find_redundancy_flaws(self) -> list[str]:
        """Chunks that lack a good piece, or have one on a node that is not up, or two in one domain without need."""
        by_number = self.by_number()
        nodes = {node.number: node for node in self._cluster.current_map().nodes}
        up = [node for node in nodes.values() if node.state is NodeState.UP]
        flaws: list[str] = []
        for place in self.places():
            if place.is_released:
                continue
            redundancy = parse_redundancy(place.redundancy)
            pieces = self.pieces(place, by_number)
            good = {piece.number for piece in pieces if piece.is_good}
            if len(pieces) != redundancy.width or len(good) != redundancy.width:
                flaws.append(f"{name_of(place)} has {len(good)} good pieces of {redundancy} on {place.nodes}")
            elif any(nodes[number].state is not NodeState.UP for number in good):
                flaws.append(f"{name_of(place)} is on a node that is not up: {place.nodes}")
            elif flaw := _find_crowding(redundancy, [nodes[number] for number in good], up):
                flaws.append(f"{name_of(place)} on {place.nodes}: {flaw}")
        return flaws

    def find_unreferenced(self) -> list[str]:
        """Pieces on disks that no row names there, and rows that should be gone."""
        by_number = self.by_number()
        named: set[tuple[str, ChunkId]] = set()
        recorded: set[bytes] = set()
        flaws: list[str] = []
        for place in self.places():
            if place.is_released:
                flaws.append(f"{name_of(place)} is still released")
                continue
            recorded.add(place.blob_id)
            named.update((by_number[it].party, stored_id(place)) for it in place.nodes if it in by_number)
        known = self._cluster.current_map().nodes
        staying = {node.report.node_id for node in known if node.state is not NodeState.GONE}
        for node in self._cluster.nodes:
            if node.node_id in staying:
                flaws += [
                    f"{node.party} holds {short(chunk_id)}, which "
                    + ("a row names elsewhere" if chunk_id.blob_id in recorded else "no row names")
                    for chunk_id in sorted(node.disk.chunks)
                    if (node.party, chunk_id) not in named
                ]
        return flaws


def _find_crowding(redundancy: Redundancy, holders: list[Node], up: list[Node]) -> str:
    """Whether pieces are closer together than they have to be, at any level."""
    held = [parse_levels(node.report.failure_domain) for node in holders]
    there = [parse_levels(node.report.failure_domain) for node in up]
    for depth, level in enumerate(LEVELS):
        apart, possible = len({names[depth] for names in held}), len({names[depth] for names in there})
        if apart < min(redundancy.width, possible):
            return f"in {apart} {level}s where {possible} are up"
    return ""


def stored_id(place: ChunkPlace) -> ChunkId:
    """What datanodes keep it under."""
    return stored_chunk_id(place.blob_id, place.chunk_index, place.generation)


def name_of(place: ChunkPlace) -> str:
    """For people."""
    return f"chunk {short(stored_id(place))}"
