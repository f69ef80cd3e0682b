"""Runs of small blobs over the columns: one by one without a load, bounded by blobs and bytes under one."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from cluster.column_runs import RUN_BLOBS_MAX, RUN_BYTES_MAX, ColumnRuns


def columns_of(lengths: list[int], under_way: int) -> list[int]:
    """With so many at once, the oldest of which ends when another comes."""
    runs = ColumnRuns()
    columns: list[int] = []
    open_ones: deque[int] = deque()
    for length in lengths:
        if len(open_ones) == under_way:
            open_ones.popleft()
            runs.leave()
        columns.append(runs.enter(length))
        open_ones.append(length)
    return columns


@given(st.lists(st.integers(1, RUN_BYTES_MAX), max_size=50))
def test_one_after_the_other_takes_the_next_column(lengths: list[int]) -> None:
    """Whatever their sizes."""
    assert columns_of(lengths, 1) == list(range(1, len(lengths) + 1))


@given(st.lists(st.integers(1, RUN_BYTES_MAX), max_size=200), st.integers(1, 40))
def test_runs_are_bounded(lengths: list[int], under_way: int) -> None:
    """No column is left out, none is come back to, and no run is longer than what is under way."""
    columns = columns_of(lengths, under_way)
    found = Counter(columns)
    assert columns == sorted(columns)
    assert list(found) == list(range(1, len(found) + 1))
    assert max(found.values(), default=0) <= min(under_way, RUN_BLOBS_MAX)
    sums = Counter[int]()
    for column, length in zip(columns, lengths, strict=True):
        sums[column] += length
    assert max(sums.values(), default=0) <= RUN_BYTES_MAX


def test_a_load_makes_runs() -> None:
    """Of as many as are under way, once they are."""
    found = Counter(columns_of([65_536] * 800, 8))
    assert Counter(found.values()).most_common(1)[0][0] == 8
    assert Counter(columns_of([RUN_BYTES_MAX // 2] * 100, 8)).most_common(1)[0][1] == 2


def test_the_end_of_a_load_ends_the_runs() -> None:
    """The run that was begun and another are finished, and then it is one by one."""
    runs = ColumnRuns(7)
    busy = [runs.enter(1) for _ in range(40)]
    for _ in busy:
        runs.leave()
    after = []
    for _ in range(3 * RUN_BLOBS_MAX):
        after.append(runs.enter(1))
        runs.leave()
    assert busy[0] == 8
    last = after[2 * RUN_BLOBS_MAX :]
    assert last == list(range(last[0], last[0] + RUN_BLOBS_MAX))


def test_lulls_do_not_shorten_the_runs() -> None:
    """Eight are under way, of which seven or five come and go together."""
    runs = ColumnRuns()
    columns = [runs.enter(1) for _ in range(8)]
    for count in (7, 5) * 20:
        for _ in range(count):
            runs.leave()
        columns += [runs.enter(1) for _ in range(count)]
    found = list(Counter(columns[8:]).values())
    assert set(found[1:-1]) == {8}
