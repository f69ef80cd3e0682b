"""PURE. Conditional requests: reads and copy sources decided here (RFC 9110 §13.2.2), writes only parsed.

Writes are decided inside the metadata commit; anything decided earlier would be a race.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

from s3gw.protocol.dates import parse_http_date, parse_iso_date
from s3gw.protocol.errors import S3Error
from storage.metadata.commands import Conditions

_ETAG = re.compile(r'"([^"]*)"|([^",]+)')
"""Nothing in it can match the same characters in two ways: a hostile header costs its length and no more."""
_READ_HEADERS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
_DELETE_HEADERS = ("if-match", "x-amz-if-match-size", "x-amz-if-match-last-modified-time")
_ETAGS_MAX = 1000
_SIZE_DIGITS_MAX = 18


class Verdict(enum.Enum):
    """Of the conditions of a read."""

    PROCEED = "200"
    NOT_MODIFIED = "304"
    FAILED = "412"


def parse_etags(header: str) -> frozenset[str]:
    """A list of entity tags, quoted, weak or bare, without their quotes; `*` stands for any."""
    found: set[str] = set()
    for match in _ETAG.finditer(header):
        quoted, bare = match.groups()
        if quoted is not None:
            found.add(quoted)
        elif tag := bare.strip().removeprefix("W/"):
            found.add(tag)
        if len(found) >= _ETAGS_MAX:
            break
    return frozenset(found)


def evaluate_read(headers: Mapping[str, str], etag: str, last_modified_ms: int, prefix: str = "") -> Verdict:
    """What the four conditions make of this version. prefix: `x-amz-copy-source-` for those of a copy's source.

    An entity tag condition, where given, silences its date twin.
    """
    match, none_match, modified, unmodified = [headers.get(prefix + name) for name in _READ_HEADERS]
    last_modified_s = last_modified_ms // 1000
    if match is not None:
        tags = parse_etags(match)
        if etag not in tags and "*" not in tags:
            return Verdict.FAILED
    elif unmodified is not None:
        limit_s = parse_http_date(unmodified)
        if limit_s is not None and last_modified_s > limit_s:
            return Verdict.FAILED
    if none_match is not None:
        tags = parse_etags(none_match)
        if etag in tags or "*" in tags:
            return Verdict.NOT_MODIFIED
    elif modified is not None:
        limit_s = parse_http_date(modified)
        if limit_s is not None and last_modified_s <= limit_s:
            return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def evaluate_if_range(header: str, etag: str, last_modified_ms: int) -> bool:
    """Whether If-Range lets a Range count (RFC 9110 §13.1.5): the very entity tag, not a weak one, or the very date."""
    header = header.strip()
    if header.strip('"') == etag:
        return True
    return parse_http_date(header) == last_modified_ms // 1000


def evaluate_copy_source(headers: Mapping[str, str], etag: str, last_modified_ms: int) -> None:
    """PreconditionFailed when the conditions on a copy's source do not hold (AWS API, CopyObject)."""
    if evaluate_read(headers, etag, last_modified_ms, "x-amz-copy-source-") is not Verdict.PROCEED:
        raise S3Error("PreconditionFailed", Condition="x-amz-copy-source-If-*")


def parse_write_conditions(headers: Mapping[str, str]) -> Conditions:
    """If-Match and If-None-Match of a write. Each takes one entity tag or `*`; a list is refused, never ignored."""
    if "if-match" not in headers and "if-none-match" not in headers:
        return _UNCONDITIONAL
    return Conditions(_one_etag(headers, "if-match"), _one_etag(headers, "if-none-match"))


def parse_delete_conditions(headers: Mapping[str, str]) -> Conditions:
    """Of a DELETE: If-Match, x-amz-if-match-size and x-amz-if-match-last-modified-time (AWS API, DeleteObject).

    All that are given must hold. InvalidArgument for what is no size or no date; NotImplemented for If-None-Match,
    which deletes nothing that anybody could mean.
    """
    etag, size, modified = (headers.get(name) for name in _DELETE_HEADERS)
    if headers.get("if-none-match"):
        raise S3Error("NotImplemented", Header="If-None-Match")
    if not etag and not size and not modified:
        return _UNCONDITIONAL
    return Conditions(
        if_match=_one_etag(headers, "if-match") if etag else None,
        size=parse_size_condition(_DELETE_HEADERS[1], size) if size else None,
        last_modified_s=parse_date_condition(_DELETE_HEADERS[2], modified) if modified else None,
    )


def parse_size_condition(name: str, text: str) -> int:
    """Bytes. InvalidArgument, which names the header or element."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _SIZE_DIGITS_MAX):
        raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=text[:256])
    return int(digits)


def parse_date_condition(name: str, text: str) -> int:
    """Whole seconds since the epoch, of an HTTP date or an ISO 8601 one. InvalidArgument."""
    time_ms = parse_iso_date(text.strip())
    time_s = parse_http_date(text) if time_ms is None else time_ms // 1000
    if time_s is None:
        raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=text[:256])
    return time_s


_UNCONDITIONAL = Conditions()


def _one_etag(headers: Mapping[str, str], name: str) -> str | None:
    header = headers.get(name)
    if header is None:
        return None
    tags = parse_etags(header)
    if len(tags) != 1:
        raise S3Error("NotImplemented", Header=name)
    return next(iter(tags))
