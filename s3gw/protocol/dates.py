"""PURE. The ways S3 writes a time, and the HTTP dates (RFC 9110 §5.6.7) and ISO 8601 dates that clients send.

Those of Last-Modified drop the milliseconds, so that a listing and a HEAD of the same object never disagree.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE_CHARACTERS_MAX = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} GMT"


@lru_cache(maxsize=4096)
def _iso_date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def format_http_date(time_ms: int) -> str:
    """IMF-fixdate, as in Last-Modified."""
    return _http_date(time_ms // 1000)


def format_iso_date(time_ms: int) -> str:
    """`2009-10-12T17:50:30.000Z`, as in listings."""
    return _iso_date(time_ms // 1000)


def format_lock_date(time_ms: int) -> str:
    """`2030-01-01T00:00:00.000Z` with its milliseconds: what a client reads of a retention it can put again."""
    at = _EPOCH + timedelta(milliseconds=time_ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


def parse_iso_date(text: str) -> int | None:
    """Milliseconds since the epoch of an ISO 8601 date and time, UTC where it names no zone; None for anything else."""
    if len(text) > _DATE_CHARACTERS_MAX or not text.isascii():
        return None
    try:
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return (parsed.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch; None for what is no date, which RFC 9110 §13.1.3 says to ignore."""
    if len(text) > _DATE_CHARACTERS_MAX:
        return None
    try:
        parsed = parsedate_to_datetime(text)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return int(parsed.timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
