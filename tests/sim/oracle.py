"""Looks at everything at once, as nobody in the cluster can: rows, disks, what was lost. It never changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cluster.redundancy import Redundancy, parse_redundancy
from storage.base.ids import ChunkId, split_stored_index, stored_chunk_id
from storage.chunks.store import DIGEST_BYTES
from storage.metadata import commands as c
from storage.metadata.interface import ChunkPlace
from storage.model import Blob, NodeState
from tests.sim.clusters import SimCluster
from tests.sim.http import short
from tests.sim.loop import run_now
from tests.sim.nodes import SimDatanode

LOSS_EXCUSED_S = 120.0
"""a commit may name a piece on a disk that was lost so recently: nobody can know yet"""


class Piece(NamedTuple):
    """Of a chunk, as a row names it. node None: nobody has this number, or it is nowhere."""

    number: int
    node: SimDatanode | None
    is_good: bool


class Oracle:
    """One per run."""

    def __init__(self, cluster: SimCluster, violations: list[str]) -> None:
        self._cluster = cluster
        self._world = world = cluster.world
        self._violations = violations
        self.lost_s: dict[str, float] = {}
        """by party: when its disk was lost last"""
        world.records.on_applied = self._check_commit

    # ------------------------------------------------------------------ what there is

    def places(self) -> list[ChunkPlace]:
        """Every chunk that has a row, released or not."""
        found: list[ChunkPlace] = []
        while True:
            after = (found[-1].blob_id, found[-1].chunk_index) if found else None
            page = run_now(self._world.records.reads.list_chunk_places(after, 1_000))
            found += page
            if len(page) < 1_000:
                return found

    def pieces(self, place: ChunkPlace, by_number: dict[int, SimDatanode]) -> list[Piece]:
        """Of one chunk, in the order of the row."""
        chunk_id = stored_id(place)
        is_erasure = parse_redundancy(place.redundancy).is_erasure
        found = []
        for at, number in enumerate(place.nodes):
            digest = place.digest[at * DIGEST_BYTES :][:DIGEST_BYTES] if is_erasure else place.digest
            node = by_number.get(number)
            found.append(Piece(number, node, node is not None and node.disk.is_good(chunk_id, digest)))
        return found

    def by_number(self) -> dict[int, SimDatanode]:
        """Datanodes by the number that rows name them with."""
        by_id = {node.node_id: node for node in self._world.fleet.values()}
        return {
            known.number: by_id[known.report.node_id]
            for known in self._cluster.current_map().nodes
            if known.report.node_id in by_id
        }

    # ------------------------------------------------------------------ what must hold at any time

    def watch(self, node: SimDatanode) -> None:
        """No good piece that a row names is ever taken off this node."""
        node.disk.before_removal = lambda chunk_ids, what: self._check_removal(node, chunk_ids, what)

    def _check_removal(self, node: SimDatanode, chunk_ids: Sequence[ChunkId], what: str) -> None:
        asked = [(it.blob_id, split_stored_index(it.chunk_index)[1]) for it in chunk_ids]
        by_number = self.by_number()
        for place in run_now(self._world.records.reads.find_chunk_places(asked)):
            if place.is_released or stored_id(place) not in chunk_ids:
                continue
            for piece in self.pieces(place, by_number):
                if piece.node is node and piece.is_good:
                    self._report(f"{name_of(place)} is {what} on {node.party}, where its row names it")

    def check_masters(self) -> None:
        """One at a time is active."""
        active = [master.party for master in self._cluster.masters if master.is_active]
        if len(active) > 1:
            self._report(f"several masters are active: {', '.join(active)}")

    def check_readable(self) -> None:
        """Every referenced chunk can be read from what is on disks, were they all to answer."""
        by_number = self.by_number()
        for place in self.places():
            if place.is_released:
                continue
            good = sum(piece.is_good for piece in self.pieces(place, by_number))
            if good < parse_redundancy(place.redundancy).needed:
                self._report(f"{name_of(place)} is lost: {good} good pieces on {place.nodes}")

    def _check_commit(self, command: c.Command) -> None:
        """What is committed must have been made durable as often as its redundancy says."""
        blobs: tuple[Blob, ...] = ()
        if isinstance(command, c.CommitVersion):
            blobs = command.blobs
        elif isinstance(command, c.PutPart) and command.blob is not None:
            blobs = (command.blob,)
        by_number = self.by_number() if blobs else {}
        for blob in blobs:
            if blob.inline is not None:
                continue
            redundancy = parse_redundancy(blob.redundancy)
            for chunk in blob.chunks:
                place = ChunkPlace(
                    blob.blob_id, chunk.index, chunk.length, chunk.digest, chunk.nodes, blob.redundancy, 0, False
                )
                self._check_promise(place, redundancy, by_number)

    def _check_promise(self, place: ChunkPlace, redundancy: Redundancy, by_number: dict[int, SimDatanode]) -> None:
        numbers = [number for number in place.nodes if number]
        if len(set(numbers)) < redundancy.width:
            self._report(f"{name_of(place)} is committed on {place.nodes}, promised {redundancy}")
        for piece in self.pieces(place, by_number):
            if not piece.is_good and not self._is_excused(piece, place):
                self._report(f"{name_of(place)} is committed, and not durable on node {piece.number}")

    def _is_excused(self, piece: Piece, place: ChunkPlace) -> bool:
        if piece.node is None:
            return True  # its disk was lost, and it came back as another node
        lost_s = self.lost_s.get(piece.node.party)
        if lost_s is not None and self._world.loop.time() - lost_s < LOSS_EXCUSED_S:
            return True
        return stored_id(place) in piece.node.disk.rotten

    # ------------------------------------------------------------------ what must hold when all is quiet

    def find_redundancy_flaws(self) -> list[str]:
        """Chunks that lack a good piece, or have one on a node that is not up, or two in one domain without need."""
        by_number = self.by_number()
        nodes = {node.number: node for node in self._cluster.current_map().nodes}
        up = [node for node in nodes.values() if node.state is NodeState.UP]
        domains = len({node.report.failure_domain for node in up})
        flaws: list[str] = []
        for place in self.places():
            if place.is_released:
                continue
            redundancy = parse_redundancy(place.redundancy)
            pieces = self.pieces(place, by_number)
            good = {piece.number for piece in pieces if piece.is_good}
            where = Counter(nodes[number].report.failure_domain for number in good)
            states = [nodes[number].state for number in good]
            if len(pieces) != redundancy.width or len(good) != redundancy.width:
                flaws.append(f"{name_of(place)} has {len(good)} good pieces of {redundancy} on {place.nodes}")
            elif any(state is not NodeState.UP for state in states):
                flaws.append(f"{name_of(place)} is on a node that is not up: {place.nodes}")
            elif len(where) < min(redundancy.width, domains):
                flaws.append(f"{name_of(place)} is in {len(where)} domains of {domains}: {place.nodes}")
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
            chunk_id = stored_id(place)
            named.update((by_number[number].party, chunk_id) for number in place.nodes if number in by_number)
        staying = {
            node.report.node_id for node in self._cluster.current_map().nodes if node.state is not NodeState.GONE
        }
        for party, node in sorted(self._world.fleet.items()):
            if node.node_id in staying:
                left = [chunk_id for chunk_id in sorted(node.disk.chunks) if (party, chunk_id) not in named]
                flaws += [
                    f"{party} holds {short(chunk_id)}, which "
                    + ("a row names elsewhere" if chunk_id.blob_id in recorded else "no row names")
                    for chunk_id in left
                ]
        return flaws

    def _report(self, flaw: str) -> None:
        self._world.trace.note("oracle", f"VIOLATION: {flaw}")
        self._violations.append(flaw)


def name_of(place: ChunkPlace) -> str:
    """For people."""
    return f"chunk {short(stored_id(place))}"


def stored_id(place: ChunkPlace) -> ChunkId:
    """What datanodes keep it under."""
    return stored_chunk_id(place.blob_id, place.chunk_index, place.generation)
