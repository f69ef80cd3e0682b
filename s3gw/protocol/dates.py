"""PURE. The two ways S3 writes a time, and the HTTP dates that clients send (RFC 9110 §5.6.7).

Both drop the milliseconds, so that a listing and a HEAD of the same object never disagree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE_CHARACTERS_MAX = 64


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
