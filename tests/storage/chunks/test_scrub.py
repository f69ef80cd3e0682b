"""Planning of a scrub: nothing that must be read is left out, and every pass ends."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.chunks.scrub import (
    PASS_BYTES_MAX,
    SEEK_BYTES,
    Pacer,
    ScrubPass,
    advance,
    begin_pass,
    encode_pass,
    end_pass,
    is_due,
    needs_check,
    parse_pass,
    with_totals,
)
from storage.chunks.store import Figures, InventoryEntry
from tests.storage.chunks.conformance import chunk_id

NOW_MS = 20
MOMENTS = st.integers(0, 2 * NOW_MS)
PASSES = st.builds(
    ScrubPass,
    started_ms=MOMENTS,
    ended_ms=MOMENTS,
    is_running=st.booleans(),
    position=st.sampled_from(["", str(chunk_id(7))]),
    checked_chunks=st.integers(0, 2**40),
    checked_bytes=st.integers(0, 2**60),
    total_chunks=st.integers(0, 2**40),
    total_bytes=st.integers(0, 2**60),
    damaged=st.integers(0, 2**40),
)


def _entry(stored_ms: int, verified_ms: int, length: int = 5) -> InventoryEntry:
    return InventoryEntry(chunk_id(1).to_bytes(), length, stored_ms, verified_ms)


@given(stored_ms=MOMENTS, verified_ms=MOMENTS, started_ms=st.integers(0, NOW_MS))
def test_what_a_pass_reads(stored_ms: int, verified_ms: int, started_ms: int) -> None:
    """All but what came after its begin and what was verified since; a time in the future excuses nothing."""
    scrub = begin_pass(ScrubPass(), started_ms)
    came_later = started_ms < stored_ms <= NOW_MS
    was_verified = started_ms <= verified_ms <= NOW_MS
    assert needs_check(scrub, _entry(stored_ms, verified_ms), NOW_MS) == (not came_later and not was_verified)


@given(stored_ms=MOMENTS, verified_ms=MOMENTS)
def test_a_pass_that_begins_now_reads_everything(stored_ms: int, verified_ms: int) -> None:
    """But what was verified in this very millisecond."""
    scrub = begin_pass(ScrubPass(), NOW_MS)
    assert needs_check(scrub, _entry(stored_ms, verified_ms), NOW_MS) == (verified_ms != NOW_MS)


@given(last=PASSES, now_ms=MOMENTS, interval_ms=st.integers(1, NOW_MS))
def test_when_a_pass_is_due(last: ScrubPass, now_ms: int, interval_ms: int) -> None:
    """An interval after the begin of the last; at once when there was none, or when it began in the future."""
    within = last.started_ms <= now_ms < last.started_ms + interval_ms
    assert is_due(last, interval_ms, now_ms) == (not last.is_running and not within)
    assert not is_due(begin_pass(last, now_ms), interval_ms, now_ms)
    assert not is_due(end_pass(begin_pass(last, now_ms), now_ms), interval_ms, now_ms)


def test_a_pass_from_begin_to_end() -> None:
    """What it counts, and what the next one inherits."""
    scrub = with_totals(begin_pass(ScrubPass(damaged=9, ended_ms=3), 10), Figures(2, 12))
    scrub = advance(advance(scrub, _entry(1, 0, 5)), _entry(1, 0, 7), is_damaged=True)
    assert scrub == ScrubPass(1, 10, 3, True, str(chunk_id(1)), 2, 12, 2, 12, 1)
    ended = end_pass(scrub, 20)
    assert (ended.is_running, ended.ended_ms, ended.started_ms) == (False, 20, 10)
    assert begin_pass(ended, 30) == ScrubPass(started_ms=30, ended_ms=20, is_running=True)


@given(PASSES)
def test_a_pass_is_kept_as_it_is(scrub: ScrubPass) -> None:
    """In a small file."""
    assert parse_pass(encode_pass(scrub)) == scrub
    assert len(encode_pass(scrub)) < PASS_BYTES_MAX


@given(st.binary(max_size=200) | st.builds(lambda text: text.encode(), st.text()))
def test_what_is_no_pass_is_none(data: bytes) -> None:
    """A damaged file costs a pass, never a start."""
    assert parse_pass(data) == ScrubPass()


@pytest.mark.parametrize("changes", [{"format_version": 2}, {"position": "abc"}, {"position": "zz" * 20}])
def test_another_format_is_none(changes: dict[str, object]) -> None:
    """Nor is a place that no chunk has."""
    scrub = ScrubPass(started_ms=5, is_running=True)
    assert parse_pass(msgspec.json.encode(msgspec.structs.replace(scrub, **changes))) == ScrubPass()
    assert parse_pass(encode_pass(scrub)) == scrub


@given(
    pace=st.integers(1, 2**30),
    reads=st.lists(st.tuples(st.integers(1, 2**26), st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=30),
)
def test_the_pace_is_kept_in_the_long_run(pace: int, reads: list[tuple[int, float, float]]) -> None:
    """However long reads take, and whatever passes in between: what was read never exceeds what the time allows."""
    pacer, now_s, read_bytes = Pacer(pace), 1000.0, 0
    for length, took_s, idle_s in reads:
        began_s, now_s = now_s, now_s + took_s
        pause_s = pacer.charge(length, began_s, now_s)
        assert pause_s >= 0
        now_s += pause_s
        read_bytes += length
        assert read_bytes <= (now_s - 1000.0) * pace * (1 + 1e-6) + 1
        now_s += idle_s


def test_time_that_was_not_used_is_not_made_up_for() -> None:
    """After an hour of nothing the pace is what it was."""
    pacer = Pacer(SEEK_BYTES)
    assert pacer.charge(SEEK_BYTES, 3600.0, 3600.5) == 1.5


def test_a_changed_pace_begins_anew() -> None:
    """What a slow one would have made the next read wait for is forgotten."""
    pacer = Pacer(1)
    assert pacer.charge(SEEK_BYTES, 0.0, 0.0) == 2.0 * SEEK_BYTES
    pacer.change(2 * SEEK_BYTES)
    assert pacer.charge(SEEK_BYTES, 10.0, 10.0) == 1.0
