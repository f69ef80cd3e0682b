"""The shapes of a lent range: both ways, bounded, and nothing but ValueError for any bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.chunks.lent_range import RANGE_BYTES_MAX, Ending
from storage.chunks.segment_format import BLOCK_BYTES, SLOTS
from storage.datanode import range_wire
from storage.datanode.range_wire import Grant

OFFSETS = st.integers(0, 2**64 - 1)
GROUP = "73657373696f6e310000000000002"


@given(st.builds(Grant, OFFSETS, OFFSETS, OFFSETS))
def test_a_grant_comes_back(grant: Grant) -> None:
    raw = range_wire.format_grant(grant)
    assert len(raw) == range_wire.GRANT_BYTES
    assert range_wire.parse_grant(raw) == grant


@given(st.lists(st.integers(0, SLOTS - 1), max_size=range_wire.FAILED_MAX))
def test_an_ending_comes_back(failed: list[int]) -> None:
    raw = range_wire.format_ending(Ending(tuple(failed)))
    assert len(raw) == range_wire.ENDING_BYTES
    assert range_wire.parse_ending(raw) == Ending(tuple(failed))


def test_more_slots_than_a_batch_has() -> None:
    with pytest.raises(ValueError, match="at most"):
        range_wire.format_ending(Ending(tuple(range(range_wire.FAILED_MAX + 1))))


@given(st.binary(max_size=200) | st.binary(min_size=range_wire.ENDING_BYTES, max_size=range_wire.ENDING_BYTES))
def test_any_bytes(raw: bytes) -> None:
    """An ending of slots that there are, or ValueError."""
    with suppress(ValueError):
        range_wire.parse_grant(raw)
    for body in (raw, b"over" + raw[4:]):
        with suppress(ValueError):
            assert all(number < SLOTS for number in range_wire.parse_ending(body).failed)


@given(st.integers(1, RANGE_BYTES_MAX // BLOCK_BYTES).map(lambda blocks: blocks * BLOCK_BYTES))
def test_headers_both_ways(length: int) -> None:
    headers = {name.encode(): value.encode() for name, value in range_wire.format_headers(length).items()}
    assert range_wire.parse_headers(headers) == length


@pytest.mark.parametrize("length", [b"", b"0", b"4095", b"-4096", b"67112960", b"4096 "])
def test_lengths_are_checked(length: bytes) -> None:
    with pytest.raises(ValueError):
        range_wire.parse_headers({b"x-frostbyte-length": length})


@pytest.mark.parametrize(
    "group", ["", GROUP[1:], GROUP + "0", GROUP.upper() + "\n", "../" + GROUP[3:], GROUP[:-1] + "G"]
)
def test_groups_are_hex(group: str) -> None:
    """They become a file's name."""
    with pytest.raises(ValueError, match="29 hex digits"):
        range_wire.parse_group(range_wire.format_target(group))
    assert range_wire.parse_group(range_wire.format_target(GROUP)) == GROUP
