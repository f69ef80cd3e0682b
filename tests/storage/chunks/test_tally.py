"""What a store holds in a few numbers, while it changes under the count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks.store import Figures, InventoryEntry
from storage.chunks.tally import Tally
from tests.storage.chunks.conformance import chunk_id

NUMBERS = st.integers(0, 12)
CHANGES = st.lists(st.tuples(st.sampled_from(["store", "remove", "verify"]), NUMBERS), max_size=8)


class Contents:
    """What is really there: length and verified time, by chunk."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.chunks: dict[ChunkId, tuple[int, int]] = {}
        self._now_ms = 0

    def change(self, kind: str, number: int) -> None:
        """Do it, and tell the tally, where it makes sense."""
        of = chunk_id(number)
        self._now_ms += 1
        if kind == "store" and of not in self.chunks:
            self.chunks[of] = (100 + number, 0)
            self.tally.stored(of, 100 + number)
        elif kind == "remove" and of in self.chunks:
            self.tally.removed(of, *self.chunks.pop(of))
        elif kind == "verify" and of in self.chunks:
            length, before_ms = self.chunks[of]
            self.chunks[of] = (length, self._now_ms)
            self.tally.verified(of, before_ms, self._now_ms)

    def page(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        """As a store lists them."""
        found = sorted(of for of in self.chunks if after is None or of > after)[:limit]
        return [InventoryEntry(of.to_bytes(), self.chunks[of][0], 0, self.chunks[of][1]) for of in found]

    def check(self) -> None:
        """The numbers are exact, but for the oldest time, which never claims too much."""
        found = self.tally.figures
        verified = [verified_ms for _, verified_ms in self.chunks.values() if verified_ms]
        assert found._replace(oldest_verified_ms=0) == Figures(
            len(self.chunks), sum(length for length, _ in self.chunks.values()), len(self.chunks) - len(verified)
        )
        assert not verified or 0 < found.oldest_verified_ms <= min(verified)


@given(before=CHANGES, between=st.lists(CHANGES, max_size=8), after=CHANGES, limit=st.integers(1, 4))
def test_a_count_while_things_change(
    before: list[tuple[str, int]],
    between: list[list[tuple[str, int]]],
    after: list[tuple[str, int]],
    limit: int,
) -> None:
    """Between any two pages: the old numbers and the new ones are right. What was there before the start is found by
    the count."""
    contents = Contents()
    for change in before:
        contents.change(*change)
    contents.tally = Tally()  # a restart: nothing is known
    contents.tally.begin_count()
    position: ChunkId | None = None
    pauses = iter(between)
    while page := contents.page(position, limit):
        position = contents.tally.count(page)
        assert position == chunk_id_from_bytes(page[-1].chunk_id)
        for change in next(pauses, []):
            contents.change(*change)
    contents.tally.end_count()
    contents.check()
    for change in after:
        contents.change(*change)
    contents.check()


def test_a_count_that_begins_anew_forgets_the_other() -> None:
    """And numbers never fall below zero before the first count has ended."""
    contents = Contents()
    contents.change("store", 1)
    contents.tally = Tally()
    contents.change("remove", 1)
    assert contents.tally.figures == Figures()
    contents.change("store", 2)
    for _ in range(2):
        contents.tally.begin_count()
        contents.tally.count(contents.page(None, 10))
    contents.tally.end_count()
    contents.check()
    contents.tally.end_count()
    contents.check()
