"""SANS-IO. One stripe of an erasure-coded chunk while a read goes on: which further cells to ask for, and how to open
the wanted frames from those that came.

A data cell is a sealed frame, so each one is opened when it comes, wanted or not: what is then used is known to be
right. A parity cell shows what it is worth only when a frame that was rebuilt with it opens. When it does not, every
other choice among the parity cells at hand is tried (at most 70: there are at most 8), then one more cell is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import chain, combinations

from storage.base.errors import SealBroken
from storage.chunks.erasure import Striping, stripe_coder
from storage.crypto.envelope import Buffer
from storage.crypto.span_frames import SpanFrames


class StripeRead:
    """Fragments are named by their numbers, data before parity."""

    def __init__(self, striping: Striping, stripe: int, frames: SpanFrames) -> None:
        self.stripe = stripe
        self._striping = striping
        self._frames = frames
        self._first_frame = stripe * striping.needed
        self._missing = {
            fragment for fragment in range(striping.needed) if self._first_frame + fragment in frames.missing
        }
        self._data: dict[int, Buffer] = {
            fragment: b"" for fragment in range(striping.needed) if not striping.cell(fragment, stripe).length
        }
        """cells that are right, those of frames that the chunk does not have among them"""
        self._parity: dict[int, Buffer] = {}
        self._asked: set[int] = set(self._data)
        self._lost: set[int] = set()
        self._tried: set[tuple[int, ...]] = set()

    @property
    def is_open(self) -> bool:
        """Nothing is wanted any more."""
        return not self._missing

    def wants(self, fragment: int) -> bool:
        """Whether the fragment's cell is a frame that has to be opened."""
        return fragment in self._missing

    def plan(self, coming: Set[int], fine: Sequence[int], doubtful: Iterable[int]) -> list[int] | None:
        """Fragments to ask for their cells, as few as will do; None when all that there are will not.

        coming: asked and expected. fine and doubtful: who may be asked, in order of preference; a doubtful one only
        when it must be, and then one that has a wanted frame itself first.
        """
        if not self._missing:
            return []
        open_to = [it for it in fine if it not in self._asked and it not in self._lost]
        chosen = [fragment for fragment in open_to if fragment in self._missing]
        if self._missing <= coming | set(chosen):
            return chosen
        last = sorted((it for it in doubtful if it not in self._asked | self._lost), key=self._is_not_wanted)
        spare = [it for it in chain(open_to, last) if it not in chosen]
        short = self._goal - len(self._data) - len(self._parity) - len(coming) - len(chosen)
        if short > len(spare):
            direct = [it for it in spare if it in self._missing]
            return [*chosen, *direct] if self._missing <= coming | {*chosen, *direct} else None
        return [*chosen, *spare[: max(0, short)]]

    def note_asked(self, fragment: int) -> None:
        """Its cell of this stripe is not asked for again."""
        self._asked.add(fragment)

    def lose(self, fragment: int) -> None:
        """Its cell of this stripe is gone or wrong, for certain."""
        if fragment not in self._data and fragment not in self._parity:
            self._lost.add(fragment)

    def add(self, fragment: int, cell: Buffer) -> bool:
        """A cell that came. False for a frame that does not open: it is lost."""
        if fragment >= self._striping.needed:
            self._parity[fragment] = cell
            return True
        try:
            self._frames.open(self._first_frame + fragment, cell)
        except SealBroken:
            self._lost.add(fragment)
            return False
        self._data[fragment] = cell
        self._missing.discard(fragment)
        return True

    def rebuild(self) -> list[int]:
        """Open what is missing, if the cells that came are enough. → parity fragments that turned out to be wrong."""
        wrong: list[int] = []
        while self._missing:
            choice = self._next_choice()
            if choice is None:
                break
            self._tried.add(choice)
            cells = {**self._data, **{fragment: self._parity[fragment] for fragment in choice}}
            if self._open_from(cells):
                wrong += self._find_wrong(cells) if len(self._tried) > 1 else []
            elif len(choice) == 1:
                wrong += choice  # all the others had opened
                self._drop(choice)
        return wrong

    @property
    def may_come_back(self) -> bool:
        """Whether cells that could not be had yet might still bring back what is missing."""
        useless = len(self._lost)
        if self._parity and self._is_exhausted:
            useless += len(self._parity) - (self._short - 1)
        return self._striping.width - useless >= self._striping.needed or not self._missing & self._lost

    @property
    def _short(self) -> int:
        """Parity cells that a rebuilding takes."""
        return self._striping.needed - len(self._data)

    @property
    def _is_exhausted(self) -> bool:
        """Whether the parity cells at hand were of no use in any combination."""
        return len(self._parity) >= self._short and self._next_choice() is None

    @property
    def _goal(self) -> int:
        """Cells that have to be at hand or on their way."""
        return len(self._data) + len(self._parity) + 1 if self._is_exhausted else self._striping.needed

    def _is_not_wanted(self, fragment: int) -> bool:
        return fragment not in self._missing

    def _next_choice(self) -> tuple[int, ...] | None:
        choices = combinations(sorted(self._parity), self._short)
        return next((choice for choice in choices if choice not in self._tried), None)

    def _open_from(self, cells: dict[int, Buffer]) -> bool:
        """Whether everything that is missing opened. A frame that did is right, whatever becomes of the others."""
        striping = self._striping
        wanted = sorted(self._missing)
        coder = stripe_coder(striping.needed, striping.width)
        rebuilt = coder.rebuild(cells, wanted, striping.parity_length(self.stripe))
        try:
            for fragment, cell in zip(wanted, rebuilt, strict=True):
                frame = self._first_frame + fragment
                sealed = cell[: striping.frame_length(frame)]
                self._frames.open(frame, sealed)
                self._data[fragment] = sealed
                self._missing.discard(fragment)
        except SealBroken:
            return False
        return True

    def _find_wrong(self, cells: dict[int, Buffer]) -> list[int]:
        """Parity cells at hand that are not what these cells, which are right, make them."""
        others = sorted(self._parity.keys() - cells.keys())
        if not others:
            return []
        striping = self._striping
        coder = stripe_coder(striping.needed, striping.width)
        right = coder.rebuild(cells, others, striping.parity_length(self.stripe))
        wrong = [fragment for fragment, cell in zip(others, right, strict=True) if cell != self._parity[fragment]]
        self._drop(wrong)
        return wrong

    def _drop(self, wrong: Iterable[int]) -> None:
        for fragment in wrong:
            del self._parity[fragment]
            self._lost.add(fragment)
