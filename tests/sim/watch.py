"""What must hold at every moment of a run, looked at whenever something is applied or taken away, and now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.redundancy import parse_redundancy
from storage.base.ids import ChunkId, split_stored_index
from storage.metadata import commands as c
from storage.metadata.interface import ChunkPlace
from storage.model import Blob, NodeState
from tests.sim.clusters import SimCluster
from tests.sim.nodes import SimDatanode
from tests.sim.oracle import Oracle, name_of, stored_id

STOPPED_LATELY_S = 80.0
"""a process that was stopped so lately may act on what it had looked at before"""


class Watch:
    """One per run. report: called with what is wrong, in one line."""

    def __init__(self, cluster: SimCluster, oracle: Oracle, report: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._oracle = oracle
        self._report = report
        cluster.world.records.before_apply = self._before_apply
        cluster.world.records.on_applied = self._on_applied

    def on_node(self, node: SimDatanode) -> None:
        """Follow what is taken off its disk."""
        node.disk.before_removal = lambda chunk_ids, what: self._check_removal(node, chunk_ids, what)

    def look(self) -> None:
        """Now and then."""
        self._check_masters()
        nodes = {node.number: node for node in self._cluster.current_map().nodes}
        by_number = self._oracle.by_number()
        for place in self._oracle.places():
            if place.is_released:
                continue
            good = sum(piece.is_good for piece in self._oracle.pieces(place, by_number))
            if good < parse_redundancy(place.redundancy).needed:
                self._report(f"{name_of(place)} is lost: {good} good pieces on {place.nodes}")
            gone = [it for it in place.nodes if it in nodes and nodes[it].state is NodeState.GONE]
            if gone:
                self._report(f"{name_of(place)} is named on {gone}, which are gone for good")

    def _check_masters(self) -> None:
        active = [master.party for master in self._cluster.masters if master.is_active]
        # Leases are by the clock of the records: set forward, it ends one early, and fences who holds it.
        if len(active) > 1 and not self._cluster.world.records.clock.was_set:
            self._report(f"several masters are active: {', '.join(active)}")

    # ------------------------------------------------------------------ commands

    def _before_apply(self, command: c.Command) -> ChunkPlace | None:
        """The row that a SetReplicas is about to change."""
        if not isinstance(command, c.SetReplicas):
            return None
        found = self._oracle.find_places([(command.blob_id, command.chunk_index)])
        return found[0] if found else None

    def _on_applied(self, command: c.Command, outcome: object, row_before: ChunkPlace | None) -> None:
        if isinstance(command, c.CommitVersion):
            self._check_durable(command.blobs)
        elif isinstance(command, c.PutPart) and command.blob is not None:
            self._check_durable((command.blob,))
        elif isinstance(command, c.SetReplicas) and outcome is True and row_before is not None:
            self._check_change(row_before, command)
        elif isinstance(command, c.Relayout) and outcome is True:
            self._check_layout(command)
        self._check_term(command)

    def _check_durable(self, blobs: Sequence[Blob]) -> None:
        """What is committed was made durable as often as its redundancy says."""
        for blob in blobs:
            if blob.inline is None:
                for chunk in blob.chunks:
                    place = (blob.blob_id, chunk.index, chunk.length, chunk.digest, chunk.nodes, blob.redundancy)
                    self._check_promise(ChunkPlace(*place, 0, False))

    def _check_layout(self, command: c.Relayout) -> None:
        for place in self._oracle.find_places([(command.blob_id, chunk.index) for chunk in command.chunks]):
            self._check_promise(place)

    def _check_promise(self, place: ChunkPlace) -> None:
        redundancy = parse_redundancy(place.redundancy)
        if len({number for number in place.nodes if number}) < redundancy.width:
            self._report(f"{name_of(place)} is committed on {place.nodes}, promised {redundancy}")
        for piece in self._oracle.pieces(place, self._oracle.by_number()):
            if not piece.is_durable and not self._oracle.is_excused(piece, place):
                self._report(f"{name_of(place)} is committed, and not durable on node {piece.number}")

    def _check_change(self, before: ChunkPlace, command: c.SetReplicas) -> None:
        """A row only ever gains: what it names anew is there, and it names no fewer good pieces than before."""
        by_number = self._oracle.by_number()
        after = before._replace(nodes=command.nodes)
        pieces = self._oracle.pieces(after, by_number)
        for at, piece in enumerate(pieces):
            is_new = piece.number not in before.nodes or (at < len(before.nodes) and _moved(before, after, at))
            if piece.number and is_new and not piece.is_good and not self._oracle.is_excused(piece, after):
                self._report(f"{name_of(after)} is named anew on node {piece.number}, and is not there")
        good = sum(piece.is_good for piece in pieces)
        good_before = sum(piece.is_good for piece in self._oracle.pieces(before, by_number))
        if good < min(good_before, parse_redundancy(before.redundancy).width):
            self._report(f"{name_of(after)} had {good_before} good pieces on {before.nodes}, {good} on {after.nodes}")

    def _check_term(self, command: c.Command) -> None:
        term = getattr(command, "term", 0)
        if not term:
            return
        row = self._cluster.world.records.connection.execute("SELECT term FROM master_lease").fetchone()
        if row is not None and row[0] != term:
            self._report(f"{type(command).__name__} of term {term} was applied under term {row[0]}")

    # ------------------------------------------------------------------ disks

    def _check_removal(self, node: SimDatanode, chunk_ids: Sequence[ChunkId], what: str) -> None:
        """No good piece that a row names is taken away."""
        by_number = self._oracle.by_number()
        asked = [(it.blob_id, split_stored_index(it.chunk_index)[1]) for it in chunk_ids]
        for place in self._oracle.find_places(asked):
            if stored_id(place) not in chunk_ids or self._was_stopped_lately():
                continue
            pieces = self._oracle.pieces(place, by_number)
            if any(piece.node is node for piece in pieces):
                if any(piece.node is node and piece.is_good for piece in pieces):
                    self._report(f"{name_of(place)} is {what} on {node.party}, where its row names it")
            elif what == "set aside" and node.disk.is_good(stored_id(place), place.digest):
                lacking = [it.number for it in pieces if not it.is_good and not self._oracle.is_rotten(it, place)]
                if lacking:
                    self._report(f"a spare copy of {name_of(place)} is {what} while it lacks those of {lacking}")

    def _was_stopped_lately(self) -> bool:
        now_s = self._cluster.world.loop.time()
        return any(now_s - process.stopped_s < STOPPED_LATELY_S for process in self._cluster.world.loop.processes)


def _moved(before: ChunkPlace, after: ChunkPlace, at: int) -> bool:
    """Whether a fragment is named on another node than it was."""
    return parse_redundancy(before.redundancy).is_erasure and before.nodes[at] != after.nodes[at]
