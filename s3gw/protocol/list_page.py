"""PURE. What the four listings ask for and where they go on: bounds, markers, tokens.

Source: Amazon S3 API Reference, ListObjects, ListObjectsV2, ListMultipartUploads, ListParts.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from s3gw.protocol.errors import S3Error

PAGE_KEYS_MAX = 1000
PART_NUMBER_MAX = 10_000
TOKEN_CHARACTERS_MAX = 2048
_TOKEN_VERSION = b"\x01"
_TOKEN_CHECK_BYTES = 4


class ListQuery(NamedTuple):
    """A page of keys. `after` is exclusive. In V1 it is the marker, in V2 the token's position or start-after."""

    prefix: bytes
    delimiter: bytes
    after: bytes
    max_keys: int
    url_encoded: bool
    token: str | None = None
    start_after: bytes = b""
    fetch_owner: bool = False


class UploadQuery(NamedTuple):
    """A page of open uploads, after (key marker, upload id marker)."""

    prefix: bytes
    delimiter: bytes
    key_marker: bytes
    upload_id_marker: str
    max_uploads: int
    url_encoded: bool


class PartQuery(NamedTuple):
    """A page of parts, after a part number."""

    after: int
    max_parts: int
    url_encoded: bool


def parse_list_v1(query: Mapping[str, str]) -> ListQuery:
    """ListObjects. InvalidArgument."""
    return ListQuery(
        query.get("prefix", "").encode(),
        query.get("delimiter", "").encode(),
        query.get("marker", "").encode(),
        parse_count(query, "max-keys", PAGE_KEYS_MAX),
        parse_encoding(query),
    )


def parse_list_v2(query: Mapping[str, str]) -> ListQuery:
    """ListObjectsV2: a token wins over start-after; an empty one is echoed and means none. InvalidArgument."""
    token = query.get("continuation-token")
    start_after = query.get("start-after", "").encode()
    return ListQuery(
        query.get("prefix", "").encode(),
        query.get("delimiter", "").encode(),
        parse_token(token) if token else start_after,
        parse_count(query, "max-keys", PAGE_KEYS_MAX),
        parse_encoding(query),
        token,
        start_after,
        query.get("fetch-owner", "").lower() == "true",
    )


def parse_list_uploads(query: Mapping[str, str]) -> UploadQuery:
    """ListMultipartUploads: an upload id marker counts only beside a key marker. InvalidArgument."""
    key_marker = query.get("key-marker", "").encode()
    return UploadQuery(
        query.get("prefix", "").encode(),
        query.get("delimiter", "").encode(),
        key_marker,
        query.get("upload-id-marker", "") if key_marker else "",
        parse_count(query, "max-uploads", PAGE_KEYS_MAX),
        parse_encoding(query),
    )


def parse_list_parts(query: Mapping[str, str]) -> PartQuery:
    """ListParts. InvalidArgument."""
    return PartQuery(
        parse_count(query, "part-number-marker", PART_NUMBER_MAX, default=0),
        parse_count(query, "max-parts", PAGE_KEYS_MAX),
        parse_encoding(query),
    )


def parse_count(query: Mapping[str, str], name: str, largest: int, default: int | None = None) -> int:
    """A number from 0, clamped to the largest; the largest when absent unless a default is given. InvalidArgument."""
    text = query.get(name, "")
    if not text:
        return largest if default is None else default
    if not (text.isascii() and text.isdigit()):
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=text,
        )
    digits = text.lstrip("0")
    return largest if len(digits) > len(str(largest)) else min(int(digits or "0"), largest)


def parse_encoding(query: Mapping[str, str]) -> bool:
    """Whether names are wanted url-encoded; only `url` is a known encoding-type."""
    encoding = query.get("encoding-type", "")
    if encoding not in ("", "url"):
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=encoding,
        )
    return encoding == "url"


def format_token(after: bytes) -> str:
    """The opaque token that continues after this key or prefix.

    It carries a checksum against mangling and no secret: it grants nothing that start-after does not.
    """
    check = zlib.crc32(_TOKEN_VERSION + after).to_bytes(_TOKEN_CHECK_BYTES, "big")
    return base64.urlsafe_b64encode(_TOKEN_VERSION + check + after).decode()


def parse_token(token: str) -> bytes:
    """The inverse of format_token. InvalidArgument for whatever this server did not hand out."""
    try:
        raw = b"" if len(token) > TOKEN_CHARACTERS_MAX else base64.b64decode(token, b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    after = raw[1 + _TOKEN_CHECK_BYTES :]
    check = zlib.crc32(_TOKEN_VERSION + after).to_bytes(_TOKEN_CHECK_BYTES, "big")
    if raw[: 1 + _TOKEN_CHECK_BYTES] != _TOKEN_VERSION + check:
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        )
    return after
