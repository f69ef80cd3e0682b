"""Slices of erasure-coded chunks: the frames straight from the data fragments that hold them, one range each, side by
side; and where one is missing, bad, late or on a node in doubt, the cells that bring back its frames and no others.

Nothing is handed out that did not open, rebuilt frames included. What a slice holds is bounded by ChunkSlice.held_bytes
(k cells a stripe), beyond which there are only cells of fragments that came late, and of those asked for because a
parity cell was wrong: at most m a stripe, and a wrong cell is rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cluster.chunk_slice import ChunkSlice, Layout
from cluster.fetching import Attempt, ReadServices, is_lost
from cluster.piece_read import PieceRead, Race
from cluster.stripe_read import StripeRead
from storage.base.errors import Corrupt, FrostbyteError, SealBroken, Unavailable
from storage.chunks.erasure import Striping
from storage.chunks.near_chunks import FAILURES
from storage.crypto.envelope import Buffer, Opener, sealed_length
from storage.crypto.span_frames import SpanFrames

Plan = dict[int, list[StripeRead]]
"""fragment → the stripes, in order, of which its cells are to be asked for"""


class _Ask(NamedTuple):
    """Cells of one fragment on their way, of stripes that follow each other."""

    fragment: int
    stripes: Sequence[StripeRead]
    blocks: list[Buffer]


class FragmentFetcher:
    """See Fetcher. One per worker."""

    def __init__(self, services: ReadServices) -> None:
        self._services = services

    async def fetch(self, layout: Layout, opener: Opener, piece: ChunkSlice, attempt: Attempt) -> Buffer:
        """The nodes of the layout are its fragments' in their order; any other number of them is no layout."""
        if len(layout.nodes) != layout.redundancy.width:
            raise Unavailable("a row names another number of fragments than its redundancy", chunk_id=str(layout[0]))
        with Race(attempt) as race:
            return await _SliceFetch(self._services, layout, opener, piece, attempt, race).run()


