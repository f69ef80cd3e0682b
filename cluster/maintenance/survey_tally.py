"""PURE. What a walk of the survey adds up: chunks by their health, what nodes hold, and what has to be told by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from cluster.domains import SurvivableLosses
from cluster.maintenance.pieces import length_of, redundancy_of
from cluster.maintenance.repair import Finding, count_distinct, is_enough
from cluster.maintenance.survey import ChunkSurvey, Health, Listed, Standing, evaluate, good_pieces, judge
from cluster.maintenance.survey_status import AFFECTED_NAMES_MAX, NodeHoldings
from storage.model import Node

_SILENT = (Standing.SILENT, Standing.LEFT, Standing.DEAD)


class _NodeCounts:
    """Of one node, as NodeHoldings names them."""

    __slots__ = (
        "last_pieces",
        "listed_bytes",
        "listed_pieces",
        "missing_pieces",
        "named_bytes",
        "named_pieces",
        "surplus_bytes",
        "surplus_pieces",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    named_pieces: int
    named_bytes: int
    listed_pieces: int
    listed_bytes: int
    missing_pieces: int
    surplus_pieces: int
    surplus_bytes: int
    last_pieces: int


class Tally:
    """Of one walk, window by window."""

    def __init__(self) -> None:
        self.chunks = 0
        self.bytes = 0
        self.health: Counter[Health] = Counter()
        self.affected: dict[bytes, Health] = {}
        """blob id → LOST or UNAVAILABLE (the worse of its chunks), at most AFFECTED_NAMES_MAX"""
        self.affected_over = 0
        """lost or unavailable chunks of further blobs"""
        self.silent: set[int] = set()
        self._survived: Counter[SurvivableLosses] = Counter()
        self._nodes: defaultdict[int, _NodeCounts] = defaultdict(_NodeCounts)

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
        self._survived[survives] += 1
        self._add_pieces(chunk)
        return survives

    def add_listing(self, listed: Mapping[int, Listed], standings: Mapping[int, Standing]) -> None:
        """Count what nodes listed in a window."""
        for number, listing in listed.items():
            counts = self._nodes[number]
            counts.listed_pieces += listing.pieces
            counts.listed_bytes += listing.total_bytes
        self.silent |= {number for number, standing in standings.items() if standing in _SILENT}

    def named_pieces(self, number: int) -> int:
        """How many pieces rows name on a node."""
        return self._nodes[number].named_pieces

    def named_bytes(self, number: int) -> int:
        """Of these pieces."""
        return self._nodes[number].named_bytes

    def last_pieces(self, number: int) -> int:
        """Chunks that cannot be read without this node's piece."""
        return self._nodes[number].last_pieces

    def total(self, figure: str) -> int:
        """Of all nodes; figure: as NodeHoldings names it."""
        return sum(getattr(counts, figure) for counts in self._nodes.values())

    @property
    def losses(self) -> dict[str, dict[int, int]]:
        """As SurveyStatus.losses."""
        found: dict[str, Counter[int]] = {level: Counter() for level in SurvivableLosses._fields}
        for survives, chunks in self._survived.items():
            for level, count in zip(SurvivableLosses._fields, survives, strict=True):
                found[level][max(count, -1)] += chunks
        return {level: dict(sorted(counts.items())) for level, counts in found.items()}

    def holdings(self, nodes: Iterable[Node]) -> tuple[NodeHoldings, ...]:
        """Of every node, by number."""
        return tuple(
            NodeHoldings(
                node.number,
                node.report.node_id,
                node.state.value,
                was_silent=node.number in self.silent,
                **{name: getattr(self._nodes[node.number], name) for name in _NodeCounts.__slots__},
            )
            for node in nodes
        )

    def _add_pieces(self, chunk: ChunkSurvey) -> None:
        place, redundancy = chunk.place, redundancy_of(chunk.place)
        good = good_pieces(chunk)
        # With one more than is needed, each of them can be done without.
        is_short = count_distinct(redundancy, good) <= redundancy.needed
        for piece in chunk.pieces:
            counts = self._nodes[piece.node]
            counts.named_pieces += 1
            counts.named_bytes += length_of(place, piece.position)
            if piece.finding in (Finding.MISSING, Finding.BAD):
                counts.missing_pieces += 1
            elif is_short and not is_enough(redundancy, [it for it in good if it.node != piece.node]):
                counts.last_pieces += 1
        for surplus in chunk.surplus:
            counts = self._nodes[surplus.node]
            counts.surplus_pieces += 1
            counts.surplus_bytes += surplus.length

    def _note_affected(self, blob_id: bytes, health: Health) -> None:
        known = self.affected.get(blob_id)
        if known is None and len(self.affected) >= AFFECTED_NAMES_MAX:
            self.affected_over += 1
        elif known is not Health.LOST:
            self.affected[blob_id] = health
