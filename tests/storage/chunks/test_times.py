"""What the times of a chunk's file say, and what they never say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from storage.base.files import FileStat
from storage.chunks.times import VERIFIED_MARK_NS, read_times, stored_times, verified_times

MOMENTS_MS = st.integers(0, 2**43)
MOMENTS_NS = st.integers(0, 2**62)


def _file(times: tuple[int, int]) -> FileStat:
    accessed_ns, modified_ns = times
    return FileStat(0, modified_ns, False, accessed_ns)


@given(MOMENTS_MS, MOMENTS_MS)
def test_what_is_written_is_read(stored_ms: int, passed_ms: int) -> None:
    """Also when a chunk is verified in the millisecond in which it was stored."""
    assert read_times(_file(stored_times(stored_ms))) == (stored_ms, 0)
    assert read_times(_file(verified_times(stored_ms, stored_ms + passed_ms))) == (stored_ms, stored_ms + passed_ms)


@given(MOMENTS_NS, MOMENTS_NS)
def test_other_times_are_no_verification(accessed_ns: int, modified_ns: int) -> None:
    """Whoever set them."""
    if modified_ns % 1_000_000 != VERIFIED_MARK_NS:
        assert read_times(_file((accessed_ns, modified_ns))).verified_ms == 0


@given(MOMENTS_MS, MOMENTS_MS, MOMENTS_NS)
def test_a_moved_access_time_never_makes_a_verification_newer(stored_ms: int, verified_ms: int, moved_ns: int) -> None:
    """And a chunk at most as young as its verification."""
    found = read_times(_file((moved_ns, verified_times(stored_ms, verified_ms)[1])))
    assert found.verified_ms == verified_ms
    assert found.stored_ms <= verified_ms
