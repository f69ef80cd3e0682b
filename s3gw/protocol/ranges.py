"""PURE. The Range header as S3 reads it (RFC 9110 §14.2; AWS API, GetObject) and the copy range of UploadPartCopy."""

from __future__ import annotations

import re

from s3gw.protocol.errors import S3Error
from storage.model import ByteRange

_DIGITS = re.compile(r"\d*", re.ASCII)
_COPY_RANGE = re.compile(r"bytes=(\d+)-(\d+)", re.ASCII)
_POSITION_MAX = 2**63 - 1
_POSITION_DIGITS_MAX = 18


def parse_range(header: str | None) -> ByteRange | None:
    """One byte range, or None for no header and for what S3 ignores: malformed, backward, other units, several."""
    if header is None:
        return None
    # Cut by hand: one expression with blanks everywhere can match them in many ways, and be made to try them all.
    unit, _, span = header.partition("=")
    first, dash, last = (text.strip() for text in span.partition("-"))
    if unit.strip().lower() != "bytes" or not dash or not _DIGITS.fullmatch(first) or not _DIGITS.fullmatch(last):
        return None
    if not first:
        return ByteRange(None, None, _position(last)) if last else None
    if not last:
        return ByteRange(_position(first), None)
    if _position(last) < _position(first):
        return None
    return ByteRange(_position(first), _position(last))


def parse_copy_range(header: str, source_size: int) -> tuple[int, int]:
    """x-amz-copy-source-range → [start, end) of the source. Unlike Range it must be whole, and inside the source."""
    match = _COPY_RANGE.fullmatch(header)
    if match is None or _position(match[2]) < _position(match[1]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the"
            " zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    start, end = _position(match[1]), _position(match[2]) + 1
    if end > source_size:
        raise S3Error("InvalidRange", f"Range specified is not valid for source object of size: {source_size}")
    return start, end


def format_content_range(start: int, end: int, size: int) -> str:
    """The Content-Range of a 206; end exclusive."""
    return f"bytes {start}-{end - 1}/{size}"


def _position(digits: str) -> int:
    """Any number of digits, clamped: no object is that long."""
    digits = digits.lstrip("0")
    if len(digits) > _POSITION_DIGITS_MAX:
        return _POSITION_MAX
    return int(digits or "0")
