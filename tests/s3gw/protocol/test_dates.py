"""Dates: written without milliseconds, read in every form of RFC 9110."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.dates import format_http_date, format_iso_date, format_lock_date, parse_http_date, parse_iso_date


@given(st.integers(0, 253_402_300_799_999))
def test_http_dates_agree_with_the_standard_library(time_ms: int) -> None:
    """IMF-fixdate, and back to the second."""
    text = format_http_date(time_ms)
    assert text == formatdate(time_ms // 1000, usegmt=True)
    assert parse_http_date(text) == time_ms // 1000


def test_iso_date_drops_milliseconds() -> None:
    """As AWS shows them, and equal to Last-Modified."""
    assert format_iso_date(1_255_369_830_999) == "2009-10-12T17:50:30.000Z"


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 09:49:37 +0100"]
)
def test_the_forms_of_the_rfc(text: str) -> None:
    """Obsolete forms are still dates."""
    assert parse_http_date(text) == 784111777


@given(st.text(max_size=80))
def test_anything_else_is_no_date(text: str) -> None:
    """Never an exception."""
    found = parse_http_date(text)
    assert found is None or isinstance(found, int)


@given(st.integers(0, 253_402_300_799_999))
def test_lock_dates_come_back(time_ms: int) -> None:
    """To the millisecond."""
    assert parse_iso_date(format_lock_date(time_ms)) == time_ms


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2030-01-01T00:00:00Z", 1_893_456_000_000),
        ("20300101T000000Z", 1_893_456_000_000),
        ("2030-01-01T02:00:00+02:00", 1_893_456_000_000),
        ("2030-01-01", 1_893_456_000_000),
        ("2030-01-01T00:00:00.123456Z", 1_893_456_000_123),
        ("9999-12-31T23:59:59-14:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("", None),
    ],
)
def test_the_forms_of_iso_dates(text: str, time_ms: int | None) -> None:
    """What SDKs send; nothing outside the years 1 to 9999, seen from Greenwich."""
    assert parse_iso_date(text) == time_ms


@given(st.text(max_size=80))
def test_anything_else_is_no_iso_date(text: str) -> None:
    """None or a number that can be written again, never an exception."""
    found = parse_iso_date(text)
    assert found is None or format_lock_date(found).endswith("Z")
