"""Repairs one chunk: looks at every piece that its row names, makes what is missing on other nodes, names it.

Write order: 1. bad pieces are set aside, so that their nodes can take a good one; 2. pieces are copied, or rebuilt out
of others, from node to node; 3. the row names them. A stop before 3 leaves pieces that no row names: a later repair
that chooses the same node finds them there, else they are the survey's surplus. Two repairers may have one chunk at
once (a worker acts on hints, the master on its survey): the row is only changed from what it was.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from cluster.maintenance.call_groups import CallGroups
from cluster.maintenance.node_slots import NodeSlots
from cluster.maintenance.piece_copy import PieceCopier
from cluster.maintenance.piece_look import PieceLook
from cluster.maintenance.pieces import NOWHERE, named_pieces, receipt_of, redundancy_of, stored_id_of
from cluster.maintenance.repair import USABLE, Finding, Piece, RepairPlan, is_enough, name_nodes, plan_repair
from cluster.maintenance.targets import Targets
from cluster.nodes import NodePool
from storage.base.errors import ChunkConflict, ChunkError, ChunkNotFound, Corrupt, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt
from storage.metadata.commands import SetReplicas
from storage.metadata.interface import ChunkPlace, Metadata
from storage.model import ClusterMap

_log = logging.getLogger(__name__)


class Repaired(NamedTuple):
    """What one repair did. is_settled: false when another look is needed, as somebody else was quicker."""

    pieces: int = 0
    """made, or found and named"""
    bytes: int = 0
    left: tuple[int, ...] = ()
    """nodes that the row named before and does not name now"""
    is_settled: bool = True


class _SourceFailed(Exception):
    """What a piece was to be made from is not what it seemed to be: look again, at the bytes this time."""


class Repairer:
    """One per process; calls may overlap, of different chunks."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        copier: PieceCopier,
        current_map: Callable[[], ClusterMap],
        slots: NodeSlots,
        current_term: Callable[[], int] = lambda: 0,
    ) -> None:
        """current_term: of the master's lease; 0 in a gateway, which has none."""
        self._metadata = metadata
        self._nodes = nodes
        self._copier = copier
        self._current_map = current_map
        self._slots = slots
        self._current_term = current_term
        self._look = PieceLook(nodes, current_map)
        self._places: CallGroups[None, tuple[bytes, int], ChunkPlace | None] = CallGroups(self._read_places)
        self._ranked: tuple[ClusterMap, Targets] | None = None
        self.read_bytes: Counter[int] = Counter()
        """by node: what was read from it to make pieces; the next piece is made from those that gave least"""

    async def repair(
        self, blob_id: bytes, chunk_index: int, *, strays: Collection[int] = (), deep: bool = False
    ) -> Repaired:
        """strays: nodes that may hold pieces which the row does not name. deep: read every piece from the medium.

        Corrupt when too few good pieces are left, Unavailable when silent nodes may have enough, NotEnoughNodes when
        pieces are still missing afterwards; Unavailable, StalePlacement, NotActiveMaster as SetReplicas. A piece whose
        node does not answer is left as it is, until the master declares the node dead.
        """
        try:
            return await self._repair(blob_id, chunk_index, strays, deep=deep)
        except _SourceFailed:
            return await self._repair(blob_id, chunk_index, strays, deep=True)

    async def _repair(self, blob_id: bytes, chunk_index: int, strays: Collection[int], *, deep: bool) -> Repaired:
        place = await self._read_place(blob_id, chunk_index)
        if place is None or place.is_released:
            return Repaired()
        redundancy = redundancy_of(place)
        named = await self._look.look_at_named(place, deep=deep)
        found = await self._look.look_at_strays(place, strays)
        holders = [piece.node for piece in named if piece.finding in (Finding.GOOD, Finding.UNKNOWN)]
        able = self._targets().rank(place, holders, self._nodes.failed_numbers())
        plan = plan_repair(redundancy, named, found, able)
        if plan is None:
            if not is_enough(redundancy, [it for it in (*named, *found) if it.finding in USABLE]):
                silent = any(piece.finding in (Finding.UNKNOWN, Finding.AWAY) for piece in named)
                raise (Unavailable if silent else Corrupt)("too few good pieces can be read")
            return Repaired()
        return await self._carry_out(place, plan, deep=deep)

    async def _carry_out(self, place: ChunkPlace, plan: RepairPlan, *, deep: bool) -> Repaired:
        chunk_id, redundancy = stored_id_of(place), redundancy_of(place)
        for position, number in named_pieces(place):
            if number in plan.set_aside:
                await self._set_aside_if_bad(number, chunk_id, receipt_of(place, position))
        made = await self._make_pieces(place, plan, deep=deep)
        nodes = name_nodes(redundancy, plan, made)
        good = len(plan.kept) + len(plan.adopted) + len(made)
        if good < redundancy.width and await self._leaves_out_a_good_one(place, nodes):
            return Repaired(is_settled=False)
        if not _same(nodes, place.nodes, is_ordered=redundancy.is_erasure):
            change = SetReplicas(
                place.blob_id, place.chunk_index, place.nodes, nodes, place.generation, self._current_term()
            )
            if not await self._metadata.apply(change):
                await self._withdraw(place, made)
                return Repaired(is_settled=False)
            _log.info("chunk %s is on nodes %s now, it was on %s", chunk_id, nodes, place.nodes)
        if good < redundancy.width:
            raise NotEnoughNodes(f"{good} of {redundancy.width} pieces")
        named = (*plan.adopted, *made)
        made_bytes = sum(receipt_of(place, piece.position).length for piece in named)
        return Repaired(len(named), made_bytes, tuple(set(place.nodes) - {NOWHERE, *nodes}))

    async def _make_pieces(self, place: ChunkPlace, plan: RepairPlan, *, deep: bool) -> list[Piece]:
        """One for each position that is wanted, as far as there are targets that take it."""
        made: list[Piece] = []
        targets = iter(plan.targets)
        for position in plan.wanted:
            for target in targets:
                try:
                    await self._make(place, plan, position, target)
                except (ChunkNotFound, Corrupt) as error:
                    _log.info("a source of chunk %s failed: %s", stored_id_of(place), error)
                    if not deep and not made:
                        raise _SourceFailed from error
                except (ChunkError, Unavailable) as error:
                    _log.info("node %d did not take a piece of chunk %s: %s", target, stored_id_of(place), error)
                    self._nodes.note_failure(target)
                else:
                    made.append(Piece(position, target))
                    break
        return made

    async def _make(self, place: ChunkPlace, plan: RepairPlan, position: int, target: int) -> None:
        """Errors as PieceCopier. A piece that is there already (an earlier repair stopped before it was named) is read
        from the medium instead."""
        chunk_id, expected = stored_id_of(place), receipt_of(place, position)
        if await self._is_there(target, chunk_id, expected):
            return
        sources = [piece for piece in plan.sources if piece.node != target]
        try:
            await self._copy_or_rebuild(place, sources, position, target)
        except ChunkConflict:
            # Another piece of this chunk, which no row names: it may go where the others are enough.
            if target in place.nodes or not is_enough(redundancy_of(place), sources):
                raise
            await self._set_aside_if_bad(target, chunk_id, expected)
            await self._copy_or_rebuild(place, sources, position, target)

    async def _is_there(self, target: int, chunk_id: ChunkId, expected: ChunkReceipt) -> bool:
        for deep in (False, True):
            if await self._look.examine(target, chunk_id, expected, deep=deep) is not Finding.GOOD:
                return False
        return True

    async def _copy_or_rebuild(self, place: ChunkPlace, sources: Sequence[Piece], position: int, target: int) -> None:
        chosen = self._choose_sources(place, sources, position)
        size_bytes = receipt_of(place, position).length
        async with self._slots.hold({target, *(piece.node for piece in chosen)}, size_bytes):
            for piece in chosen:
                self.read_bytes[piece.node] += receipt_of(place, piece.position).length
            if chosen[0].position == position:
                await self._copier.copy(place, position, chosen[0].node, target)
            else:
                holders = {piece.position: piece.node for piece in chosen}
                await self._copier.rebuild(place, position, target, holders)

    def _choose_sources(self, place: ChunkPlace, sources: Sequence[Piece], position: int) -> list[Piece]:
        """One that has the piece itself, else as many others as are needed; those that gave least so far. Corrupt when
        they are too few."""
        failed = self._nodes.failed_numbers()
        ordered = sorted(sources, key=lambda piece: (piece.node in failed, self.read_bytes[piece.node]))
        same = [piece for piece in ordered if piece.position == position]
        if same:
            return same[:1]
        needed = redundancy_of(place).needed
        others = list({piece.position: piece for piece in reversed(ordered)}.values())[::-1][:needed]
        if len(others) < needed:
            raise Corrupt(f"{len(others)} of {needed} pieces to rebuild one from")
        return others

    async def _set_aside_if_bad(self, number: int, chunk_id: ChunkId, expected: ChunkReceipt) -> None:
        """Judged once more, right before: another repairer may have put a good piece there since. The order names what
        was judged: carried out late, or twice, it leaves alone what was made meanwhile."""
        judged = await self._look.judge(number, chunk_id, expected)
        if judged is not None:
            await self._nodes.store(number).quarantine_judged([judged])

    async def _leaves_out_a_good_one(self, place: ChunkPlace, nodes: tuple[int, ...]) -> bool:
        """Whether another repairer made a piece good, in its place, since this one looked: the row does not tell."""
        return any(
            piece.finding is Finding.GOOD
            and not (nodes[piece.position] == piece.node if redundancy_of(place).is_erasure else piece.node in nodes)
            for piece in await self._look.look_at_named(place, deep=False)
        )

    async def _withdraw(self, place: ChunkPlace, made: Sequence[Piece]) -> None:
        """The row changed meanwhile, or is gone. Pieces of a blob that is gone are deleted. While there is a row they
        stay, named or not: another repairer may have found one of them on its node and be about to name it."""
        if await self._read_place(place.blob_id, place.chunk_index) is None:
            for piece in made:
                await self._nodes.store(piece.node).delete_many([stored_id_of(place)])

    async def _read_place(self, blob_id: bytes, chunk_index: int) -> ChunkPlace | None:
        return await self._places.ask(None, (blob_id, chunk_index))

    async def _read_places(self, _: None, chunks: Sequence[tuple[bytes, int]]) -> list[ChunkPlace | None]:
        found = {(it.blob_id, it.chunk_index): it for it in await self._metadata.find_chunk_places(chunks)}
        return [found.get(chunk) for chunk in chunks]

    def _targets(self) -> Targets:
        cluster_map = self._current_map()
        # Not by its epoch: a map of the same one has newer figures, and epochs come again after records were lost.
        if self._ranked is None or self._ranked[0] is not cluster_map:
            self._ranked = cluster_map, Targets(cluster_map)
        return self._ranked[1]


def _same(nodes: tuple[int, ...], before: tuple[int, ...], *, is_ordered: bool) -> bool:
    return nodes == before if is_ordered else set(nodes) == set(before)