class _SliceFetch:
    """One slice."""

    def __init__(
        self,
        services: ReadServices,
        layout: Layout,
        opener: Opener,
        piece: ChunkSlice,
        attempt: Attempt,
        race: Race,
    ) -> None:
        self._services = services
        self._chunk_id = layout.chunk_id
        self._nodes = layout.nodes
        self._attempt = attempt
        self._race = race
        plain_length = piece.chunk.length
        self._striping = Striping(layout.redundancy.needed, layout.redundancy.width, sealed_length(plain_length))
        self._frames = SpanFrames(opener, piece.start, piece.end, plain_length)
        needed = self._striping.needed
        self._stripes = [
            StripeRead(self._striping, stripe, self._frames)
            for stripe in range(self._frames.first_frame // needed, self._frames.last_frame // needed + 1)
        ]
        self._asks: dict[PieceRead, _Ask] = {}
        for fragment, node in enumerate(self._nodes):
            if not node:
                self._lose(fragment)

    async def run(self) -> Buffer:
        """Ask, take what comes, ask further, until every frame has opened."""
        race = self._race
        while self._frames.missing:
            plan = self._plan(with_doubtful=True)
            if self._ask(plan or {}):
                continue
            waits_for_late = plan is None and any(read.is_late for read in race.running)
            if not self._asks or (plan is None and not waits_for_late):
                raise self._failure()
            for read, error in await race.next_done():
                self._absorb(self._asks.pop(read), read.node, error)
            for read in race.overdue:
                self._hedge(read)
        return self._frames.take()

    def _plan(self, *, with_doubtful: bool) -> Plan | None:
        """What more is needed, beside what is coming; None when no stripe is to be had from all that is left."""
        fine: list[int] = []
        doubtful: list[int] = []
        for fragment, node in enumerate(self._nodes):
            (doubtful if self._is_doubtful(node) else fine).append(fragment)
        plan: Plan = {}
        for stripe in self._stripes:
            chosen = stripe.plan(self._coming(stripe), fine, doubtful if with_doubtful else ())
            if chosen is None:
                return None
            for fragment in chosen:
                plan.setdefault(fragment, []).append(stripe)
        return plan

    def _coming(self, stripe: StripeRead) -> set[int]:
        return {ask.fragment for read, ask in self._asks.items() if stripe in ask.stripes and not read.is_late}

    def _is_doubtful(self, node: int) -> bool:
        return self._services.is_doubtful(self._chunk_id, node) or self._attempt.has_failed(self._chunk_id, node)

    def _ask(self, plan: Plan) -> bool:
        """→ whether some of it was at hand and is taken, so that what is needed beside it is to be thought over."""
        has_taken = False
        for fragment, stripes in plan.items():
            node = self._nodes[fragment]
            for run in _runs(stripes):
                first, last = (self._striping.cell(fragment, run[at].stripe) for at in (0, -1))
                length = last.offset + last.length - first.offset
                for stripe in run:
                    stripe.note_asked(fragment)
                    self._attempt.is_degraded |= not stripe.wants(fragment)
                cached = self._read_cached(node, first.offset, length)
                if cached is not None:
                    self._take_cells(fragment, run, cached)
                    has_taken = True
                    continue
                blocks: list[Buffer] = []
                read = self._race.ask(node, self._chunk_id, first.offset, length, blocks.append)
                self._asks[read] = _Ask(fragment, run, blocks)
        return has_taken

    def _read_cached(self, node: int, offset: int, length: int) -> Buffer | None:
        """Cells that a directory on this machine has in memory."""
        if node not in self._services.near:
            return None
        cells = bytearray(length)
        try:
            if not self._services.near.read_cached(node, self._chunk_id, offset, cells):
                return None
        except FAILURES:
            return None  # its datanode is asked, so that somebody notices
        self._attempt.stored_bytes += length
        return cells

    def _hedge(self, late: PieceRead) -> None:
        """Do without a node that does not begin, if others can give what it should and may be asked."""
        late.is_late = True
        plan = self._plan(with_doubtful=False)
        others = [self._nodes[fragment] for fragment, stripes in (plan or {}).items() for _ in _runs(stripes)]
        if plan is None or not (not others or self._race.may_hedge(late.node, others)):
            late.is_late = False
            late.wait_longer()
            return
        self._attempt.is_degraded = True
        self._ask(plan)

    def _absorb(self, ask: _Ask, node: int, error: FrostbyteError | None) -> None:
        """The end of an ask. Cells that came are put where they belong, and what they bring back is opened."""
        if error is not None:
            self._attempt.fail(self._chunk_id, node, error)
            if is_lost(error):
                self._lose(ask.fragment)
            return
        came = ask.blocks[0] if len(ask.blocks) == 1 else b"".join(ask.blocks)
        self._take_cells(ask.fragment, ask.stripes, came)

    def _take_cells(self, fragment: int, stripes: Sequence[StripeRead], cells: Buffer) -> None:
        came = memoryview(cells)
        at = 0
        for stripe in stripes:
            length = self._striping.cell(fragment, stripe.stripe).length
            if not stripe.add(fragment, came[at : at + length]):
                self._suspect(fragment)
            at += length
            for wrong in stripe.rebuild():
                self._suspect(wrong)

    def _suspect(self, fragment: int) -> None:
        """One of its cells was wrong; others may be right."""
        self._services.near.forget(self._nodes[fragment], self._chunk_id)
        error = SealBroken(f"fragment {fragment} has a cell that does not open")
        self._attempt.fail(self._chunk_id, self._nodes[fragment], error)

    def _lose(self, fragment: int) -> None:
        for stripe in self._stripes:
            stripe.lose(fragment)

    def _failure(self) -> Corrupt | Unavailable:
        told, chunk_id = self._attempt.told(), str(self._chunk_id)
        if all(stripe.may_come_back for stripe in self._stripes if not stripe.is_open):
            return Unavailable(f"too few fragments of a chunk can be read now: {told}", chunk_id=chunk_id)
        return Corrupt(f"too few good fragments of a chunk are left: {told}", chunk_id=chunk_id)


def _runs(stripes: Iterable[StripeRead]) -> Iterator[list[StripeRead]]:
    """Stripes that follow each other: one span of a fragment."""
    run: list[StripeRead] = []
    for stripe in stripes:
        if run and run[-1].stripe + 1 != stripe.stripe:
            yield run
            run = []
        run.append(stripe)
    if run:
        yield run
