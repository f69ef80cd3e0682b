"""PURE. What a walk of the survey adds up: chunks by their health, what nodes hold, and what has to be told by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from cluster.domains import SurvivableLosses
from cluster.maintenance.pieces import receipt_of, redundancy_of
from cluster.maintenance.repair import Finding, count_distinct
from cluster.maintenance.survey import ChunkSurvey, Health, Listed, Standing, evaluate, good_pieces, judge
from cluster.maintenance.survey_status import AFFECTED_NAMES_MAX, NodeHoldings
from storage.model import Node

_SILENT = (Standing.SILENT, Standing.LEFT, Standing.DEAD)


class Tally:
    """Of one walk, window by window."""

    def __init__(self) -> None:
        self.chunks = 0
        self.bytes = 0
        self.health: Counter[Health] = Counter()
        self.losses: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self.affected: dict[bytes, Health] = {}
        """blob id → LOST or UNAVAILABLE (the worse of its chunks), at most AFFECTED_NAMES_MAX"""
        self.affected_over = 0
        """lost or unavailable chunks of further blobs"""
        self.silent: set[int] = set()
        self._nodes: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def add_chunk(self, chunk: ChunkSurvey, nodes: Mapping[int, Node]) -> SurvivableLosses:
        """Count one chunk. → what it survives now."""
        place = chunk.place
        self.chunks += 1
        self.bytes += place.length
        health = judge(chunk)
        self.health[health] += 1
        if health in (Health.LOST, Health.UNAVAILABLE):
            self._note_affected(place.blob_id, health)
        survives = evaluate(chunk, nodes)
        for level, count in zip(SurvivableLosses._fields, survives, strict=True):
            self.losses[level][max(count, -1)] += 1
        self._add_pieces(chunk)
        return survives

    def add_listing(self, listed: Mapping[int, Listed], standings: Mapping[int, Standing]) -> None:
        """Count what nodes listed in a window."""
        for number, listing in listed.items():
            self._nodes[number].update(listed_pieces=listing.pieces, listed_bytes=listing.total_bytes)
        self.silent |= {number for number, standing in standings.items() if standing in _SILENT}

    def named_pieces(self, number: int) -> int:
        """How many pieces rows name on a node."""
        return self._nodes[number]["named_pieces"]

    def named_bytes(self, number: int) -> int:
        """Of these pieces."""
        return self._nodes[number]["named_bytes"]

    def last_pieces(self, number: int) -> int:
        """Chunks that cannot be read without this node's piece."""
        return self._nodes[number]["last_pieces"]

    def total(self, figure: str) -> int:
        """Of all nodes; figure: as NodeHoldings names it."""
        return sum(counts[figure] for counts in self._nodes.values())

    def holdings(self, nodes: Iterable[Node]) -> tuple[NodeHoldings, ...]:
        """Of every node, by number."""
        return tuple(
            msgspec.structs.replace(
                NodeHoldings(node.number, node.report.node_id, node.state.value, was_silent=node.number in self.silent),
                **self._nodes[node.number],
            )
            for node in nodes
        )

    def _add_pieces(self, chunk: ChunkSurvey) -> None:
        place, redundancy = chunk.place, redundancy_of(chunk.place)
        good = good_pieces(chunk)
        for piece in chunk.pieces:
            counts = self._nodes[piece.node]
            counts.update(named_pieces=1, named_bytes=receipt_of(place, piece.position).length)
            if piece.finding in (Finding.MISSING, Finding.BAD):
                counts["missing_pieces"] += 1
            elif count_distinct(redundancy, [it for it in good if it.node != piece.node]) < redundancy.needed:
                counts["last_pieces"] += 1
        for surplus in chunk.surplus:
            self._nodes[surplus.node].update(surplus_pieces=1, surplus_bytes=surplus.length)

    def _note_affected(self, blob_id: bytes, health: Health) -> None:
        known = self.affected.get(blob_id)
        if known is None and len(self.affected) >= AFFECTED_NAMES_MAX:
            self.affected_over += 1
        elif known is not Health.LOST:
            self.affected[blob_id] = health
