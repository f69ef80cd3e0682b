"""What is deleted of the journal: nothing that leads to now, nothing that leads to a moment of the retention."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.datanode.journal_wire import JournalFile, segment_name, snapshot_name
from storage.journal.history import plan_spans
from storage.journal.record import SegmentHeader, make_segment_id
from storage.journal.retention import NOTHING, Deletions, Keeping, choose_names, list_needed, plan_deletions
from storage.journal.snapshot_format import Manifest, make_snapshot_id

UNBOUNDED = 1 << 60


class Life:
    """A journal as owners write it: segments and snapshots over time, maybe with new histories in between."""

    def __init__(self) -> None:
        self.segments: dict[bytes, SegmentHeader] = {}
        self.snapshots: dict[bytes, Manifest] = {}
        self.history = 1
        self.sequence = 0
        self.incarnation = 0
        self.now_ms = 0

    def open_segment(self, back: int) -> None:
        """back: how many records of the one before are void."""
        self.incarnation += 1
        first = max(1, self.sequence + 1 - back)
        segment_id = make_segment_id(self.incarnation, bytes(8))
        self.segments[segment_id] = SegmentHeader(bytes(16), segment_id, self.history, first, self.now_ms, 3, 1, 2)
        self.sequence = max(self.sequence, first - 1)

    def write(self, count: int) -> None:
        self.sequence += count

    def snapshot(self) -> None:
        snapshot_id = make_snapshot_id(self.sequence, self.now_ms.to_bytes(8, "big"))
        self.snapshots[snapshot_id] = Manifest(self.history, self.sequence, self.now_ms, self.now_ms, 3, 1, b"", 1)

    def begin_history(self) -> None:
        self.history += 1
        self.open_segment(0)
        self.snapshot()


@st.composite
def lives(draw: st.DrawFn) -> Life:
    life = Life()
    life.open_segment(0)
    for _ in range(draw(st.integers(0, 25))):
        life.now_ms += draw(st.integers(1, 50))
        step = draw(st.sampled_from(["open", "write", "write", "snapshot", "history"]))
        if step == "open":
            life.open_segment(draw(st.integers(0, 1)))
        elif step == "write":
            life.write(draw(st.integers(1, 9)))
        elif step == "snapshot":
            life.snapshot()
        else:
            life.begin_history()
    return life


def keep(life: Life, deletions: Deletions) -> Keeping:
    return Keeping(
        {it: manifest for it, manifest in life.snapshots.items() if it not in deletions.snapshots},
        {it: header for it, header in life.segments.items() if it not in deletions.segments},
    )


def leads_to(found: Keeping, life: Life, moment_ms: int) -> bool:
    """Whether the newest snapshot of a moment and the segments that were there by then are all there still."""
    before = [(it.taken_ms, snapshot_id) for snapshot_id, it in found.snapshots.items() if it.taken_ms <= moment_ms]
    if not before:
        return False
    base = found.snapshots[max(before)[1]]
    whole = plan_spans(life.segments.values(), base.history)
    needed = {span.segment_id for span in whole if span.last is None or span.last > base.sequence}
    return needed <= set(found.segments)


@given(life=lives(), retention_ms=st.integers(0, 400), bytes_max=st.sampled_from([0, 5, UNBOUNDED]))
def test_what_is_left_leads_to_now_and_to_the_retention(life: Life, retention_ms: int, bytes_max: int) -> None:
    """To every moment of it, unless there is a bound of bytes; to now whatever the bound."""
    found = keep(life, NOTHING)
    sizes = dict.fromkeys([*life.snapshots, *life.segments], 1)
    older_than_ms = life.now_ms - retention_ms
    deletions = plan_deletions(found, sizes, life.history, older_than_ms=older_than_ms, bytes_max=bytes_max)
    left = keep(life, deletions)
    assert max(life.segments) in left.segments
    present = [it for it, manifest in life.snapshots.items() if manifest.history == life.history]
    if not present:
        assert deletions == NOTHING
        return
    newest = max(present, key=lambda it: (life.snapshots[it].taken_ms, it))
    assert newest in left.snapshots
    assert set(list_needed(found, newest)) <= set(left.segments)
    if bytes_max == UNBOUNDED:
        for moment_ms in range(older_than_ms, life.now_ms + 1):
            if leads_to(found, life, moment_ms):
                assert leads_to(left, life, moment_ms), moment_ms
    if bytes_max == 0:
        assert set(left.snapshots) == {
            it for it, manifest in life.snapshots.items() if manifest.taken_ms >= life.snapshots[newest].taken_ms
        }


@given(life=lives())
def test_what_was_deleted_is_not_asked_for_again(life: Life) -> None:
    """A second pass finds nothing to do."""
    sizes = dict.fromkeys([*life.snapshots, *life.segments], 1)
    first = plan_deletions(keep(life, NOTHING), sizes, life.history, older_than_ms=life.now_ms, bytes_max=UNBOUNDED)
    again = plan_deletions(keep(life, first), sizes, life.history, older_than_ms=life.now_ms, bytes_max=UNBOUNDED)
    assert again == NOTHING


def test_names_of_one_datanode() -> None:
    """Manifests first, pieces without one as well, and nothing that is being written."""
    old, new, half, mine = (make_snapshot_id(number, bytes(8)) for number in (1, 2, 3, 4))
    gone, kept = make_segment_id(1, bytes(8)), make_segment_id(2, bytes(8))
    files = [
        *(JournalFile(snapshot_name(it, number), 1) for it in (old, new, half, mine) for number in (0, 1)),
        *(JournalFile(snapshot_name(it), 1) for it in (old, new)),
        *(JournalFile(segment_name(it), 1) for it in (gone, kept)),
    ]
    deletions = Deletions(frozenset({old}), frozenset({gone}))
    assert choose_names(files, deletions, frozenset({mine})) == [
        snapshot_name(old),
        *(snapshot_name(old, number) for number in (0, 1)),
        *(snapshot_name(half, number) for number in (0, 1)),
        segment_name(gone),
    ]
