"""Reading what wrk.lua prints."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.wrk_output import MARK, parse_wrk_output

FIELDS = {
    "requests": 1000,
    "duration_us": 2_000_000,
    "exhausted": False,
    "bytes": 4096,
    "connect": 1,
    "read": 2,
    "write": 3,
    "status": 4,
    "timeout": 5,
    "p50_us": 1500,
    "p99_us": 9000,
}


def test_a_run() -> None:
    """The marked line is found among wrk's own; failed requests do not count in the rate."""
    printed = f"Running 5s test @ http://…\n  1 threads and 16 connections\n{MARK}{json.dumps(FIELDS)}\n"
    result = parse_wrk_output(printed)
    assert (result.requests, result.duration_s, result.received_bytes, result.errors) == (1000, 2.0, 4096, 15)
    assert (result.p50_ms, result.p99_ms) == (1.5, 9.0)
    assert result.requests_per_s == (1000 - 15) / 2
    assert not result.exhausted


def test_nothing_done_in_no_time() -> None:
    """No division by a duration of zero."""
    fields = FIELDS | {"requests": 0, "duration_us": 0}
    assert parse_wrk_output(MARK + json.dumps(fields)).requests_per_s == 0


@pytest.mark.parametrize("missing", sorted(FIELDS))
def test_a_missing_field(missing: str) -> None:
    """Every field is needed."""
    fields = {name: value for name, value in FIELDS.items() if name != missing}
    with pytest.raises(ValueError, match="cannot read"):
        parse_wrk_output(MARK + json.dumps(fields))


@given(st.text())
def test_other_output(printed: str) -> None:
    """Anything without the marked line is an error that shows it."""
    with pytest.raises(ValueError, match="wrk"):
        parse_wrk_output(printed)


@given(st.text(max_size=50))
def test_a_broken_line(rest: str) -> None:
    """A marked line that is not the object expected is a ValueError and nothing else."""
    with pytest.raises(ValueError, match="wrk"):
        parse_wrk_output(MARK + rest)
