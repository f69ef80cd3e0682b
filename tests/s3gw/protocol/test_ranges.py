"""Range headers: every form that S3 takes, ignores or refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.ranges import format_content_range, parse_copy_range, parse_range
from storage.model import ByteRange

SIZE = 1000


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-999", (0, 1000)),
        ("bytes=10-", (10, 1000)),
        ("bytes=990-2000", (990, 1000)),
        ("bytes=0-99999999999999999999999999", (0, 1000)),
        ("bytes=-1", (999, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("Bytes = 1 - 2", (1, 3)),
        ("bytes=000000000000000000000000000001-2", (1, 3)),
    ],
)
def test_satisfiable(header: str, span: tuple[int, int]) -> None:
    """The end is clamped; a suffix longer than the object is all of it."""
    parsed = parse_range(header)
    assert parsed is not None and parsed.resolve(SIZE) == span


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=99999999999999999999-"])
def test_unsatisfiable(header: str) -> None:
    """A start at or after the end, and the empty suffix, are 416."""
    parsed = parse_range(header)
    assert parsed is not None and parsed.resolve(SIZE) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=0-1,5-6",
        "lines=0-1",
        "bytes=0x1-2",
        "bytes=--1",
        "0-5",
        "bytes=0-1;",
        "bytes=１-２",
    ],
)
def test_ignored(header: str | None) -> None:
    """Malformed, backward, several, or another unit: the whole object."""
    assert parse_range(header) is None


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=-0"])
def test_nothing_of_an_empty_object_is_satisfiable(header: str) -> None:
    """Any range on an empty object is 416."""
    parsed = parse_range(header)
    assert parsed is not None and parsed.resolve(0) is None


@given(st.text(max_size=40))
def test_any_header_is_parsed_or_ignored(header: str) -> None:
    """No header raises."""
    parse_range(header)
    parse_range("bytes=" + header)


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_a_range_never_leaves_the_object(first: int, last: int, size: int) -> None:
    """Whatever is resolved lies inside and is not empty."""
    parsed = parse_range(f"bytes={first}-{last}")
    assert parsed == (ByteRange(first, last) if first <= last else None)
    span = parsed.resolve(size) if parsed else None
    if span is not None:
        assert 0 <= span[0] < span[1] <= size
        assert span == (first, min(last + 1, size))


def test_copy_range() -> None:
    """Inclusive ends become [start, end)."""
    assert parse_copy_range("bytes=0-999", 1000) == (0, 1000)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("bytes=0-", "InvalidArgument"),
        ("bytes=-5", "InvalidArgument"),
        ("bytes=2-1", "InvalidArgument"),
        ("0-5", "InvalidArgument"),
        ("bytes=0-1,2-3", "InvalidArgument"),
        ("bytes=0-1000", "InvalidRange"),
        ("bytes=1000-1000", "InvalidRange"),
    ],
)
def test_copy_range_refused(header: str, code: str) -> None:
    """A copy's range is exact or an error."""
    with pytest.raises(S3Error) as caught:
        parse_copy_range(header, 1000)
    assert caught.value.code == code


def test_content_range() -> None:
    """Inclusive again on the way out."""
    assert format_content_range(0, 10, 100) == "bytes 0-9/100"


@pytest.mark.parametrize("blank", [" ", "\t"])
def test_a_hostile_header_costs_its_length(blank: str) -> None:
    """Blanks in every place that may have them, and no range after all; backtracking over them would take for ever."""
    blanks = blank * 10_000
    assert parse_range(f"bytes{blanks}={blanks}-{blanks}x") is None
    assert parse_range(f"{blanks}bytes{blanks}={blanks}1{blanks}-{blanks}2{blanks}") == ByteRange(1, 2)
